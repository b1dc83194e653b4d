"""Batches that mix scenes: what was rendered of each, and rows put back in order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from semflow_nerfstudio.renderer import Rendered
from semflow_nerfstudio.sampling.proposal import Proposed


@dataclass
class SceneOutputs:
    """The rays of a batch that belong to one scene."""

    name: str
    rows: Int[Tensor, "R"] | None
    """Their rows in the batch; None for all of it."""
    rays: RayBundle
    rendered: Rendered
    proposed: Proposed


def join_dicts(parts: list[tuple[Int[Tensor, "R"] | None, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Rows of several scenes back in the order of the batch."""
    if parts[0][0] is None:
        return parts[0][1]
    order = torch.cat([rows for rows, _ in parts if rows is not None]).argsort()
    return {name: torch.cat([values[name] for _, values in parts])[order] for name in parts[0][1]}
