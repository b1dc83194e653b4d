"""The files of the Semantic Dynamic Scene / DynamicNeRF folder layout, found by name and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from semflow_nerfstudio.data.checks import (
    SceneDataError,
    check_aspect,
    check_near_far,
    check_poses,
    require_file,
    same_shape,
)
from semflow_nerfstudio.data.files import load_arrays
from semflow_nerfstudio.data.labels import ClassTable, read_label_map
from semflow_nerfstudio.data.records import FrameRecord
from semflow_nerfstudio.data.verification import common_size

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
LABEL_FOLDER = "SegmentationClass_train"
TEST_FOLDER = "multiview_GT"
TEST_LABEL_FOLDER = "multiview_GT_semantic"

Key = int | str
"""What ties the files of one frame together: the number in their names, else the name itself."""


@dataclass(frozen=True)
class LLFFCameras:
    """Contents of poses_bounds.npy, in world units."""

    poses: Float[np.ndarray, "N 3 4"]
    """OpenGL camera-to-world matrices."""
    intrinsics: Float[np.ndarray, "N 4"]
    """fx, fy, cx, cy in pixels of the images' own size."""
    near: float
    """Smallest and largest camera depth, over all cameras."""
    far: float

    def same_camera(self, row: int, other: int) -> bool:
        """Whether two rows are one camera of the rig (a rig with fewer cameras than frames repeats them)."""
        return row == other or bool(np.allclose(self.poses[row], self.poses[other], rtol=0, atol=1e-6 * self.far))


@dataclass(frozen=True)
class TestView:
    """A held-out image: what camera `camera` (row of the poses) saw at time index `time`."""

    __test__ = False

    image: Path
    labels: Path | None
    camera: int
    time: int


@dataclass(frozen=True)
class SceneFolder:
    """Everything that a scene's folder holds; lists run over the T frames of the clip in order of time."""

    images: list[Path]
    records: list[FrameRecord]
    """With the label file of every frame that has one: the caller drops those that may not be seen."""
    size: tuple[int, int]
    """(width, height) of the images."""
    cameras: LLFFCameras
    classes: ClassTable | None
    test_views: list[TestView]


def read_scene_folder(folder: Path, labels: bool = True) -> SceneFolder:
    """Find and check a scene's files. Label images are listed, never opened; without `labels`, not even that.

    Raises:
        SceneDataError: on anything missing or contradictory.
    """
    require_file(folder / "poses_bounds.npy", "camera poses and depth bounds", _scene_hint(folder))
    image_folder = _image_folder(folder)
    by_key = _files_by_key(image_folder, IMAGE_SUFFIXES)
    if not by_key:
        raise SceneDataError(f"{image_folder} holds no .png or .jpg image: put the frames of the video there.")
    keys = sorted(by_key, key=_natural)
    images = [by_key[key] for key in keys]
    size = common_size(images)
    cameras = read_llff_cameras(folder / "poses_bounds.npy", images, size)
    return SceneFolder(
        images=images,
        records=_frame_records(folder, keys, image_folder, labels),
        size=size,
        cameras=cameras,
        classes=_read_classes(folder) if labels else None,
        test_views=_find_test_views(folder, len(images), size, labels),
    )


def read_llff_cameras(path: Path, images: list[Path], size: tuple[int, int]) -> LLFFCameras:
    """Read N x 17 poses_bounds.npy: 3x5 [R t hwf] with columns down, right, backwards; then near and far depth.

    Focal lengths are scaled from the size stated there to the images' `size`, per axis.

    Raises:
        SceneDataError: wrong shape or count, no numbers, no rotation, impossible bounds, focal lengths or sizes.
    """
    table = next(iter(load_arrays(path).values()))
    if table.ndim != 2 or table.shape[1] != 17:
        raise SceneDataError(f"{path} has shape {table.shape}: write one row of 17 numbers (LLFF) per image.")
    if len(table) != len(images):
        raise SceneDataError(
            f"{path} has {len(table)} poses but {images[0].parent} has {len(images)} images: give every image one pose."
        )
    table = table.astype(np.float64)
    matrices = table[:, :15].reshape(-1, 3, 5)
    down, right, backwards, position, hwf = np.moveaxis(matrices, 2, 0)
    poses = np.stack([right, -down, backwards, position], axis=-1)
    names = [image.name for image in images]
    check_poses(path, poses, names)
    if not (np.isfinite(hwf).all() and (hwf > 0).all()):
        raise SceneDataError(f"{path} has a height, width or focal length that is not positive: write them in pixels.")
    for name, near, far in zip(names, table[:, 15], table[:, 16], strict=True):
        check_near_far(path, near, far, f"frame {name}")
    width, height = size
    for stated_height, stated_width in np.unique(hwf[:, :2], axis=0):
        if not same_shape(size, (stated_width, stated_height)):
            raise SceneDataError(
                f"{path} states images of {stated_width:g}x{stated_height:g} but they are {width}x{height}: crop or "
                "scale them alike, or correct height, width and focal length there."
            )
    center = np.ones_like(hwf[:, :1])
    intrinsics = np.concatenate(
        [hwf[:, 2:] * width / hwf[:, 1:2], hwf[:, 2:] * height / hwf[:, :1], center * width / 2, center * height / 2],
        axis=1,
    )
    return LLFFCameras(poses, intrinsics, float(table[:, 15].min()), float(table[:, 16].max()))


def _scene_hint(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is no folder, pass the folder of a scene as --data"
    scenes = sorted(path.parent.name for path in folder.glob("*/poses_bounds.npy"))
    if scenes:
        several = f", or several of them with --scenes {' '.join(scenes[:2])}" if len(scenes) > 1 else ""
        return f"pass one of the scenes in it as --data, for example {folder / scenes[0]}{several}"
    return "estimate the cameras and save them in LLFF's format, or pass the folder of a scene as --data"


def _image_folder(folder: Path) -> Path:
    candidates = [folder / "images"]
    candidates += sorted(folder.glob("images_*"), key=lambda path: _natural(path.name))
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise SceneDataError(f"{candidates[0]} does not exist: put the frames of the video there.")


def _read_classes(folder: Path) -> ClassTable | None:
    for place in (folder, folder.parent):
        path = place / "labelmap.txt"
        if path.is_file():
            return read_label_map(path, place / "foreground_object.txt")
    for name in (LABEL_FOLDER, TEST_LABEL_FOLDER):
        if (folder / name).is_dir():
            raise SceneDataError(
                f"{folder.parent / 'labelmap.txt'} does not exist but {folder / name} holds labels: write one "
                "`name:red,green,blue::` line per class there."
            )
    return None


def _natural(key: Key) -> list[tuple[int, int, str]]:
    """Sorting key in which frame_10 comes after frame_9."""
    parts = re.split(r"(\d+)", str(key))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _files_by_key(folder: Path, suffixes: tuple[str, ...], ending: str = "") -> dict[Key, Path]:
    """Files of a folder by frame, of those whose stem ends with `ending`."""
    found: dict[Key, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in suffixes or not path.stem.endswith(ending) or path.name.startswith("."):
            continue
        stem = path.stem[: len(path.stem) - len(ending)]
        key = int(stem) if stem.isdecimal() else stem
        other = found.setdefault(key, path)
        if other != path:
            raise SceneDataError(f"{path} and {other.name} are both frame {stem}: remove or rename one of them.")
    return found


def _frame_records(folder: Path, keys: list[Key], image_folder: Path, with_labels: bool) -> list[FrameRecord]:
    def find(name: str, suffixes: tuple[str, ...], ending: str = "") -> dict[Key, Path]:
        files = _files_by_key(folder / name, suffixes, ending)
        for key in files.keys() - set(keys):
            raise SceneDataError(
                f"{files[key]} belongs to no image in {image_folder}: remove it or name it like its image."
            )
        return files

    labels = find(LABEL_FOLDER, (".png",)) if with_labels else {}
    masks = find("motion_masks", IMAGE_SUFFIXES)
    disparities = find("disp", (".npy", ".npz"))
    forward = find("flow", (".npz", ".npy", ".flo"), "_fwd")
    backward = find("flow", (".npz", ".npy", ".flo"), "_bwd")
    return [
        FrameRecord(
            labels=labels.get(key),
            flow_forward=forward.get(key) if key != keys[-1] else None,
            flow_backward=backward.get(key) if key != keys[0] else None,
            motion_mask=masks.get(key),
            disparity=disparities.get(key),
        )
        for key in keys
    ]


def _find_test_views(folder: Path, num_frames: int, size: tuple[int, int], with_labels: bool) -> list[TestView]:
    """Test views in order of time, then camera; numbers in their names count from 1."""
    views = []
    root = folder / TEST_FOLDER
    for time_folder in sorted(root.iterdir()) if root.is_dir() else []:
        if not (time_folder.is_dir() and time_folder.name.isdecimal()):
            continue
        label_folder = folder / TEST_LABEL_FOLDER / time_folder.name
        cameras = _files_by_key(time_folder, IMAGE_SUFFIXES)
        for key, path in sorted(cameras.items(), key=lambda item: _natural(item[0])):
            match = re.fullmatch(r"cam(\d+)", str(key))
            if match is None:
                raise SceneDataError(f"{path} is no test view: name it cam01, cam02, ... or remove it.")
            time, camera = int(time_folder.name) - 1, int(match.group(1)) - 1
            if not (0 <= time < num_frames and 0 <= camera < num_frames):
                raise SceneDataError(
                    f"{path} is camera {camera + 1} at time {time + 1} (counted from 1), but there are {num_frames} "
                    "poses and times: remove it or add what is missing."
                )
            twin = next((view.image for view in views if (view.time, view.camera) == (time, camera)), None)
            if twin is not None:
                raise SceneDataError(
                    f"{path} and {twin} are both of camera {camera + 1} at time {time + 1}: remove one."
                )
            labels = label_folder / f"{path.stem}.png"
            views.append(TestView(path, labels if with_labels and labels.is_file() else None, camera, time))
    if views:
        check_aspect(views[0].image, common_size([view.image for view in views]), size)
    return views
