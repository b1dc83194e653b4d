"""Exports of a scene that is known by formula, against its geometry, labels, motion and instances."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from formula_model import (
    BALL,
    HEIGHT,
    POST,
    POST_RADIUS,
    RADIUS,
    WALL,
    WALL_Z,
    WAY,
    WIDTH,
    ball_distance,
    formula_run,
    post_distance,
)

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.find_instances import instances_of
from semflow_nerfstudio.editing.scene_state import SceneState, hide, place
from semflow_nerfstudio.export import export as module
from semflow_nerfstudio.export.export import export_run
from semflow_nerfstudio.export.options import ExportOptions

TIMES = (0.25, 0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return formula_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def out(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "all"
    what = ("points", "images", "masks", "depth", "flow", "cameras")
    export_run(run, folder, ExportOptions(what=what, times=TIMES, units="scene", depth_format="png"))
    return folder


def cloud(out: Path, name: str = "00000") -> np.ndarray:
    plyfile = pytest.importorskip("plyfile")
    return plyfile.PlyData.read(str(out / "points" / f"{name}.ply"))["vertex"].data


def positions(points: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.column_stack([points[axis] for axis in "xyz"]).astype(np.float32))


def test_points_lie_on_the_surfaces_of_their_labels(out: Path) -> None:
    for index, time in enumerate(TIMES):
        points = cloud(out, f"{index:05d}")
        at, label = positions(points), torch.from_numpy(points["label"].astype(np.int64))
        ball = ball_distance(at, torch.tensor([[time]])).abs()
        assert (label == BALL).sum() > 300 and ball[label == BALL].median() < 0.02
        wall = (at[:, 2] - WALL_Z).abs()
        assert wall[label == WALL].median() < 0.03
        assert (points["time"] == np.float32(time)).all()
        nearest = torch.stack([post_distance(at).abs(), wall, ball]).argmin(0)
        assert (nearest == label).float().mean() > 0.98


def test_motion_colour_and_instances_of_points(out: Path, run: Any) -> None:
    points, instances = cloud(out), instances_of(run)
    ball = points["label"] == BALL
    motion = np.column_stack([points[axis] for axis in ("vx", "vy", "vz")])
    np.testing.assert_allclose(motion[ball], np.tile(np.array(WAY) / 4, (ball.sum(), 1)), atol=1e-3)
    assert not motion[~ball].any()
    upper = points["y"] > 0
    ids = [points["instance"][ball & side] for side in (upper, ~upper)]
    most = [int(np.bincount(i + 1).argmax()) - 1 for i in ids]
    assert sorted(most) == [0, 1]
    for i, number in zip(ids, most, strict=True):  # on the very rim the wall can outweigh the ball
        assert set(i.tolist()) <= {number, -1, 2} and (i == number).mean() > 0.97
    static = points["instance"][~ball]
    assert (static >= 2).mean() > 0.95
    assert all(instances.label(i) == label for i, label in zip(static, points["label"][~ball], strict=True) if i >= 0)
    color = np.column_stack([points[c] for c in ("red", "green", "blue")])[ball]
    assert np.abs(np.median(color, axis=0) - [25.5, 204, 51]).max() < 4


def test_depth_and_cameras_give_the_points_back(out: Path) -> None:
    content = json.loads((out / "transforms.json").read_text())
    frame = content["frames"][0]
    depth = cv2.imread(str(out / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16 and depth.shape == (HEIGHT, WIDTH)
    z = depth * content["depth_unit_scale_factor"]
    assert json.loads((out / "depth" / "depth.json").read_text())["unit"] == content["depth_unit_scale_factor"]
    v, u = np.nonzero(depth)
    local = np.stack(
        [(u + 0.5 - frame["cx"]) / frame["fl_x"], (frame["cy"] - v - 0.5) / frame["fl_y"], -np.ones(len(u))]
    )
    pose = np.array(frame["transform_matrix"])
    world = torch.from_numpy((pose[:3, :3] @ (local * z[v, u])).T + pose[:3, 3]).float()
    label = cv2.imread(str(out / frame["labels_path"]), cv2.IMREAD_UNCHANGED)[v, u]
    ball = ball_distance(world, torch.tensor([[frame["time"]]]))
    assert ball[label == BALL].abs().median() < 0.02
    assert [c["name"] for c in content["classes"]] == ["ground", "wall", "ball"]
    assert content["classes"][2]["foreground"]


def test_flow_leads_to_the_next_view(out: Path) -> None:
    flow = cv2.readOpticalFlow(str(out / "flow" / "00000.flo"))
    frames = json.loads((out / "transforms.json").read_text())["frames"]
    ids = [cv2.imread(str(out / "masks" / "instances" / f"{k:05d}.png"), cv2.IMREAD_UNCHANGED) for k in range(2)]
    assert len(frames) == 2 and not (out / "flow" / "00001.flo").exists()
    for number in (1, 2):  # both balls: where the flow takes the first mask's middle is the second mask's
        middle = [np.argwhere(i == number).mean(axis=0)[::-1] for i in ids]
        moved = flow[ids[0] == number]
        known = (np.abs(moved) < 1e9).all(axis=1)
        assert known.mean() > 0.9
        np.testing.assert_allclose(np.median(moved[known], axis=0), middle[1] - middle[0], atol=1.0)


def test_masks_agree_with_the_truth_and_with_each_other(out: Path, run: Any) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(str(out / "masks" / "coco.json"))
    for index in range(2):
        ids = cv2.imread(str(out / "masks" / "instances" / f"{index:05d}.png"), cv2.IMREAD_UNCHANGED).astype(int) - 1
        label = cv2.imread(str(out / "masks" / "labels" / f"{index:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert ids.shape == label.shape == (HEIGHT, WIDTH)
        both = np.isin(ids, (0, 1))
        assert (both & (label == BALL)).sum() / (both | (label == BALL)).sum() > 0.95
        found = {a["instance_id"]: a for a in coco.loadAnns(coco.getAnnIds(imgIds=index))}
        assert {0, 1} <= set(found)
        for number, entry in found.items():
            assert np.array_equal(coco.annToMask(entry).astype(bool), ids == number)
            single = cv2.imread(str(out / "masks" / "instances" / f"{number:03d}" / f"{index:05d}.png"), -1)
            assert np.array_equal(single == 255, ids == number)
    names = [entry["name"] for entry in json.loads((out / "masks" / "classes.json").read_text())]
    assert names == ["ground", "wall", "ball"]


def test_meshes(run: Any, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    options = ExportOptions(what=("meshes",), times=(0.5,), units="scene", mesh_resolution=24)
    export_run(run, tmp_path / "out", options)
    folder = tmp_path / "out" / "meshes"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.ply"))
    assert files == ["00000/000_ball.ply", "00000/001_ball.ply", "static/002_wall.ply", "static/003_ground.ply"]
    for name in files[:2]:
        ball = trimesh.load(folder / name, process=False)
        assert ball.is_watertight and ball.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.15)
        at = torch.from_numpy(np.asarray(ball.vertices)).float()
        assert ball_distance(at, torch.tensor([[0.5]])).abs().median() < 0.02
        assert np.abs(np.median(ball.visual.vertex_colors[:, :3], axis=0) - [26, 204, 51]).max() < 4
    post = trimesh.load(folder / files[3], process=False)
    np.testing.assert_allclose(post.vertices.mean(axis=0), POST, atol=0.04)
    assert post.volume == pytest.approx(4 / 3 * np.pi * POST_RADIUS**3, rel=0.25)


def test_edits_are_applied(run: Any, tmp_path: Path) -> None:
    """One ball hidden, the post moved: in points, masks and meshes; ids stay those of the scene."""
    trimesh = pytest.importorskip("trimesh")
    state = place(hide(SceneState(), "instance:0"), "instance:3", translation=(-0.3, 0.0, 0.2))
    options = ExportOptions(what=("points", "meshes"), times=(0.5,), units="scene", mesh_resolution=24)
    export_run(run, tmp_path / "out", options, state)
    points = cloud(tmp_path / "out")
    assert set(points["instance"][points["label"] == BALL].tolist()) == {1}
    moved = positions(points)[torch.from_numpy(points["instance"] == 3)]
    assert len(moved) > 50
    assert post_distance(moved - torch.tensor([-0.3, 0.0, 0.2])).abs().median() < 0.02
    names = sorted(p.name for p in (tmp_path / "out" / "meshes").rglob("*.ply"))
    assert names == ["001_ball.ply", "002_wall.ply", "003_ground.ply"]
    post = trimesh.load(tmp_path / "out" / "meshes" / "static" / "003_ground.ply", process=False)
    np.testing.assert_allclose(post.vertices.mean(axis=0), np.array(POST) + np.array([-0.3, 0, 0.2]), atol=0.04)
    assert run.model.edits("tiny") is None, "the model is left unedited"


def test_an_interrupted_export_goes_on(run: Any, tmp_path: Path, monkeypatch) -> None:
    options = ExportOptions(what=("depth",), times=TIMES, units="scene")
    steps: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        steps.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_run(run, tmp_path / "out", options, progress=stop)
    assert steps == [(1, 2)] and [p.name for p in (tmp_path / "out" / "depth").iterdir()] == ["00000.npy"]
    rendered: list[float] = []
    see = module.see
    monkeypatch.setattr(
        module, "see", lambda run, scene, view, i: rendered.append(view.time) or see(run, scene, view, i)
    )
    export_run(run, tmp_path / "out", options)
    assert rendered == [0.5]
    depth = np.load(tmp_path / "out" / "depth" / "00001.npy")
    assert depth.shape == (HEIGHT, WIDTH) and depth.dtype == np.float32
    with pytest.raises(SceneDataError, match="holds something else than this export"):
        export_run(run, tmp_path / "out", ExportOptions(what=("depth",), times=(0.0,), units="scene"))


def test_wrong_options(run: Any, tmp_path: Path) -> None:
    for options, message in (
        (ExportOptions(what=()), "say what to export"),
        (ExportOptions(times=(1.5,)), "the clip runs from 0 to 1"),
        (ExportOptions(scale=0.0), "use a number above 0"),
        (ExportOptions(scene="x"), "there is no scene 'x'"),
        (ExportOptions(what=("meshes",), mesh_resolution=2), "at least 4 cells"),
    ):
        with pytest.raises(ValueError, match=message):
            export_run(run, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "export.json").write_text('{"semflow_export": 1}')  # of one that failed before its first file
    made = export_run(run, tmp_path / "out", ExportOptions(what=("cameras",)))
    assert made == [tmp_path / "out" / "transforms.json"] and made[0].is_file()
