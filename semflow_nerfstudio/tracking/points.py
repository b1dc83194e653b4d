"""Which points to follow, and their tracks, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Queries:
    """N points in training frames of one scene."""

    frames: Int[np.ndarray, "N"]
    """Index of the training frame, in order of time."""
    pixels: Float[np.ndarray, "N 2"]
    """(u right, v down) in pixels of the frames as the run was trained on them, pixel centres at +.5."""

    def __len__(self) -> int:
        return len(self.frames)

    def check(self, num_frames: int, width: int, height: int) -> None:
        """Raise ValueError where a query is outside the clip or the image."""
        if not len(self):
            raise ValueError("there is no point to follow: name at least one")
        bad = (self.frames < 0) | (self.frames >= num_frames)
        if bad.any():
            raise ValueError(f"a point is in frame {self.frames[bad][0]}: use frames from 0 to {num_frames - 1}")
        inside = (self.pixels >= 0) & (self.pixels <= np.array([width, height]))
        if not inside.all():
            u, v = self.pixels[~inside.all(-1)][0]
            raise ValueError(f"a point is at ({u:g}, {v:g}), outside its image of {width}x{height} pixels")


@dataclass(frozen=True)
class Tracks:
    """N points at the T times of a clip, and in V views."""

    query_frames: Int[np.ndarray, "N"]
    query_pixels: Float[np.ndarray, "N 2"]
    times: Float[np.ndarray, "T"]
    """In [0, 1]."""
    positions: Float[np.ndarray, "N T 3"]
    """World units."""
    moving: Bool[np.ndarray, "N"]
    """Whether a point belongs to something that moves."""
    view_cameras: Int[np.ndarray, "V"]
    """Index of the training frame whose camera looks."""
    view_times: Int[np.ndarray, "V"]
    """Index into `times` of when it looks."""
    pixels: Float[np.ndarray, "N V 2"]
    """(u right, v down) in pixels of the training frames; NaN for points behind the camera."""
    visible: Bool[np.ndarray, "N V"]
    """In the image, and nothing in front."""
    image_size: tuple[int, int]
    """Width and height of the training frames."""


def grid_queries(columns: int, frame: int, width: int, height: int) -> Queries:
    """A grid of points over a training frame: `columns` across, and as many rows as make its cells square.

    Raises:
        ValueError: fewer than one column.
    """
    if columns < 1:
        raise ValueError(f"a grid of {columns} points across holds none: use at least 1")
    rows = max(1, round(columns * height / width))
    u, v = np.meshgrid((np.arange(columns) + 0.5) / columns * width, (np.arange(rows) + 0.5) / rows * height)
    pixels = np.stack([u.ravel(), v.ravel()], axis=-1)
    return Queries(np.full(len(pixels), frame), pixels)
