"""How the movers move: closed paths at constant speed, and the rigid motion of each of their parts at any time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from semflow_nerfstudio.data.procedural.geometry import compose, rigid, rotation, rotation_about


class ClosedPath:
    """A closed curve in space by arc length, so that movers of any speed stay in the scene for ever."""

    def __init__(self, center: ndarray, cosine: ndarray, sine: ndarray, middle: float, step: float, middle_time: float):
        """The ellipse center + cos(a) cosine + sin(a) sine; at time `middle_time` the mover is at angle `middle`.

        `step` is the way made per frame in world units; a negative one goes round the other way.
        """
        angles = np.linspace(0, 2 * np.pi, 2049)
        self._points = center + np.cos(angles)[:, None] * cosine + np.sin(angles)[:, None] * sine
        lengths = np.linalg.norm(np.diff(self._points, axis=0), axis=1)
        self._arc = np.concatenate([[0], np.cumsum(lengths)])
        self._start = np.interp(middle % (2 * np.pi), angles, self._arc) - step * middle_time
        self._step = step

    def distance(self, time: float) -> float:
        """Signed way made since the clip's first frame."""
        return self._step * time

    def position(self, time: float) -> Float[ndarray, "3"]:
        """Where the mover is."""
        arc = (self._start + self._step * time) % self._arc[-1]
        return np.array([np.interp(arc, self._arc, self._points[:, axis]) for axis in range(3)])

    def heading(self, time: float) -> float:
        """Direction of travel in the ground plane, in radians from the x axis."""
        reach = 0.02 / max(abs(self._step), 1e-9)
        ahead = self.position(time + reach) - self.position(time - reach) if self._step else np.array([1.0, 0.0, 0.0])
        return float(np.arctan2(ahead[1], ahead[0]))


@dataclass(frozen=True)
class Rolling:
    """A ball that rolls over the ground without slipping."""

    path: ClosedPath
    radius: float

    def poses(self, time: float) -> Float[ndarray, "1 3 4"]:
        """The ball's rigid motion; the turn is accumulated frame by frame along the curved path."""
        steps = max(int(np.ceil(abs(time) * 8)), 1)
        times = np.linspace(0, time, steps + 1)
        positions = np.stack([self.path.position(t) for t in times])
        turn = np.eye(3)
        for way in np.diff(positions, axis=0):
            length = float(np.linalg.norm(way))
            if length > 0:
                turn = rotation_about(np.array([-way[1], way[0], 0.0]) / length, length / self.radius) @ turn
        return rigid(turn, positions[-1])[None]


@dataclass(frozen=True)
class Floating:
    """A balloon that drifts, bobs and turns slowly about a leaning axis."""

    path: ClosedPath
    spin: float
    """Radians per world unit of way made."""
    rest: Float[ndarray, "P 3 4"]
    """Parts in the balloon's frame."""

    def poses(self, time: float) -> Float[ndarray, "P 3 4"]:
        """The balloon's parts."""
        way = self.path.distance(time)
        lean = rotation("y", 0.16 * np.sin(2.1 * way)) @ rotation("x", 0.12)
        return compose(rigid(lean @ rotation("z", self.spin * way), self.path.position(time)), self.rest)


@dataclass(frozen=True)
class Walking:
    """A person who walks along a path: a chain of rigid parts with swinging limbs (parts as in `person.py`)."""

    path: ClosedPath
    scale: float
    stride: float
    """World units per full cycle of the gait."""

    def poses(self, time: float) -> Float[ndarray, "P 3 4"]:
        """The person's parts: pelvis, chest, neck, head, hair, then for either side upper arm, forearm, hand, thigh,
        shin, shoe. The body's frame has x forward and z up."""
        s = self.scale
        phase = 2 * np.pi * abs(self.path.distance(time)) / self.stride
        bob = 0.018 * s * np.cos(2 * phase)
        root = rigid(rotation("z", self.path.heading(time)), self.path.position(time))
        hips = compose(root, rigid(rotation("z", 0.10 * np.sin(phase)), [0, 0, 0.80 * s + bob]))
        chest = compose(hips, rigid(rotation("z", -0.24 * np.sin(phase)) @ rotation("y", 0.05), [0, 0, 0.06 * s]))
        straight = np.eye(3)
        head = compose(chest, rigid(rotation("z", 0.12 * np.sin(phase)), [0.02 * s, 0, 0.66 * s]))
        parts = [
            hips,
            compose(chest, rigid(straight, [0, 0, 0.26 * s])),
            compose(chest, rigid(straight, [0, 0, 0.53 * s])),
            head,
            compose(head, rigid(rotation("y", -0.35), [-0.022 * s, 0, 0.035 * s])),
        ]
        for side in (1.0, -1.0):
            swing = side * np.sin(phase)
            shoulder = compose(
                chest,
                rigid(rotation("y", 0.52 * swing) @ rotation("x", 0.16 * side), [0, 0.185 * s * side, 0.43 * s]),
            )
            elbow = compose(shoulder, rigid(rotation("y", -0.55 + 0.25 * swing), [0, 0, -0.29 * s]))
            hip = compose(hips, rigid(rotation("y", -0.50 * swing), [0, 0.095 * s * side, 0]))
            bend = 0.42 - 0.38 * np.cos(phase + (0.5 if side > 0 else 0.5 + np.pi))
            knee = compose(hip, rigid(rotation("y", bend), [0, 0, -0.38 * s]))
            foot = compose(knee, rigid(rotation("y", 0.12 - 0.25 * swing), [0, 0, -0.36 * s]))
            parts += [
                compose(shoulder, rigid(straight, [0, 0, -0.14 * s])),
                compose(elbow, rigid(straight, [0, 0, -0.13 * s])),
                compose(elbow, rigid(straight, [0, 0, -0.29 * s])),
                compose(hip, rigid(straight, [0, 0, -0.19 * s])),
                compose(knee, rigid(straight, [0, 0, -0.17 * s])),
                compose(foot, rigid(straight, [0.06 * s, 0, -0.02 * s])),
            ]
        return np.stack(parts)


@dataclass(frozen=True)
class Still:
    """Parts that stay where they are."""

    rest: Float[ndarray, "P 3 4"]

    def poses(self, time: float) -> Float[ndarray, "P 3 4"]:
        """The same at any time."""
        return self.rest


@dataclass(frozen=True)
class Shifted:
    """Another motion, displaced."""

    motion: Rolling | Floating | Walking | Shifted
    offset: Float[ndarray, "3"]
    """World units."""

    def poses(self, time: float) -> Float[ndarray, "P 3 4"]:
        """Rigid motions of the object's parts."""
        return _displaced(self.motion.poses(time), self.offset)


Motion = Still | Rolling | Floating | Walking | Shifted


def shifted(motion: Motion, offset: tuple[float, float, float]) -> Motion:
    """The same motion, displaced by an offset in world units; what stands still keeps standing still."""
    way = np.asarray(offset, dtype=float)
    return Still(_displaced(motion.rest, way)) if isinstance(motion, Still) else Shifted(motion, way)


def _displaced(poses: ndarray, offset: ndarray) -> Float[ndarray, "P 3 4"]:
    return np.concatenate([poses[:, :, :3], poses[:, :, 3:] + offset[:, None]], axis=-1)
