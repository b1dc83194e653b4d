"""Wrong input is reported by the dataparser in one sentence that names the file and says how to mend it."""

import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_scenes import HEIGHT, WIDTH, edit_transforms, save_image, write_dynamic_scene, write_transforms

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig


def truncate(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def edit_poses(folder, edit):
    poses = np.load(folder / "poses_bounds.npy")
    poses = edit(poses)
    np.save(folder / "poses_bounds.npy", poses)


def set_poses(index, value):
    def edit(poses):
        poses[index] = value
        return poses

    return lambda folder: edit_poses(folder, edit)


def flip(poses):
    poses[2, [0, 5, 10]] *= -1
    return poses


# name: (what breaks the scene, file that must be named, words that must occur)
FOLDER_CASES = {
    "no poses": (lambda f: (f / "poses_bounds.npy").unlink(), "poses_bounds.npy", "estimate the cameras"),
    "no images": (lambda f: shutil.rmtree(f / "images"), "images", "put the frames"),
    "empty image folder": (lambda f: [p.unlink() for p in (f / "images").iterdir()], "images", "put the frames"),
    "poses of another count": (lambda f: (f / "images/003.png").unlink(), "poses_bounds.npy", "4 poses"),
    "poses of another shape": (lambda f: edit_poses(f, lambda p: p[:, :15]), "poses_bounds.npy", "17 numbers"),
    "non-finite pose": (set_poses((1, 3), math.nan), "poses_bounds.npy", "frame 001.png"),
    "left-handed pose": (lambda f: edit_poses(f, flip), "poses_bounds.npy", "002.png"),
    "degenerate pose": (set_poses((0, slice(0, 15)), 1.0), "poses_bounds.npy", "no rotation"),
    "near behind far": (set_poses((3, 15), 50.0), "poses_bounds.npy", "near 50"),
    "near not positive": (set_poses((3, 15), 0.0), "poses_bounds.npy", "0 < near < far"),
    "focal length zero": (set_poses((0, 14), 0.0), "poses_bounds.npy", "not positive"),
    "stated size of another shape": (set_poses((slice(None), 4), 9.0), "poses_bounds.npy", "32x9"),
    "truncated poses": (lambda f: truncate(f / "poses_bounds.npy", 300), "poses_bounds.npy", "make the file again"),
    "truncated png": (lambda f: truncate(f / "images/001.png", 300), "images/001.png", "make the file again"),
    "image that is none": (lambda f: (f / "images/002.png").write_text("hello"), "images/002.png", "as an image"),
    "image of another size": (
        lambda f: save_image(f / "images/002.png", np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8)),
        "images/002.png",
        "must have one size",
    ),
    "two images of one number": (
        lambda f: shutil.copy(f / "images/002.png", f / "images/2.png"),
        "images/2.png",
        "both frame",
    ),
    "unknown colour": (
        lambda f: save_image(f / "SegmentationClass_train/002.png", np.full((HEIGHT, WIDTH, 3), (9, 8, 7), np.uint8)),
        "SegmentationClass_train/002.png",
        "9,8,7 (160 pixels)",
    ),
    "label of no frame": (
        lambda f: shutil.copy(f / "SegmentationClass_train/000.png", f / "SegmentationClass_train/004.png"),
        "SegmentationClass_train/004.png",
        "belongs to no image",
    ),
    "labels of another shape": (
        lambda f: save_image(f / "SegmentationClass_train/001.png", np.zeros((WIDTH, HEIGHT, 3), np.uint8)),
        "SegmentationClass_train/001.png",
        "10x16",
    ),
    "no class table": (lambda f: (f.parent / "labelmap.txt").unlink(), "labelmap.txt", "one `name:red"),
    "empty class table": (lambda f: (f.parent / "labelmap.txt").write_text("# x\n"), "labelmap.txt", "no class"),
    "unknown foreground class": (
        lambda f: (f.parent / "foreground_object.txt").write_text("cat\n"),
        "foreground_object.txt",
        "'cat'",
    ),
    "flow of the wrong shape": (
        lambda f: np.savez(f / "flow/001_fwd.npz", flow=np.zeros((2, HEIGHT, WIDTH))),
        "flow/001_fwd.npz",
        "height x width x 2",
    ),
    "flow of another picture": (
        lambda f: np.savez(f / "flow/001_fwd.npz", flow=np.zeros((WIDTH, HEIGHT, 2))),
        "flow/001_fwd.npz",
        "aspect ratio",
    ),
    "nan flow": (
        lambda f: np.savez(
            f / "flow/001_bwd.npz", flow=np.full((HEIGHT, WIDTH, 2), np.nan), mask=np.ones((HEIGHT, WIDTH), bool)
        ),
        "flow/001_bwd.npz",
        "out of the mask",
    ),
    "truncated npz": (lambda f: truncate(f / "flow/002_fwd.npz", 200), "flow/002_fwd.npz", "make the file again"),
    "disparity without numbers": (
        lambda f: np.save(f / "disp/000.npy", np.full((HEIGHT, WIDTH), np.nan)),
        "disp/000.npy",
        "no finite disparity",
    ),
    "truncated mask": (lambda f: truncate(f / "motion_masks/003.png", 60), "motion_masks/003.png", "as an image"),
    "test view without pose": (
        lambda f: shutil.copy(f / "multiview_GT/00000001/cam01.jpg", f / "multiview_GT/00000001/cam05.jpg"),
        "multiview_GT/00000001/cam05.jpg",
        "camera 5",
    ),
    "truncated test view": (
        lambda f: truncate(f / "multiview_GT/00000002/cam01.jpg", 200),
        "multiview_GT/00000002/cam01.jpg",
        "as an image",
    ),
    "test view twice": (
        lambda f: shutil.copy(f / "multiview_GT/00000002/cam01.jpg", f / "multiview_GT/00000002/cam1.jpg"),
        "multiview_GT/00000002/cam1.jpg",
        "remove one",
    ),
}

OPTION_CASES = {
    "labelled frame that is not there": ({"labelled_frames": "0,4"}, "no frame 4"),
    "labelled frames that mean nothing": ({"labelled_frames": "half"}, "completion-75"),
    "unknown evaluation protocol": ({"eval_protocol": "other"}, "train-holdout"),
    "downscale factor": ({"downscale_factor": 0}, "from 1 up"),
    "holdout interval": ({"eval_protocol": "train-holdout", "holdout_interval": 1}, "at least 2"),
}


def change(key, value, frame=2):
    """Set (or with None remove) a key of one frame, or of the file where frame is None."""

    def edit(meta):
        target = meta if frame is None else meta["frames"][frame]
        if value is None:
            target.pop(key)
        else:
            target[key] = value

    return lambda folder: edit_transforms(folder, edit)


JSON_CASES = {
    "no file": (lambda f: (f / "transforms.json").unlink(), "transforms.json", "--data"),
    "no json": (lambda f: (f / "transforms.json").write_text("{,"), "transforms.json", "no valid JSON"),
    "no frames": (change("frames", [], None), "transforms.json", "a list `frames`"),
    "no pose": (change("transform_matrix", None), "transforms.json", "images/002.png"),
    "pose of another shape": (change("transform_matrix", [[1, 0], [0, 1]]), "transforms.json", "4x4"),
    "pose without rotation": (change("transform_matrix", np.ones((4, 4)).tolist()), "transforms.json", "no rotation"),
    "pose with nan": (change("transform_matrix", np.full((4, 4), math.nan).tolist()), "transforms.json", "NaN"),
    "no focal length": (change("fl_x", None, None), "transforms.json", "no fl_x"),
    "focal length as text": (change("fl_y", "14", None), "transforms.json", "finite number"),
    "width zero": (change("w", 0, None), "transforms.json", "positive number"),
    "size of another picture": (change("w", 3 * WIDTH, None), "transforms.json", "correct w, h"),
    "time as text": (change("time", "soon"), "transforms.json", "'soon' as time"),
    "time nan": (change("time", math.nan), "transforms.json", "nan as time"),
    "time missing once": (change("time", None), "transforms.json", "images/002.png"),
    "same camera and time": (change("time", 1.0), "transforms.json", "the same time 1"),
    "image twice": (change("file_path", "images/001.png"), "transforms.json", "more than once"),
    "missing image": (change("file_path", "images/9.png"), "images/9.png", "remove its entry"),
    "missing labels": (change("labels_path", "none.png"), "none.png", "restore the file"),
    "missing flow": (change("flow_forward_path", "none.npz"), "none.npz", "restore the file"),
    "path that is none": (change("labels_path", 3), "transforms.json", "3 as labels_path"),
    "empty classes": (change("classes", [], None), "transforms.json", "no class"),
    "labels without classes": (change("classes", None, None), "SegmentationClass_train/000.png", "no class table"),
    "class twice": (change("classes", [{"name": "a"}, {"name": "a"}], None), "transforms.json", "'a' 2 times"),
    "class colour": (change("classes", [{"name": "a", "color": [1, 2]}], None), "transforms.json", "0 to 255"),
    "colour labels without colours": (
        change("classes", [{"name": "a"}], None),
        "SegmentationClass_train/000.png",
        "states no colours",
    ),
    "nested without end": (
        lambda f: (f / "transforms.json").write_text("[" * 100_000),
        "transforms.json",
        "no valid JSON",
    ),
    "split that is no list": (
        lambda f: [change(f"{name}_filenames", 3, None)(f) for name in ("train", "val", "test")],
        "transforms.json",
        "a list of file names",
    ),
    "distortion as text": (change("k1", "x", None), "transforms.json", "finite number"),
    "distortion nan": (change("k2", math.nan, None), "transforms.json", "nan as k2"),
    "class table that is a folder": (
        lambda f: (change("classes", None, None)(f), change("class_table", "images", None)(f)),
        "images",
        "restore it",
    ),
    "4x4 applied transform": (change("applied_transform", np.eye(4).tolist(), None), "transforms.json", "3x4 matrix"),
    "orientation": (change("orientation_override", "sideways", None), "transforms.json", "'sideways'"),
    "depth unit": (change("depth_unit_scale_factor", 0, None), "transforms.json", "positive number"),
    "near without far": (change("near", 1.0, None), "transforms.json", "both camera depths"),
    "fisheye": (change("camera_model", "OPENCV_FISHEYE", None), "transforms.json", "undistort"),
    "mask on one frame": (change("mask_path", "motion_masks/002.png"), "transforms.json", "for all frames or for none"),
    "split of unknown frame": (
        lambda f: edit_transforms(
            f, lambda m: m.update(train_filenames=["x.png"], val_filenames=[], test_filenames=[])
        ),
        "transforms.json",
        "x.png in train_filenames",
    ),
    "truncated depth": (lambda f: truncate(f / "depth/001.npy", 150), "depth/001.npy", "make the file again"),
}


def check_message(error, folder, file, words):
    message = str(error.value)
    assert file in message and words in message, message
    assert message.endswith(".") and ": " in message, "what is wrong, a colon, what to do"
    assert "\n" not in message and len(message) < 400 + 2 * len(str(folder))


@pytest.mark.parametrize("case", FOLDER_CASES)
def test_folder_layout(tmp_path, case):
    spoil, file, words = FOLDER_CASES[case]
    folder = write_dynamic_scene(tmp_path)
    spoil(folder)
    parser = DynamicSceneDataParserConfig(data=folder).setup()
    with pytest.raises(SceneDataError) as error:
        for split in ("train", "val"):
            parser.get_dataparser_outputs(split)
    check_message(error, folder, file, words)


@pytest.mark.parametrize("case", OPTION_CASES)
def test_options(tmp_path, case):
    options, words = OPTION_CASES[case]
    parser = DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path), **options).setup()
    with pytest.raises(SceneDataError) as error:
        parser.get_dataparser_outputs("train")
    check_message(error, tmp_path, "--", words)


@pytest.mark.parametrize("case", JSON_CASES)
def test_transforms_json(tmp_path, case):
    spoil, file, words = JSON_CASES[case]
    folder = write_transforms(tmp_path, [0.0, 1.0, 2.0, 3.0])
    spoil(folder)
    parser = SemFlowDataParserConfig(data=folder, eval_mode="all").setup()
    with pytest.raises(SceneDataError) as error:
        parser.get_dataparser_outputs("train")
    check_message(error, folder, file, words)


def test_a_root_of_scenes_is_explained(tmp_path):
    write_dynamic_scene(tmp_path)
    with pytest.raises(SceneDataError, match=r"pass one of the scenes in it as --data, for example .*Scene"):
        DynamicSceneDataParserConfig(data=tmp_path).setup().get_dataparser_outputs("train")


def test_good_scenes_pass(tmp_path):
    """The spoiled scenes above are good before they are spoiled."""
    DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)).setup().get_dataparser_outputs("val")
    folder = write_transforms(tmp_path / "json", [0.0, 1.0, 2.0, 3.0])
    SemFlowDataParserConfig(data=folder, eval_mode="all").setup().get_dataparser_outputs("train")
    assert Image.open(folder / "images/000.png").size == (WIDTH, HEIGHT)
    assert json.loads((folder / "transforms.json").read_text())["frames"]
