"""Dots along tracks."""

from __future__ import annotations

import numpy as np

from semflow_nerfstudio.viewer.tracks import DOTS, Tracks

FRAMES = 5
TRACKS = Tracks(
    np.stack([np.arange(FRAMES), np.zeros(FRAMES), np.zeros(FRAMES)], -1)[None] + [[[0.0, 0, 0]], [[0, 7, 0]]],
    np.array([[1.0, 0, 0], [0, 1, 0]]),
)
"""Two points that go along x, one unit a frame."""


def test_dots_reach_from_the_last_to_the_next_frames_and_are_dense() -> None:
    points, colors = TRACKS.dots(2, 1, 2, "class")
    assert points.shape == colors.shape == (2 * (3 * DOTS + 1), 3)
    first = points[points[:, 1] == 0]
    np.testing.assert_allclose(first[:, 0], np.linspace(1, 4, 3 * DOTS + 1))
    assert (colors[points[:, 1] == 7] == [0, 1, 0]).all()


def test_the_window_ends_with_the_clip() -> None:
    for frame, past, following, low, high in ((0, 3, 1, 0, 1), (4, 2, 9, 2, 4), (3, 0, 0, 3, 3)):
        points, _ = TRACKS.dots(frame, past, following, "time")
        assert (points[:, 0].min(), points[:, 0].max()) == (low, high)


def test_colours_of_time_run_from_past_to_next_through_white() -> None:
    points, colors = TRACKS.dots(2, 2, 2, "time")
    past, now, following = (colors[points[:, 0] == x][0] for x in (0, 2, 4))
    assert past[2] > past[0] and following[0] > following[2] and (now == 1).all()


def test_a_clip_of_one_frame_has_a_dot_a_point() -> None:
    still = Tracks(np.zeros((3, 1, 3)), np.ones((3, 3)))
    points, _ = still.dots(0, 5, 5, "time")
    assert points.shape == (3, 3)
