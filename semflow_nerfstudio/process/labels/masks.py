"""Shapes as masks: polygons, ellipses, COCO's run lengths. A pixel is inside where its centre, at +.5, is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

_MAX_DIGITS = 7
"""Characters of one number in compressed run lengths: 35 bits."""


def polygon_mask(points: Float[np.ndarray, "N 2"], width: int, height: int) -> Bool[np.ndarray, "height width"]:
    """The pixels inside a closed polygon of (x, y) in pixels, by the even-odd rule; what lies outside is cut off."""
    # Every edge toggles, in each row whose centre line it crosses, all pixels whose centres lie right of the crossing.
    toggles = np.zeros((height, width + 1), np.uint8)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in (y0, y1))
        rows = np.arange(first, last)
        if len(rows):
            crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            toggles[rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)] ^= 1
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(bool)


def ellipse_mask(
    center: tuple[float, float], radii: tuple[float, float], width: int, height: int
) -> Bool[np.ndarray, "height width"]:
    """The pixels in an ellipse along the axes; (x, y) in pixels."""
    x = (np.arange(width) + 0.5 - center[0]) / radii[0]
    y = (np.arange(height) + 0.5 - center[1]) / radii[1]
    return x[None, :] ** 2 + y[:, None] ** 2 <= 1


def unpack_counts(text: str) -> list[int]:
    """Run lengths out of COCO's compressed string.

    A number is a row of characters from "0" on, 5 bits in each with the lowest first; bit 5 says that another follows,
    and bit 4 of the last one is the sign. From the fourth number on they are differences to the number two before.

    Raises:
        ValueError: what is no such string.
    """
    counts: list[int] = []
    value = digits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or digits == _MAX_DIGITS:
            raise ValueError("it is no compressed run-length string")
        value |= (code & 31) << 5 * digits
        digits += 1
        if not code & 32:
            value -= (code & 16) and 1 << 5 * digits
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = digits = 0
    if digits:
        raise ValueError("it ends within a number")
    return counts


def check_counts(counts: Sequence[object], width: int, height: int) -> Int[np.ndarray, "R"]:
    """Run lengths of a width x height mask as an array.

    Raises:
        ValueError: they are no whole numbers from 0 on, or do not sum up to the size.
    """
    lengths = [count for count in counts if isinstance(count, int) and not isinstance(count, bool) and count >= 0]
    if len(lengths) < len(counts):
        raise ValueError("its run lengths are not all whole numbers from 0 on")
    if sum(lengths) != width * height:
        raise ValueError(f"its run lengths sum up to {sum(lengths)} instead of {width} x {height}")
    return np.array(lengths, np.int64)


def runs_mask(counts: Int[np.ndarray, "R"], width: int, height: int) -> Bool[np.ndarray, "height width"]:
    """The mask of checked run lengths: down the columns, outside first."""
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
