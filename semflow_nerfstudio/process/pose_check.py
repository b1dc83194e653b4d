"""Do the poses fit the pictures? Epipolar errors of the static pixels, before anybody trains on wrong cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.epipolar import Matches, pose_explains, some_matches
from semflow_nerfstudio.process.epipolar import MIN_MATCHES, fit_rigid

GOOD = 1.0 / 600
"""Error, as a share of the image's diagonal, up to which poses are fine whatever the motion is."""
FLOW_FACTOR = 2.0
"""Errors tell against poses only if they are this many times that of the best rigid motion: else the flow errs."""
MOTION_SHARE, FIT_FACTOR = 0.25, 4.0
"""Poses are wrong, too, if the error is this share of the flow and this many times that of the best rigid motion."""
STATIC_ERROR = 2.0
"""Matches within this many pixels of the best rigid motion (or three times its median) count as static."""
LEAST_VALID = 0.4
"""Flow that holds in a smaller share of the pixels says nothing about poses: what is left of it is often wrong, too."""
MISTAKE_GAIN = 0.4
"""A known mistake is named if undoing it brings the error below this share."""

ReadFlow = Callable[[int, int], tuple[Float32[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]]


@dataclass(frozen=True)
class FrameError:
    """How well the poses of a frame and its successor explain the flow between them; pixels of the flow's image."""

    frame: int
    other: int
    error: float
    """Median Sampson distance of the static pixels to the poses' epipolar geometry."""
    best: float
    """The same for the best rigid motion that was found without poses."""
    motion: float
    """Median length of the flow of the static pixels."""
    bad: bool
    """Whether the poses do not fit."""


@dataclass(frozen=True)
class PoseCheck:
    """Errors of all pairs of neighbouring frames, and what follows from them."""

    errors: list[FrameError]
    error: float
    """Median over all pairs, pixels; NaN-free: 0 where nothing could be compared."""
    wrong: bool
    """Whether most pairs do not fit: nobody should train on these poses."""
    advice: str
    """What may be wrong; empty if nothing is."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PoseCheck:
        """From what `to_json` gave."""
        return cls(**{**content, "errors": [FrameError(**error) for error in content["errors"]]})

    @property
    def bad(self) -> list[FrameError]:
        """Pairs whose poses do not fit."""
        return [error for error in self.errors if error.bad]


def check_poses(
    cameras: FrameCameras,
    pairs: Sequence[tuple[int, int]],
    read_flow: ReadFlow,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> PoseCheck:
    """Compare the poses of `cameras` to the optical flow of pairs (a, b) of frames.

    Only static pixels count: those that the best rigid motion, found from the flow alone, explains. Cameras have to be
    of the flow's size.
    """
    static: dict[tuple[int, int], tuple[Matches, float]] = {}
    for done, pair in enumerate(pairs):
        progress(done, len(pairs))
        flow, valid = read_flow(*pair)
        found = static_matches(flow, valid) if valid.mean() >= LEAST_VALID else None
        if found is not None:
            static[pair] = found
    progress(len(pairs), len(pairs))
    errors = []
    for (a, b), (matches, best) in static.items():
        error = float(np.median(pose_explains(cameras, a, b, matches).distance))
        errors.append(FrameError(a, b, error, best, matches.motion, is_bad(error, best, matches.motion, cameras)))
    middle = float(np.median([error.error for error in errors])) if errors else 0.0
    wrong = 2 * sum(error.bad for error in errors) > len(errors)
    matches_of = {pair: matches for pair, (matches, _) in static.items()}
    return PoseCheck(errors, middle, wrong, find_mistake(cameras, matches_of, middle) if wrong else "")


def static_matches(flow: Float32[np.ndarray, "H W 2"], valid: Bool[np.ndarray, "H W"]) -> tuple[Matches, float] | None:
    """Matches that one rigid motion explains, and their median distance to it; None if there are too few."""
    matches = some_matches(flow, valid)
    motion = fit_rigid(matches)
    if motion is None:
        return None
    distance = motion.explains(matches).distance
    inside = distance < max(STATIC_ERROR, 3 * float(np.median(distance)))
    if inside.sum() < MIN_MATCHES:
        return None
    return Matches(matches.here[inside], matches.there[inside]), float(np.median(distance[inside]))


def is_bad(error: float, best: float, motion: float, cameras: FrameCameras) -> bool:
    """Whether poses do not fit, from the error in pixels, that of the best rigid motion, and the length of the flow."""
    large = GOOD * float(np.hypot(cameras.width, cameras.height))
    return error > max(large, FLOW_FACTOR * best) or (
        error > MOTION_SHARE * motion and error > max(FIT_FACTOR * best, 0.25 * large)
    )


def find_mistake(cameras: FrameCameras, matches: dict[tuple[int, int], Matches], error: float) -> str:
    """The usual mistakes, undone: which one makes the poses fit?"""
    poses = cameras.camera_to_worlds.double()
    if bool((poses == poses[:1]).all()):
        return "The camera does not stand still: use --poses colmap, or film from a tripod."
    flipped = poses.clone()
    flipped[:, :, 1:3] *= -1
    inverse = torch.cat([poses[:, :, :3].mT, -(poses[:, :, :3].mT @ poses[:, :, 3:])], dim=2)
    inverse_flipped = inverse.clone()
    inverse_flipped[:, :, 1:3] *= -1
    tries = {
        "their axes are OpenCV's (y down, z forwards): flip the second and third column": flipped,
        "they are world-to-camera matrices: invert them": inverse,
        "they are world-to-camera matrices with OpenCV's axes: invert them, then flip the second and third column": (
            inverse_flipped
        ),
        "they are in reverse order": poses.flip(0),
        "they are one frame late": torch.cat([poses[1:], poses[-1:]]),
        "they are one frame early": torch.cat([poses[:1], poses[:-1]]),
    }
    found = {}
    for mistake, mended in tries.items():
        other = replace(cameras, camera_to_worlds=mended)
        each = [np.median(pose_explains(other, a, b, known).distance) for (a, b), known in matches.items()]
        found[mistake] = float(np.median(each))
    likely = min(found, key=lambda mistake: found[mistake])
    if found[likely] < MISTAKE_GAIN * error:
        return f"It looks as if {likely} (which brings the error to {found[likely]:.2f} px)."
    return "The poses may belong to other frames, or the focal length may be wrong."
