"""Scene units: the volume that all cameras see between near and far fills the box [-1, 1]^3, up is +z.

All functions work in float64 on numpy arrays; camera-to-world matrices have OpenGL columns (right, up, backwards).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def corner_rays(intrinsics: Float[np.ndarray, "N 4"], width: float, height: float) -> Float[np.ndarray, "N 4 3"]:
    """Camera-frame directions of the four image corners, z = -1.

    Intrinsics are fx, fy, cx, cy in the unit of width and height.
    """
    u, v = np.array([0.0, width, width, 0.0]), np.array([0.0, 0.0, height, height])
    x = (u - intrinsics[:, 2:3]) / intrinsics[:, 0:1]
    y = -(v - intrinsics[:, 3:4]) / intrinsics[:, 1:2]
    return np.stack([x, y, -np.ones_like(x)], axis=-1)


def frustum_points(
    poses: Float[np.ndarray, "N 3 4"], rays: Float[np.ndarray, "N 4 3"], near: float, far: float
) -> Float[np.ndarray, "M 3"]:
    """World positions of all frusta's corners at camera depths near and far."""
    directions = np.einsum("nij,nkj->nki", poses[:, :, :3], rays)
    corners = poses[:, None, None, :, 3] + directions[:, None] * np.array([near, far])[None, :, None, None]
    return corners.reshape(-1, 3)


def upright_rotation(poses: Float[np.ndarray, "N 3 4"]) -> Float[np.ndarray, "3 3"]:
    """World-to-scene rotation: the mean of the cameras' up axes becomes +z, their mean viewing direction lies over +y.

    Where the cameras look in all directions (or straight up or down), the turn about z is as small as possible; where
    their up axes cancel out, the world stays as it is.
    """
    up = poses[:, :, 1].mean(axis=0)
    if np.linalg.norm(up) < 1e-3:
        return np.eye(3)
    up = up / np.linalg.norm(up)
    forward = -poses[:, :, 2].mean(axis=0)
    forward = forward - forward.dot(up) * up
    if np.linalg.norm(forward) < 0.1:
        axis = np.eye(3)[np.abs(up).argmin()]
        forward = axis - axis.dot(up) * up
    forward = forward / np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), forward, up])


def fit_unit_box(points: Float[np.ndarray, "M 3"]) -> tuple[Float[np.ndarray, "3"], float]:
    """Centre and scale with which `scale * (points - centre)` just fits into [-1, 1]^3."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, float(2 / (high - low).max())


def longest_ray(rays: Float[np.ndarray, "N 4 3"]) -> float:
    """Largest ratio of the distance along a ray to camera depth, over all image corners."""
    return float(np.linalg.norm(rays, axis=-1).max())
