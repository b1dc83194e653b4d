"""The dynamic field: what moves, and how dynamic a point is (paper section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.encodings.hash_grid import HashGrid
from semflow_nerfstudio.fields.mlp import mlp, truncated_exp
from semflow_nerfstudio.fields.static_field import ColorHead, FieldOutputs, GridConfig
from semflow_nerfstudio.saved_config import SavedConfig


@dataclass
class DynamicFieldConfig(SavedConfig):
    """Dynamic field."""

    grid: GridConfig
    """Spatial size of its 4-D hash grid."""
    max_time_resolution: int = 128
    """Cells along the time axis at most; up to this many, frames lie exactly on the grid's vertices."""
    hidden_dim: int = 32
    """Width of the hidden layers."""
    trunk_dim: int = 15
    """Width of the trunk feature."""
    direction_bands: int = 0
    """Bands of spherical harmonics for colour; a moving point is seen from one direction a time, so none."""
    density_bias: float = -1.0
    """Added to the density logit."""
    blend_bias: float = -2.0
    """Added to the blending logit: space is static until something says otherwise."""


@dataclass
class DynamicFieldOutputs(FieldOutputs):
    """What the dynamic field says about points at times."""

    blend: Float[Tensor, "*batch"]
    """b in (0, 1): how dynamic a point is."""


def space_time_grid(grid: GridConfig, time_resolution: int) -> HashGrid:
    """A 4-D hash grid whose time axis has the same resolution at every level."""
    return HashGrid(
        4,
        num_levels=grid.num_levels,
        features_per_level=grid.features_per_level,
        log2_hashmap_size=grid.log2_hashmap_size,
        base_resolution=(grid.base_resolution,) * 3 + (time_resolution,),
        max_resolution=(grid.max_resolution,) * 3 + (time_resolution,),
        backend=grid.backend,
        time_gradient=False,  # nothing moves in time but where it is told to
    )


class DynamicField(nn.Module):
    """4-D hash grid -> trunk -> density, colour, blending weight."""

    def __init__(self, config: DynamicFieldConfig, time_resolution: int) -> None:
        super().__init__()
        self.density_bias, self.blend_bias = config.density_bias, config.blend_bias
        self.grid = space_time_grid(config.grid, max(1, min(time_resolution, config.max_time_resolution)))
        self.trunk = mlp(self.grid.output_dim, config.hidden_dim, 2 + config.trunk_dim, bias=False)
        self.color = ColorHead(config.trunk_dim, config.hidden_dim, config.direction_bands)

    def forward(
        self,
        unit: Float[Tensor, "*batch 3"],
        grid_times: Float[Tensor, "*batch 1"],
        directions: Float[Tensor, "*batch 3"],
    ) -> DynamicFieldOutputs:
        """Points in the unit cube, times in [0, 1] of the grid's axis, unit directions."""
        shape = unit.shape[:-1]
        inputs = torch.cat([unit.reshape(-1, 3), grid_times.reshape(-1, 1)], dim=-1)
        features = self.trunk(self.grid(inputs))
        trunk = features[:, 2:]
        return DynamicFieldOutputs(
            density=truncated_exp(features[:, 0] + self.density_bias).view(shape),
            rgb=self.color(trunk, directions.reshape(-1, 3)).view(*shape, 3),
            trunk=trunk.reshape(*shape, -1),
            blend=torch.sigmoid(features[:, 1] + self.blend_bias).view(shape),
        )
