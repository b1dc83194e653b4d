"""COLMAP: on the clip, on models with other camera models, and where it cannot help."""

import shutil
import sys

import numpy as np
import pytest
from clips import FOCAL, draw, poses, write_folder
from PIL import Image
from processing import make

from benchmarks.poses import compare
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.check import read_transforms_scene
from semflow_nerfstudio.process.poses.colmap_model import camera_parameters


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


def test_without_colmap_it_is_told_before_any_work(clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SceneDataError, match="pip install pycolmap"):
        make(clip / "images", tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(shutil.which("colmap") is None, reason="the program colmap is not installed")
def test_the_program_does_where_there_is_no_pycolmap(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    write_folder(tmp_path / "images", 10)
    summary = make(tmp_path / "images", tmp_path / "s", focal=FOCAL, jobs=1)
    found = read_transforms_scene(tmp_path / "s")
    scores = compare(found.cameras.camera_to_worlds.numpy(), poses(len(found.images)))
    assert "COLMAP (10 of 10" in summary.poses and summary.pose_check.error < 0.25
    assert scores["step_rotation_degrees_mean"] < 0.3 and scores["translation_share_max"] < 0.05
    assert found.cameras.intrinsics[0, 0] == pytest.approx(FOCAL, rel=1e-6)


def write_program(folder, mapper):
    """A program `colmap` that notes how it is called, and whose mapper does what is asked for."""
    program = folder / "colmap"
    program.write_text(
        f"""#!{sys.executable}
import sys
from pathlib import Path
command, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
if "-h" in sys.argv:
    print("  --FeatureExtraction.use_gpu arg (=1)\\n  --FeatureExtraction.num_threads arg (=-1)")
else:
    with open({str(folder / "calls")!r}, "a") as file:
        print(command, *sys.argv[2:], file=file)
if command == "mapper":
{mapper}
"""
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def other_program(tmp_path, monkeypatch):
    def use(mapper):
        monkeypatch.setitem(sys.modules, "pycolmap", None)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        (tmp_path / "bin").mkdir()
        write_program(tmp_path / "bin", mapper)
        return tmp_path / "bin" / "calls"

    return use


def test_the_program_is_asked_for_what_pycolmap_is(tmp_path, other_program):
    """Its option against GPUs has another name in other versions; a model of too few frames is refused."""
    calls = other_program("    print('=> failed to create sparse model'); sys.exit(1)")
    write_folder(tmp_path / "images", 4)
    with pytest.raises(SceneDataError, match="COLMAP found poses for 0 of 4 frames"):
        make(tmp_path / "images", tmp_path / "s", jobs=1)
    features, matches, mapper = calls.read_text().splitlines()
    assert features.startswith("feature_extractor") and "--FeatureExtraction.use_gpu 0" in features
    assert f"--ImageReader.mask_path {tmp_path / 's/process/feature_masks'}" in features
    assert matches.startswith("exhaustive_matcher") and "--Mapper.ba_refine_focal_length 1" in mapper


def test_a_program_that_fails_is_one_sentence(tmp_path, other_program):
    other_program("    print('no memory'); sys.exit(3)")
    write_folder(tmp_path / "images", 4)
    with pytest.raises(SceneDataError, match=r"colmap mapper` failed \(no memory\): see .*log.txt"):
        make(tmp_path / "images", tmp_path / "s", jobs=1)


def test_camera_models():
    assert camera_parameters("SIMPLE_PINHOLE", [9, 4, 3]) == ([9, 9, 4, 3], [0] * 6)
    assert camera_parameters("PINHOLE", [9, 8, 4, 3]) == ([9, 8, 4, 3], [0] * 6)
    assert camera_parameters("RADIAL", [9, 4, 3, 0.1, 0.2]) == ([9, 9, 4, 3], [0.1, 0.2, 0, 0, 0, 0])
    assert camera_parameters("OPENCV", [9, 8, 4, 3, 1, 2, 3, 4]) == ([9, 8, 4, 3], [1, 2, 0, 0, 3, 4])
    with pytest.raises(SceneDataError, match="OPENCV_FISHEYE is not supported"):
        camera_parameters("OPENCV_FISHEYE", [1] * 8)
