"""The transforms.json of a processed scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semflow_nerfstudio.data.transforms_json import DISTORTION
from semflow_nerfstudio.process.frames import IMAGES, Frames
from semflow_nerfstudio.process.labels.found import ImportedLabels
from semflow_nerfstudio.process.optical_flow import Flows
from semflow_nerfstudio.process.poses.track import PoseTrack

INTRINSICS = ("fl_x", "fl_y", "cx", "cy")


def transforms(
    scene: Path,
    frames: Frames,
    track: PoseTrack,
    flows: Flows,
    masks: Sequence[Path | None],
    disparity: Sequence[Path | None],
    bounds: tuple[float, float] | None,
    labels: ImportedLabels | None,
) -> dict[str, Any]:
    """Everything that docs/semflow-data.schema.json describes and that there is; paths are relative to the scene."""
    cameras = [_camera(track, index) for index in range(len(frames.frames))]
    shared = all(camera == cameras[0] for camera in cameras)
    content: dict[str, Any] = {"camera_model": "OPENCV", "w": frames.width, "h": frames.height}
    if shared:
        content |= cameras[0]
    if bounds is not None:
        content |= {"near": bounds[0], "far": bounds[1]}
    if labels is not None:
        content["classes"] = list(labels.classes)
    entries = []
    for index, frame in enumerate(frames.frames):
        pose = np.vstack([track.poses[index], [0.0, 0.0, 0.0, 1.0]])
        paths = {
            "labels_path": None if labels is None else labels.files.get(frame.name),
            "instances_path": None if labels is None else labels.instances.get(frame.name),
            "motion_mask_path": masks[index],
            "flow_forward_path": flows.path(index, index + 1) if index + 1 < len(frames.frames) else None,
            "flow_backward_path": flows.path(index, index - 1) if index > 0 else None,
            "disparity_path": disparity[index],
        }
        entries.append(
            {"file_path": f"{IMAGES}/{frame.name}", "time": frame.time, "transform_matrix": pose.tolist()}
            | ({} if shared else cameras[index])
            | {key: path.relative_to(scene).as_posix() for key, path in paths.items() if path is not None}
        )
    content["frames"] = entries
    return content


def _camera(track: PoseTrack, index: int) -> dict[str, float]:
    camera: dict[str, float] = dict(zip(INTRINSICS, track.intrinsics[index].tolist(), strict=True))
    if track.distortion is not None:
        camera |= dict(zip(DISTORTION, track.distortion[index].tolist(), strict=True))
    return camera
