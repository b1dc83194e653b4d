"""How far matches lie from where a camera motion lets them lie, in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.triangulation import camera_origin, camera_rays

SAME_PLACE = 1e-9
"""Cameras nearer to each other than this share of the poses' spread stand in one place."""
SAMPLES = 6000
"""Matches of a pair of frames that a motion is fitted to."""


@dataclass(frozen=True)
class Matches:
    """Pixels of one frame and where they are seen in another."""

    here: Float[np.ndarray, "P 2"]
    """(u, v), pixel centres at +.5."""
    there: Float[np.ndarray, "P 2"]

    @property
    def motion(self) -> float:
        """Median distance, pixels."""
        return float(np.median(np.linalg.norm(self.there - self.here, axis=-1))) if len(self.here) else 0.0


def all_matches(flow: Float[np.ndarray, "H W 2"]) -> Matches:
    """Matches of all pixels, row by row."""
    height, width = flow.shape[:2]
    v, u = np.mgrid[:height, :width]
    here = np.stack([u, v], axis=-1).reshape(-1, 2) + 0.5
    return Matches(here, here + flow.reshape(-1, 2).astype(np.float64))


def some_matches(flow: Float[np.ndarray, "H W 2"], valid: Bool[np.ndarray, "H W"], count: int = SAMPLES) -> Matches:
    """About `count` matches where the flow is valid, on a regular grid."""
    height, width = flow.shape[:2]
    stride = max(1, int(np.sqrt(height * width / count)))
    rows, columns = np.nonzero(valid[stride // 2 :: stride, stride // 2 :: stride])
    rows, columns = rows * stride + stride // 2, columns * stride + stride // 2
    here = np.stack([columns, rows], axis=-1) + 0.5
    return Matches(here, here + flow[rows, columns].astype(np.float64))


@dataclass(frozen=True)
class Explanation:
    """What a camera motion says about P matches."""

    distance: Float[np.ndarray, "P"]
    """How far each is off, in pixels: Sampson distance, as if half of the mismatch belonged to each image."""
    correction: Float[np.ndarray, "P 2"]
    """From where it is seen in the other image to the nearest place that the motion allows, in pixels."""
    along: Float[np.ndarray, "P 2"]
    """Direction in which all other allowed places lie; zero where there is only one place."""


def pose_explains(cameras: FrameCameras, frame: int, other: int, matches: Matches) -> Explanation:
    """Compare matches to the epipolar geometry of two posed cameras.

    Where both cameras stand in one place there are no epipolar lines: then only the place that the rotation leads to is
    allowed.
    """
    rotation = cameras.camera_to_worlds[other, :, :3].double().numpy()
    offset = (camera_origin(cameras, frame) - camera_origin(cameras, other)) @ rotation
    rays = camera_rays(cameras, frame, matches.here) @ rotation
    seen = camera_rays(cameras, other, matches.there) @ rotation
    focal = cameras.intrinsics[other, :2].double().numpy() * (1, -1)  # v points down, y up
    positions = cameras.camera_to_worlds[:, :, 3].double()
    spread = float((positions - positions.mean(0)).norm(dim=-1).max())
    if spread == 0 or np.linalg.norm(offset) <= SAME_PLACE * spread:
        step = focal * (rays[:, :2] / np.maximum(-rays[:, 2:], 1e-6) - seen[:, :2])
        return Explanation(np.linalg.norm(step, axis=-1), step, np.zeros_like(step))
    cross = np.array([[0, -offset[2], offset[1]], [offset[2], 0, -offset[0]], [-offset[1], offset[0], 0]])
    own = cameras.camera_to_worlds[frame, :, :3].double().numpy()
    # rays have z = -1 in their own cameras: homogeneous points of the image planes
    found = explain(cross @ rotation.T @ own, camera_rays(cameras, frame, matches.here) @ own, seen)
    along = found.along * focal
    return Explanation(
        abs(focal).mean() * found.distance,
        found.correction * focal,
        along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-12),
    )


def explain(
    matrix: Float[np.ndarray, "3 3"], here: Float[np.ndarray, "P 3"], there: Float[np.ndarray, "P 3"]
) -> Explanation:
    """Compare homogeneous points to `there^T matrix here = 0`, in the unit of the points."""
    line, back = here @ matrix.T, there @ matrix
    slope = (line[:, :2] ** 2).sum(-1)
    miss = (there * line).sum(-1)
    length = np.sqrt(np.maximum(slope, 1e-24))[:, None]
    return Explanation(
        distance=np.abs(miss) / np.sqrt(np.maximum(slope + (back[:, :2] ** 2).sum(-1), 1e-24)),
        correction=-miss[:, None] * line[:, :2] / length**2,
        along=np.stack([-line[:, 1], line[:, 0]], axis=-1) / length,
    )
