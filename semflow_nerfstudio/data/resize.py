"""Exact resampling by area for any ratio, up or down.

An output pixel covers a rectangle of input pixels, the outermost of them in part. All weights are integers (in units of
1/output pixels along each axis), so that majorities and halves are decided exactly, never by rounding.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.sparse import csr_matrix

from semflow_nerfstudio.scene_frames import IGNORE_LABEL

SPARSE_SHARE = 0.5
"""Frames with a smaller share of labelled pixels are sparsely labelled: their other pixels want labels too. In the
others what has no label was left out on purpose."""


@lru_cache(maxsize=32)
def _overlaps(source: int, target: int) -> csr_matrix:
    """(target, source) int64 matrix of overlaps, in units in which an input pixel has length `target`."""
    first = np.arange(target) * source // target
    last = ((np.arange(target) + 1) * source - 1) // target
    counts = last - first + 1
    rows = np.repeat(np.arange(target), counts)
    columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    starts = np.maximum(rows * source, columns * target)
    ends = np.minimum((rows + 1) * source, (columns + 1) * target)
    return csr_matrix((ends - starts, (rows, columns)), shape=(target, source))


def _weighted_sums(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Sums of (H, W) or (H, W, K) values over the output pixels, where every output pixel has total weight H * W."""
    rows, columns = _overlaps(values.shape[0], height), _overlaps(values.shape[1], width)
    channels = values.reshape(*values.shape[:2], -1)
    planes = [columns.dot(rows.dot(channels[..., k]).T).T for k in range(channels.shape[2])]
    return np.stack(planes, axis=-1).reshape(height, width, *values.shape[2:])


def resize_area(values: Float[np.ndarray, "H W *K"], width: int, height: int) -> Float[np.ndarray, "height width *K"]:
    """Mean over the area of each output pixel, float32."""
    if values.shape[:2] == (height, width):
        return values.astype(np.float32)
    total = values.shape[0] * values.shape[1]
    return (_weighted_sums(values.astype(np.float64), width, height) / total).astype(np.float32)


def resize_area_where(
    values: Float[np.ndarray, "H W *K"], valid: Bool[np.ndarray, "H W"], width: int, height: int
) -> tuple[Float[np.ndarray, "height width *K"], Bool[np.ndarray, "height width"]]:
    """Mean over the valid part of each output pixel, and which output pixels are valid on at least half of their area.

    Output pixels without any valid part are 0.
    """
    expanded = valid.reshape(*valid.shape, *[1] * (values.ndim - 2))
    if values.shape[:2] == (height, width):
        return np.where(expanded, values, 0).astype(np.float32), valid.copy()
    coverage = _weighted_sums(valid.astype(np.int64), width, height)
    sums = _weighted_sums(np.where(expanded, values, 0).astype(np.float64), width, height)
    means = sums / np.maximum(coverage, 1).reshape(*coverage.shape, *[1] * (values.ndim - 2))
    return means.astype(np.float32), 2 * coverage >= values.shape[0] * values.shape[1]


def resize_nearest(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """The input pixel that holds the centre of each output pixel; works for (H, W) and (H, W, K)."""
    rows = (2 * np.arange(height) + 1) * values.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * values.shape[1] // (2 * width)
    return values[rows[:, None], columns[None, :]]


def resize_half(
    values: Int[np.ndarray, "H W"], full_value: int, width: int, height: int
) -> Bool[np.ndarray, "height width"]:
    """Whether the mean over each output pixel is at least half of `full_value`."""
    sums = _weighted_sums(values.astype(np.int64), width, height)
    return 2 * sums >= full_value * values.shape[0] * values.shape[1]


def is_sparse(labels: UInt8[np.ndarray, "H W"]) -> bool:
    """Whether most pixels of a labelled frame have no label."""
    return float((labels != IGNORE_LABEL).mean()) < SPARSE_SHARE


def majority_resize(
    ids: UInt8[np.ndarray, "H W"], width: int, height: int, num_classes: int
) -> UInt8[np.ndarray, "height width"]:
    """The label with the largest area in each output pixel.

    "Ignore" (255, and any id from `num_classes` on) votes like a class of its own, but loses ties; other ties go to the
    lowest id. Of sparse labels, such as clicks and strokes, nothing may be lost: there it has no vote where a class has
    one.
    """
    known = np.where(ids < num_classes, ids, np.uint8(IGNORE_LABEL)).astype(np.uint8)
    if ids.shape == (height, width):
        return known
    sparse = is_sparse(known)
    best = np.zeros((height, width), np.int64)
    result = np.full((height, width), IGNORE_LABEL, np.uint8)
    for label in np.flatnonzero(np.bincount(known.ravel(), minlength=256)):
        votes = _weighted_sums((known == label).astype(np.int64), width, height)
        wins = votes > best if label != IGNORE_LABEL or not sparse else best == 0
        best[wins] = votes[wins]
        result[wins] = label
    return result
