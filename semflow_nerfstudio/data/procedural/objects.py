"""The objects of the procedural scene: what they are made of and how they are textured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from semflow_nerfstudio.data.procedural import textures
from semflow_nerfstudio.data.procedural.geometry import Box, Capsule, Cylinder, Ellipsoid, Plane, Shape, rigid, rotation
from semflow_nerfstudio.data.procedural.motion import ClosedPath, Floating, Motion, Rolling, Still, Walking
from semflow_nerfstudio.data.procedural.textures import Texture, hsv

CLASS_NAMES = ("floor", "wall", "crate", "pillar", "plant", "person", "ball", "balloon")
CLASS_COLORS = (
    (148, 138, 162),
    (84, 98, 124),
    (216, 166, 92),
    (122, 196, 200),
    (92, 164, 74),
    (216, 74, 106),
    (250, 206, 66),
    (72, 128, 230),
)
FOREGROUND_CLASSES = ("person", "ball", "balloon")


@dataclass(frozen=True)
class Part:
    """One primitive of an object."""

    shape: Shape
    texture: Texture
    repeat: tuple[float, float] = (1.0, 1.0)
    """Texture tiles per unit of the primitive's texture coordinates."""
    unit: float = 1.0
    """World units per texture tile, for filtering."""


@dataclass(frozen=True)
class SceneObject:
    """A named thing of one class and instance, made of rigid parts."""

    name: str
    class_name: str
    number: int
    """Number among the objects of its class, from 0."""
    parts: tuple[Part, ...]
    motion: Motion

    @property
    def class_id(self) -> int:
        """Line of the class in labelmap.txt."""
        return CLASS_NAMES.index(self.class_name)

    @property
    def instance_id(self) -> int:
        """Value in instances/: class * 10 + number."""
        return self.class_id * 10 + self.number

    @property
    def moves(self) -> bool:
        """Whether the object is one of the movers."""
        return not isinstance(self.motion, Still)


def still(name: str, class_name: str, number: int, parts: list[tuple[Part, ndarray]]) -> SceneObject:
    """An object that stays where it is; `parts` come with their poses."""
    return SceneObject(
        name, class_name, number, tuple(p for p, _ in parts), Still(np.stack([pose for _, pose in parts]))
    )


def plane(
    center: tuple[float, float, float], normal_turn: ndarray, half: tuple[float, float], texture: Texture, tile: float
):
    """A plane whose local z axis is its normal, with its pose."""
    return Part(Plane(half), texture, (1 / tile, 1 / tile), tile), rigid(normal_turn, center)


def build_crate(rng: np.random.Generator, number: int, place: tuple[float, float, float], size: float, turn: float):
    """A wooden box standing at `place` (its bottom's centre)."""
    color = hsv(rng.uniform(0.07, 0.11), rng.uniform(0.42, 0.6), rng.uniform(0.62, 0.8))
    part = Part(Box((size / 2, size / 2, size / 2)), textures.crate(rng, color), unit=size)
    pose = rigid(rotation("z", turn), [place[0], place[1], place[2] + size / 2])
    return still(f"crate_{number + 1}", "crate", number, [(part, pose)])


def build_pillar(rng: np.random.Generator, number: int, place: tuple[float, float], width: float, height: float):
    """A fluted column on a square base, with a square capital."""
    color = hsv(rng.uniform(0.08, 0.14), rng.uniform(0.06, 0.16), rng.uniform(0.84, 0.92))
    shaft, slab = textures.marble(rng, color), textures.cloth(rng, color * 0.9, 0.05)
    turn = 2 * np.pi * width
    parts = [
        (Part(Cylinder(width, height / 2 - 0.1), shaft, (1.0, 1.0), turn), [*place, height / 2]),
        (Part(Box((width * 1.4, width * 1.4, 0.07)), slab, unit=3 * width), [*place, 0.07]),
        (Part(Box((width * 1.4, width * 1.4, 0.07)), slab, unit=3 * width), [*place, height - 0.07]),
    ]
    return still(f"pillar_{number + 1}", "pillar", number, [(p, rigid(np.eye(3), at)) for p, at in parts])


def build_plant(rng: np.random.Generator, number: int, place: tuple[float, float], size: float, balls: int = 8):
    """A clay pot with a bush of overlapping balls."""
    clay = textures.cloth(rng, hsv(rng.uniform(0.02, 0.06), 0.6, 0.66), 0.06)
    foliage = textures.leaves(rng, hsv(rng.uniform(0.23, 0.33), rng.uniform(0.55, 0.68), rng.uniform(0.56, 0.68)))
    height = 0.42 * size
    parts = [
        (Part(Cylinder(0.21 * size, height / 2), clay, (2.0, 2.0), 0.5 * size), [*place, height / 2]),
        (Part(Cylinder(0.25 * size, 0.05 * size), clay, (2.0, 2.0), 0.5 * size), [*place, height - 0.03 * size]),
    ]
    for k in range(balls):
        angle = 2 * np.pi * (k * 0.618 + rng.uniform(0, 0.08))
        lift = 0.95 * k / (balls - 1)
        reach = 0.27 * size * np.sqrt(max(1 - (1.6 * lift - 0.6) ** 2 * 0.75, 0.0))
        at = [place[0] + reach * np.cos(angle), place[1] + reach * np.sin(angle), height + size * (0.16 + 0.62 * lift)]
        radius = size * (0.27 - 0.07 * lift) * rng.uniform(0.9, 1.1)
        parts.append((Part(Ellipsoid((radius, radius, radius)), foliage, (2.0, 1.0), np.pi * radius), at))
    turned = [
        (p, rigid(rotation("z", rng.uniform(0, 6)) @ rotation("x", rng.uniform(-0.5, 0.5)), at)) for p, at in parts[2:]
    ]
    return still(f"plant_{number + 1}", "plant", number, [(p, rigid(np.eye(3), at)) for p, at in parts[:2]] + turned)


def build_person(rng: np.random.Generator, path: ClosedPath, scale: float) -> SceneObject:
    """A walking person; parts in the order of `Walking.poses`."""
    hue = rng.uniform()
    shirt = textures.plaid(rng, hsv(hue, 0.75, 0.85), hsv(hue + rng.uniform(0.08, 0.2), 0.25, 0.95))
    trousers = textures.cloth(rng, hsv(rng.uniform(0.55, 0.68), 0.55, rng.uniform(0.38, 0.5)), 0.13)
    skin = textures.cloth(rng, hsv(rng.uniform(0.05, 0.08), rng.uniform(0.32, 0.55), rng.uniform(0.62, 0.92)), 0.025)
    hair = textures.cloth(rng, hsv(rng.uniform(0.02, 0.1), 0.6, rng.uniform(0.15, 0.45)), 0.2)
    shoes = textures.cloth(rng, hsv(rng.uniform(), 0.6, 0.75), 0.08)
    s = scale

    def limb(width: float, half: float, texture: Texture) -> Part:
        return Part(Capsule(width * s, half * s), texture, (1.0, 1.0), 2 * np.pi * width * s)

    def blob(half: tuple[float, float, float], texture: Texture, repeat: float = 1.0) -> Part:
        tile = 2 * np.pi * float(np.mean(half)) * s
        return Part(Ellipsoid((half[0] * s, half[1] * s, half[2] * s)), texture, (repeat, repeat), tile / repeat)

    parts = [
        blob((0.125, 0.165, 0.13), trousers),
        blob((0.14, 0.205, 0.29), shirt),
        limb(0.055, 0.04, skin),
        blob((0.118, 0.105, 0.14), skin),
        blob((0.122, 0.116, 0.125), hair),
    ]
    side = [
        limb(0.062, 0.12, shirt),
        limb(0.048, 0.11, skin),
        blob((0.05, 0.035, 0.06), skin),
        limb(0.085, 0.16, trousers),
        limb(0.066, 0.17, trousers),
        blob((0.125, 0.055, 0.05), shoes),
    ]
    return SceneObject("person", "person", 0, tuple(parts + side + side), Walking(path, s, 1.15 * s))


def build_ball(rng: np.random.Generator, path: ClosedPath, radius: float) -> SceneObject:
    """A rolling chequered ball."""
    hue = rng.uniform()
    colors = [hsv(hue, 0.8, 0.95), hsv(hue + rng.uniform(0.35, 0.65), 0.75, 0.75)]
    part = Part(Ellipsoid((radius, radius, radius)), textures.checks(rng, colors, 8, 4), (1.0, 1.0), 2 * np.pi * radius)
    return SceneObject("ball", "ball", 0, (part,), Rolling(path, radius))


def build_balloon(rng: np.random.Generator, path: ClosedPath, radius: float) -> SceneObject:
    """A drifting striped balloon with a knot below."""
    hue = rng.uniform()
    colors = [
        hsv(hue, 0.85, 0.92),
        hsv(hue + rng.uniform(0.1, 0.2), 0.7, 0.98),
        hsv(hue + rng.uniform(0.4, 0.6), 0.6, 0.7),
    ]
    skin = textures.gores(rng, colors, 9)
    height = 1.18 * radius
    parts = (
        Part(Ellipsoid((radius, radius, height)), skin, (1.0, 1.0), 2 * np.pi * radius),
        Part(Ellipsoid((0.16 * radius, 0.16 * radius, 0.2 * radius)), skin, (1.0, 1.0), 0.5 * radius),
    )
    rest = np.stack([rigid(np.eye(3), [0, 0, 0]), rigid(np.eye(3), [0, 0, -1.1 * height])])
    return SceneObject("balloon", "balloon", 0, parts, Floating(path, 0.8, rest))


def ellipse(
    center: tuple[float, float, float], axes: tuple[float, float, float], middle: float, step: float, middle_time: float
) -> ClosedPath:
    """A path around `center`: half axes along x and y, and a rise in z towards its far side."""
    x: Float[ndarray, "3"] = np.array([axes[0], 0.0, 0.0])
    return ClosedPath(np.array(center), x, np.array([0.0, axes[1], axes[2]]), middle, step, middle_time)
