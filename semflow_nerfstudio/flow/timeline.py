"""Distinct times of a clip, and the window of frames around a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class TimeWindow(NamedTuple):
    """The frame times that a flow passes, in order, and how much each counts."""

    index: Int[Tensor, "R K"]
    """Index of the frame time, clamped to those that exist."""
    weight: Float[Tensor, "R K"]
    """1 inside the window, fading to 0 at its ends as the time moves between frames; 0 where there is no such time."""
    center: int
    """Column of the last frame time at or before the rays' times."""
    at_frames: bool
    """Whether the rays' times are exactly those of the centre column."""


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

    def window(self, index: Float[Tensor, "R"], size: int, at_frames: bool) -> TimeWindow:
        """The `size` (odd) frame times nearest to fractional indices.

        Between frames the window has one time more, and its ends fade linearly, so that nothing jumps as the time
        moves. `at_frames` says that all indices are integers, when the last time has no weight and is left out.
        """
        radius = size // 2
        # A time that is a frame's but for rounding belongs to that frame, not to the gap before it.
        nearest = index.round()
        base = nearest if at_frames else torch.where((index - nearest).abs() < 1e-4, nearest, index.floor())
        offsets = torch.arange(-radius, radius + (1 if at_frames else 2), device=index.device)
        members = base[:, None] + offsets
        weight = (1 + radius - (members - index[:, None]).abs()).clamp(0, 1)
        exists = (members >= 0) & (members <= len(self) - 1)
        return TimeWindow(members.clamp(0, len(self) - 1).long(), weight * exists, radius, at_frames)
