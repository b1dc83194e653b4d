"""Points followed through a trained run: where they start, what stays, what every view says, and the scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import FRAMES, TrainedRun, scene_of, tiny_config, train
from torch import Tensor

from semflow_nerfstudio.cli import main
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.editing.scene_state import SceneState, hide
from semflow_nerfstudio.fields.dynamic_field import DynamicFieldOutputs
from semflow_nerfstudio.fields.static_field import FieldOutputs
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.runs import Run, load_run
from semflow_nerfstudio.tracking.files import read_tracks
from semflow_nerfstudio.tracking.points import Queries, Tracks, grid_queries
from semflow_nerfstudio.tracking.scoring import read_true_tracks, score_tracks
from semflow_nerfstudio.tracking.tracker import Tracker, track_points


@pytest.fixture(scope="module")
def run(tiny_run: TrainedRun) -> Run:
    return load_run(tiny_run.folder)


def shell(run: Run, moves: bool) -> float:
    """Make the run's world a solid shell around its cameras, static or moving; returns its radius."""
    scene = scene_of(run)
    center = scene.bank.camera_to_worlds[:, :, 3].mean(0)
    assert scene.near is not None and scene.far is not None
    radius = (scene.near + scene.far) / 2

    def static(samples: Samples) -> FieldOutputs:
        solid = (samples.positions - center).norm(dim=-1) > radius
        density = solid * (0.0 if moves else 1e3)
        trunk = torch.zeros(*density.shape, 15)
        return FieldOutputs(density=density, rgb=torch.zeros(*density.shape, 3), trunk=trunk)

    def dynamic(positions: Tensor, times: Tensor, directions: Tensor) -> DynamicFieldOutputs:
        solid = (positions - center).norm(dim=-1) > radius
        density = solid * (1e3 if moves else 0.0)
        shape = density.shape
        return DynamicFieldOutputs(density, torch.zeros(*shape, 3), torch.zeros(*shape, 15), torch.ones(shape) * moves)

    scene.static = static  # type: ignore[method-assign]
    scene.dynamic_between_frames = dynamic  # type: ignore[method-assign]
    return radius


@pytest.fixture(scope="module")
def moving_run(tiny_run: TrainedRun) -> Run:
    """A moving shell, and a flow field that carries everything along x."""
    run = load_run(tiny_run.folder)
    shell(run, moves=True)
    speed = torch.tensor([0.03, 0.0, 0.0])
    scene_of(run).velocity = lambda points, times: speed.expand_as(points)  # type: ignore[method-assign]
    return run


@pytest.fixture(scope="module")
def solid_run(tiny_run: TrainedRun) -> Run:
    """A shell that stands still."""
    run = load_run(tiny_run.folder)
    shell(run, moves=False)
    return run


def test_points_start_where_they_were_put(run: Run) -> None:
    """In its own frame a point projects to its own pixel, and world points are scene points in world units."""
    tracker = Tracker(run)
    width, height = tracker.image_size
    queries = grid_queries(5, 2, width, height)
    tracks = track_points(run, queries)
    assert tracks.pixels.shape == (len(queries), FRAMES, 2) and tracks.positions.shape == (len(queries), FRAMES, 3)
    np.testing.assert_allclose(tracks.pixels[:, 2], queries.pixels, atol=1e-2)
    world = torch.from_numpy(tracks.positions)
    pixels, _ = tracker.cameras.project(tracker.from_world(world)[:, 2], torch.tensor(2).expand(len(queries)))
    np.testing.assert_allclose(pixels, queries.pixels, atol=1e-2)


def test_static_points_stay(solid_run: Run) -> None:
    tracks = track_points(solid_run, grid_queries(4, 0, *Tracker(solid_run).image_size))
    assert not tracks.moving.any()
    np.testing.assert_allclose(tracks.positions, tracks.positions[:, :1].repeat(FRAMES, 1), atol=1e-6)


def test_movers_follow_the_flow_from_their_own_frame(moving_run: Run) -> None:
    """One third of the clip is one tau: .03 scene units along x a frame, both ways."""
    tracker = Tracker(moving_run)
    queries = Queries(np.array([0, 3]), np.array([[10.5, 6.5], [10.5, 6.5]]))
    points, _ = tracker.lift(torch.tensor([0, 3]), torch.tensor([[10.5, 6.5], [10.5, 6.5]]))
    followed = tracker.follow(points, torch.tensor([0.0, 1.0]), torch.ones(2, dtype=torch.bool))
    steps = torch.arange(FRAMES)[None] - torch.tensor([[0], [3]])
    torch.testing.assert_close(followed[..., 0] - points[:, None, 0], 0.03 * steps, atol=1e-5, rtol=0)
    torch.testing.assert_close(followed[..., 1:], points[:, None, 1:].expand(2, FRAMES, 2), atol=1e-6, rtol=0)
    assert track_points(moving_run, queries).moving.all()


def test_one_camera_at_all_times(run: Run) -> None:
    """The same points as its own frame sees them, at that frame's time."""
    queries = grid_queries(3, 1, *Tracker(run).image_size)
    frames, one = track_points(run, queries), track_points(run, queries, camera=1)
    assert one.view_cameras.tolist() == [1] * FRAMES and one.view_times.tolist() == list(range(FRAMES))
    np.testing.assert_allclose(one.pixels[:, 1], frames.pixels[:, 1], atol=1e-4)
    with pytest.raises(ValueError, match="frame 4"):
        track_points(run, queries, camera=4)
    with pytest.raises(ValueError, match="no scene 'other'"):
        track_points(run, queries, scene="other")


def test_points_behind_the_surface_are_hidden(solid_run: Run) -> None:
    """Points pushed away along their rays are hidden at all times, points in front of the surface are seen."""
    tracker = Tracker(solid_run)
    queries = grid_queries(6, 0, *tracker.image_size)
    frames = torch.zeros(len(queries), dtype=torch.long)
    profile = tracker.cast(frames, torch.zeros(len(queries)), torch.from_numpy(queries.pixels).float())
    assert not profile.shows_mover.any()
    views = tracker.camera_views(0)
    for scale, seen in ((0.7, True), (1.4, False)):
        points = profile.at(scale * profile.surface())[:, None].expand(-1, FRAMES, 3)
        pixels, visible = tracker.look(points, views)
        assert (visible == seen).all()
        np.testing.assert_allclose(pixels[:, 3], queries.pixels, atol=1e-2)
    behind_camera = profile.at(-profile.surface())[:, None].expand(-1, FRAMES, 3)
    pixels, visible = tracker.look(behind_camera, views)
    assert pixels.isnan().all() and not visible.any()


def test_exact_tracks_score_one(scene: Path) -> None:
    truth = read_true_tracks(scene)
    assert truth.moving.any() and not truth.moving.all()
    frames = np.arange(FRAMES)
    perfect = Tracks(
        query_frames=truth.query_frames,
        query_pixels=truth.queries((96, 54)).pixels,
        times=frames / 3,
        positions=truth.positions,
        moving=truth.moving,
        view_cameras=frames,
        view_times=frames,
        pixels=truth.pixels * np.array([96, 54]),
        visible=truth.visible,
        image_size=(96, 54),
    )
    scores = score_tracks(perfect, truth)
    assert scores.pop("moving_median_error_world") == 0 and len(scores) == 9
    assert set(scores.values()) == {1.0}
    shifted = Tracks(**{**perfect.__dict__, "pixels": perfect.pixels + np.array([0.8, 0])})
    # .8 of 96 pixels are 2.1 of 256: found at the thresholds above that, 4, 8 and 16.
    assert score_tracks(shifted, truth)["average_pts_within_thresh"] == pytest.approx(3 / 5)


def semflow(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["semflow", *map(str, arguments)])
    main.entrypoint()


def test_command(tiny_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Points of a file, and the scene's own tracks with their scores."""
    (tmp_path / "points.csv").write_text("time,x,y\n0.0,3.5,4.5\n0.9,7.0,2.0\n")
    semflow(monkeypatch, "track", tiny_run.folder, "--points", tmp_path / "points.csv", "--out", tmp_path / "two")
    tracks = read_tracks(tmp_path / "two.npz")
    assert tracks.query_frames.tolist() == [0, 3] and (tmp_path / "two.csv").is_file()
    semflow(monkeypatch, "track", tiny_run.folder, "--score", "--out", tmp_path / "exact")
    scores = json.loads((tmp_path / "exact.json").read_text())
    assert 0 <= scores["average_jaccard"] <= 1 and str(tmp_path / "exact.json") in capsys.readouterr().out
    with pytest.raises(SystemExit):
        semflow(monkeypatch, "track", tiny_run.folder)
    assert "--grid N" in capsys.readouterr().err


def test_exact_tracks_need_the_whole_clip(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Of a run that held a frame out, that is said, not that a point is in a frame that is not there."""
    data = DynamicSceneDataParserConfig(data=scene, eval_protocol="train-holdout")
    folder = train(tiny_config(data, tmp_path, steps=1)).base_dir
    with pytest.raises(SystemExit):
        semflow(monkeypatch, "track", folder, "--score")
    error = capsys.readouterr().err
    assert "exact tracks are in the training frames of the whole clip" in error and "in a run that holds no" in error


def test_no_exact_tracks(tmp_path: Path) -> None:
    with pytest.raises(SceneDataError, match="make-scene"):
        read_true_tracks(tmp_path)


def test_a_video_shows_the_views_that_were_looked_at(tiny_run: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "tracks.gif"
    arguments = ["track", tiny_run.folder, "--grid", 4, "--out", tmp_path / "t", "--video", out, "--scale", 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["semflow", *map(str, arguments)])
        main.entrypoint()
    with Image.open(out) as video:
        width, height = read_tracks(tmp_path / "t.npz").image_size
        assert video.n_frames == FRAMES and video.width == 2 * width and abs(video.height - 2 * height) <= 1


def test_edits_do_not_touch_tracks(moving_run: Run) -> None:
    queries = Queries(np.zeros(1, np.int64), np.array([[10.5, 6.5]], np.float32))
    before = track_points(moving_run, queries)
    moving_run.model.set_scene_state(hide(SceneState(), "moving"))
    try:
        after = track_points(moving_run, queries)
    finally:
        moving_run.model.set_scene_state(SceneState())
    assert before.moving.all() and np.array_equal(before.positions, after.positions)
    assert np.array_equal(before.visible, after.visible)
