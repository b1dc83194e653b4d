"""The flow field: velocity of a point at a time (paper section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.fields.dynamic_field import space_time_grid
from semflow_nerfstudio.fields.mlp import mlp, zero_init
from semflow_nerfstudio.fields.static_field import GridConfig
from semflow_nerfstudio.saved_config import SavedConfig


@dataclass
class FlowFieldConfig(SavedConfig):
    """Flow field."""

    grid: GridConfig
    """Spatial size of its coarse 4-D hash grid."""
    max_time_resolution: int = 128
    """Cells along the time axis at most."""
    hidden_dim: int = 32
    """Width of the hidden layer."""
    velocity_scale: float = 0.1
    """Scene units per time step that an output of one means."""


class FlowField(nn.Module):
    """(x, t) -> velocity in scene units per tau. At rest before training."""

    def __init__(self, config: FlowFieldConfig, time_resolution: int) -> None:
        super().__init__()
        self.velocity_scale = config.velocity_scale
        self.grid = space_time_grid(config.grid, max(1, min(time_resolution, config.max_time_resolution)))
        self.head = mlp(self.grid.output_dim, config.hidden_dim, 3, bias=False)
        zero_init(self.head[-1])

    def forward(
        self, unit: Float[Tensor, "*batch 3"], grid_times: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch 3"]:
        """Points in the unit cube and times in [0, 1] of the grid's axis -> velocity in scene units per tau."""
        return self.head(self.grid(torch.cat([unit, grid_times], dim=-1))) * self.velocity_scale
