"""Semantic segmentation scores, per image (as the evaluators of Semantic Flow and Semantic-NeRF) and summed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from semflow_nerfstudio.evaluation.boundaries import boundary_f
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

LabelImage: TypeAlias = Integer[np.ndarray, "*image"] | Integer[Tensor, "*image"]
"""Class ids of an image, (H, W) or (H, W, 1), on any device; `IGNORE_LABEL` where there is none."""


def confusion_matrix(prediction: LabelImage, truth: LabelImage, num_classes: int) -> Int[np.ndarray, "C C+1"]:
    """Pixel counts by true class (row) and predicted class (column).

    Pixels whose truth is `IGNORE_LABEL` are dropped. The last of the C + 1 columns counts the labelled pixels for which
    nothing was predicted (`IGNORE_LABEL` in the prediction): they are misses, not ignored.

    Raises:
        ValueError: the images' shapes differ, or an id is neither a class nor `IGNORE_LABEL`.
    """
    predicted, true = as_labels(prediction), as_labels(truth)
    if predicted.shape != true.shape:
        raise ValueError(f"predicted labels have shape {predicted.shape}, true labels {true.shape}")
    known = true != IGNORE_LABEL
    predicted, true = predicted[known].astype(np.int64), true[known].astype(np.int64)
    predicted[predicted == IGNORE_LABEL] = num_classes
    for name, ids, limit in (("predicted", predicted, num_classes + 1), ("true", true, num_classes)):
        if len(ids) and (ids.min() < 0 or ids.max() >= limit):
            raise ValueError(f"{name} labels hold ids {ids.min()} to {ids.max()}, but there are {num_classes} classes")
    counts = np.bincount(true * (num_classes + 1) + predicted, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1)


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of one confusion matrix; NaN where there is nothing to score."""

    total_accuracy: float
    """Share of the labelled pixels that are right."""
    class_accuracy: float
    """Mean recall of the classes that occur in the truth."""
    miou: float
    """Mean IoU of the classes that occur in truth or prediction; a class predicted but absent counts 0."""
    miou_true_classes: float
    """Mean IoU of the classes that occur in the truth."""
    iou: Float[np.ndarray, "C"]
    """IoU of each class, NaN for a class in neither."""
    in_truth: Bool[np.ndarray, "C"]
    """Classes that occur in the truth."""


def segmentation_scores(confusion: Int[np.ndarray, "C C+1"]) -> SegmentationScores:
    """Accuracies and IoUs of a confusion matrix from `confusion_matrix`, or of a sum of such matrices."""
    hits = np.diagonal(confusion).astype(np.float64)
    num_true = confusion.sum(axis=1).astype(np.float64)
    num_predicted = confusion[:, : len(confusion)].sum(axis=0)
    union = num_true + num_predicted - hits
    in_truth, present = num_true > 0, union > 0
    iou = np.full(len(confusion), math.nan)
    iou[present] = hits[present] / union[present]
    return SegmentationScores(
        total_accuracy=float(hits.sum() / num_true.sum()) if in_truth.any() else math.nan,
        class_accuracy=float((hits[in_truth] / num_true[in_truth]).mean()) if in_truth.any() else math.nan,
        miou=float(iou[present].mean()) if present.any() else math.nan,
        miou_true_classes=float(iou[in_truth].mean()) if in_truth.any() else math.nan,
        iou=iou,
        in_truth=in_truth,
    )


def merge_static_classes(confusion: Int[np.ndarray, "C C+1"], foreground: Sequence[bool]) -> Int[np.ndarray, "C C+1"]:
    """Confusion matrix with all classes that are not foreground merged into the first of them ("foreground only").

    Args:
        confusion: from `confusion_matrix`, or a sum of such matrices.
        foreground: for each class whether it is foreground; at least one is not.
    """
    merged = confusion.copy()
    first, *others = np.flatnonzero(~np.asarray(foreground, dtype=bool))
    merged[first] += merged[others].sum(axis=0)
    merged[others] = 0
    merged[:, first] += merged[:, others].sum(axis=1)
    merged[:, others] = 0
    return merged


class SegmentationAccumulator:
    """Segmentation scores of many images: add them one by one, then ask for the result.

    Args:
        num_classes: C.
        foreground: for each class whether `miou_moving` and `boundary_f` count it; None: they stay NaN.
        class_names: for the keys `iou_<name>` of the result; by default the class ids.
        merge_static: score all classes that are not foreground as one.
        tolerance: of `boundary_f`, in pixels.
    """

    def __init__(
        self,
        num_classes: int,
        foreground: Sequence[bool] | Bool[np.ndarray, "C"] | Bool[Tensor, "C"] | None = None,
        class_names: Sequence[str] = (),
        merge_static: bool = False,
        tolerance: int = 2,
    ) -> None:
        flags = [False] * num_classes if foreground is None else [bool(flag) for flag in foreground]
        if len(flags) != num_classes or len(class_names) not in (0, num_classes):
            raise ValueError(f"{num_classes} classes need as many foreground flags and names")
        if merge_static and all(flags):
            raise ValueError("merge_static needs a class that is not foreground")
        self.foreground = flags
        self.class_names = list(class_names) or [str(index) for index in range(num_classes)]
        self.merge_static = merge_static
        self.tolerance = tolerance
        self.confusion = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
        """Sum over all images."""
        self.per_image: list[dict[str, float]] = []
        """What `add` returned, in order."""
        self._moving_ious: list[float] = []
        self._boundary_fs: list[float] = []

    def add(self, prediction: LabelImage, truth: LabelImage) -> dict[str, float]:
        """Count one image.

        Args:
            prediction: predicted ids; `IGNORE_LABEL` counts as wrong.
            truth: true ids; pixels with `IGNORE_LABEL` are not scored.

        Returns:
            The image's `miou, miou_moving, boundary_f, total_accuracy, class_accuracy`, always all of them, NaN where
            the image has nothing to score (average them with `mean_over_images`).

        Raises:
            ValueError: shapes differ or ids are out of range.
        """
        predicted, true = as_labels(prediction), as_labels(truth)
        confusion = confusion_matrix(predicted, true, len(self.foreground))
        if self.merge_static:
            confusion = merge_static_classes(confusion, self.foreground)
        scores = segmentation_scores(confusion)
        moving = np.flatnonzero(scores.in_truth & np.asarray(self.foreground))
        ious = [float(scores.iou[index]) for index in moving]
        ignored = true == IGNORE_LABEL
        fs = [boundary_f(predicted == index, true == index, self.tolerance, ignored) for index in moving]
        self.confusion += confusion
        self._moving_ious += ious
        self._boundary_fs += fs
        image = {
            "miou": scores.miou,
            "miou_moving": mean_of_known(ious),
            "boundary_f": mean_of_known(fs),
            "total_accuracy": scores.total_accuracy,
            "class_accuracy": scores.class_accuracy,
        }
        self.per_image.append(image)
        return image

    def result(self) -> dict[str, float]:
        """Scores of all images so far.

        Returns:
            `miou, total_accuracy, class_accuracy`: means over images. `miou_moving, boundary_f`: means over the pairs
            of an image and a foreground class that its truth has. `miou_dataset, iou_<class>`: of the summed
            confusion matrix. NaN where no image has anything to score.
        """
        means = mean_over_images(self.per_image)
        whole = segmentation_scores(self.confusion)
        result = {
            "miou": means.get("miou", math.nan),
            "miou_dataset": whole.miou,
            "miou_moving": mean_of_known(self._moving_ious),
            "boundary_f": mean_of_known(self._boundary_fs),
            "total_accuracy": means.get("total_accuracy", math.nan),
            "class_accuracy": means.get("class_accuracy", math.nan),
        }
        return result | {f"iou_{name}": float(iou) for name, iou in zip(self.class_names, whole.iou, strict=True)}


def mean_over_images(images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every key over the images that have a value for it (NaN is none); NaN for a key that no image has."""
    keys = dict.fromkeys(key for image in images for key in image)
    return {key: mean_of_known([image.get(key, math.nan) for image in images]) for key in keys}


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def as_labels(labels: LabelImage) -> Integer[np.ndarray, "*image"]:
    """Labels as a numpy array on the CPU, without a trailing dimension of 1."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
