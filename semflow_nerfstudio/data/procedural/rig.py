"""The camera rig: two rows on an arc around the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from semflow_nerfstudio.cameras import PIXEL_CENTER
from semflow_nerfstudio.data.procedural.geometry import look_at

RIG_DISTANCE = 4.8
RIG_HALF_BASELINE = 1.12
ROW_HEIGHTS = (1.15, 1.7)
FOCAL_PER_WIDTH = 0.87


@dataclass(frozen=True)
class RigCamera:
    """A pinhole camera with square pixels and its principal point in the middle of the image."""

    camera_to_world: Float[ndarray, "3 4"]
    """OpenGL axes: x right, y up, z backwards."""
    focal: float
    """Focal length in pixels."""
    width: int
    height: int

    @property
    def origin(self) -> Float[ndarray, "3"]:
        """Centre of projection in world units."""
        return self.camera_to_world[:, 3]

    def pixel_grid(self) -> Float[ndarray, "H*W 2"]:
        """Pixel centres (u, v), row by row."""
        v, u = np.meshgrid(np.arange(self.height) + PIXEL_CENTER, np.arange(self.width) + PIXEL_CENTER, indexing="ij")
        return np.stack([u.ravel(), v.ravel()], axis=-1)

    def directions(self, pixels: Float[ndarray, "N 2"]) -> Float[ndarray, "N 3"]:
        """World directions through pixels (u, v), of unit camera z: multiplied by a depth they end on the surface."""
        local = np.empty((len(pixels), 3))
        local[:, 0] = (pixels[:, 0] - self.width / 2) / self.focal
        local[:, 1] = (self.height / 2 - pixels[:, 1]) / self.focal
        local[:, 2] = -1.0
        return local @ self.camera_to_world[:, :3].T

    def project(
        self, points: Float[ndarray, "*batch 3"]
    ) -> tuple[Float[ndarray, "*batch 2"], Float[ndarray, "*batch"]]:
        """Pixels (u, v) and camera z of world points; the pixels mean nothing where z <= 0."""
        local = (points - self.origin) @ self.camera_to_world[:, :3]
        depth = -local[..., 2]
        safe = np.where(depth > 1e-9, depth, 1e-9)
        u = local[..., 0] / safe * self.focal + self.width / 2
        v = self.height / 2 - local[..., 1] / safe * self.focal
        return np.stack([u, v], axis=-1), depth

    def in_view(self, pixels: ndarray, depth: ndarray) -> ndarray:
        """Which projections lie in front of the camera and inside the image."""
        u, v = pixels[..., 0], pixels[..., 1]
        return (depth > 1e-6) & (u >= 0) & (u <= self.width) & (v >= 0) & (v <= self.height)


def build_rig(count: int, width: int, height: int, rng: np.random.Generator) -> list[RigCamera]:
    """Cameras on an arc, the lower row from left to right, the upper row back, so that neighbours in time are near.

    The field of view follows the image's area, so that movers cover the same share of an image of any aspect.
    """
    focal = FOCAL_PER_WIDTH * np.sqrt(width * height * 16 / 9)
    target = np.array([0.0, 0.1, 0.9]) + rng.uniform(-0.04, 0.04, 3)
    widest = np.arcsin(RIG_HALF_BASELINE / RIG_DISTANCE)
    lower = count if count < 4 else (count + 1) // 2
    stations = [(angle, ROW_HEIGHTS[0]) for angle in np.linspace(-widest, widest, lower)]
    stations += [(angle, ROW_HEIGHTS[1]) for angle in np.linspace(widest, -widest, count - lower)]
    if count == 1:
        stations = [(0.0, ROW_HEIGHTS[0])]
    cameras = []
    for angle, row_height in stations:
        position = np.array([RIG_DISTANCE * np.sin(angle), -RIG_DISTANCE * np.cos(angle), row_height])
        position += rng.uniform(-0.03, 0.03, 3)
        cameras.append(RigCamera(look_at(position, target), float(focal), width, height))
    return cameras
