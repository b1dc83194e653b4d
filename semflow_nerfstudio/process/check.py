"""Checks of a scene from anywhere, in either layout, before it is trained on."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PureWindowsPath

import numpy as np
import torch

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.checks import SceneDataError, same_shape
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.data.layout import TestView, read_scene_folder
from semflow_nerfstudio.data.modalities import decode_labels, decode_mask, read_flow
from semflow_nerfstudio.data.records import FrameRecord
from semflow_nerfstudio.data.transforms_json import DISTORTION, TransformsFile, read_transforms
from semflow_nerfstudio.data.verification import common_size, verify_frames
from semflow_nerfstudio.process.pose_check import PoseCheck, check_poses
from semflow_nerfstudio.process.poses.track import scaled_intrinsics
from semflow_nerfstudio.process.summary import Summary, pose_errors
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

PATH_KEYS = ("file_path", "mask_path", "depth_file_path", "class_table", "ply_file_path")


@dataclass(frozen=True)
class SceneContents:
    """What both layouts hold, at the images' size and in the units of the poses."""

    images: list[Path]
    records: list[FrameRecord]
    size: tuple[int, int]
    cameras: FrameCameras
    classes: ClassTable | None
    successors: list[tuple[int, int]]
    """Every frame and the same camera's next frame."""
    bounds: tuple[float, float] | None
    layout: str
    views: list[TestView] = field(default_factory=list)
    """Held-out views."""


def check_scene(scene: Path, progress: Callable[[int, int], object] = lambda done, total: None) -> Summary:
    """Read everything in a scene once; find what is missing, what is broken, and whether the poses fit the pictures.

    What is wrong is told in the summary's `errors`; nothing is written.

    Args:
        scene: Folder with transforms.json, or in the Semantic Dynamic Scene layout.
        progress: Told how many pairs of frames have been compared.
    """
    summary = Summary(str(scene), 0, (0, 0), "not read", {}, PoseCheck([], 0.0, False, ""))
    try:
        found = read_scene(scene)
    except SceneDataError as error:
        summary.errors.append(str(error))
        return summary
    records, count = found.records, len(found.images)
    flows = {(a, b): records[a].flow_forward for a, b in found.successors}
    flows |= {(b, a): records[b].flow_backward for a, b in found.successors}
    geometry = sum(record.disparity is not None or record.depth is not None for record in records)
    summary.frames, summary.size, summary.poses = count, found.size, found.layout
    summary.counts = {
        "labels": (sum(record.labels is not None for record in records), count),
        "optical flow": (sum(path is not None for path in flows.values()), len(flows)),
        "motion masks": (sum(record.motion_mask is not None for record in records), count),
        "disparity or depth": (geometry, count),
        "near and far": (int(found.bounds is not None), 1),
    }
    if found.bounds is not None:
        summary.details["near and far"] = "{:.4g} to {:.4g}".format(*found.bounds)
    try:
        verify_frames(found.images, records, found.classes, set())
        held_out = [FrameRecord(labels=view.labels) for view in found.views]
        verify_frames([view.image for view in found.views], held_out, found.classes, set())
        _count_labels(found, summary)
        _count_motion(found, summary)
        _check_poses(found, {pair: path for pair, path in flows.items() if path is not None}, summary, progress)
    except SceneDataError as error:
        summary.errors.append(str(error))
    return summary


def _check_poses(
    found: SceneContents, flows: dict[tuple[int, int], Path], summary: Summary, progress: Callable[[int, int], object]
) -> None:
    pairs = [pair for pair in found.successors if pair in flows]
    pairs += [(b, a) for a, b in found.successors if (a, b) not in flows and (b, a) in flows]
    check = check_poses(found.cameras, pairs, lambda a, b: read_flow(flows[a, b], *found.size), progress)
    summary.pose_check = check
    summary.pair_names = [(found.images[error.frame].name, found.images[error.other].name) for error in check.errors]
    errors, warnings = pose_errors(check, summary.pair_names, "The poses")
    summary.errors += errors
    summary.warnings += warnings
    if flows and not check.errors:
        summary.warnings.append("The flow holds in too few places to compare the poses with it.")


def _count_labels(found: SceneContents, summary: Summary) -> None:
    """Which classes the labels show, and how much they leave out."""
    if found.classes is None:
        return
    counts = np.zeros(256, np.int64)
    for record in found.records:
        if record.labels is not None:
            counts += np.bincount(decode_labels(record.labels, found.classes).ravel(), minlength=256)
    if not counts.sum():
        return
    shares = counts / counts.sum()
    shown = [f"{name} {shares[i]:.1%}" for i, name in enumerate(found.classes.names)]
    summary.details["classes"] = ", ".join([*shown, f"ignored {shares[IGNORE_LABEL]:.1%}"])
    never = [name for i, name in enumerate(found.classes.names) if not counts[i]]
    if never:
        summary.warnings.append(f"No label shows {', '.join(never)}: these classes cannot be learned.")


def _count_motion(found: SceneContents, summary: Summary) -> None:
    masks = [record.motion_mask for record in found.records if record.motion_mask is not None]
    if masks:
        shares = [float((values >= full / 2).mean()) for values, full in map(decode_mask, masks)]
        summary.details["moving pixels"] = f"{np.mean(shares):.1%}"


def read_scene(scene: Path) -> SceneContents:
    """A scene in either layout.

    Raises:
        SceneDataError: it cannot be read.
    """
    return read_transforms_scene(scene) if has_transforms(scene) else _read_folder(scene)


def has_transforms(scene: Path) -> bool:
    """Whether a scene is one with a transforms.json, or that file."""
    return scene.suffix == ".json" or (scene / "transforms.json").is_file()


def _read_folder(scene: Path) -> SceneContents:
    """The Semantic Dynamic Scene layout."""
    folder = read_scene_folder(scene)
    poses, intrinsics = (torch.from_numpy(values) for values in (folder.cameras.poses, folder.cameras.intrinsics))
    return SceneContents(
        images=folder.images,
        records=folder.records,
        size=folder.size,
        cameras=FrameCameras(poses, intrinsics, *folder.size),
        classes=folder.classes,
        successors=list(pairwise(range(len(folder.images)))),
        bounds=(folder.cameras.near, folder.cameras.far),
        layout="poses_bounds.npy",
        views=folder.test_views,
    )


def read_transforms_scene(scene: Path) -> SceneContents:
    """A transforms.json scene.

    Raises:
        SceneDataError: also where it names files outside of its folder.
    """
    path = scene if scene.suffix == ".json" else scene / "transforms.json"
    check_paths(path)
    file = read_transforms(scene)
    images = [frame.image for frame in file.frames]
    size = common_size(images)
    tracks: dict[str, list[int]] = defaultdict(list)
    for index, frame in enumerate(file.frames):
        if not same_shape(size, frame.size):
            raise SceneDataError(
                f"{path} states {frame.size[0]:g}x{frame.size[1]:g} for {frame.image.name} but the image is "
                f"{size[0]}x{size[1]}: correct w, h and the focal lengths."
            )
        tracks[frame.camera].append(index)
    return SceneContents(
        images=images,
        records=[frame.record for frame in file.frames],
        size=size,
        cameras=_cameras(file, size),
        classes=file.classes,
        successors=[pair for track in tracks.values() for pair in pairwise(track)],
        bounds=None if file.near is None or file.far is None else (file.near, file.far),
        layout="transforms.json" + ("" if file.timed else ", without times: frames are taken as equidistant"),
    )


def _cameras(file: TransformsFile, size: tuple[int, int]) -> FrameCameras:
    """Cameras of the frames at the size of the images; keys for all frames win, as in the parser."""
    by_image = {file.path.parent / entry["file_path"]: {**entry, **file.meta} for entry in file.meta["frames"]}
    entries = [by_image[frame.image] for frame in file.frames]
    intrinsics = np.array([[entry[key] for key in ("fl_x", "fl_y", "cx", "cy")] for entry in entries], float)
    stated = np.array([frame.size for frame in file.frames])
    distortion = np.array([[float(entry.get(key, 0.0)) for key in DISTORTION] for entry in entries])
    return FrameCameras(
        torch.from_numpy(np.stack([frame.pose for frame in file.frames])),
        torch.from_numpy(scaled_intrinsics(intrinsics, stated, *size)),
        *size,
        distortion=torch.from_numpy(distortion) if distortion.any() else None,
    )


def check_paths(path: Path) -> None:
    """No file that a transforms.json names may lie outside of its folder: a scene from elsewhere could name any file.

    Raises:
        SceneDataError: naming the first such path.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # told by read_transforms, in its own words
    frames = meta.get("frames") if isinstance(meta, dict) else None
    entries = [meta, *(frames if isinstance(frames, list) else [])] if isinstance(meta, dict) else []
    for entry in entries:
        for key, value in entry.items() if isinstance(entry, dict) else ():
            if isinstance(value, str) and (key in PATH_KEYS or key.endswith("_path")) and _escapes(value):
                raise SceneDataError(
                    f"{path} names {value} as {key}, which lies outside of the scene's folder: copy the file into the "
                    "folder and write its path relative to it."
                )


def _escapes(name: str) -> bool:
    parts: Sequence[str] = os.path.normpath(name.replace("\\", "/")).split("/")
    return name.startswith("/") or bool(PureWindowsPath(name).drive) or parts[0] == ".."
