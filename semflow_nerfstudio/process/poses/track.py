"""Cameras of a clip's frames, as every source of poses gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from semflow_nerfstudio.cameras import FrameCameras

FLIP = np.diag([1.0, -1.0, -1.0])
"""Turns OpenCV's camera axes (x right, y down, z forwards) into OpenGL's and back."""


@dataclass(frozen=True)
class PoseTrack:
    """Cameras of N frames."""

    method: str
    """Where they come from, in words."""
    poses: Float[np.ndarray, "N 3 4"]
    """Camera-to-world matrices, OpenGL axes, any unit."""
    intrinsics: Float[np.ndarray, "N 4"]
    """fx, fy, cx, cy in pixels of the scene's images."""
    width: int
    height: int
    """Size of the scene's images."""
    known: Bool[np.ndarray, "N"]
    """Which frames have a pose; the others' rows mean nothing."""
    distortion: Float[np.ndarray, "N 6"] | None = None
    """OpenCV k1, k2, k3, k4, p1, p2; None: no frame is distorted."""
    depth_range: tuple[float, float] | None = None
    """Nearest and farthest camera depth, where the source of the poses is to be trusted with it."""

    def cameras(self) -> FrameCameras:
        """The same cameras for geometry."""
        distortion = None if self.distortion is None else torch.from_numpy(self.distortion)
        return FrameCameras(
            torch.from_numpy(self.poses), torch.from_numpy(self.intrinsics), self.width, self.height, distortion
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "method": self.method,
            "poses": np.where(self.known[:, None, None], self.poses, 0.0).tolist(),
            "intrinsics": np.where(self.known[:, None], self.intrinsics, 1.0).tolist(),
            "width": self.width,
            "height": self.height,
            "known": self.known.tolist(),
            "distortion": None if self.distortion is None else self.distortion.tolist(),
            "depth_range": self.depth_range,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PoseTrack:
        """From what `to_json` gave."""
        arrays = {key: np.array(content[key], dtype=np.float64) for key in ("poses", "intrinsics")}
        distortion = content["distortion"]
        bounds = content["depth_range"]
        return cls(
            method=content["method"],
            width=content["width"],
            height=content["height"],
            known=np.array(content["known"], dtype=bool),
            distortion=None if distortion is None else np.array(distortion, dtype=np.float64),
            depth_range=None if bounds is None else (bounds[0], bounds[1]),
            **arrays,
        )


def scaled_intrinsics(
    intrinsics: Float[np.ndarray, "N 4"], stated: Float[np.ndarray, "N 2"], width: int, height: int
) -> Float[np.ndarray, "N 4"]:
    """fx, fy, cx, cy for images of another size than the stated (width, height); each axis by its own exact ratio."""
    ratio = np.array([width, height]) / stated
    return intrinsics * np.concatenate([ratio, ratio], axis=-1)
