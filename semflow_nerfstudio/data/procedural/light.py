"""Daylight, and its baked shadows on floor and walls.

Only things that never move cast shadows: a moving shadow would change colours of static surfaces, which no label,
mask or flow describes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter, map_coordinates

from semflow_nerfstudio.data.procedural.geometry import Plane, dot, first_hit
from semflow_nerfstudio.data.procedural.objects import Part

SUN_CELL, SUN_BLUR = 0.045, 0.05
SKY_CELL, SKY_BLUR = 0.09, 0.10
CORNER_REACH = 0.35


@dataclass(frozen=True)
class Daylight:
    """A sun and a sky, possibly going down during the clip."""

    side: float
    """1 or -1: which side the sun is on."""
    frames: int
    changing: bool

    @property
    def sun_direction(self) -> Float[ndarray, "3"]:
        """Unit vector towards the sun, which stays where it is: baked shadows hold at all times."""
        direction = np.array([0.55 * self.side, -0.62, 0.95])
        return direction / np.linalg.norm(direction)

    def colors(self, time: float) -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
        """Linear colours of sun and sky."""
        progress = time / (self.frames - 1) if self.changing else 0.0
        sun = np.array([1.02, 0.96, 0.86]) * (1 - progress) + np.array([0.60, 0.30, 0.12]) * progress
        sky = np.array([0.47, 0.51, 0.57]) * (1 - progress) + np.array([0.24, 0.27, 0.42]) * progress
        return sun, sky


@dataclass(frozen=True)
class LightMap:
    """How much of sun and sky reaches the points of a plane."""

    half: tuple[float, float]
    sun: Float[ndarray, "rows columns"]
    sky: Float[ndarray, "rows columns"]

    def lookup(self, points: Float[ndarray, "N 3"]) -> tuple[Float[ndarray, "N"], Float[ndarray, "N"]]:
        """Shares in [0, 1] of sun and sky at points of the plane's frame."""
        found = []
        for image in (self.sun, self.sky):
            rows, columns = image.shape
            where = np.stack(
                [
                    (points[:, 1] / self.half[1] + 1) / 2 * rows - 0.5,
                    (points[:, 0] / self.half[0] + 1) / 2 * columns - 0.5,
                ]
            )
            found.append(map_coordinates(image, where, order=1, mode="nearest"))
        return found[0], found[1]


def _plane_points(half: tuple[float, float], pose: ndarray, cell: float) -> tuple[ndarray, tuple[int, int]]:
    """World points of a grid over a plane, and the grid's (rows, columns)."""
    columns, rows = (int(np.ceil(2 * extent / cell)) for extent in half)
    x = ((np.arange(columns) + 0.5) / columns * 2 - 1) * half[0]
    y = ((np.arange(rows) + 0.5) / rows * 2 - 1) * half[1]
    local = np.stack([*np.meshgrid(x, y), np.full((rows, columns), 1e-3)], axis=-1).reshape(-1, 3)
    return local @ pose[:, :3].T + pose[:, 3], (rows, columns)


def _blocked(
    points: ndarray, direction: ndarray, casters: list[tuple[Part, ndarray]], reach: float = np.inf
) -> ndarray:
    """Whether something stands between each point and the light within `reach`."""
    blocked = np.zeros(len(points), dtype=bool)
    for part, pose in casters:
        to_center = pose[:, 3] - points
        along = to_center @ direction
        near = dot(to_center, to_center) - along**2 < part.shape.radius**2
        index = np.flatnonzero(near & (along > -part.shape.radius) & ~blocked)
        if len(index):
            origin = (points[index] - pose[:, 3]) @ pose[:, :3]
            blocked[index] = first_hit(part.shape, origin, direction @ pose[:, :3]) < reach
    return blocked


def _corners(points: ndarray, own: ndarray, planes: list[ndarray]) -> ndarray:
    """Share of the sky left by the other planes nearby."""
    share = np.ones(len(points))
    for pose in planes:
        if pose is not own:
            height = (points - pose[:, 3]) @ pose[:, 2]
            share *= 1 - 0.42 * np.exp(-np.maximum(height, 0) / CORNER_REACH)
    return share


def bake_light(parts: list[Part], poses: Float[ndarray, "P 3 4"], daylight: Daylight) -> dict[int, LightMap]:
    """Light maps, by part index, of all planes among the parts that never move: soft sun shadows of the other parts,
    and the sky that these hide from the floor."""
    planes = [i for i, part in enumerate(parts) if isinstance(part.shape, Plane)]
    casters = [(parts[i], poses[i]) for i in range(len(parts)) if i not in planes]
    plane_poses = [poses[i] for i in planes]
    sky_directions = [
        np.array([np.cos(a) * 0.8, np.sin(a) * 0.8, 0.6]) for a in np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ]
    maps = {}
    for i, pose in zip(planes, plane_poses, strict=True):
        shape = parts[i].shape
        assert isinstance(shape, Plane)
        points, grid = _plane_points(shape.half, pose, SUN_CELL)
        sun = 1.0 - _blocked(points, daylight.sun_direction, casters).reshape(grid)
        points, grid = _plane_points(shape.half, pose, SKY_CELL)
        sky = _corners(points, pose, plane_poses)
        if pose[2, 2] > 0.5:
            hidden = np.mean([_blocked(points, d, casters, reach=0.8) for d in sky_directions], axis=0)
            sky = sky * (1 - 0.7 * hidden)
        maps[i] = LightMap(
            shape.half,
            gaussian_filter(sun, SUN_BLUR / SUN_CELL),
            gaussian_filter(sky.reshape(grid), SKY_BLUR / SKY_CELL),
        )
    return maps
