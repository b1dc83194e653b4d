"""TAP-Vid's point-track metrics (Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", 2022)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer

THRESHOLDS = (1, 2, 4, 8, 16)
"""Pixels of a 256 x 256 raster."""


def to_tapvid_raster(tracks: Float[np.ndarray, "*points 2"], height: int, width: int) -> Float[np.ndarray, "*points 2"]:
    """Tracks (u right, v down) in pixels of a `height` x `width` image, in those of the 256 x 256 raster."""
    return tracks * (np.array([256.0, 256.0]) / np.array([width, height]))


def tapvid_metrics(
    query_frames: Integer[np.ndarray, "N"],
    true_occluded: Bool[np.ndarray, "N T"],
    true_tracks: Float[np.ndarray, "N T 2"],
    predicted_occluded: Bool[np.ndarray, "N T"],
    predicted_tracks: Float[np.ndarray, "N T 2"],
    query_mode: Literal["first", "strided"] = "first",
) -> dict[str, float]:
    """TAP-Vid metrics of the N points of one clip of T frames.

    Args:
        query_frames: frame in which each point was given to the tracker.
        true_occluded: whether a point is hidden in a frame.
        true_tracks: positions in pixels of a 256 x 256 raster (see `to_tapvid_raster`); where hidden they do not count.
        predicted_occluded: the tracker's opinion.
        predicted_tracks: the tracker's positions.
        query_mode: `first` scores the frames after the query, `strided` all but the query's own.

    Returns:
        `occlusion_accuracy`; for each threshold d `pts_within_d` (share of the visible points nearer than d) and
        `jaccard_d`; their means `average_pts_within_thresh` and `average_jaccard`. NaN where there is nothing to score.

    Raises:
        ValueError: an unknown query mode.
    """
    offsets = np.arange(true_occluded.shape[1]) - query_frames[:, None]
    if query_mode == "first":
        scored = offsets > 0
    elif query_mode == "strided":
        scored = offsets != 0
    else:
        raise ValueError(f'query_mode is "first" or "strided", not "{query_mode}"')

    visible, predicted_visible = ~true_occluded & scored, ~predicted_occluded & scored
    squared_distance = ((predicted_tracks - true_tracks) ** 2).sum(axis=-1)
    metrics = {
        "occlusion_accuracy": _ratio(
            np.count_nonzero((predicted_occluded == true_occluded) & scored), np.count_nonzero(scored)
        )
    }
    for threshold in THRESHOLDS:
        within = squared_distance < threshold**2
        found = visible & within
        true_positives = np.count_nonzero(found & predicted_visible)
        false_positives = np.count_nonzero(predicted_visible & ~found)
        num_visible = np.count_nonzero(visible)
        metrics[f"pts_within_{threshold}"] = _ratio(np.count_nonzero(found), num_visible)
        metrics[f"jaccard_{threshold}"] = _ratio(true_positives, num_visible + false_positives)
    for mean, name in (("average_jaccard", "jaccard"), ("average_pts_within_thresh", "pts_within")):
        metrics[mean] = sum(metrics[f"{name}_{threshold}"] for threshold in THRESHOLDS) / len(THRESHOLDS)
    return metrics


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
