"""Segmentation scores against the reference evaluators and hand-worked label images."""

import json
import math

import numpy as np
import pytest
import torch

from semflow_nerfstudio.evaluation.boundaries import boundary_f
from semflow_nerfstudio.evaluation.segmentation import (
    SegmentationAccumulator,
    confusion_matrix,
    mean_over_images,
    merge_static_classes,
    segmentation_scores,
)

KEYS = ["miou", "miou_moving", "boundary_f", "total_accuracy", "class_accuracy"]


@pytest.fixture
def reference(test_data):
    return json.loads((test_data / "metric_vectors" / "semantic_reference.json").read_text())


def assert_scores(scores, expected):
    assert scores.miou == pytest.approx(expected["miou"], abs=1e-12)
    assert scores.miou_true_classes == pytest.approx(expected["miou_valid_class"], abs=1e-12)
    assert scores.total_accuracy == pytest.approx(expected["total_accuracy"], abs=1e-12)
    assert scores.class_accuracy == pytest.approx(expected["class_average_accuracy"], abs=1e-12)
    assert scores.iou[~np.isnan(scores.iou)] == pytest.approx(expected["ious"], abs=1e-12)


@pytest.mark.parametrize("num_classes", [5, 9])
@pytest.mark.parametrize("name", ["semantic_nerf_5_classes_ignore_-1", "semantic_flow_ignore_0"])
def test_reference_evaluators(reference, name, num_classes):
    true, predicted = np.array(reference["true"], np.uint8), np.array(reference["pred"], np.uint8)
    assert_scores(segmentation_scores(confusion_matrix(predicted, true, num_classes)), reference[name])


def test_reference_evaluator_foreground_only(reference):
    true, predicted = np.array(reference["true"], np.uint8), np.array(reference["pred"], np.uint8)
    foreground = [False, False, True, True, True]
    expected = reference["semantic_flow_ignore_[0,1]_(background classes merged to 0)"]
    confusion = merge_static_classes(confusion_matrix(predicted, true, 5), foreground)
    assert_scores(segmentation_scores(confusion), expected)

    accumulator = SegmentationAccumulator(5, foreground, merge_static=True)
    image = accumulator.add(predicted, true)
    assert image["miou"] == accumulator.result()["miou"] == pytest.approx(expected["miou"], abs=1e-12)
    assert image["total_accuracy"] == pytest.approx(expected["total_accuracy"], abs=1e-12)
    assert image["class_accuracy"] == pytest.approx(expected["class_average_accuracy"], abs=1e-12)


def test_ignored_truth_is_dropped_and_missing_predictions_are_misses():
    true = np.array([[0, 0, 1, 1, 255, 255]], np.uint8)
    predicted = np.array([[0, 1, 1, 255, 2, 255]], np.uint8)
    confusion = confusion_matrix(predicted, true, 3)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    scores = segmentation_scores(confusion)
    # Class 2 is predicted on an ignored pixel only: it does not occur.
    assert scores.iou[:2] == pytest.approx([1 / 2, 1 / 3])
    assert math.isnan(scores.iou[2])
    assert scores.miou == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert scores.total_accuracy == scores.class_accuracy == 0.5


def test_tensors_with_a_channel_and_other_integer_types():
    true = torch.tensor([[0, 1], [1, 255]], dtype=torch.uint8)[..., None]
    predicted = torch.tensor([[0, 1], [0, 0]], dtype=torch.int64)
    assert confusion_matrix(predicted, true, 2).tolist() == [[1, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize(
    ("predicted", "true", "message"),
    [
        ([[0, 3]], [[0, 1]], "predicted labels hold ids 0 to 3"),
        ([[0, 1]], [[0, 2]], "true labels hold ids 0 to 2"),
        ([[0, -1]], [[0, 1]], "predicted labels hold ids -1 to 0"),
        ([[0, 0, 0]], [[0, 1]], "shape"),
    ],
)
def test_bad_labels(predicted, true, message):
    for merge_static in (False, True):
        accumulator = SegmentationAccumulator(2, [False, True], merge_static=merge_static)
        with pytest.raises(ValueError, match=message):
            accumulator.add(np.array(predicted), np.array(true))


def test_bad_accumulator_arguments():
    with pytest.raises(ValueError, match="as many"):
        SegmentationAccumulator(3, [True])
    with pytest.raises(ValueError, match="as many"):
        SegmentationAccumulator(3, class_names=["a"])
    with pytest.raises(ValueError, match="not foreground"):
        SegmentationAccumulator(2, [True, True], merge_static=True)


def test_accumulator_by_hand():
    """Three images: both movers, one mover, nothing labelled."""
    names = ["wall", "person", "ball"]
    accumulator = SegmentationAccumulator(3, [False, True, True], names)
    both = np.zeros((30, 40), np.uint8)
    both[5:15, 5:15], both[20:26, 20:30] = 1, 2
    predicted = both.copy()
    predicted[20:26, 25:30] = 0  # half of the ball is missing
    first = accumulator.add(predicted, both)
    ball_f = boundary_f(predicted == 2, both == 2)
    assert 0 < ball_f < 1
    assert list(first) == KEYS
    assert first["miou"] == pytest.approx((1040 / 1070 + 1 + 0.5) / 3)
    assert first["miou_moving"] == pytest.approx(0.75)
    assert first["boundary_f"] == pytest.approx((1 + ball_f) / 2)

    person = np.zeros((30, 40), np.uint8)
    person[5:15, 5:15] = 1
    invented = np.zeros((30, 40), np.uint8)
    invented[5:15, 5:15] = 2  # a ball that is not there counts 0 in miou, not in miou_moving
    second = accumulator.add(invented, person)
    assert second["miou"] == pytest.approx(1 / 3)
    assert second["miou_moving"] == second["boundary_f"] == 0.0

    third = accumulator.add(predicted, np.full((30, 40), 255, np.uint8))
    assert list(third) == KEYS
    assert all(math.isnan(value) for value in third.values())

    result = accumulator.result()
    assert list(result) == [*KEYS[:1], "miou_dataset", *KEYS[1:], "iou_wall", "iou_person", "iou_ball"]
    assert result["miou"] == pytest.approx((first["miou"] + second["miou"]) / 2)
    assert result["miou_moving"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert result["boundary_f"] == pytest.approx((1 + ball_f + 0) / 3)
    assert result["total_accuracy"] == pytest.approx((1170 / 1200 + 1100 / 1200) / 2)
    assert result["class_accuracy"] == pytest.approx(((1 + 1 + 0.5) / 3 + (1 + 0) / 2) / 2)
    # Summed: wall 1040 + 1100 right of 2170 in the union, person 100 of 200, ball 30 of 60 + 100.
    ious = [2140 / 2170, 100 / 200, 30 / 160]
    assert [result[f"iou_{name}"] for name in names] == pytest.approx(ious)
    assert result["miou_dataset"] == pytest.approx(sum(ious) / 3)


def test_accumulator_without_foreground_or_images():
    accumulator = SegmentationAccumulator(2)
    assert all(math.isnan(value) for value in accumulator.result().values())
    labels = np.array([[0, 1]], np.uint8)
    image = accumulator.add(labels, labels)
    assert math.isnan(image["miou_moving"]) and math.isnan(image["boundary_f"])
    result = accumulator.result()
    assert result["miou"] == result["miou_dataset"] == result["iou_1"] == 1.0


def test_mean_over_images_leaves_out_what_is_missing():
    means = mean_over_images([{"a": 1.0, "b": math.nan}, {"a": math.nan, "b": math.nan}, {"a": 3.0, "c": 5.0}])
    assert means["a"] == 2.0
    assert math.isnan(means["b"])
    assert means["c"] == 5.0
