"""Cheap density for proposal sampling, aware of time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.fields.dynamic_field import space_time_grid
from semflow_nerfstudio.fields.mlp import mlp, truncated_exp
from semflow_nerfstudio.fields.static_field import GridConfig, space_grid


@dataclass
class ProposalFieldConfig:
    """Proposal density."""

    grid: GridConfig
    """Spatial size of its hash grids."""
    max_time_resolution: int = 128
    """Cells along the time axis at most."""
    static_grid_times: int = 48
    """Clips of at least this many times get a 3-D grid for what stands still beside the 4-D one, which would have to
    learn it anew for every frame. On short clips sampling settled too early with it."""
    hidden_dim: int = 16
    """Width of the hidden layer."""
    density_bias: float = -1.0
    """Added to the density logit."""


class ProposalField(nn.Module):
    """(x, t) -> density of whatever is there, moving or not."""

    def __init__(self, config: ProposalFieldConfig, time_resolution: int) -> None:
        super().__init__()
        self.density_bias = config.density_bias
        self.static_grid = space_grid(config.grid) if time_resolution + 1 >= config.static_grid_times else None
        self.grid = space_time_grid(config.grid, max(1, min(time_resolution, config.max_time_resolution)))
        width = self.grid.output_dim + (self.static_grid.output_dim if self.static_grid is not None else 0)
        self.head = mlp(width, config.hidden_dim, 1, bias=False)

    def forward(
        self, unit: Float[Tensor, "*batch 3"], grid_times: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """Points in the unit cube and times in [0, 1] of the grid's axis -> density per scene unit."""
        points = unit.reshape(-1, 3)
        features = self.grid(torch.cat([points, grid_times.reshape(-1, 1)], dim=-1))
        if self.static_grid is not None:
            features = torch.cat([self.static_grid(points), features], dim=-1)
        logit = self.head(features)[:, 0]
        return truncated_exp(logit + self.density_bias).view(unit.shape[:-1])
