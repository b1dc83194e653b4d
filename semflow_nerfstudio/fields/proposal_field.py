"""Cheap density for proposal sampling, aware of time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.fields.dynamic_field import space_time_grid
from semflow_nerfstudio.fields.mlp import mlp, truncated_exp
from semflow_nerfstudio.fields.static_field import GridConfig


@dataclass
class ProposalFieldConfig:
    """Proposal density."""

    grid: GridConfig
    """Spatial size of its 4-D hash grid."""
    max_time_resolution: int = 128
    """Cells along the time axis at most."""
    hidden_dim: int = 16
    """Width of the hidden layer."""
    density_bias: float = -1.0
    """Added to the density logit."""


class ProposalField(nn.Module):
    """(x, t) -> density of whatever is there, moving or not."""

    def __init__(self, config: ProposalFieldConfig, time_resolution: int) -> None:
        super().__init__()
        self.density_bias = config.density_bias
        self.grid = space_time_grid(config.grid, max(1, min(time_resolution, config.max_time_resolution)))
        self.head = mlp(self.grid.output_dim, config.hidden_dim, 1, bias=False)

    def forward(
        self, unit: Float[Tensor, "*batch 3"], grid_times: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch"]:
        """Points in the unit cube and times in [0, 1] of the grid's axis -> density per scene unit."""
        inputs = torch.cat([unit.reshape(-1, 3), grid_times.reshape(-1, 1)], dim=-1)
        logit = self.head(self.grid(inputs))[:, 0]
        return truncated_exp(logit + self.density_bias).view(unit.shape[:-1])
