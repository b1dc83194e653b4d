"""What moves: pixels whose optical flow the camera's motion does not explain.

Flow alone errs by many pixels where there is no texture. So a pixel moves only if, beside its flow disagreeing with the
camera's motion, the other image looks worse in every place where the camera's motion could have brought it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from semflow_nerfstudio.data.epipolar import Explanation, Matches, all_matches

LEAST_RESIDUAL = 1.0 / 640
"""Residual of a mover at least, as a share of the image's diagonal: flow is hardly better than half a pixel."""
NOISE_FACTOR = 5.0
"""A mover's residual is this many times the median residual of all pixels."""
LEAST_AREA = 3e-4
"""Smaller spots are noise; share of the image."""
GROWN = 1 / 160
"""Movers are grown by this share of the width: flow is smooth across their edges."""

PATCH = 7
"""Side of the patches that are compared, pixels."""
SEARCH = (0.0, -2.0, 2.0, -5.0, 5.0, -9.0, 9.0)
"""Steps along the epipolar line, in pixels, at which the other image is looked at."""
WORSE, GREY_NOISE = 1.4, 2.0
"""The other image looks worse if it differs by this factor, and this many greys of 255, more than where flow leads."""

Explain = Callable[[Matches], Explanation]
Known = tuple[Float32[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"], Explain, UInt8[np.ndarray, "H W"]]
"""A frame's flow to another frame, where it is valid, what the camera's motion says, and the other frame's greys."""


def threshold(residuals: Float[np.ndarray, "P"], size: tuple[int, int]) -> float:
    """Residual, in pixels, above which something moves; `size` is (width, height)."""
    floor = LEAST_RESIDUAL * float(np.hypot(*size))
    return max(floor, NOISE_FACTOR * float(np.median(residuals))) if len(residuals) else floor


def moving_pixels(grey: UInt8[np.ndarray, "H W"], known: Sequence[Known]) -> Bool[np.ndarray, "H W"]:
    """Where a frame moves, from its flow to other frames: where at least one of them tells so, cleaned.

    Where no flow is valid, nothing is known, and nothing moves.
    """
    height, width = grey.shape
    found = np.zeros((height, width), bool)
    for flow, valid, explain, other in known:
        told = explain(all_matches(flow))
        distance = told.distance.reshape(height, width)
        suspect = valid & (distance > threshold(distance[valid], (width, height)))
        if suspect.any():
            found |= suspect & ~looks_static(grey, other, flow, told)
    return clean(found)


def looks_static(
    grey: UInt8[np.ndarray, "H W"],
    other: UInt8[np.ndarray, "H W"],
    flow: Float32[np.ndarray, "H W 2"],
    told: Explanation,
) -> Bool[np.ndarray, "H W"]:
    """Where the other image shows the same in a place that the camera's motion allows, near to where flow leads."""
    shape = (*grey.shape, 2)
    here = np.stack(np.meshgrid(np.arange(shape[1]), np.arange(shape[0])), axis=-1).astype(np.float32)
    image, target = grey.astype(np.float32), other.astype(np.float32)

    def unlike(step: np.ndarray) -> np.ndarray:
        place = here + step.reshape(shape).astype(np.float32)
        seen = cv2.remap(target, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cv2.blur(np.abs(seen - image), (PATCH, PATCH))

    flat = flow.reshape(-1, 2)
    limit = WORSE * unlike(flat) + GREY_NOISE
    allowed = [unlike(flat + told.correction + step * told.along) for step in SEARCH]
    return np.minimum.reduce(allowed) <= limit


def clean(mask: Bool[np.ndarray, "H W"], grown: int | None = None) -> Bool[np.ndarray, "H W"]:
    """Without specks and pinholes, holes filled, grown by so many pixels: by default as many as flow smears edges."""
    height, width = mask.shape
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    reach = max(3, 2 * round(GROWN * width) + 1)
    wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    spots = cv2.medianBlur(mask.astype(np.uint8), 5)
    spots = cv2.morphologyEx(spots, cv2.MORPH_OPEN, disc)
    spots = cv2.morphologyEx(spots, cv2.MORPH_CLOSE, wide)
    least = LEAST_AREA * height * width
    spots = without_small(spots, least)
    spots = 1 - without_small(1 - spots, 4 * least)
    if grown is not None:
        wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grown + 1, 2 * grown + 1))
    return cv2.dilate(spots, wide).astype(bool)


def without_small(mask: UInt8[np.ndarray, "H W"], least: float) -> UInt8[np.ndarray, "H W"]:
    """Only the connected parts of at least that many pixels."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = np.asarray(stats)[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    return np.take(keep, np.asarray(parts, np.int64)).astype(np.uint8)
