"""Reading and checking transforms.json with this project's additions (docs/semflow-data.schema.json)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from semflow_nerfstudio.data.checks import (
    SceneDataError,
    check_distinct_views,
    check_near_far,
    check_poses,
    require_file,
)
from semflow_nerfstudio.data.labels import ClassTable, make_class_table, read_label_map
from semflow_nerfstudio.data.records import FrameRecord

RECORD_KEYS = {
    "mask": "mask_path",
    "labels": "labels_path",
    "flow_forward": "flow_forward_path",
    "flow_backward": "flow_backward_path",
    "motion_mask": "motion_mask_path",
    "disparity": "disparity_path",
    "depth": "depth_path",
}
"""Keys of a frame by the field of FrameRecord; depth may also be under nerfstudio's own `depth_file_path`."""
INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
CAMERA_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE")
"""Camera models that the flow's projections know."""
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
"""OpenCV's coefficients, in nerfstudio's order."""
ORIENTATIONS = ("pca", "up", "vertical", "none")
"""nerfstudio's names for how it turns a scene."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class TransformsFrame:
    """One frame of the file."""

    image: Path
    time: float
    """In [0, 1] over the whole file."""
    camera: str
    record: FrameRecord
    pose: Float[np.ndarray, "3 4"]
    """Camera-to-world (OpenGL), in the file's units."""
    size: tuple[float, float]
    """Stated (width, height)."""


@dataclass(frozen=True)
class TransformsFile:
    """Contents of a transforms.json."""

    path: Path
    meta: Entry
    frames: list[TransformsFrame]
    """Sorted by time, then camera."""
    distinct_times: Float[np.ndarray, "T"]
    timed: bool
    """Whether the file has times; otherwise they follow the order of the file names."""
    classes: ClassTable | None
    near: float | None
    """Camera depths in the file's units."""
    far: float | None
    depth_unit: float | None
    """Units of the poses per unit of the depth files, if the file says so."""


def read_transforms(data: Path, labels: bool = True) -> TransformsFile:
    """Read a transforms.json (or the one in a folder) and check everything but the contents of the files it names.

    Without `labels`, classes and label files are passed over.

    Raises:
        SceneDataError: on anything missing, malformed or contradictory.
    """
    path = data if data.suffix == ".json" else data / "transforms.json"
    require_file(path, "cameras and times of the frames", "pass a folder that has one (or the file itself) as --data")
    meta = _parse(path)
    entries = meta.get("frames")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise SceneDataError(f"{path} has no frames: write a list `frames` with an object for every image.")
    names = [_string(path, entry, "file_path", f"frame {index}") for index, entry in enumerate(entries)]
    for index, name in enumerate(names):
        if name is None:
            raise SceneDataError(f"{path} has no file_path for frame {index}: name its image.")
    file_names = [name for name in names if name is not None]
    duplicates = {name for name in file_names if file_names.count(name) > 1} if len(set(names)) < len(names) else set()
    if duplicates:
        raise SceneDataError(f"{path} lists the image {min(duplicates)} more than once: remove all but one entry.")
    check_camera_model(path, meta)
    _check_transform(path, meta)
    poses = _poses(path, entries, file_names)
    sizes = [_check_intrinsics(path, meta, entry, name) for entry, name in zip(entries, file_names, strict=True)]
    cameras = [_camera_name(path, entry, name) for entry, name in zip(entries, file_names, strict=True)]
    times = _times(path, entries, file_names, cameras)
    timed = times is not None
    scaled = _scaled(times) if timed else _by_name(file_names)
    check_distinct_views(path, times if timed else scaled, cameras, file_names)
    for key in ("mask_path", "depth_file_path"):
        _check_all_or_none(path, entries, file_names, key)
    _check_split_lists(path, meta, set(file_names))

    folder = path.parent
    frames = []
    for index, (entry, name) in enumerate(zip(entries, file_names, strict=True)):
        require_file(folder / name, f"an image listed in {path.name}", "restore it or remove its entry")
        record = FrameRecord()
        for field, key in RECORD_KEYS.items():
            value = _string(path, entry, key, name)
            if value is None and field == "depth":
                value = _string(path, entry, "depth_file_path", name)
            if value is not None and (labels or field != "labels"):
                record = replace(record, **{field: folder / value})
        frames.append(TransformsFrame(folder / name, scaled[index], cameras[index], record, poses[index], sizes[index]))
    frames.sort(key=lambda frame: (frame.time, frame.camera))
    near, far = _near_far(path, meta)
    return TransformsFile(
        path=path,
        meta=meta,
        frames=frames,
        distinct_times=np.unique(np.array(scaled)),
        timed=timed,
        classes=_read_classes(path, meta) if labels else None,
        near=near,
        far=far,
        depth_unit=_positive(path, meta, "depth_unit_scale_factor"),
    )


def _parse(path: Path) -> Entry:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise SceneDataError(f"{path} is no valid JSON ({error}): correct that place.") from None
    if not isinstance(meta, dict):
        raise SceneDataError(f"{path} holds no JSON object: write one with a list `frames`.")
    return meta


def _string(path: Path, entry: Entry, key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise SceneDataError(f"{path} has {value!r} as {key} of {where}: write a file name, relative to that file.")
    return value


def _number(path: Path, value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SceneDataError(f"{path} has {value!r} as {key} of {where}: write a finite number.")
    return float(value)


def _positive(path: Path, meta: Entry, key: str) -> float | None:
    if meta.get(key) is None:
        return None
    value = _number(path, meta[key], key, "the scene")
    if value <= 0:
        raise SceneDataError(f"{path} has {key} {value:g}: write a positive number.")
    return value


def _check_transform(path: Path, meta: Entry) -> None:
    """What nerfstudio's parser takes as it is."""
    orientation = meta.get("orientation_override", "none")
    if orientation not in ORIENTATIONS:
        raise SceneDataError(
            f"{path} has orientation_override {orientation!r}: write one of {', '.join(ORIENTATIONS)}, or none."
        )
    if "applied_scale" in meta:
        _positive(path, meta, "applied_scale")
    if "applied_transform" in meta:
        try:
            matrix = np.array(meta["applied_transform"], dtype=np.float64)
        except (TypeError, ValueError):
            matrix = np.zeros(0)
        if matrix.shape != (3, 4) or not np.isfinite(matrix).all():
            raise SceneDataError(
                f"{path} has an applied_transform that is no 3x4 matrix of finite numbers: correct it."
            )


def check_camera_model(path: Path, meta: Entry) -> None:
    """Refuse camera models that projections do not know.

    Raises:
        SceneDataError: naming those that they know.
    """
    model = meta.get("camera_model", "OPENCV")
    if model not in CAMERA_MODELS:
        raise SceneDataError(
            f"{path} has camera_model {model!r} but only {', '.join(CAMERA_MODELS)} are supported: undistort the "
            "images to a pinhole camera."
        )


def _poses(path: Path, entries: list[Entry], names: list[str]) -> Float[np.ndarray, "N 3 4"]:
    poses = []
    for entry, name in zip(entries, names, strict=True):
        try:
            pose = np.array(entry.get("transform_matrix"), dtype=np.float64)
        except (TypeError, ValueError):
            pose = np.zeros(0)
        if pose.shape != (4, 4):
            raise SceneDataError(
                f"{path} has no 4x4 transform_matrix for frame {name}: write its camera-to-world matrix (OpenGL axes)."
            )
        poses.append(pose[:3])
    check_poses(path, np.stack(poses), names)
    return np.stack(poses)


def _check_intrinsics(path: Path, meta: Entry, entry: Entry, name: str) -> tuple[float, float]:
    for key in INTRINSICS:
        source = meta if key in meta else entry
        if key not in source:
            raise SceneDataError(f"{path} has no {key} for frame {name}: write it there or once for all frames.")
        value = _number(path, source[key], key, f"frame {name}")
        if key not in ("cx", "cy") and value <= 0:
            raise SceneDataError(f"{path} has {key} {value:g} for frame {name}: write a positive number of pixels.")
    for key in DISTORTION:
        if key in meta or key in entry:
            _number(path, (meta if key in meta else entry)[key], key, f"frame {name}")
    width, height = ((meta if key in meta else entry)[key] for key in ("w", "h"))
    return float(width), float(height)


def _camera_name(path: Path, entry: Entry, name: str) -> str:
    camera = entry.get("camera", "")
    if not isinstance(camera, str | int) or isinstance(camera, bool):
        raise SceneDataError(f"{path} has {camera!r} as camera of frame {name}: write a name.")
    return str(camera)


def _times(path: Path, entries: list[Entry], names: list[str], cameras: list[str]) -> list[float] | None:
    have = [entry.get("time") is not None for entry in entries]
    if not any(have):
        if len(set(cameras)) > 1:
            raise SceneDataError(f"{path} names several cameras but no times: write a time for every frame.")
        return None
    if not all(have):
        raise SceneDataError(
            f"{path} has a time for {sum(have)} of {len(have)} frames, but none for {names[have.index(False)]}: write "
            "one for every frame or for none."
        )
    return [_number(path, entry["time"], "time", f"frame {name}") for entry, name in zip(entries, names, strict=True)]


def _scaled(times: list[float]) -> list[float]:
    first, span = min(times), max(times) - min(times)
    return [(time - first) / span if span else 0.0 for time in times]


def _by_name(names: list[str]) -> list[float]:
    """Equidistant times in the order of the file names, frame_10 after frame_9."""

    def natural(index: int) -> list[tuple[bool, int, str]]:
        parts = re.split(r"(\d+)", names[index])
        return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts if part]

    times = [0.0] * len(names)
    for rank, index in enumerate(sorted(range(len(names)), key=natural)):
        times[index] = rank / max(len(names) - 1, 1)
    return times


def _check_all_or_none(path: Path, entries: list[Entry], names: list[str], key: str) -> None:
    have = [key in entry for entry in entries]
    if any(have) and not all(have):
        other = ", or use depth_path, which single frames may have" if key == "depth_file_path" else ""
        raise SceneDataError(
            f"{path} has {key} for {sum(have)} of {len(have)} frames, but not for {names[have.index(False)]}: "
            f"nerfstudio wants it for all frames or for none{other}."
        )
    if any(have):
        for entry, name in zip(entries, names, strict=True):
            value = _string(path, entry, key, name)
            file = path.parent / (value or "")
            require_file(file, f"{key} of {name} in {path.name}", "restore it or remove that key from all frames")


def _check_split_lists(path: Path, meta: Entry, names: set[str]) -> None:
    lists = {key: meta[key] for key in ("train_filenames", "val_filenames", "test_filenames") if key in meta}
    if lists and len(lists) < 3:
        missing = {"train_filenames", "val_filenames", "test_filenames"} - lists.keys()
        raise SceneDataError(f"{path} has {min(lists)} but no {min(missing)}: write all three lists or none.")
    for key, listed in lists.items():
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise SceneDataError(f"{path} has {listed!r} as {key}: write a list of file names.")
        for name in listed:
            if name not in names:
                raise SceneDataError(f"{path} lists {name} in {key} but has no such frame: correct the name.")


def _near_far(path: Path, meta: Entry) -> tuple[float | None, float | None]:
    if "near" not in meta and "far" not in meta:
        return None, None
    if "near" not in meta or "far" not in meta:
        raise SceneDataError(f"{path} has only one of near and far: write both camera depths or none.")
    near, far = (_number(path, meta[key], key, "the scene") for key in ("near", "far"))
    check_near_far(path, near, far, "the scene")
    return near, far


def _read_classes(path: Path, meta: Entry) -> ClassTable | None:
    table, entries = _string(path, meta, "class_table", "the scene"), meta.get("classes")
    if table is not None and entries is not None:
        raise SceneDataError(f"{path} has both classes and class_table: keep one of them.")
    if table is not None:
        file = path.parent / table
        require_file(file, f"the class table of {path.name}", "restore it or write `classes` into that file")
        return read_label_map(file, file.parent / "foreground_object.txt")
    if entries is None:
        return None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise SceneDataError(f"{path} has malformed classes: write a list of objects, each with a `name`.")
    names = [entry["name"] for entry in entries]
    given = [entry.get("color") for entry in entries]
    if any(color is not None for color in given) and None in given:
        name = names[given.index(None)]
        raise SceneDataError(f"{path} has no color for class {name}: give all classes a color or none.")
    for name, color in zip(names, given, strict=True):
        fits = isinstance(color, list) and len(color) == 3
        if color is not None and not (fits and all(type(part) is int and 0 <= part <= 255 for part in color)):
            raise SceneDataError(f"{path} has {color!r} as color of class {name}: write [red, green, blue], 0 to 255.")
    colors = None if None in given or not given else [(color[0], color[1], color[2]) for color in given if color]
    return make_class_table(path, names, colors, [entry["name"] for entry in entries if entry.get("foreground")])
