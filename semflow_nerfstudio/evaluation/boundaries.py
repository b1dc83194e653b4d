"""Region and boundary measures of masks, as DAVIS defines them, and their statistics over a sequence.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer

from semflow_nerfstudio.scene_frames import IGNORE_LABEL

DAVIS_TOLERANCE = 0.008
"""DAVIS' boundary tolerance as a share of the image diagonal."""


def davis_tolerance(height: int, width: int) -> int:
    """Boundary tolerance in pixels that DAVIS uses for an image of `height` x `width` pixels."""
    return math.ceil(DAVIS_TOLERANCE * math.hypot(height, width))


def dilate(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """Pixels at most `radius` pixels (Euclidean, between pixel centres) from a pixel of `mask`.

    A disc is a stack of runs, so `4 * radius` shifted ORs do it, several times faster than a distance transform.
    """
    runs, grown = mask.copy(), mask.copy()
    half_widths = [math.isqrt(radius * radius - row * row) for row in range(radius + 1)]
    for half_width in range(radius + 1):
        if half_width > 0:
            runs[:, half_width:] |= mask[:, :-half_width]
            runs[:, :-half_width] |= mask[:, half_width:]
        for row in (row for row, width in enumerate(half_widths) if width == half_width):
            if row == 0:
                grown |= runs
            else:
                grown[row:] |= runs[:-row]
                grown[:-row] |= runs[row:]
    return grown


def boundary(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels of which the right, the lower or the lower right neighbour is on the other side of the mask's outline.

    The image border is no boundary. Lines are one pixel wide, as DAVIS' `seg2bmap` makes them.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])


def boundary_f(
    prediction: Bool[np.ndarray, "H W"],
    truth: Bool[np.ndarray, "H W"],
    tolerance: int = 2,
    ignored: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """F measure of the predicted outline: harmonic mean of its precision and recall within `tolerance` pixels.

    Args:
        prediction: predicted mask.
        truth: ground-truth mask.
        tolerance: largest distance in pixels at which two outline pixels match.
        ignored: pixels of unknown truth. The true outline is taken where it is known, and predicted outline pixels
            that the unknown part of the true outline might match are not scored.

    Returns:
        A value in [0, 1]; 1 where neither mask has an outline; NaN where there is none to score because of `ignored`.
    """
    predicted, true = boundary(prediction), boundary(truth)
    scored = predicted
    partly_unknown = ignored is not None and bool(ignored.any())
    if ignored is not None and partly_unknown:
        padded = np.pad(ignored, ((0, 1), (0, 1)), mode="edge")
        unknown = ignored | padded[:-1, 1:] | padded[1:, :-1] | padded[1:, 1:]
        true = true & ~unknown
        scored = predicted & ~dilate(unknown, tolerance)

    num_scored, num_true = np.count_nonzero(scored), np.count_nonzero(true)
    if num_scored == 0 and num_true == 0:
        return math.nan if partly_unknown else 1.0
    precision = np.count_nonzero(scored & dilate(true, tolerance)) / num_scored if num_scored else 1.0
    recall = np.count_nonzero(true & dilate(predicted, tolerance)) / num_true if num_true else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def region_j(
    prediction: Bool[np.ndarray, "H W"],
    truth: Bool[np.ndarray, "H W"],
    ignored: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """Jaccard index (intersection over union) of two masks over the pixels not `ignored`; 1 if both are empty."""
    union = prediction | truth
    if ignored is not None:
        union = union & ~ignored
    num_union = np.count_nonzero(union)
    return np.count_nonzero(prediction & truth & union) / num_union if num_union else 1.0


class SequenceStatistics(NamedTuple):
    """How a per-frame measure fares over a sequence."""

    mean: float
    recall: float
    """Share of the frames above 0.5."""
    decay: float
    """Mean of the first quarter of the frames minus mean of the last quarter."""


def sequence_statistics(values: Sequence[float]) -> SequenceStatistics:
    """Mean, recall and decay of per-frame values in time order. NaN values are left out; all NaN if none is left."""
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).any():
        return SequenceStatistics(math.nan, math.nan, math.nan)
    # DAVIS' quarters share their end frames and round halves up (the 1e-10).
    edges = np.round(np.linspace(1, len(array), 5) + 1e-10).astype(np.int64) - 1
    first, last = array[edges[0] : edges[1] + 1], array[edges[3] : edges[4] + 1]
    decay = _finite_mean(first) - _finite_mean(last)
    known = array[np.isfinite(array)]
    return SequenceStatistics(float(known.mean()), float((known > 0.5).mean()), decay)


def object_scores(
    predictions: Integer[np.ndarray, "N H W"],
    truths: Integer[np.ndarray, "N H W"],
    object_ids: Iterable[int] | None = None,
    tolerance: int | None = None,
) -> dict[int, dict[str, float]]:
    """Region J and boundary F of every object of a video, as DAVIS' semi-supervised protocol.

    The first frame (given to the method) and the last are left out.

    Args:
        predictions: predicted object ids of N frames in time order, at least 3.
        truths: true object ids; `IGNORE_LABEL` marks pixels that are not scored.
        object_ids: objects to score; by default those of the first frame's truth, 0 being the background.
        tolerance: boundary tolerance in pixels; by default DAVIS' 0.8 % of the diagonal.

    Returns:
        For each object id: `j_mean, j_recall, j_decay, f_mean, f_recall, f_decay`.

    Raises:
        ValueError: the shapes differ or there are fewer than 3 frames.
    """
    if predictions.shape != truths.shape or truths.ndim != 3 or len(truths) < 3:
        raise ValueError(
            f"object scores need two (frames, height, width) arrays of the same shape with at least 3 frames, "
            f"not {predictions.shape} and {truths.shape}"
        )
    if object_ids is None:
        object_ids = [int(value) for value in np.unique(truths[0]) if value not in (0, IGNORE_LABEL)]
    if tolerance is None:
        tolerance = davis_tolerance(*truths.shape[1:])
    ignored = truths == IGNORE_LABEL
    scores = {}
    for object_id in object_ids:
        frames = [(predictions[k] == object_id, truths[k] == object_id, ignored[k]) for k in range(1, len(truths) - 1)]
        j = sequence_statistics([region_j(predicted, true, unknown) for predicted, true, unknown in frames])
        f = sequence_statistics(
            [boundary_f(predicted, true, tolerance, unknown) for predicted, true, unknown in frames]
        )
        scores[object_id] = {f"j_{name}": value for name, value in j._asdict().items()} | {
            f"f_{name}": value for name, value in f._asdict().items()
        }
    return scores


def _finite_mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
