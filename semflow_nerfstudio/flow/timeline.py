"""Distinct times of a clip, and the window of frames around a time."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class TimeWindow(NamedTuple):
    """The frame times that a flow passes, in order, and how much each counts.

    The frames next to the rays' times are always among them, whatever the window: the flow losses need them.
    """

    index: Int[Tensor, "R K"]
    """Index of the frame time, clamped to those that exist."""
    weight: Float[Tensor, "R K"]
    """1 inside the window, fading to 0 at its ends as the time moves between frames; 0 where there is no such time."""
    center: int
    """Column of the last frame time at or before the rays' times."""
    at_frames: bool
    """Whether the rays' times are exactly those of the centre column."""
    exists: Bool[Tensor, "R K"]
    """Whether there is such a time."""
    gaps: tuple[int, ...]
    """Frames from each column to the next, K - 1 of them."""


class Timeline(nn.Module):
    """Sorted distinct times in [0, 1]; frame k is at index k, times between frames at fractional indices."""

    times: Tensor

    def __init__(self, times: Float[Tensor, "T"]) -> None:
        super().__init__()
        self.register_buffer("times", times.detach().clone().float())

    def __len__(self) -> int:
        return self.times.numel()

    @property
    def tau(self) -> Tensor:
        """Median gap of the times; 1 for a static scene."""
        return self.times.diff().median() if len(self) > 1 else torch.ones((), device=self.times.device)

    def index(self, times: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Fractional index of times, clamped to the clip."""
        if len(self) < 2:
            return torch.zeros_like(times)
        times = times.clamp(self.times[0], self.times[-1])
        upper = torch.searchsorted(self.times, times.detach().contiguous()).clamp(1, len(self) - 1)
        low, high = self.times[upper - 1], self.times[upper]
        return upper - 1 + (times - low) / (high - low)

    def time(self, index: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Inverse of `index`."""
        if len(self) < 2:
            return self.times[0].expand_as(index)
        lower = index.detach().long().clamp(0, len(self) - 2)
        fraction = index - lower
        return self.times[lower] * (1 - fraction) + self.times[lower + 1] * fraction

    def grid_time(self, times: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Times -> [0, 1] such that frames are equidistant: the time axis of the 4-D grids."""
        return self.index(times) / max(1, len(self) - 1)

    def stride_over_clip(self, size: int) -> int:
        """Stride of a window of `size` times that is as long as the clip."""
        return max(1, round((len(self) - 1) / max(1, size - 1)))

    def window(self, index: Float[Tensor, "R"], size: int, at_frames: bool, stride: int = 1) -> TimeWindow:
        """The `size` (odd) frame times around fractional indices, `stride` frames apart.

        Between frames there are two windows, that of the frame before and that of the frame after, which fade into
        each other linearly, so that nothing jumps as the time moves. (With a stride of 1 they differ in their ends
        only.) `at_frames` says that all indices are integers, when the second one has no weight and is left out.
        The frames next to the rays' times are always there, if without weight.
        """
        radius = size // 2
        # A time that is a frame's but for rounding belongs to that frame, not to the gap before it.
        nearest = index.round()
        base = nearest if at_frames else torch.where((index - nearest).abs() < 1e-4, nearest, index.floor())
        own = {stride * j for j in range(-radius, radius + 1)}
        following = set() if at_frames else {offset + 1 for offset in own}
        offsets = sorted(own | following | {-1, 0, 1})
        members = base[:, None] + _constant(tuple(offsets), index.device)
        after = (index - base).clamp(0, 1)[:, None]
        weight = (1 - after) * _constant(tuple(float(o in own) for o in offsets), index.device)
        weight = weight + after * _constant(tuple(float(o in following) for o in offsets), index.device)
        exists = (members >= 0) & (members <= len(self) - 1)
        gaps = tuple(later - earlier for earlier, later in pairwise(offsets))
        indices = members.clamp(0, len(self) - 1).long()
        return TimeWindow(indices, weight * exists, offsets.index(0), at_frames, exists, gaps)


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Float[Tensor, "n"]:
    """Numbers on a device, sent there once: sending them makes the program wait."""
    return torch.tensor(values, dtype=torch.float32, device=device)
