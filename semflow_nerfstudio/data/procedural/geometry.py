"""Primitives of the procedural scene in their own frames: where rays enter and leave, normals, texture coordinates.

A ray is `origin + t * direction`; directions need not have unit length (the renderer scales them: t is camera z).
Every primitive is convex, so a ray meets it in one interval of t; a miss is an empty interval (enter > leave).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Interval = tuple[ndarray, ndarray]

# A direction component this small is taken for parallel to a slab; its value only has to avoid a division by zero.
_TINY = 1e-12


def dot(first: ndarray, second: ndarray) -> ndarray:
    """Inner products along the last axis."""
    return np.einsum("...i,...i->...", first, second)


def _slab(origin: ndarray, direction: ndarray, half: float) -> Interval:
    """Interval of t where |origin + t * direction| <= half, for one coordinate."""
    safe = np.where(np.abs(direction) < _TINY, _TINY, direction)
    first, second = (-half - origin) / safe, (half - origin) / safe
    return np.minimum(first, second), np.maximum(first, second)


def _quadratic(a: ndarray, b: ndarray, c: ndarray) -> Interval:
    """Interval of t where a t^2 + 2 b t + c <= 0, for a > 0; empty where there is none."""
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0.0))
    hit = discriminant >= 0
    return np.where(hit, (-b - root) / a, np.inf), np.where(hit, (-b + root) / a, -np.inf)


def _around_z(points: ndarray) -> ndarray:
    """Angle around the z axis as a fraction of a turn in [0, 1)."""
    return np.arctan2(points[..., 1], points[..., 0]) / (2 * np.pi) + 0.5


@dataclass(frozen=True)
class Plane:
    """The plane z = 0, seen from z > 0. `half` is the part of it that the light map covers, not a limit."""

    half: tuple[float, float]

    @property
    def radius(self) -> float:
        """Radius of a sphere about the local origin that holds the primitive."""
        return np.inf

    def interval(self, origin: ndarray, direction: ndarray) -> Interval:
        """The crossing with the plane, as an interval without extent."""
        down = direction[..., 2]
        t = np.where(down < -_TINY, -origin[..., 2] / np.where(down < -_TINY, down, 1.0), np.inf)
        return t, t

    def normals(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Unit normals."""
        return np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.shape)

    def coordinates(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 2"]:
        """Position in the plane in world units."""
        return points[..., :2]


@dataclass(frozen=True)
class Box:
    """A box about the origin."""

    half: tuple[float, float, float]

    @property
    def radius(self) -> float:
        """Radius of a sphere about the local origin that holds the primitive."""
        return float(np.linalg.norm(self.half))

    def interval(self, origin: ndarray, direction: ndarray) -> Interval:
        """Where rays enter and leave the box."""
        slabs = [_slab(origin[..., axis], direction[..., axis], self.half[axis]) for axis in range(3)]
        enter = np.maximum(np.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
        leave = np.minimum(np.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
        return enter, leave

    def _face(self, points: ndarray) -> ndarray:
        return np.argmax(np.abs(points) / np.array(self.half), axis=-1)

    def normals(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Unit normals."""
        face = self._face(points)
        rows = np.arange(len(points))
        normals = np.zeros_like(points)
        normals[rows, face] = np.sign(points[rows, face])
        return normals

    def coordinates(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 2"]:
        """Position on the face, each face filling the unit square."""
        face = self._face(points)
        rows = np.arange(len(points))
        unit = points / (2 * np.array(self.half)) + 0.5
        across = np.where(face == 0, 1, 0)
        up = np.where(face == 2, 1, 2)
        return np.stack([unit[rows, across], unit[rows, up]], axis=-1)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid about the origin."""

    half: tuple[float, float, float]

    @property
    def radius(self) -> float:
        """Radius of a sphere about the local origin that holds the primitive."""
        return max(self.half)

    def interval(self, origin: ndarray, direction: ndarray) -> Interval:
        """Where rays enter and leave the ellipsoid."""
        scale = 1 / np.array(self.half)
        o, d = origin * scale, direction * scale
        return _quadratic(dot(d, d), dot(o, d), dot(o, o) - 1)

    def normals(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Unit normals."""
        gradient = points / np.array(self.half) ** 2
        return gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)

    def coordinates(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 2"]:
        """Longitude and latitude, each in [0, 1]."""
        unit = points / np.array(self.half)
        latitude = np.arcsin(np.clip(unit[..., 2], -1, 1)) / np.pi + 0.5
        return np.stack([_around_z(unit), latitude], axis=-1)


@dataclass(frozen=True)
class Cylinder:
    """A capped cylinder about the z axis."""

    width: float
    """Radius of the cylinder."""
    half_height: float

    @property
    def radius(self) -> float:
        """Radius of a sphere about the local origin that holds the primitive."""
        return float(np.hypot(self.width, self.half_height))

    def interval(self, origin: ndarray, direction: ndarray) -> Interval:
        """Where rays enter and leave the cylinder."""
        o, d = origin[..., :2], direction[..., :2]
        square = np.maximum(dot(d, d), _TINY)
        side = _quadratic(square, dot(o, d), dot(o, o) - self.width**2)
        caps = _slab(origin[..., 2], direction[..., 2], self.half_height)
        return np.maximum(side[0], caps[0]), np.minimum(side[1], caps[1])

    def normals(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Unit normals."""
        cap = np.abs(points[..., 2]) / self.half_height > np.hypot(points[..., 0], points[..., 1]) / self.width
        normals = points / self.width * np.array([1.0, 1.0, 0.0])
        normals[cap] = np.sign(points[cap]) * np.array([0.0, 0.0, 1.0])
        return normals

    def coordinates(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 2"]:
        """Turn around the axis in [0, 1], and height in turns' lengths so that textures keep their aspect."""
        return np.stack([_around_z(points), points[..., 2] / (2 * np.pi * self.width)], axis=-1)


@dataclass(frozen=True)
class Capsule:
    """A cylinder about the z axis with half balls at both ends."""

    width: float
    """Radius of the cylinder and of its ends."""
    half_height: float
    """Half the length of the cylinder between the ends."""

    @property
    def radius(self) -> float:
        """Radius of a sphere about the local origin that holds the primitive."""
        return self.width + self.half_height

    def interval(self, origin: ndarray, direction: ndarray) -> Interval:
        """Where rays enter and leave the capsule: the union of its three convex parts."""
        enter, leave = Cylinder(self.width, self.half_height).interval(origin, direction)
        empty = enter > leave
        enter, leave = np.where(empty, np.inf, enter), np.where(empty, -np.inf, leave)
        for end in (-self.half_height, self.half_height):
            o = origin - np.array([0.0, 0.0, end])
            ball = Ellipsoid((self.width, self.width, self.width)).interval(o, direction)
            enter, leave = np.minimum(enter, ball[0]), np.maximum(leave, ball[1])
        return enter, leave

    def normals(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Unit normals."""
        axis = points * np.array([0.0, 0.0, 1.0])
        axis[..., 2] = np.clip(axis[..., 2], -self.half_height, self.half_height)
        return (points - axis) / self.width

    def coordinates(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 2"]:
        """Turn around the axis in [0, 1], and height in turns' lengths so that textures keep their aspect."""
        return np.stack([_around_z(points), points[..., 2] / (2 * np.pi * self.width)], axis=-1)


Shape = Plane | Box | Ellipsoid | Cylinder | Capsule


def first_hit(shape: Shape, origin: ndarray, direction: ndarray, start: float = 1e-6) -> ndarray:
    """t > start where rays first meet the surface (from outside, or from inside); infinity for a miss."""
    enter, leave = shape.interval(origin, direction)
    t = np.where(enter > start, enter, leave)
    return np.where((enter <= leave) & (t > start), t, np.inf)


def look_at(position: ndarray, target: ndarray) -> Float[ndarray, "3 4"]:
    """OpenGL camera-to-world matrix (x right, y up, z backwards) of a camera that looks at `target`; world up is +z."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, position], axis=-1)


def rotation(axis: str, angle: float) -> Float[ndarray, "3 3"]:
    """Rotation by `angle` radians about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def rotation_about(axis: ndarray, angle: float) -> Float[ndarray, "3 3"]:
    """Rotation by `angle` radians about a unit vector (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def rigid(rotation_matrix: ndarray, translation: Sequence[float] | ndarray) -> Float[ndarray, "3 4"]:
    """A rigid motion as a 3x4 matrix."""
    return np.concatenate([rotation_matrix, np.asarray(translation, dtype=float)[:, None]], axis=1)


def compose(outer: ndarray, inner: ndarray) -> Float[ndarray, "*batch 3 4"]:
    """The rigid motion that applies `inner`, then `outer`."""
    turn = outer[..., :3] @ inner[..., :3]
    shift = outer[..., :3] @ inner[..., 3:] + outer[..., 3:]
    return np.concatenate([turn, shift], axis=-1)
