"""Poses from every kind of file, broken files, and files that are hostile."""

import json
import sys

import numpy as np
import pytest
from clips import FOCAL, FRAMES, HEIGHT, WIDTH, poses, write_llff, write_transforms
from scipy.spatial.transform import Rotation

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.frames import Frame, Frames
from semflow_nerfstudio.process.poses.files import file_poses, stem
from semflow_nerfstudio.process.poses.static import static_poses
from semflow_nerfstudio.process.poses.track import PoseTrack

NAMES = [f"images/shot_{k:02d}.png" for k in range(FRAMES)]


def frames(indices=range(FRAMES), width=WIDTH, height=HEIGHT, count=FRAMES) -> Frames:
    taken = [Frame(f"shot_{k:02d}.png", 0.1 * k, f"shot_{k:02d}.png", k) for k in indices]
    return Frames(taken, width, height, WIDTH, HEIGHT, count, [], [])


def write_matrices(path, matrices):
    hwf = np.tile(np.array([HEIGHT, WIDTH, FOCAL])[:, None], (len(matrices), 1, 1))
    path.write_text(json.dumps({"poses": np.concatenate([matrices, hwf], axis=2).tolist()}))
    return path


def write_tum(path, matrices, times):
    lines = ["# time x y z qx qy qz qw"]
    for time, matrix in zip(times, matrices, strict=True):
        turn = Rotation.from_matrix(matrix[:, :3] @ np.diag([1, -1, -1])).as_quat()
        lines.append(" ".join(f"{value:.9f}" for value in (time, *matrix[:, 3], *turn)))
    path.write_text("\n".join(lines))
    return path


def write_colmap(path, matrices):
    """A text model as COLMAP's documentation describes it."""
    path.mkdir()
    center = f"{WIDTH / 2} {HEIGHT / 2}"
    (path / "cameras.txt").write_text(f"# cameras\n1 SIMPLE_RADIAL {WIDTH} {HEIGHT} {FOCAL} {center} -0.01\n")
    lines = ["# images, two lines each"]
    for k, matrix in enumerate(matrices):
        turn = np.diag([1, -1, -1]) @ matrix[:, :3].T
        x, y, z, w = Rotation.from_matrix(turn).as_quat()
        offset = " ".join(map(str, -turn @ matrix[:, 3]))
        lines += [f"{k + 1} {w} {x} {y} {z} {offset} 1 shot_{k:02d}.png", ""]
    (path / "images.txt").write_text("\n".join(lines) + "\n")
    (path / "points3D.txt").write_text("# points\n")
    return path


def written(kind, folder, matrices):
    if kind == "transforms":
        return write_transforms(folder / "transforms.json", matrices, NAMES[: len(matrices)])
    if kind == "llff":
        return write_llff(folder / "poses_bounds.npy", matrices)
    if kind == "matrices":
        return write_matrices(folder / "precomputed.json", matrices)
    if kind == "tum":
        return write_tum(folder / "trajectory.txt", matrices, 0.1 * np.arange(len(matrices)))
    return write_colmap(folder / "model", matrices)


def test_fisheye_cameras_are_refused(tmp_path):
    path = write_transforms(tmp_path / "transforms.json", poses(), NAMES)
    content = json.loads(path.read_text()) | {"camera_model": "OPENCV_FISHEYE", "k1": 0.1}
    path.write_text(json.dumps(content))
    with pytest.raises(SceneDataError, match=r"transforms\.json has camera_model 'OPENCV_FISHEYE'.*undistort"):
        file_poses(path, frames(), None)


def test_what_is_stated_for_all_frames_wins(tmp_path):
    path = write_transforms(tmp_path / "transforms.json", poses(), NAMES)
    content = json.loads(path.read_text())
    content["frames"] = [entry | {"fl_x": 3 * FOCAL} for entry in content["frames"]]
    path.write_text(json.dumps(content | {"fl_x": FOCAL}))
    assert np.allclose(file_poses(path, frames(), None).intrinsics[:, 0], FOCAL)


def test_names_that_agree_without_their_folders_do_not_choose_poses(tmp_path):
    names = [f"cam{k % 2}/shot_{k // 2:02d}.png" for k in range(FRAMES)]
    path = write_transforms(tmp_path / "transforms.json", poses(), names)
    assert np.allclose(file_poses(path, frames(), None).poses, poses(), atol=1e-6)


KINDS = ("transforms", "llff", "matrices", "tum", "colmap")


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_cameras(tmp_path, kind):
    path = written(kind, tmp_path, poses())
    track = file_poses(path, frames([0, 2, 3, 5], WIDTH // 2, HEIGHT // 2), FOCAL)
    np.testing.assert_allclose(track.poses, poses()[[0, 2, 3, 5]], atol=1e-6)
    expected = [FOCAL / 2, FOCAL / 2, WIDTH / 4, HEIGHT / 4]
    np.testing.assert_allclose(track.intrinsics, [expected] * 4, rtol=1e-9)
    assert track.known.all() and (track.width, track.height) == (WIDTH // 2, HEIGHT // 2)
    assert (track.distortion is not None) == (kind == "colmap")
    again = PoseTrack.from_json(json.loads(json.dumps(track.to_json())))
    np.testing.assert_array_equal(again.poses, track.poses)
    np.testing.assert_array_equal(again.cameras().intrinsics, track.cameras().intrinsics)


def test_binary_colmap_models(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    text = write_colmap(tmp_path / "model", poses())
    (tmp_path / "binary").mkdir()
    pycolmap.Reconstruction(text).write_binary(tmp_path / "binary")
    track = file_poses(tmp_path / "binary", frames(), None)
    np.testing.assert_allclose(track.poses, poses(), atol=1e-6)
    np.testing.assert_allclose(track.distortion[:, 0], -0.01)


def test_colmap_models_need_no_colmap(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    track = file_poses(write_colmap(tmp_path / "model", poses()), frames(), None)
    np.testing.assert_allclose(track.poses, poses(), atol=1e-6)


@pytest.mark.parametrize("file", ["cameras.bin", "images.bin"])
@pytest.mark.parametrize(
    "spoil", [lambda d: d[:-9], lambda d: b"\xff" * 8 + d[8:], lambda d: d[:8] + b"\xff" * 40, bytes]
)
def test_broken_colmap_models(tmp_path, file, spoil):
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(write_colmap(tmp_path / "text", poses()))
    (tmp_path / "model").mkdir()
    model.write_binary(tmp_path / "model")
    whole = (tmp_path / "model" / file).read_bytes()
    (tmp_path / "model" / file).write_bytes(spoil(whole) if spoil is not bytes else b"")
    with pytest.raises(SceneDataError, match=r"model.* cannot be read as a COLMAP model|model has no camera"):
        file_poses(tmp_path / "model", frames(), None)


def test_names_decide_and_frames_without_a_pose_are_known(tmp_path):
    order = [3, 0, 5, 1]
    path = write_transforms(tmp_path / "t.json", poses()[order], [NAMES[k].replace(".png", ".jpg") for k in order])
    track = file_poses(path, frames(), None)
    assert track.known.tolist() == [True, True, False, True, False, True]
    np.testing.assert_allclose(track.poses[track.known], poses()[[0, 1, 3, 5]])


def test_camera_angle_of_blender_files(tmp_path):
    path = write_transforms(tmp_path / "t.json", poses(), NAMES, camera_angle_x=2 * np.arctan(WIDTH / 2 / 99))
    content = json.loads(path.read_text())
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del content[key]
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(file_poses(path, frames(), None).intrinsics[0], [99, 99, WIDTH / 2, HEIGHT / 2])


def test_trajectories_are_interpolated(tmp_path):
    dense = np.stack([poses(1)[0]] * 3)
    dense[:, 0, 3] = [0.0, 1.0, 2.0]
    track = file_poses(write_tum(tmp_path / "t.txt", dense, [0.0, 0.2, 0.4]), frames(), FOCAL)
    np.testing.assert_allclose(track.poses[:5, 0, 3], [0, 0.5, 1, 1.5, 2], atol=1e-6)
    with pytest.raises(SceneDataError, match="--focal"):
        file_poses(tmp_path / "t.txt", frames(), None)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "C:\\x\\shot_00.png", "..\\..\\shot_00.png"])
def test_names_in_files_are_compared_and_never_opened(tmp_path, name, monkeypatch):
    path = write_transforms(tmp_path / "t.json", poses(), [name, *NAMES[1:]])
    track = file_poses(path, frames(), None)
    assert track.known.tolist() == [stem(name) == "shot_00", True, True, True, True, True]
    strangers = write_transforms(tmp_path / "u.json", poses(4), [name + str(k) for k in range(4)])
    with pytest.raises(SceneDataError, match=r"whose names are not like shot_00\.png"):
        file_poses(strangers, frames(), None)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_wrong_number_of_poses_is_an_error(tmp_path, kind):
    path = written(kind, tmp_path, poses(4))
    if kind == "transforms":
        path.write_text(path.read_text().replace("shot_", "other_"))
    with pytest.raises(SceneDataError, match=r"4 poses.* 6 frames"):
        file_poses(path, frames(), FOCAL)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", "{", "no valid JSON"),
        ("a.json", "[" * 100_000, "no valid JSON"),
        ("a.json", '{"x": 1}', "neither a list"),
        ("a.json", '{"frames": []}', "export it again"),
        ("a.json", '{"frames": [{"file_path": "a", "transform_matrix": [[1, 2], [3]]}]}', "no 4x4 matrix"),
        ("a.json", '{"poses": [[1, 2, 3]]}', "matrix for `poses`"),
        ("a.txt", "1 2 3", "no trajectory"),
        ("a.txt", "0 0 0 0 0 0 0 nan\n1 0 0 0 0 0 0 1", "no trajectory"),
        ("a.txt", "0 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1", "do not rise"),
        ("a.bin", "\udcff\udcfe", "no poses that are known"),
        ("a.npy", "x", "cannot be read"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SceneDataError, match=told) as error:
        file_poses(tmp_path / name, frames(), FOCAL)
    assert "\n" not in str(error.value)


def test_poses_that_are_no_rotations_or_for_other_images(tmp_path):
    broken = poses()
    broken[2, 0, 0] = np.nan
    with pytest.raises(SceneDataError, match=r"NaN.* shot_02\.png"):
        file_poses(write_llff(tmp_path / "a.npy", broken), frames(), None)
    with pytest.raises(SceneDataError, match="no rotation"):
        file_poses(write_llff(tmp_path / "a.npy", -poses()), frames(), None)
    with pytest.raises(SceneDataError, match="neither cropped nor turned"):
        file_poses(write_llff(tmp_path / "a.npy", poses(), HEIGHT, WIDTH), frames(), None)
    with pytest.raises(SceneDataError, match="not positive"):
        file_poses(write_llff(tmp_path / "a.npy", poses(), focal=-1), frames(), None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneDataError, match="holds no poses"):
        file_poses(tmp_path / "empty", frames(), None)
    with pytest.raises(SceneDataError, match="does not exist"):
        file_poses(tmp_path / "none.json", frames(), None)


def test_a_still_camera():
    track = static_poses(frames(width=WIDTH // 2, height=HEIGHT // 2), 100.0)
    assert (track.poses == track.poses[0]).all() and track.intrinsics[0].tolist() == [50, 50, WIDTH / 4, HEIGHT / 4]
    assert static_poses(frames(), None).intrinsics[0, 0] == pytest.approx(0.85 * WIDTH)
