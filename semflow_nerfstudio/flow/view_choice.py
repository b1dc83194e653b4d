"""A few frames that together see what all frames of a clip see."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SAME_VIEW = 1e-4
"""Views nearer to each other than this, in shares of the cameras' spread and in unit directions, are one."""


def spread_views(camera_to_worlds: Float[Tensor, "N 3 4"], first: Sequence[int], count: int) -> list[int]:
    """Up to `count` frames: `first`, then always the one whose place and direction differ most from all before.

    Fewer where the others' views are those of frames that are chosen already. The same for the same cameras.
    """
    poses = camera_to_worlds.double().cpu()
    places = poses[:, :, 3] - poses[:, :, 3].mean(0)
    views = torch.cat([places / places.norm(dim=-1).max().clamp(min=1e-12), -poses[:, :, 2]], dim=-1)
    chosen = list(dict.fromkeys(first))[:count]
    nearest = torch.cdist(views, views[chosen]).amin(1)
    while len(chosen) < count and float(nearest.max()) > SAME_VIEW:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (views - views[chosen[-1]]).norm(dim=-1))
    return chosen
