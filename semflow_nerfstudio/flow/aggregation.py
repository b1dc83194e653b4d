"""Flow feature aggregation: what the frames show where a flow passes (paper section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semflow_nerfstudio.cameras import PIXEL_CENTER, FrameCameras
from semflow_nerfstudio.fields.mlp import frequency_encoding
from semflow_nerfstudio.flow.feature_maps import Maps


class FlowTokens(NamedTuple):
    """Tokens of P flows."""

    features: Float[Tensor, "P K C"]
    weight: Float[Tensor, "P K"]
    """How much a token counts, in [0, 1]; 0 where its time does not exist or the point is out of view."""


def look_up(
    maps: Maps,
    frame: Int[Tensor, "P"],
    pixels: Float[Tensor, "P 2"],
    width: int,
    height: int,
) -> Float[Tensor, "P C"]:
    """As `bilinear_lookup`, from maps of which some may be fresh: those alone get a gradient."""
    if isinstance(maps, Tensor):
        return bilinear_lookup(maps, frame, pixels, width, height)
    slot = maps.slot[frame]
    _, h, w, channels = maps.kept.shape
    index, weight = cells(pixels, h, w, width, height)
    old = maps.kept.reshape(-1, channels)[frame[:, None] * (h * w) + index].float()
    new = bilinear_lookup(maps.fresh, slot.clamp(min=0), pixels, width, height)
    return torch.where((slot >= 0)[:, None], new, (old * weight[..., None]).sum(1))


def bilinear_lookup(
    maps: Float[Tensor, "F h w C"],
    frame: Int[Tensor, "P"],
    pixels: Float[Tensor, "P 2"],
    width: int,
    height: int,
) -> Float[Tensor, "P C"]:
    """Features of frames at pixels of a width x height image, interpolated between cell centres, clamped at borders.

    Differentiable in the maps and in the pixels. Maps of half precision give features of the pixels' precision.
    """
    _, h, w, channels = maps.shape
    index, weight = cells(pixels, h, w, width, height)
    # One fused gather and weighted sum; its backward scatters once.
    rows, table = frame[:, None] * (h * w) + index, maps.reshape(-1, channels)
    found = nn.functional.embedding_bag(rows, table, per_sample_weights=weight.to(maps.dtype), mode="sum")
    return found.to(pixels.dtype)


def cells(
    pixels: Float[Tensor, "P 2"], h: int, w: int, width: int, height: int
) -> tuple[Int[Tensor, "P 4"], Float[Tensor, "P 4"]]:
    """The four cells of an h x w map around pixels of a width x height image, row by row, and their weights."""
    x = (pixels[:, 0] * (w / width) - PIXEL_CENTER).clamp(0, w - 1)
    y = (pixels[:, 1] * (h / height) - PIXEL_CENTER).clamp(0, h - 1)
    # Rays without direction (nerfstudio makes some) have no pixels, yet need cells that exist; features get to be NaN.
    left = x.detach().floor().clamp(max=max(w - 2, 0)).nan_to_num()
    top = y.detach().floor().clamp(max=max(h - 2, 0)).nan_to_num()
    fx, fy = x - left, y - top
    corner = top.long() * w + left.long()
    right, below = int(w > 1), w * int(h > 1)
    index = torch.stack([corner, corner + right, corner + below, corner + below + right], dim=-1)
    weight = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], dim=-1)
    return index, weight


class FlowFeatureAggregation(nn.Module):
    """Pairs the image feature at every point of a trajectory with an encoding of the displacement and time offset."""

    def __init__(self, displacement_scale: float = 10.0, num_frequencies: int = 3) -> None:
        super().__init__()
        self.displacement_scale, self.num_frequencies = displacement_scale, num_frequencies

    @property
    def encoding_dim(self) -> int:
        return 4 * (1 + 2 * self.num_frequencies)

    def forward(
        self,
        maps: Maps,
        cameras: FrameCameras,
        trajectory: Float[Tensor, "P K 3"],
        points: Float[Tensor, "P 3"],
        frame: Int[Tensor, "P K"],
        offset: Float[Tensor, "P K"],
        weight: Float[Tensor, "P K"],
    ) -> FlowTokens:
        """Look the maps up along trajectories.

        Args:
            maps: Feature maps of the frames, channels last.
            cameras: The frames' cameras at image (not map) size.
            trajectory: The flow's positions at the tokens' times, in scene units.
            points: The flow's position at its own time.
            frame: The frame of each token; negative where there is none.
            offset: Token time minus own time, in taus.
            weight: The time window's weight of each token.
        """
        count, tokens, _ = trajectory.shape
        present = frame.clamp(min=0)
        pixels, depth = cameras.project(trajectory, present)
        # Fading at the border: semantics must not jump as a trajectory leaves a frame's view.
        seen = (cameras.visibility(pixels, depth) * (frame >= 0)).detach()
        features = look_up(maps, present.reshape(-1), pixels.reshape(-1, 2), cameras.width, cameras.height).unflatten(
            0, (count, tokens)
        )
        moved = (trajectory - points[:, None]) * self.displacement_scale
        encoding = frequency_encoding(torch.cat([moved, offset[..., None]], dim=-1), self.num_frequencies)
        return FlowTokens(torch.cat([features, encoding], dim=-1), weight * seen)
