"""Tracks as they are drawn."""

from __future__ import annotations

import numpy as np

from semflow_nerfstudio.tracking.points import Tracks
from semflow_nerfstudio.tracking.video import STILL, draw_tracks, track_colors


def test_points_have_trails_where_they_move() -> None:
    black = np.zeros((60, 80, 3), np.uint8)
    trails = np.array([[[10.0, 10.0], [30.0, 10.0], [50.0, 10.0]], [[20.0, 40.0]] * 3])
    colors = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    shown = draw_tracks(black, trails, colors, np.array([True, False]))
    assert not black.any(), "the picture itself stays"
    assert (shown[9:11, 10:50].max(axis=0)[:, 0] > 90).all() and not shown[..., 2].any()
    assert shown[:, 60:].max() == 0 and shown[20:30].max() == 0
    rows, columns = np.nonzero(shown[..., 1])
    assert abs(rows.mean() + 0.5 - 40) < 0.3 and abs(columns.mean() + 0.5 - 20) < 0.3


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    trails = np.array([[[np.nan, np.nan], [30.0, 10.0], [50.0, 10.0]], [[20.0, 40.0], [20.0, 40.0], [np.nan, np.nan]]])
    colors = np.full((2, 3), 255, np.uint8)
    shown = draw_tracks(np.zeros((60, 80, 3), np.uint8), trails, colors, np.array([True, False]))
    assert shown[9:11, 30:50].any() and not shown[:, :28].any()


def test_movers_have_all_hues_and_the_rest_is_grey() -> None:
    count = 5
    pixels = np.column_stack([np.linspace(30, 34, count), np.zeros(count)])
    tracks = Tracks(
        query_frames=np.zeros(count, int),
        query_pixels=pixels,
        times=np.zeros(1),
        positions=np.zeros((count, 1, 3)),
        moving=np.array([True, True, False, True, True]),
        view_cameras=np.zeros(1, int),
        view_times=np.zeros(1, int),
        pixels=np.zeros((count, 1, 2)),
        visible=np.ones((count, 1), bool),
        image_size=(80, 60),
    )
    colors = track_colors(tracks)
    assert tuple(colors[2]) == STILL
    assert len({tuple(color) for color in colors}) == count
    assert colors[0].argmax() == 0 and colors[-1].argmax() == 2, "from red to violet"
