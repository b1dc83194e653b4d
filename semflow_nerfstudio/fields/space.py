"""From scene units to the unit cube that the grids live in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SceneSpace(nn.Module):
    """Maps scene units to the unit cube, linearly or with a contraction.

    A bounded scene fills the cube. An unbounded one has its box in the cube's middle half per axis and everything
    outside contracted into the rest (mip-NeRF 360, eq. 10, with the infinity norm), so that free camera paths and
    360-degree captures need no normalised device coordinates.
    """

    aabb: Tensor

    def __init__(self, aabb: Float[Tensor, "2 3"], bounded: bool) -> None:
        super().__init__()
        self.register_buffer("aabb", aabb.detach().clone().float())
        self.bounded = bounded

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Scene units -> [0, 1] (bounded: points outside the box map outside; grids clamp)."""
        unit = (positions - self.aabb[0]) / (self.aabb[1] - self.aabb[0])
        if self.bounded:
            return unit
        centered = unit * 2 - 1
        norm = centered.abs().amax(dim=-1, keepdim=True).clamp(min=1e-6)
        contracted = torch.where(norm <= 1, centered, (2 - 1 / norm) * centered / norm)
        return contracted / 4 + 0.5
