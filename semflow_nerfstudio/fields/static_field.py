"""The static field: what does not move (paper section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from semflow_nerfstudio.encodings.hash_grid import HashGrid
from semflow_nerfstudio.fields.mlp import mlp, spherical_harmonics, truncated_exp


@dataclass
class GridConfig:
    """Size of a hash grid."""

    num_levels: int = 8
    """Number of resolutions."""
    features_per_level: int = 2
    """Features stored at a vertex of a level."""
    log2_hashmap_size: int = 16
    """Base-2 logarithm of the largest number of vertices that a level stores."""
    base_resolution: int = 16
    """Cells along an axis of the coarsest level."""
    max_resolution: int = 512
    """Cells along an axis of the finest level."""
    backend: Literal["auto", "torch", "numba", "triton", "tcnn"] = "auto"
    """What computes it: auto takes the fastest that is there and shares its parameters with all others; tcnn
    (tiny-cuda-nn, where it is installed, for 3-D grids) keeps parameters of its own."""


def space_grid(grid: GridConfig) -> HashGrid:
    """A 3-D hash grid."""
    return HashGrid(
        3,
        num_levels=grid.num_levels,
        features_per_level=grid.features_per_level,
        log2_hashmap_size=grid.log2_hashmap_size,
        base_resolution=grid.base_resolution,
        max_resolution=grid.max_resolution,
        backend=grid.backend,
    )


@dataclass
class StaticFieldConfig:
    """Static field."""

    grid: GridConfig
    """Its hash grid."""
    hidden_dim: int = 32
    """Width of the hidden layers."""
    trunk_dim: int = 15
    """Width of the trunk feature that colour and the semantic residual read."""
    direction_bands: int = 0
    """Bands of spherical harmonics for view-dependent colour; 0 for colour that depends on the point alone, which
    serves new views better where a clip shows a point from few directions."""
    density_bias: float = -1.0
    """Added to the density logit: how empty space is at the start."""


@dataclass
class FieldOutputs:
    """What a field says about points."""

    density: Float[Tensor, "*batch"]
    """Per scene unit."""
    rgb: Float[Tensor, "*batch 3"]
    trunk: Float[Tensor, "*batch G"]
    """Feature that means something in its own scene only."""

    def stop_gradient(self, where: Bool[Tensor, "rays"]) -> FieldOutputs:
        """The same values, without gradient on some of the rays (the first axis)."""

        def stop(values: Tensor) -> Tensor:
            return torch.where(where.reshape(-1, *[1] * (values.dim() - 1)), values.detach(), values)

        return FieldOutputs(stop(self.density), stop(self.rgb), stop(self.trunk))


class ColorHead(nn.Module):
    """(trunk, direction) -> colour."""

    def __init__(self, trunk_dim: int, hidden_dim: int, direction_bands: int) -> None:
        super().__init__()
        self.direction_bands = direction_bands
        self.layers = mlp(trunk_dim + direction_bands**2, hidden_dim, 3, bias=False)

    def forward(
        self, trunk: Float[Tensor, "*batch G"], directions: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch 3"]:
        if self.direction_bands:
            trunk = torch.cat([trunk, spherical_harmonics(directions, self.direction_bands)], dim=-1)
        return torch.sigmoid(self.layers(trunk))


class StaticField(nn.Module):
    """3-D hash grid -> trunk -> density; (trunk, direction) -> colour."""

    def __init__(self, config: StaticFieldConfig) -> None:
        super().__init__()
        self.density_bias = config.density_bias
        self.grid = space_grid(config.grid)
        self.trunk = mlp(self.grid.output_dim, config.hidden_dim, 1 + config.trunk_dim, bias=False)
        self.color = ColorHead(config.trunk_dim, config.hidden_dim, config.direction_bands)

    def forward(self, unit: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]) -> FieldOutputs:
        """Points in the unit cube and unit viewing directions -> density, colour, trunk feature."""
        # Two-dimensional throughout: linear layers copy anything else.
        features = self.trunk(self.grid(unit.reshape(-1, 3)))
        trunk = features[:, 1:]
        density = truncated_exp(features[:, 0] + self.density_bias)
        rgb = self.color(trunk, directions.reshape(-1, 3))
        shape = unit.shape[:-1]
        return FieldOutputs(density.view(shape), rgb.view(*shape, 3), trunk.reshape(*shape, -1))
