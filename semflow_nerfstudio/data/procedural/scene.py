"""The procedural scene: a courtyard whose layout, textures and paths follow from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.procedural import textures
from semflow_nerfstudio.data.procedural.geometry import rotation
from semflow_nerfstudio.data.procedural.light import Daylight, LightMap, bake_light
from semflow_nerfstudio.data.procedural.objects import (
    Part,
    SceneObject,
    build_ball,
    build_balloon,
    build_crate,
    build_person,
    build_pillar,
    build_plant,
    ellipse,
    plane,
    still,
)
from semflow_nerfstudio.data.procedural.options import SceneOptions
from semflow_nerfstudio.data.procedural.rig import RigCamera, build_rig
from semflow_nerfstudio.data.procedural.textures import Atlas, hsv

ROOM_HALF_WIDTH = 3.7
ROOM_BACK = 2.7
# Way per frame, in world units, of the movers at speed 1.
PERSON_STEP, BALL_STEP, BALLOON_STEP = 0.17, 0.11, 0.13


@dataclass
class ProceduralScene:
    """Objects, light and cameras. Times are frame numbers and may be fractions."""

    options: SceneOptions
    objects: tuple[SceneObject, ...]
    cameras: list[RigCamera]
    daylight: Daylight
    light_maps: dict[int, LightMap]
    """Baked static light of parts that have one, by part index."""
    parts: list[Part] = field(init=False)
    """All objects' parts, in the order of `objects`."""
    part_object: Int[ndarray, "P"] = field(init=False)
    """Index of each part's object."""
    object_parts: list[Int[ndarray, "M"]] = field(init=False)
    """Indices of each object's parts."""
    part_texture: Int[ndarray, "P"] = field(init=False)
    """Index of each part's texture in `atlas`."""
    part_unit: Float[ndarray, "P"] = field(init=False)
    """World units per texture tile."""
    part_radius: Float[ndarray, "P"] = field(init=False)
    """Radius of a ball around each part's origin that holds it; infinite for planes."""
    atlas: Atlas = field(init=False)
    _poses: dict[float, ndarray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.parts = [part for thing in self.objects for part in thing.parts]
        self.part_object = np.repeat(np.arange(len(self.objects)), [len(thing.parts) for thing in self.objects])
        self.object_parts = [np.flatnonzero(self.part_object == index) for index in range(len(self.objects))]
        distinct = {id(part.texture): part.texture for part in self.parts}
        self.atlas = Atlas(list(distinct.values()))
        self.part_texture = np.array([list(distinct).index(id(part.texture)) for part in self.parts])
        self.part_radius = np.array([part.shape.radius for part in self.parts])
        self.part_unit = np.array([part.unit for part in self.parts])

    def poses(self, time: float) -> Float[ndarray, "P 3 4"]:
        """Part-to-world rigid motions of all parts."""
        if time not in self._poses:
            self._poses[time] = np.concatenate([thing.motion.poses(time) for thing in self.objects])
        return self._poses[time]


def _surroundings(rng: np.random.Generator) -> list[SceneObject]:
    """Floor and three walls."""
    stone = textures.flagstones(rng, hsv(rng.uniform(0.07, 0.13), rng.uniform(0.1, 0.18), rng.uniform(0.58, 0.66)))
    brick = textures.masonry(rng, hsv(rng.uniform(0.015, 0.06), rng.uniform(0.4, 0.52), rng.uniform(0.66, 0.76)), 6, 14)
    blocks = textures.masonry(
        rng, hsv(rng.choice([0.09, 0.13, 0.55, 0.60]), 0.15, rng.uniform(0.68, 0.76)), 4, 8, 0.06, 0.05
    )
    upright, half, depth = rotation("x", np.pi / 2), (ROOM_BACK + 5) / 2, ROOM_BACK - (ROOM_BACK + 5) / 2
    left, right = rotation("z", np.pi / 2) @ upright, rotation("z", -np.pi / 2) @ upright
    return [
        still("floor", "floor", 0, [plane((0, depth, 0), np.eye(3), (ROOM_HALF_WIDTH, half), stone, 2.4)]),
        still("wall_back", "wall", 0, [plane((0, ROOM_BACK, 2.5), upright, (ROOM_HALF_WIDTH, 2.5), brick, 2.1)]),
        still("wall_left", "wall", 1, [plane((-ROOM_HALF_WIDTH, depth, 2.5), left, (half, 2.5), blocks, 2.4)]),
        still("wall_right", "wall", 2, [plane((ROOM_HALF_WIDTH, depth, 2.5), right, (half, 2.5), blocks, 2.4)]),
    ]


def _furniture(rng: np.random.Generator, side: float) -> list[SceneObject]:
    """Crates, pillars and plants around the movers' paths; `side` is 1 or -1 and mirrors the layout."""

    def near(x: float, y: float, wiggle: float = 0.08) -> tuple[float, float]:
        return side * x + rng.uniform(-wiggle, wiggle), y + rng.uniform(-wiggle, wiggle)

    big, small = near(-2.45, 1.35), near(-1.65, 1.75)
    size = rng.uniform(0.82, 0.92)
    return [
        build_crate(rng, 0, (*big, 0.0), size, rng.uniform(-0.3, 0.3)),
        build_crate(rng, 1, (big[0], big[1], size), rng.uniform(0.46, 0.54), rng.uniform(0.3, 0.8)),
        build_crate(rng, 2, (*small, 0.0), rng.uniform(0.5, 0.58), rng.uniform(-0.5, 0.5)),
        build_crate(rng, 3, (*near(2.15, -0.75), 0.0), rng.uniform(0.42, 0.48), rng.uniform(0.2, 0.7)),
        build_pillar(rng, 0, near(0.15, 0.45, 0.03), rng.uniform(0.09, 0.1), rng.uniform(2.5, 2.7)),
        build_pillar(rng, 1, near(2.3, 1.5), rng.uniform(0.17, 0.2), rng.uniform(2.9, 3.1)),
        build_pillar(rng, 2, near(-0.55, 2.2), rng.uniform(0.17, 0.2), rng.uniform(2.9, 3.1)),
        build_plant(rng, 0, near(1.25, 2.0), rng.uniform(0.9, 1.0)),
        build_plant(rng, 1, near(-2.05, -0.6), rng.uniform(0.62, 0.7)),
    ]


def _movers(rng: np.random.Generator, side: float, options: SceneOptions) -> list[SceneObject]:
    """A person walking round the middle pillar, a ball rolling in front, a balloon drifting above."""
    middle_time = (options.frames - 1) / 2
    direction = rng.choice([-1.0, 1.0], 3) * options.speed
    person = ellipse(
        (0, 0.45, 0),
        (1.65, 0.62, 0),
        np.pi / 2 + rng.choice([-1, 1]) * rng.uniform(0.1, 0.3),
        PERSON_STEP * direction[0],
        middle_time,
    )
    radius = rng.uniform(0.27, 0.31)
    ball = ellipse(
        (side * 0.2, -1.15, radius),
        (1.15, 0.34, 0),
        np.pi * rng.integers(0, 2) + np.pi / 2 + rng.uniform(-0.5, 0.5),
        BALL_STEP * direction[1],
        middle_time,
    )
    balloon = ellipse(
        (-side * 0.15, 0.1, rng.uniform(1.84, 1.92)),
        (1.3, 0.45, 0.14),
        -np.pi / 2 + rng.uniform(-0.5, 0.5),
        BALLOON_STEP * direction[2],
        middle_time,
    )
    return [
        build_person(rng, person, rng.uniform(1.0, 1.07)),
        build_ball(rng, ball, radius),
        build_balloon(rng, balloon, rng.uniform(0.31, 0.34)),
    ]


def build_scene(options: SceneOptions) -> ProceduralScene:
    """The scene of a seed.

    With `leave_out` the rest stays exactly as it was, baked shadows included, so that only the pixels that the object
    covered change. Raises SceneDataError where an option makes no sense or `leave_out` names nothing.
    """
    options.check()
    streams = [np.random.default_rng([options.seed, purpose]) for purpose in range(4)]
    side = float(streams[0].choice([-1.0, 1.0]))
    cameras = build_rig(options.cameras, options.width, options.height, streams[1])
    surroundings, furniture = _surroundings(streams[2]), _furniture(streams[0], side)
    movers = _movers(streams[3], side, options)
    static = surroundings + furniture
    daylight = Daylight(side, options.frames, options.lighting == "changing")
    poses = np.concatenate([thing.motion.poses(0.0) for thing in static])
    light_maps = bake_light([part for thing in static for part in thing.parts], poses, daylight)
    things = [thing for thing in furniture + movers if thing.name != options.leave_out]
    if options.leave_out and len(things) == len(furniture + movers):
        names = ", ".join(thing.name for thing in furniture + movers)
        raise SceneDataError(f"leave_out must be one of {names}, not {options.leave_out}.")
    # Light maps are those of the surroundings, whose parts come first whatever is left out.
    return ProceduralScene(options, tuple(surroundings + things), cameras, daylight, light_maps)
