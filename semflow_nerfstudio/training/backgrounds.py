"""What colours are compared in front of in training."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from semflow_nerfstudio.scene import Scene


def on_background(
    scene: Scene,
    rgb: Float[Tensor, "R 3"],
    weights: Float[Tensor, "R S"],
    behind: Float[Tensor, "R 3"] | None = None,
) -> Float[Tensor, "R 3"]:
    """Composited colours in front of the scene's background, as its images are, or of any other colour `behind`."""
    left = 1 - weights.sum(-1, keepdim=True)
    if behind is not None:
        return rgb + left * behind
    return rgb + torch.cat([left * channel for channel in scene.background_color], dim=-1)


def random_background(scene: Scene, image: Float[Tensor, "R 3"]) -> Float[Tensor, "R 3"] | None:
    """Colours behind the rays that nobody can guess, so that what is opaque has to be rendered so.

    In front of a black background a bright surface that half lets through looks like a dark one, and fields settle for
    that. Pixels of exactly the background's colour keep it, for there may be nothing; None where images have
    transparency, whose background is told.
    """
    if not scene.opaque:
        return None
    own = torch.stack([torch.full_like(image[:, 0], channel) for channel in scene.background_color], dim=-1)
    return torch.where((image == own).all(-1, keepdim=True), own, torch.rand_like(image))
