"""Whether confidence is what it says: of pixels that are sure to 80 %, 80 % should be right."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from semflow_nerfstudio.scene_frames import IGNORE_LABEL

BINS = 15


def confidence_histogram(
    confidence: Float[Tensor, "*pixels"], right: Bool[Tensor, "*pixels"], bins: int = BINS
) -> Float[Tensor, "bins 3"]:
    """Reliability histogram; those of several images may be added.

    Args:
        confidence: Probability in [0, 1] that a prediction is right.
        right: Whether it was.
        bins: Equal bins of the confidence over [0, 1].

    Returns:
        For each bin: number of predictions, sum of confidences, number of right ones; float64 on the CPU.
    """
    confidence, right = confidence.reshape(-1).double().cpu(), right.reshape(-1).double().cpu()
    index = (confidence * bins).long().clamp(0, bins - 1)
    columns = (torch.ones_like(confidence), confidence, right)
    return torch.stack([torch.bincount(index, weights=column, minlength=bins) for column in columns], dim=-1)


def calibration_histogram(
    probabilities: Float[Tensor, "*image C"], truth: Integer[Tensor, "*image"], bins: int = BINS
) -> Float[Tensor, "bins 3"]:
    """Reliability histogram of class probabilities (summing to 1); pixels whose truth is `IGNORE_LABEL` are dropped."""
    known = truth != IGNORE_LABEL
    confidence, predicted = probabilities[known].max(dim=-1)
    return confidence_histogram(confidence, predicted == truth[known], bins)


def expected_calibration_error(histogram: Float[Tensor, "bins 3"]) -> float:
    """Mean over predictions of |accuracy - confidence| of their bin, from a histogram as above; NaN without any."""
    count, confidence, right = histogram.double().unbind(dim=-1)
    if count.sum() == 0:
        return math.nan
    return float((right - confidence).abs().sum() / count.sum())
