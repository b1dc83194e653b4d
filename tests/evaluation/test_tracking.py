"""TAP-Vid metrics against the evaluator of TAP-Vid and hand-worked tracks."""

import json
import math

import numpy as np
import pytest

from semflow_nerfstudio.evaluation.tracking import tapvid_metrics, to_tapvid_raster


@pytest.mark.parametrize("query_mode", ["first", "strided"])
def test_reference_evaluator(test_data, query_mode):
    reference = json.loads((test_data / "metric_vectors" / "tapvid_reference.json").read_text())
    queries, *arrays = (
        np.array(reference[name])[0]
        for name in ("query_points_tyx", "gt_occluded", "gt_tracks_xy_256", "pred_occluded", "pred_tracks_xy_256")
    )
    metrics = tapvid_metrics(queries[:, 0].astype(int), *arrays, query_mode=query_mode)
    expected = {name: value[0] for name, value in reference["expected"][query_mode].items()}
    assert metrics.keys() == expected.keys()
    assert metrics == pytest.approx(expected, abs=1e-12)


def test_frames_before_the_query_count_in_strided_mode_only():
    occluded = np.zeros((1, 4), dtype=bool)
    truth = np.zeros((1, 4, 2))
    prediction = truth.copy()
    prediction[0, 0] = 100.0  # a frame before the query
    prediction[0, 2] = 100.0  # the query itself never counts
    first = tapvid_metrics(np.array([2]), occluded, truth, occluded, prediction, "first")
    strided = tapvid_metrics(np.array([2]), occluded, truth, occluded, prediction, "strided")
    assert first["average_jaccard"] == first["average_pts_within_thresh"] == 1.0
    assert strided["average_pts_within_thresh"] == pytest.approx(2 / 3)
    # Two found; three visible and one false positive.
    assert strided["average_jaccard"] == pytest.approx(2 / 4)


def test_thresholds_occlusion_and_nothing_to_score():
    truth = np.zeros((1, 3, 2))
    prediction = np.array([[[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]])
    true_occluded = np.array([[False, False, True]])
    metrics = tapvid_metrics(np.array([0]), true_occluded, truth, np.zeros((1, 3), dtype=bool), prediction)
    assert metrics["occlusion_accuracy"] == 0.5
    assert [metrics[f"pts_within_{d}"] for d in (1, 2, 4, 8, 16)] == [0, 0, 0, 1, 1]
    # Frame 2 is said to be visible and is not: one false positive beside the visible one.
    assert [metrics[f"jaccard_{d}"] for d in (1, 2, 4, 8, 16)] == [0, 0, 0, 0.5, 0.5]
    hidden = np.ones((1, 3), dtype=bool)
    nothing = tapvid_metrics(np.array([0]), hidden, truth, hidden, prediction)
    assert nothing["occlusion_accuracy"] == 1.0
    assert math.isnan(nothing["average_jaccard"])
    with pytest.raises(ValueError, match="query_mode"):
        tapvid_metrics(np.array([0]), hidden, truth, hidden, prediction, "last")  # pyright: ignore


def test_raster():
    assert to_tapvid_raster(np.array([[480.0, 270.0], [240.0, 27.0]]), 270, 480).tolist() == [[256, 256], [128, 25.6]]
