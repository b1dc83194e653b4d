"""Region J and boundary F against DAVIS' own evaluator and against hand-worked masks."""

import json
import math
import time

import numpy as np
import pytest
from PIL import Image

from semflow_nerfstudio.evaluation.boundaries import (
    boundary,
    boundary_f,
    davis_tolerance,
    dilate,
    object_scores,
    region_j,
    sequence_statistics,
)

SEQUENCES = (
    *("blackswan", "breakdance", "camel", "car-roundabout", "car-shadow", "cows"),
    *("dance-twirl", "drift-chicane", "drift-straight", "goat", "libby", "parkour"),
)


def square(top, left, size=64, side=32):
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_davis_sequence(test_data, sequence):
    folder = test_data / "metric_vectors"
    expected = json.loads((folder / "davis_jf_reference.json").read_text())[sequence]

    def masks(name):
        files = sorted((folder / name / sequence).glob("*.png"))
        assert len(files) == expected["frames"]
        return np.stack([np.asarray(Image.open(file)) > 0 for file in files]).astype(np.uint8)

    predictions, truths = masks("davis_osvos_masks"), masks("davis_ground_truth")
    first = predictions[1] > 0, truths[1] > 0
    assert region_j(*first) == pytest.approx(expected["J_frame1"], abs=1e-6)
    assert boundary_f(*first, davis_tolerance(*first[0].shape)) == pytest.approx(expected["F_frame1"], abs=1e-6)
    scores = object_scores(predictions, truths)
    assert list(scores) == [1]
    # The reference is rounded to four digits.
    for measure in "jf":
        values = [round(scores[1][f"{measure}_{name}"], 4) for name in ("mean", "recall", "decay")]
        assert values == pytest.approx(expected[measure.upper()], abs=1e-9)


def test_davis_synthetic(test_data):
    expected = json.loads((test_data / "metric_vectors" / "davis_jf_reference.json").read_text())["_synthetic"]
    prediction, truth = square(20, 18), square(16, 16)
    assert davis_tolerance(64, 64) == 1
    assert region_j(prediction, truth) == pytest.approx(expected["J"], abs=1e-12)
    assert boundary_f(prediction, truth, 1) == pytest.approx(expected["F"], abs=1e-12)


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 8, 30])
def test_dilate_is_a_euclidean_disc(radius):
    mask = np.random.default_rng(radius).random((23, 17)) < 0.02
    points = np.argwhere(mask)
    rows, columns = np.mgrid[:23, :17]
    squared = ((rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2).min(axis=-1)
    assert np.array_equal(dilate(mask, radius), squared <= radius**2)


def test_boundary_of_a_square():
    # Rows and columns 1..4 of the square 2..4: one pixel up and left of it, and its last row and column.
    mask = square(2, 2, size=8, side=3)
    expected = np.zeros((8, 8), dtype=bool)
    expected[1:5, 1:5] = True
    expected[2:4, 2:4] = False
    assert np.array_equal(boundary(mask), expected)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (2, 1.0), (3, 0.0)])
def test_tolerance_of_a_shifted_edge(shift, expected):
    truth, prediction = np.zeros((20, 30), dtype=bool), np.zeros((20, 30), dtype=bool)
    truth[:, :10] = True
    prediction[:, : 10 + shift] = True
    assert boundary_f(prediction, truth, tolerance=2) == expected


def test_precision_and_recall_are_told_apart():
    truth, prediction = np.zeros((20, 40), dtype=bool), np.zeros((20, 40), dtype=bool)
    truth[:, :10] = True
    prediction[:, :10] = True
    prediction[:, 20:30] = True  # two edges that are not there: precision 1/3, recall 1
    assert boundary_f(prediction, truth) == pytest.approx(0.5)
    assert boundary_f(truth, prediction) == pytest.approx(0.5)


def test_masks_without_outline():
    empty, full, half = np.zeros((8, 8), dtype=bool), np.ones((8, 8), dtype=bool), square(0, 0, size=8, side=4)
    assert boundary_f(empty, empty) == 1.0
    assert boundary_f(full, full) == 1.0
    assert boundary_f(half, empty) == 0.0
    assert boundary_f(empty, half) == 0.0
    assert region_j(empty, empty) == 1.0
    assert region_j(half, empty) == 0.0


def test_ignored_pixels_neither_reward_nor_punish():
    truth, prediction, ignored = (np.zeros((20, 40), dtype=bool) for _ in range(3))
    truth[:, :20] = True
    prediction[:, :20] = True
    assert boundary_f(prediction, truth, ignored=ignored) == 1.0

    ignored[10:] = True
    prediction[10:] = False  # wrong, but in the unknown half
    truth[10:, 30:] = True  # what the unknown half of the truth holds is without effect
    known_half = boundary_f(prediction[:10], truth[:10])
    assert known_half == 1.0
    assert boundary_f(prediction, truth, ignored=ignored) == 1.0
    assert region_j(prediction, truth, ignored) == 1.0

    # Wrong in the upper known rows. Outlines: of the truth rows 0..8 of column 19 (row 9 touches the unknown half), of
    # the prediction that column from row 4 and row 4 left of it. Precision: of the scored rows 4..6 (the outline of
    # rows 7..9 might match an unknown one) 3 pixels of column 19 and row 4's 19 others, of which 17 and 18 are near
    # enough. Recall: rows 2..8 of 9.
    prediction[:5] = False
    precision, recall = 5 / 22, 7 / 9
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f(prediction, truth, ignored=ignored) == pytest.approx(expected)


def test_a_band_of_unknown_pixels_along_the_edge_leaves_nothing_to_score():
    truth, ignored = np.zeros((20, 40), dtype=bool), np.zeros((20, 40), dtype=bool)
    truth[:, :20] = True
    ignored[:, 18:23] = True
    assert math.isnan(boundary_f(truth, truth, ignored=ignored))
    prediction = truth.copy()
    prediction[:, 30:] = True  # an edge where the truth is known to have none
    assert boundary_f(prediction, truth, ignored=ignored) == 0.0


def test_sequence_statistics():
    # Quarters of 8 values: 1..3 and 6..8 (shared ends, halves rounded up: edges 1, 3, 5, 6, 8).
    mean, recall, decay = sequence_statistics([1.0, 0.8, 0.6, 0.6, 0.5, 0.4, 0.2, 0.0])
    assert mean == pytest.approx(4.1 / 8)
    assert recall == pytest.approx(4 / 8)
    assert decay == pytest.approx(0.8 - 0.2)
    assert sequence_statistics([math.nan, 1.0, math.nan, 0.5])[:2] == (0.75, 0.5)
    assert all(math.isnan(value) for value in sequence_statistics([math.nan, math.nan]))


def test_object_scores_leave_out_first_and_last_frame_and_tell_objects_apart():
    truths = np.zeros((5, 64, 64), dtype=np.uint8)
    truths[:, 8:24, 8:24] = 1
    truths[:, 40:56, 40:56] = 7
    predictions = truths.copy()
    predictions[[0, -1]] = 0
    predictions[2][predictions[2] == 7] = 0
    scores = object_scores(predictions, truths)
    assert set(scores) == {1, 7}
    assert scores[1]["j_mean"] == scores[1]["f_mean"] == scores[1]["j_recall"] == 1.0
    assert scores[7]["j_mean"] == scores[7]["f_mean"] == pytest.approx(2 / 3)
    truths[2] = 255
    assert object_scores(predictions, truths)[7]["j_mean"] == 1.0
    with pytest.raises(ValueError, match="at least 3 frames"):
        object_scores(truths[:2], truths[:2])


def test_boundary_f_is_fast():
    rows, columns = np.mgrid[:270, :480]
    truth = (rows - 130) ** 2 + (columns - 200) ** 2 < 80**2
    prediction = (rows - 131) ** 2 + (columns - 204) ** 2 < 78**2
    ignored = rows < 20
    seconds = []
    for _ in range(5):
        start = time.process_time()
        boundary_f(prediction, truth, 2, ignored)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.015
