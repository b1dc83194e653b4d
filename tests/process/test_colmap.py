"""COLMAP: on the clip, on models with other camera models, and where it cannot help."""

import sys

import numpy as np
import pytest
from clips import FOCAL, draw, poses, write_folder
from PIL import Image
from processing import make

from benchmarks.poses import compare
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.check import read_transforms_scene
from semflow_nerfstudio.process.poses.colmap import camera_parameters


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """The clip, with COLMAP's poses."""
    pytest.importorskip("pycolmap")
    folder = tmp_path_factory.mktemp("colmap")
    write_folder(folder / "images", 10)
    summary = make(folder / "images", folder / "s", focal=FOCAL, jobs=1)
    return folder / "s", summary


def test_poses_from_images_alone(solved):
    scene, summary = solved
    found = read_transforms_scene(scene)
    scores = compare(found.cameras.camera_to_worlds.numpy(), poses(len(found.images)))
    assert len(found.images) == 10 and "COLMAP (10 of 10" in summary.poses
    # The path is nearly straight: positions do not fix the rotation about it, so rotations are compared step by step.
    assert scores["step_rotation_degrees_mean"] < 0.3 and scores["translation_share_max"] < 0.05
    assert summary.pose_check.error < 0.25 and not summary.errors
    assert found.cameras.intrinsics[0, 0] == pytest.approx(FOCAL, rel=1e-6)


def test_features_are_masked_where_something_moves(solved):
    scene, _ = solved
    for k in (3, 6):
        allowed = np.asarray(Image.open(scene / f"process/feature_masks/shot_{k:02d}.png.png")) > 127
        moving = draw(k)[1]
        assert allowed[moving].mean() < 0.3 and allowed[~moving].mean() > 0.9
    import pycolmap

    with pycolmap.Database.open(scene / "process/colmap/database.db") as database:
        inside = []
        for image in database.read_all_images():
            keypoints = database.read_keypoints(image.image_id)[:, :2].astype(int)
            allowed = np.asarray(Image.open(scene / f"process/feature_masks/{image.name}.png")) > 127
            rows, columns = (np.clip(keypoints[:, axis], 0, allowed.shape[1 - axis] - 1) for axis in (1, 0))
            inside.append(allowed[rows, columns])
        assert np.concatenate(inside).mean() > 0.99


def test_a_scene_without_features_is_one_sentence(tmp_path):
    pytest.importorskip("pycolmap")
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(4):
        Image.fromarray(np.full((96, 128, 3), 60 + 20 * k, np.uint8)).save(folder / f"{k}.png")
    with pytest.raises(SceneDataError, match="COLMAP found poses for 0 of 4 frames"):
        make(folder, tmp_path / "s", keep_all=True)


def test_without_pycolmap_it_is_told_before_any_work(clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(SceneDataError, match="pip install pycolmap"):
        make(clip / "images", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_camera_models():
    assert camera_parameters("SIMPLE_PINHOLE", [9, 4, 3]) == ([9, 9, 4, 3], [0] * 6)
    assert camera_parameters("PINHOLE", [9, 8, 4, 3]) == ([9, 8, 4, 3], [0] * 6)
    assert camera_parameters("RADIAL", [9, 4, 3, 0.1, 0.2]) == ([9, 9, 4, 3], [0.1, 0.2, 0, 0, 0, 0])
    assert camera_parameters("OPENCV", [9, 8, 4, 3, 1, 2, 3, 4]) == ([9, 8, 4, 3], [1, 2, 0, 0, 3, 4])
    with pytest.raises(SceneDataError, match="OPENCV_FISHEYE is not supported"):
        camera_parameters("OPENCV_FISHEYE", [1] * 8)
