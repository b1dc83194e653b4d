"""Cameras with their times: transforms.json, NPZ and TUM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from semflow_nerfstudio.export.files import write_arrays, write_bytes, write_json
from semflow_nerfstudio.export.views import ExportView, Units3D

OPENCV = np.diag([1.0, -1.0, -1.0])
"""From OpenGL's camera axes (x right, y up, z backwards) to OpenCV's (x right, y down, z forward)."""


def write_cameras(
    folder: Path,
    views: Sequence[ExportView],
    units: Units3D,
    files: dict[str, str] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write the cameras of views in three formats.

    * `transforms.json`: nerfstudio's format (OpenGL axes) with times, for `semflow-data` and `nerfstudio-data`;
    * `cameras.npz`: camera_to_worlds (N, 4, 4) with OpenGL axes, intrinsics (N, 4) fx fy cx cy, sizes (N, 2) and
      times (N);
    * `trajectory.txt`: TUM lines `time x y z qx qy qz qw`, camera-to-world with OpenCV axes.

    Args:
        folder: Where.
        views: The cameras.
        units: Of the positions.
        files: Keys of a frame in transforms.json and patterns of the files they name, with NAME for the view's.
        extra: More keys of transforms.json.
    """
    poses = np.stack([units.pose(entry.view.camera_to_world) for entry in views])
    frames = []
    for entry, pose in zip(views, poses, strict=True):
        view = entry.view
        frame: dict[str, Any] = {
            "file_path": f"images/{entry.name}.png",
            **{key: pattern.replace("NAME", entry.name) for key, pattern in (files or {}).items()},
            **{"fl_x": view.fx, "fl_y": view.fy, "cx": view.cx, "cy": view.cy, "w": view.width, "h": view.height},
            "time": view.time,
            "transform_matrix": pose.tolist(),
        }
        frames.append(frame)
    write_json(folder / "transforms.json", {"camera_model": "PINHOLE", **(extra or {}), "frames": frames})
    write_arrays(
        folder / "cameras.npz",
        camera_to_worlds=poses,
        intrinsics=np.array([[v.view.fx, v.view.fy, v.view.cx, v.view.cy] for v in views]),
        sizes=np.array([[v.view.width, v.view.height] for v in views]),
        times=np.array([v.view.time for v in views]),
    )
    lines = ["# time tx ty tz qx qy qz qw (camera to world, x right, y down, z forward)"]
    for entry, pose in zip(views, poses, strict=True):
        quaternion = Rotation.from_matrix(pose[:3, :3] @ OPENCV).as_quat()
        lines.append(" ".join(f"{value:.9g}" for value in [entry.view.time, *pose[:3, 3], *quaternion]))
    write_bytes(folder / "trajectory.txt", ("\n".join(lines) + "\n").encode())
