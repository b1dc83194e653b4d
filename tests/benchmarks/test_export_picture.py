"""The picture of exported files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("plyfile")
trimesh = pytest.importorskip("trimesh")

from benchmarks.export_picture import SIZE, drawn, instance_colors, main, viewpoint  # noqa: E402
from semflow_nerfstudio.export.files import write_ply  # noqa: E402


def test_the_target_is_in_the_middle_and_up_is_up() -> None:
    places = np.array([[-1.0, -5, 0], [1, -5, 0]])
    camera = viewpoint(places, np.zeros(3), 0.4, 0.3)
    local = np.array([[0.0, 0, 0], [0, 0, 1]]) @ camera[:, :3].T + camera[:, 3]
    np.testing.assert_allclose(local[0, :2], 0, atol=1e-12)
    assert local[0, 2] > 5 and local[1, 1] < local[0, 1], "y points down"
    np.testing.assert_allclose(camera[:, :3] @ camera[:, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera[:, :3]) == pytest.approx(1)


def test_what_is_nearer_is_in_front() -> None:
    camera = np.eye(4)[:3]
    at = np.array([[0.0, 0, 2], [0, 0, 3], [0, 0, -1]])
    picture = drawn(at, np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8), camera, 0.8)
    height, width = picture.shape[:2]
    assert (width, height) == SIZE and picture[height // 2, width // 2].argmax() == 0
    assert picture.max(axis=(0, 1))[2] == picture[0, 0, 2], "nothing from behind"


def test_instances_differ_and_none_is_grey() -> None:
    colors = instance_colors(np.array([0, 1, 2, 3, -1]))
    assert len({tuple(color) for color in colors}) == 5 and len(set(colors[-1].tolist())) == 1


def test_it_is_drawn_from_the_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = "x y z vx vy vz".split()
    for index in range(3):
        table = {name: rng.normal(size=50).astype(np.float32) for name in names}
        table |= {name: np.full(50, 200, np.uint8) for name in ("red", "green", "blue")}
        table["instance"] = rng.integers(-1, 4, 50).astype(np.int32)
        write_ply(tmp_path / "points" / f"{index:05d}.ply", table)
    poses = [np.eye(4).tolist() for _ in range(3)]
    for index, pose in enumerate(poses):
        pose[0][3], pose[1][3] = float(index), -6.0
    content = {"frames": [{"transform_matrix": pose} for pose in poses]}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    ball.visual.vertex_colors = np.tile([0, 250, 0, 255], (len(ball.vertices), 1)).astype(np.uint8)
    (tmp_path / "meshes" / "static").mkdir(parents=True)
    ball.export(tmp_path / "meshes" / "static" / "ball.ply")
    main(tmp_path, tmp_path / "out.png")
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    assert picture.shape == (SIZE[1], 3 * SIZE[0], 3)
    mesh = picture[:, 2 * SIZE[0] :].reshape(-1, 3).astype(int)
    assert (mesh.argmax(axis=1) == 1).mean() > 0.005 and (mesh[:, 0] <= 30).all()
