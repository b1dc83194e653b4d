"""Files read back with independent libraries: plyfile, trimesh, OpenCV, pycocotools, PIL and numpy."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from semflow_nerfstudio.editing.instances import Instance, Instances
from semflow_nerfstudio.export.cameras import write_cameras
from semflow_nerfstudio.export.files import write_flo, write_image, write_ply
from semflow_nerfstudio.export.masks import annotation, run_lengths, write_coco
from semflow_nerfstudio.export.meshes import Mesh, write_mesh
from semflow_nerfstudio.export.points import write_points
from semflow_nerfstudio.export.views import ExportView, Units3D
from semflow_nerfstudio.visuals.trajectories import RenderView

TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
UNITS = Units3D(np.column_stack([TURN, [0.5, -1.0, 2.0]]), 0.25)


def to_scene(world: np.ndarray) -> np.ndarray:
    return 0.25 * (world @ TURN.T + [0.5, -1.0, 2.0])


def test_units_undo_the_parsers_transform() -> None:
    world = np.random.default_rng(0).normal(size=(20, 3))
    np.testing.assert_allclose(UNITS.points(to_scene(world)), world, atol=1e-12)
    moved = to_scene(world + np.array([0.1, 0.2, 0.3])) - to_scene(world)
    np.testing.assert_allclose(UNITS.vectors(moved), np.tile([0.1, 0.2, 0.3], (20, 1)), atol=1e-12)


def test_ply(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    vertices = {
        "x": np.array([0.5, 1.5, -2.0], np.float32),
        "y": np.array([1.0, 2.0, 3.0], np.float32),
        "z": np.array([0.0, -1.0, 4.0], np.float32),
        "red": np.array([0, 128, 255], np.uint8),
        "instance": np.array([-1, 7, 70000], np.int32),
    }
    write_ply(tmp_path / "sub" / "a.ply", vertices, np.array([[0, 1, 2]]), note="world units")
    data = plyfile.PlyData.read(str(tmp_path / "sub" / "a.ply"))
    for name, values in vertices.items():
        assert data["vertex"][name].tolist() == values.tolist()
    assert data["face"]["vertex_indices"][0].tolist() == [0, 1, 2] and data.comments == ["world units"]
    assert [f.name for f in (tmp_path / "sub").iterdir()] == ["a.ply"]


def test_las(tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    generator = np.random.default_rng(0)
    table = {axis: generator.normal(size=50).astype(np.float32) for axis in ("x", "y", "z", "vx", "vy", "vz")}
    table |= {name: generator.integers(0, 256, 50).astype(np.uint8) for name in ("red", "green", "blue", "label")}
    table |= {"instance": generator.integers(-1, 90, 50).astype(np.int32), "time": np.full(50, 0.25, np.float32)}
    table["confidence"] = generator.random(50).astype(np.float32)
    write_points(tmp_path / "a.las", table, "world")
    cloud = laspy.read(tmp_path / "a.las")
    for axis in "xyz":
        np.testing.assert_allclose(np.asarray(cloud[axis]), table[axis], atol=1e-6)
    for name in ("label", "instance", "vx", "vy", "vz", "confidence"):
        np.testing.assert_array_equal(np.asarray(cloud[name]), table[name])
    np.testing.assert_array_equal(np.asarray(cloud.red) >> 8, table["red"])
    np.testing.assert_array_equal(np.asarray(cloud.classification), table["label"])
    assert set(np.asarray(cloud.gps_time).tolist()) == {0.25}


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_meshes(tmp_path: Path, suffix: str) -> None:
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.8)
    count = len(ball.vertices)
    rgb = np.tile([1.0, 0.2, 0.0], (count, 1))
    mesh = Mesh(to_scene(ball.vertices), ball.faces, rgb, np.full(count, 3), np.full(count, 12))
    write_mesh(tmp_path / f"ball.{suffix}", mesh, UNITS)
    again = trimesh.load(tmp_path / f"ball.{suffix}", force="mesh", process=False)
    assert again.is_watertight or suffix == "glb"
    assert again.volume == pytest.approx(ball.volume, rel=1e-3), "faces look outwards, in world units"
    np.testing.assert_allclose(again.bounds, ball.bounds, atol=1e-4)
    np.testing.assert_allclose(again.visual.vertex_colors[:, :3], np.tile([255, 51, 0], (count, 1)), atol=1)


def test_flo(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)
    flow[2, 3] = np.nan
    write_flo(tmp_path / "a.flo", flow)
    again = cv2.readOpticalFlow(str(tmp_path / "a.flo"))
    known = np.isfinite(flow)
    np.testing.assert_array_equal(again[known], flow[known])
    assert (again[~known] > 1e9).all()


def test_images(tmp_path: Path) -> None:
    depth = np.arange(70, dtype=np.uint16).reshape(7, 10) * 900
    write_image(tmp_path / "a.png", depth)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), depth)
    color = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    write_image(tmp_path / "b.png", color)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), color)


def some_instances() -> Instances:
    box = np.zeros((1, 2, 3))
    still = np.array([True])
    made = [Instance(label, moving, 1.0, box[:, 0], box, still) for label, moving in ((1, True), (0, False))]
    return Instances(made, np.array([0.0]), None, None)


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(seed)
    mask = np.kron(generator.random((9, 7)) < (0.1, 0.5, 0.9, 1.0, 0.3, 0.7)[seed], np.ones((60, 11))) > 0
    decoded = coco.decode({"size": list(mask.shape), "counts": run_lengths(mask)})
    assert np.array_equal(decoded.astype(bool), mask)
    assert run_lengths(mask) == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def test_coco(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    instances, masks = some_instances(), []
    images = [{"id": k, "file_name": f"{k:05d}.png", "width": 12, "height": 10} for k in range(2)]
    for k in range(2):
        mask = np.zeros((10, 12), dtype=bool)
        mask[2 : 5 + k, 3:9] = True
        masks.append(mask)
        path = tmp_path / "annotations" / f"{k:05d}.json"
        path.parent.mkdir(exist_ok=True)

        path.write_text(json.dumps([annotation(mask, k, 0, instances), annotation(~mask, k, 1, instances)]))
    write_coco(tmp_path, images, ("floor", "person"))
    read = coco.COCO(str(tmp_path / "coco.json"))
    assert {c["id"]: c["name"] for c in read.loadCats(read.getCatIds())} == {1: "floor", 2: "person"}
    for k in range(2):
        person, floor = read.loadAnns(read.getAnnIds(imgIds=k))
        assert (person["category_id"], floor["category_id"]) == (2, 1) and person["moving"] and not floor["moving"]
        assert np.array_equal(read.annToMask(person).astype(bool), masks[k])
        assert np.array_equal(read.annToMask(floor).astype(bool), ~masks[k])
        assert person["bbox"] == [3, 2, 6, 3 + k] and person["area"] == masks[k].sum()


def test_cameras(tmp_path: Path) -> None:

    rotation = Rotation.from_euler("xyz", [20, 30, 40], degrees=True).as_matrix()
    place = np.array([0.3, -0.2, 0.9])
    pose = np.column_stack([TURN @ rotation, to_scene(place[None])[0]])
    view = RenderView(torch.from_numpy(pose), 50.0, 51.0, 32.5, 18.0, 64, 36, 0.25)
    write_cameras(tmp_path, [ExportView("00000", view)], UNITS, {"labels_path": "labels/NAME.png"})
    (frame,) = json.loads((tmp_path / "transforms.json").read_text())["frames"]
    np.testing.assert_allclose(np.array(frame["transform_matrix"])[:3], np.column_stack([rotation, place]), atol=1e-9)
    assert (frame["time"], frame["fl_x"], frame["w"], frame["labels_path"]) == (0.25, 50.0, 64, "labels/00000.png")
    archive = np.load(tmp_path / "cameras.npz")
    np.testing.assert_allclose(archive["camera_to_worlds"][0, :3, 3], place, atol=1e-9)
    assert archive["intrinsics"].tolist() == [[50.0, 51.0, 32.5, 18.0]] and archive["times"].tolist() == [0.25]
    row = np.loadtxt(tmp_path / "trajectory.txt")
    np.testing.assert_allclose(row[:4], [0.25, *place], atol=1e-8)
    forward = Rotation.from_quat(row[4:]).as_matrix()[:, 2]
    np.testing.assert_allclose(forward, -rotation[:, 2], atol=1e-8)
