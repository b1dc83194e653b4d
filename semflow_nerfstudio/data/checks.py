"""The error that wrong input raises, and cheap checks that run in the dataparser, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float


class SceneDataError(ValueError):
    """Input that cannot be used. The message is one sentence that names the file and says how to mend it."""


def require_file(path: Path, what: str, remedy: str) -> Path:
    """Return `path`.

    Raises:
        SceneDataError: if it is not a file. `what` says what it should hold, `remedy` how to mend it.
    """
    if not path.is_file():
        raise SceneDataError(f"{path} ({what}) does not exist: {remedy}.")
    return path


def check_poses(path: Path, poses: Float[np.ndarray, "N 3 4"], names: Sequence[str]) -> None:
    """Camera-to-world matrices must be finite and their rotations orthonormal and right-handed.

    Raises:
        SceneDataError: naming `path` and the first bad frame out of `names`.
    """
    finite = np.isfinite(poses).all(axis=(1, 2))
    if not finite.all():
        bad = names[int(np.argmin(finite))]
        raise SceneDataError(
            f"{path} has a pose with NaN or infinite numbers for frame {bad}: estimate that camera again or remove "
            "the frame."
        )
    rotations = poses[:, :, :3].astype(np.float64)
    skew = np.abs(rotations.transpose(0, 2, 1) @ rotations - np.eye(3)).max(axis=(1, 2))
    broken = (skew > 1e-2) | (np.linalg.det(rotations) <= 0)
    if broken.any():
        bad = names[int(np.argmax(broken))]
        raise SceneDataError(
            f"{path} has a pose for frame {bad} whose 3x3 part is no rotation (its columns must be orthonormal and "
            "right-handed): check the order and signs of the axes when exporting it."
        )


def check_near_far(path: Path, near: float, far: float, where: str) -> None:
    """Near and far bounds must be finite with 0 < near < far; `where` names the frame or key.

    Raises:
        SceneDataError: naming `path`.
    """
    if not (np.isfinite(near) and np.isfinite(far) and 0 < near < far):
        raise SceneDataError(
            f"{path} has near {near:g} and far {far:g} for {where}, but 0 < near < far is needed: write the smallest "
            "and largest depth seen there."
        )


def check_distinct_views(path: Path, times: Sequence[float], cameras: Sequence[str], names: Sequence[str]) -> None:
    """No two frames may come from the same camera at the same time.

    Raises:
        SceneDataError: naming `path` and the two frames.
    """
    seen: dict[tuple[float, str], str] = {}
    for time, camera, name in zip(times, cameras, names, strict=True):
        other = seen.setdefault((time, camera), name)
        if other != name:
            of_camera = f" of camera {camera}" if camera else ""
            raise SceneDataError(
                f"{path} gives frames {other} and {name}{of_camera} the same time {time:g}: correct one time, or give "
                'the frames different "camera" names.'
            )


def same_shape(size: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two (width, height) have one aspect ratio, up to 2 % or one pixel of rounding."""
    (width, height), (w, h) = size, other
    difference = abs(w * height - h * width)
    return difference <= max(width, height, 0.02 * max(w * height, h * width))


def check_aspect(path: Path, size: tuple[int, int], reference: tuple[int, int]) -> None:
    """A file may have another size than the images, but not another aspect ratio; sizes are (width, height).

    Raises:
        SceneDataError: naming `path` and both sizes.
    """
    if not same_shape(reference, size):
        raise SceneDataError(
            f"{path} is {size[0]}x{size[1]} but the images are {reference[0]}x{reference[1]}: make it again at the "
            "images' aspect ratio, uncropped and unrotated."
        )
