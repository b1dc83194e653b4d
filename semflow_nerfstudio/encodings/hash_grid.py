"""Multi-resolution hash grid encoding (Instant-NGP) in 2, 3 and 4 dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.encodings.backends import BackendName, choose_backend
from semflow_nerfstudio.encodings.grid_layout import make_layout


class HashGrid(nn.Module):
    """Features of a point, interpolated between the vertices of grids of growing resolution.

    A resolution r on an axis means r cells and r + 1 vertices, the first at 0 and the last at 1. With T - 1 on the time
    axis (the last of four), T frames spread evenly over [0, 1] lie on vertices, where the fast backends look up no more
    than in three dimensions. Levels that fit into the hashmap are stored densely.

    All backends read the same parameter `table` and give the same results; "torch" alone is differentiable twice.
    Except "tcnn": its grid, hash and (flat, half as precise) table are tiny-cuda-nn's own, so "auto" never takes it and
    its checkpoints fit no other backend.

    Args:
        input_dim: 2, 3 or 4.
        num_levels: Number of grids.
        features_per_level: Features of each.
        log2_hashmap_size: Two to this many vertices a level, at most.
        base_resolution: Cells of the coarsest level, per axis or the same for all.
        max_resolution: Cells of the finest one; in between they grow geometrically, per axis.
        backend: "auto" takes numba on the CPU and triton on CUDA where they can be used, else torch.
        init_scale: The table starts uniform in +-init_scale.
        time_gradient: False where nobody needs a gradient by the last of four axes (it is then zero): the others'
            gradients cost only half as much at frame times.
    """

    table: nn.Parameter
    """(total entries, features): all levels, one after the other."""

    def __init__(
        self,
        input_dim: int,
        num_levels: int = 8,
        features_per_level: int = 2,
        log2_hashmap_size: int = 15,
        base_resolution: int | Sequence[int] = 16,
        max_resolution: int | Sequence[int] = 512,
        backend: BackendName = "auto",
        init_scale: float = 1e-4,
        time_gradient: bool = True,
    ) -> None:
        super().__init__()
        self.layout = make_layout(
            input_dim, num_levels, features_per_level, log2_hashmap_size, base_resolution, max_resolution, time_gradient
        )
        self.backend: BackendName = backend
        self.tcnn_encoding: nn.Module | None = None
        if backend == "tcnn":
            from semflow_nerfstudio.encodings.tcnn_backend import make_encoding

            encoding = make_encoding(self.layout, log2_hashmap_size)
            self.tcnn_encoding, self.table = encoding, encoding.params
        else:
            self.table = nn.Parameter(torch.empty(self.layout.offsets[-1], features_per_level))
        nn.init.uniform_(self.table, -init_scale, init_scale)

    @property
    def input_dim(self) -> int:
        return self.layout.input_dim

    @property
    def output_dim(self) -> int:
        """Levels times features per level."""
        return self.layout.output_dim

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch output_dim"]:
        """Encode points.

        Args:
            x: Points in [0, 1]; what lies outside is clamped, and gets no gradient there.

        Returns:
            Features, level by level: float64 where the table is, else float32; under CUDA autocast, triton and tcnn
            give half precision.
        """
        if x.shape[-1] != self.input_dim:
            raise ValueError(f"this hash grid takes points of {self.input_dim} coordinates, not {x.shape[-1]}")
        # whatever the autocast: coordinates need more digits than half precision has
        dtype = torch.float64 if self.table.dtype == torch.float64 else torch.float32
        points = x.reshape(-1, self.input_dim).to(dtype).clamp(0, 1)
        if self.tcnn_encoding is not None:
            features = self.tcnn_encoding(points)
            features = features if torch.is_autocast_enabled() else features.float()
        else:
            backend = choose_backend(self.backend, self.layout, points.device, self.table.dtype)
            features = backend.encode(points, self.table, self.layout)
        return features.view(*x.shape[:-1], self.output_dim)
