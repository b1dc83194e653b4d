"""Poses from files: transforms.json, LLFF, JSON with 3x5 matrices, TUM trajectories, COLMAP models.

Names in these files are compared with the frames' names; no file that they name is ever opened.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from semflow_nerfstudio.data.checks import SceneDataError, check_poses, same_shape
from semflow_nerfstudio.data.files import load_arrays
from semflow_nerfstudio.data.transforms_json import DISTORTION, check_camera_model
from semflow_nerfstudio.process.frames import Frames
from semflow_nerfstudio.process.poses.colmap_model import MODEL_FILES, read_model
from semflow_nerfstudio.process.poses.track import FLIP, PoseTrack, scaled_intrinsics

KNOWN_FILES = ("transforms.json", "poses_bounds.npy", "precomputed.json", "sparse/0", "0")
MAX_BYTES = 200_000_000


def file_poses(path: Path, frames: Frames, focal: float | None) -> PoseTrack:
    """Cameras of the frames from a file or a COLMAP model's folder.

    Args:
        path: transforms.json; poses_bounds.npy (LLFF); JSON with `poses` (N x 3 x 5, [R t hwf], OpenGL axes); a text
            file of `time x y z qx qy qz qw` lines (TUM); a folder that holds one of these, or a COLMAP model.
        frames: The frames, which poses are matched with by name, else by their place in the video or folder.
        focal: Focal length in pixels of the source, for files that state none.

    Raises:
        SceneDataError: nothing known is there, it is broken, or it does not fit the frames.
    """
    found = find_file(path)
    if found.is_dir():
        places = {frame.name: index for index, frame in enumerate(frames.frames)}
        sources = {frame.source: index for index, frame in enumerate(frames.frames)}
        return read_model(found, sources | places, frames)
    if found.stat().st_size > MAX_BYTES:
        raise SceneDataError(f"{found} has {found.stat().st_size:,} bytes: pass a file with the poses of this clip.")
    if found.suffix.lower() == ".npy":
        return _llff(found, frames)
    if found.suffix.lower() == ".json":
        content = _parse(found)
        return _transforms(found, content, frames) if "frames" in content else _matrices(found, content, frames)
    return _tum(found, frames, focal)


def find_file(path: Path) -> Path:
    """The file (or COLMAP model's folder) that a path stands for.

    Raises:
        SceneDataError: there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise SceneDataError(f"--poses {path} does not exist: use colmap, static, or a file with poses.")
    if any((path / name).is_file() for name in MODEL_FILES):
        return path
    for name in KNOWN_FILES:
        if (path / name).exists():
            return find_file(path / name)
    raise SceneDataError(f"{path} holds no poses that are known ({', '.join(KNOWN_FILES)}): pass the file itself.")


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SceneDataError(f"{path} is no valid JSON ({error}): export it again.") from None
    if not isinstance(content, dict) or not any(isinstance(content.get(key), list) for key in ("frames", "poses")):
        raise SceneDataError(f"{path} has neither a list `frames` (transforms.json) nor `poses` (N x 3 x 5).")
    return content


def rows_of_frames(path: Path, frames: Frames, count: int, names: Sequence[str] = (), what: str = "poses") -> list[int]:
    """Which of the file's `count` poses belongs to each frame; -1: none.

    By file name where the file's names are those of the images, else by place in the video or folder, else, where
    there are as many poses as frames were taken, by order.
    """
    stems = [stem(name) for name in names]
    by_name = {} if len(set(stems)) < len(stems) else {name: row for row, name in enumerate(stems)}
    rows = [by_name.get(stem(frame.name), -1) for frame in frames.frames]
    if by_name and sum(row >= 0 for row in rows) >= len(rows) / 2:
        return rows
    if count == frames.source_count:
        return [frame.source_index for frame in frames.frames]
    if count == len(frames.frames):
        return list(range(count))
    named = f" whose names are not like {frames.frames[0].name}" if names else ""
    raise SceneDataError(
        f"{path} has {count} {what}{named}, but there are {frames.source_count} frames (of which {len(frames.frames)} "
        f"were taken): pass {what} of all frames."
    )


def stem(name: str) -> str:
    """A file's name without folders and ending, whatever system wrote it; only ever compared."""
    return PurePosixPath(PureWindowsPath(name).name).stem


def _track(
    path: Path,
    frames: Frames,
    rows: Sequence[int],
    poses: Float[np.ndarray, "M 3 4"],
    intrinsics: Float[np.ndarray, "M 4"],
    sizes: Float[np.ndarray, "M 2"],
    distortion: Float[np.ndarray, "M 6"] | None = None,
    depth_range: tuple[float, float] | None = None,
) -> PoseTrack:
    """Check the rows that are used, bring intrinsics to the size of the scene's images."""
    index = np.array(rows)
    known = index >= 0
    names = [frame.source for frame in frames.frames]
    check_poses(path, poses[index[known]], [name for name, ok in zip(names, known, strict=True) if ok])
    used, stated = intrinsics[index], sizes[index]
    if not (np.isfinite(used[known]).all() and (used[known, :2] > 0).all() and (stated[known] > 0).all()):
        raise SceneDataError(f"{path} has a focal length or image size that is not positive: write them in pixels.")
    for width, height in np.unique(stated[known], axis=0):
        if not same_shape((frames.source_width, frames.source_height), (width, height)):
            raise SceneDataError(
                f"{path} is for images of {width:g}x{height:g} but these are {frames.source_width}x"
                f"{frames.source_height}: pass poses of the same images, neither cropped nor turned."
            )
    return PoseTrack(
        method=f"{path.name}",
        poses=poses[index],
        intrinsics=scaled_intrinsics(used, stated, frames.width, frames.height),
        width=frames.width,
        height=frames.height,
        known=known,
        distortion=None if distortion is None or not distortion.any() else distortion[index],
        depth_range=depth_range,
    )


def _transforms(path: Path, content: Mapping[str, Any], frames: Frames) -> PoseTrack:
    """nerfstudio's (and instant-ngp's) transforms.json."""
    entries = content["frames"]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise SceneDataError(f"{path} has frames that are no objects: export it again.")
    for entry in entries:
        check_camera_model(path, {**entry, **content})
    names = [str(entry.get("file_path", "")) for entry in entries]
    poses, intrinsics, sizes, distortion = [], [], [], []
    for entry, name in zip(entries, names, strict=True):
        both = {**entry, **content}  # what is stated for all frames wins, as nerfstudio has it
        poses.append(_matrix(path, entry.get("transform_matrix"), (4, 4), name)[:3])
        size = [
            _number(path, both, key, name, default)
            for key, default in (("w", frames.source_width), ("h", frames.source_height))
        ]
        fx = _number(path, both, "fl_x", name, _of_angle(both.get("camera_angle_x"), size[0]))
        fy = _number(path, both, "fl_y", name, fx)
        intrinsics.append(
            [fx, fy, *(_number(path, both, k, name, s / 2) for k, s in zip(("cx", "cy"), size, strict=True))]
        )
        sizes.append(size)
        distortion.append([_number(path, both, key, name, 0.0) for key in DISTORTION])
    rows = rows_of_frames(path, frames, len(entries), names)
    cameras = np.array(poses), np.array(intrinsics), np.array(sizes), np.array(distortion)
    return _track(path, frames, rows, *cameras)


def _of_angle(angle: Any, width: float) -> float | None:
    fits = isinstance(angle, int | float) and 0 < angle < math.pi
    return width / 2 / math.tan(angle / 2) if fits else None


def _number(path: Path, entry: Mapping[str, Any], key: str, name: str, default: float | None) -> float:
    value = entry.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SceneDataError(f"{path} has {value!r} as {key} of frame {name}: write a finite number.")
    return float(value)


def _matrix(path: Path, value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != shape:
        raise SceneDataError(f"{path} has no {'x'.join(map(str, shape))} matrix for {name}: export it again.")
    return matrix


def _llff(path: Path, frames: Frames) -> PoseTrack:
    """poses_bounds.npy: rows of 3x5 [R t hwf], columns down, right, backwards, and two depths."""
    table = next(iter(load_arrays(path).values()))
    if table.ndim != 2 or table.shape[1] != 17:
        raise SceneDataError(f"{path} has shape {table.shape}: write one row of 17 numbers (LLFF) per image.")
    matrices = table[:, :15].reshape(-1, 3, 5).astype(np.float64)
    down, right, backwards, position, hwf = np.moveaxis(matrices, 2, 0)
    return _hwf_track(path, frames, np.stack([right, -down, backwards, position], axis=-1), hwf)


def _matrices(path: Path, content: Mapping[str, Any], frames: Frames) -> PoseTrack:
    """JSON with `poses`: N x 3 x 5, [R t hwf], OpenGL axes."""
    count = len(content["poses"])
    matrices = _matrix(path, content["poses"], (count, 3, 5), "`poses`")
    return _hwf_track(path, frames, matrices[:, :, :4], matrices[:, :, 4])


def _hwf_track(
    path: Path, frames: Frames, poses: Float[np.ndarray, "M 3 4"], hwf: Float[np.ndarray, "M 3"]
) -> PoseTrack:
    sizes = hwf[:, 1::-1]
    intrinsics = np.concatenate([hwf[:, 2:], hwf[:, 2:], sizes / 2], axis=1)
    return _track(path, frames, rows_of_frames(path, frames, len(poses)), poses, intrinsics, sizes)


def _tum(path: Path, frames: Frames, focal: float | None) -> PoseTrack:
    """`time x y z qx qy qz qw` lines, camera-to-world in OpenCV's axes, interpolated at the frames' times."""
    lines = [line.split() for line in _lines(path) if line.strip() and not line.lstrip().startswith("#")]
    try:
        table = np.array(lines, dtype=np.float64)
    except ValueError:
        table = np.zeros(0)
    if table.ndim != 2 or table.shape[1] != 8 or not np.isfinite(table).all():
        raise SceneDataError(f"{path} is no trajectory: write lines of eight numbers, time x y z qx qy qz qw (TUM).")
    if focal is None:
        raise SceneDataError(f"{path} states no focal length: give it in pixels of the video with --focal.")
    norms = np.linalg.norm(table[:, 4:], axis=1)
    if (np.abs(norms - 1) > 0.05).any() or (np.diff(table[:, 0]) <= 0).any():
        raise SceneDataError(
            f"{path} has times that do not rise or quaternions that are not of length 1: sort its lines by time, and "
            "export the quaternions as x y z w."
        )
    rotations, times = Rotation.from_quat(table[:, 4:]), table[:, 0]
    wanted = np.array([frame.time for frame in frames.frames])
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    inside = (wanted >= times[0] - gap) & (wanted <= times[-1] + gap)
    if inside.mean() < 0.5:
        rows = np.array(rows_of_frames(path, frames, len(times)))
        turned, position, known = rotations.as_matrix()[rows], table[rows, 1:4], np.ones(len(rows), bool)
    else:
        at, known = np.clip(wanted, times[0], times[-1]), inside
        turned = Slerp(times, rotations)(at).as_matrix() if len(times) > 1 else rotations.as_matrix()
        position = np.stack([np.interp(at, times, table[:, axis]) for axis in (1, 2, 3)], axis=-1)
    count, size = len(wanted), np.array([frames.source_width, frames.source_height], dtype=np.float64)
    poses = np.concatenate([turned @ FLIP, position[:, :, None]], axis=2)
    intrinsics = np.tile([focal, focal, *(size / 2)], (count, 1))
    rows = np.where(known, np.arange(count), -1).tolist()
    return _track(path, frames, rows, poses, intrinsics, np.tile(size, (count, 1)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise SceneDataError(
            f"{path} holds no poses that are known: pass transforms.json, poses_bounds.npy, a TUM trajectory (text) or "
            "the folder of a COLMAP model."
        ) from None
