"""From datasets to what the model is told: completed cameras, and one `SceneFrames` per scene."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data import scene_units
from semflow_nerfstudio.data.dataset import SemFlowDataset
from semflow_nerfstudio.data.disparity_alignment import FrameObservation, align_disparity
from semflow_nerfstudio.data.records import SceneRecord
from semflow_nerfstudio.data.resize import resize_area
from semflow_nerfstudio.scene_frames import SceneFrames

DEFAULT_SCENE = "scene"
"""Name of the only scene of a parser that names none."""
SPLITS = ("train", "val", "test")
_UNAVAILABLE = (OSError, KeyError, ValueError, AssertionError, RuntimeError)


def complete_cameras(train: SemFlowDataset, evaluation: SemFlowDataset, parser: DataParser, eval_split: str) -> None:
    """Give the cameras of both datasets what the model relies on: float32, `times` (N, 1) in [0, 1], a scene index.

    Cameras without times get equidistant ones, in the order of their files over all splits together.
    """
    datasets = (train, evaluation)
    for dataset in datasets:
        for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "distortion_params", "times"):
            value = getattr(dataset.cameras, name)
            if value is not None:
                setattr(dataset.cameras, name, value.float())
        if dataset.cameras.times is not None:
            dataset.cameras.times = dataset.cameras.times.reshape(-1, 1)  # a single camera's stay 1-D
    if any((dataset.cameras.camera_type != CameraType.PERSPECTIVE.value).any() for dataset in datasets):
        CONSOLE.print("[yellow]Some cameras are not pinhole cameras: their frames are projected into as if they were.")
    if train.scenes is not None:
        return
    splits = {"train": train._dataparser_outputs, eval_split: evaluation._dataparser_outputs}
    splits |= _other_splits(parser, [split for split in SPLITS if split not in splits])
    if any(outputs.cameras.times is None for outputs in splits.values()):
        times = _file_order_times([path for outputs in splits.values() for path in outputs.image_filenames])
        for dataset in datasets:
            frame_times = [times[Path(path)] for path in dataset.image_filenames]
            dataset.cameras.times = torch.tensor(frame_times, dtype=torch.float32).reshape(-1, 1)
        distinct = torch.tensor(sorted(set(times.values())), dtype=torch.float32)
        CONSOLE.print("The cameras have no times: frames in the order of their files are taken as equidistant in time.")
    else:
        distinct = torch.cat([_times(outputs.cameras) for outputs in splits.values()]).unique()
        first, last = float(distinct[0]), float(distinct[-1])
        if first < 0 or last > 1:
            span = (last - first) or 1.0
            for dataset in datasets:
                assert dataset.cameras.times is not None
                dataset.cameras.times = (dataset.cameras.times - first) / span
            distinct = (distinct - first) / span
            CONSOLE.print(f"Times from {first:g} to {last:g} are scaled to 0 to 1.")
    box = _seen_box(train, [outputs.cameras for outputs in splits.values()])
    for dataset in datasets:
        scene = torch.zeros((len(dataset), 1), dtype=torch.int64)
        dataset.cameras.metadata = {**(dataset.cameras.metadata or {}), "scene": scene}
        dataset.scenes = [_only_scene(dataset, train, distinct, box)]


def _times(cameras: Cameras) -> Float[Tensor, "N"]:
    assert cameras.times is not None
    return cameras.times.float().reshape(-1)


def _other_splits(parser: DataParser, names: Sequence[str]) -> dict[str, DataparserOutputs]:
    splits = {}
    for name in names:
        try:
            splits[name] = parser.get_dataparser_outputs(split=name)
        except _UNAVAILABLE:
            continue  # not every data set has every split; what it lacks has no times
    return splits


def _file_order_times(paths: Sequence[Path]) -> dict[Path, float]:
    """Equidistant times in [0, 1] of the distinct files, numbers in their names compared as numbers."""

    def order(path: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", str(path))
        return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]

    files = sorted({Path(path) for path in paths}, key=order)
    return {path: index / max(len(files) - 1, 1) for index, path in enumerate(files)}


def _seen_box(train: SemFlowDataset, cameras: Sequence[Cameras]) -> Float32[np.ndarray, "2 3"] | None:
    """The cube around all that pinhole cameras see between near and far along their rays; None where that is not known.

    A parser's own box may be many times as large, and would leave the scene a corner of the fields' grids.
    """
    near, far = _near_far(train)
    if near is None or far is None or any((c.camera_type != CameraType.PERSPECTIVE.value).any() for c in cameras):
        return None
    corners = []
    for part in cameras:
        size = torch.cat([part.width, part.height] * 2, dim=-1)
        intrinsics = torch.cat([part.fx, part.fy, part.cx, part.cy], dim=-1) / size
        rays = scene_units.corner_rays(intrinsics.double().numpy(), 1.0, 1.0)
        poses = part.camera_to_worlds[:, :3].double().numpy()
        corners.append(scene_units.frustum_points(poses, rays, near / scene_units.longest_ray(rays), far))
    center, scale = scene_units.fit_unit_box(np.concatenate(corners))
    return np.stack([center - 1 / scale, center + 1 / scale]).astype(np.float32)


def _near_far(dataset: SemFlowDataset) -> tuple[float | None, float | None]:
    near, far = dataset.metadata.get("near"), dataset.metadata.get("far")
    return None if near is None else float(near), None if far is None else float(far)


def _only_scene(
    dataset: SemFlowDataset,
    train: SemFlowDataset,
    distinct_times: Float[Tensor, "T"],
    box: Float32[np.ndarray, "2 3"] | None,
) -> SceneRecord:
    """The record of a parser that knows no scenes: neighbours in time where every time has one training frame."""
    assert dataset.cameras.times is not None and train.cameras.times is not None
    following = np.full(len(dataset), -1)
    previous = np.full(len(dataset), -1)
    train_times = train.cameras.times[:, 0]
    order = train_times.argsort()
    if len(train_times.unique()) == len(train_times) and dataset is train:
        following[order[:-1]], previous[order[1:]] = order[1:], order[:-1]
    near, far = _near_far(dataset)
    return SceneRecord(
        name=DEFAULT_SCENE,
        classes=dataset.classes[0],
        distinct_times=distinct_times.numpy(),
        next_frame=following,
        previous_frame=previous,
        near=near,
        far=far,
        bounded=None if box is None else True,
        box=box,
        frame_range=(0, len(dataset)),
    )


def frame_cameras(dataset: SemFlowDataset, first: int, last: int) -> FrameCameras:
    """Pinhole cameras of frames first..last-1 of a dataset."""
    cameras = dataset.cameras
    intrinsics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], dim=-1)[first:last]
    distortion = cameras.distortion_params
    if distortion is not None:
        distortion = distortion[first:last].float()
        distortion = distortion if bool(distortion.any()) else None
    width, height = dataset.size(first)
    return FrameCameras(cameras.camera_to_worlds[first:last].float(), intrinsics.float(), width, height, distortion)


def assemble_scene(
    dataset: SemFlowDataset, scene: int, width_cap: int, images: UInt8[Tensor, "N H W 3"] | None = None
) -> SceneFrames:
    """What the model is told about one scene of the completed training dataset; see `SceneFrames`.

    Images wider than `width_cap` are scaled down to it. Where all of the dataset's `images` have been read already,
    those that need no scaling are neither read again nor copied.
    """
    assert dataset.scenes is not None and dataset.cameras.times is not None
    record = dataset.scenes[scene]
    first, last = record.frame_range
    cameras = frame_cameras(dataset, first, last)
    if cameras.width > width_cap:
        cameras = cameras.scaled_to(width_cap, max(round(cameras.height * width_cap / cameras.width), 1))
    outputs = dataset._dataparser_outputs
    box = dataset.scene_box.aabb.float() if record.box is None else _float(record.box)
    bounded = record.bounded
    if bounded is None:
        origins = cameras.camera_to_worlds[:, :, 3]
        outside = ((origins < box[0]) | (origins > box[1])).any(-1).all()  # they look at an object in the box
        bounded = bool(outside)
    frames = dataset.frames[first:last]
    names = ("labels", "motion_mask", "disparity", "depth")
    present = {name for name in names if any(getattr(frame, name) for frame in frames)}
    if any(frame in dataset.derived_motion for frame in range(first, last)):
        present.add("motion_mask")
    if any(frame.flow_forward or frame.flow_backward for frame in frames):
        present.add("flow")
    if "depth" in present or scene in dataset.alignments:
        present.add("inverse_depth")
    classes = dataset.table
    alpha_color = outputs.alpha_color
    white = alpha_color is not None and bool((alpha_color == 1).all())
    if images is None or images.shape[1:3] != (cameras.height, cameras.width):
        images = _images(dataset, range(first, last), cameras.width, cameras.height)
    else:
        images = images[first:last]
    result = SceneFrames(
        name=record.name,
        cameras=cameras,
        images=images,
        times=dataset.cameras.times[first:last, 0],
        distinct_times=_float(record.distinct_times),
        next_frame=_int(record.next_frame),
        previous_frame=_int(record.previous_frame),
        camera=None if record.camera is None else _int(record.camera),
        aabb=box,
        bounded=bounded,
        near=record.near,
        far=record.far,
        world_scale=float(outputs.dataparser_scale) if record.scale is None else record.scale,
        world_transform=outputs.dataparser_transform.float() if record.transform is None else _float(record.transform),
        background_color=(1.0, 1.0, 1.0) if white else (0.0, 0.0, 0.0),
        opaque=dataset.see_through.isdisjoint(range(first, last)),
        has=frozenset(present),
    )
    if classes is not None:
        result.class_names = classes.names
        result.class_colors = _float(classes.colors) / 255.0
        result.foreground = torch.from_numpy(np.asarray(classes.foreground, bool))
    return result


def labelled_classes(dataset: SemFlowDataset, scene: int) -> Bool[Tensor, "C"] | None:
    """The classes that the labels of a scene's frames show; None where it has no labels, or no label is of a class.

    A class table often names classes for a whole data set, so it does not tell.
    """
    table, (first, last) = dataset.table, dataset.frame_range(scene)
    labelled = [index for index in range(first, last) if dataset.frames[index].labels is not None]
    if table is None or not labelled:
        return None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = set().union(*pool.map(lambda index: np.unique(dataset.label_image(index)).tolist(), labelled))
    shown = torch.tensor([index in found for index in range(len(table))])
    return shown if bool(shown.any()) else None


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32).copy())


def _int(values: np.ndarray) -> Int[Tensor, "N"]:
    return torch.from_numpy(np.asarray(values, np.int64).copy())


def _images(dataset: SemFlowDataset, frames: range, width: int, height: int) -> UInt8[Tensor, "N H W 3"]:
    """8-bit images of the given frames, one read at a time so that only the scaled ones are held."""
    images = torch.empty((len(frames), height, width, 3), dtype=torch.uint8)
    for slot, index in enumerate(frames):
        image = dataset.get_image_uint8(index)
        if image.shape[:2] != (height, width):
            image = torch.from_numpy(resize_area(image.numpy(), width, height)).round()
        images[slot] = image
    return images


def align_scenes(dataset: SemFlowDataset) -> None:
    """Align the disparity of every scene that has some and has optical flow; says how well, and where it cannot.

    The results go to `dataset.alignments` (from then on items have `inverse_depth`) and, by the scenes' names, to
    `dataset.metadata["alignment"]`.
    """
    assert dataset.scenes is not None and dataset.cameras.times is not None
    dataset.metadata["alignment"] = {}
    for scene, record in enumerate(dataset.scenes):
        first, last = record.frame_range
        frames = dataset.frames[first:last]
        if all(frame.disparity is None or frame.depth is not None for frame in frames):
            continue
        alignment = None
        if any(frame.flow_forward or frame.flow_backward for frame in frames):
            alignment = align_disparity(
                frame_cameras(dataset, first, last),
                dataset.cameras.times[first:last, 0].double().numpy(),
                record.next_frame,
                record.previous_frame,
                partial(_observation, dataset, first),
            )
        if alignment is None:
            CONSOLE.print(
                f"{record.name}: the disparity stays without scale, for want of static points seen from two places.",
                markup=False,
            )
            continue
        dataset.alignments[scene] = alignment
        dataset.metadata["alignment"][record.name] = alignment
        residual = 100 * float(np.nanmedian(alignment.residual))
        CONSOLE.print(
            f"{record.name}: disparity aligned to {int(alignment.inliers.sum())} static points, which it leaves at a "
            f"median difference of {residual:.1f} % in depth.",
            markup=False,
        )


def _observation(dataset: SemFlowDataset, first: int, frame: int) -> FrameObservation:
    return dataset.observation(first + frame)
