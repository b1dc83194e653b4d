"""J and F of every object beside the class scores."""

import numpy as np
import pytest

from semflow_nerfstudio.evaluation.task_scores import TaskScores
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


def disc(column: int) -> np.ndarray:
    rows, columns = np.mgrid[:40, :60]
    return (((rows - 20) ** 2 + (columns - column) ** 2) < 100).astype(np.uint8)


def test_a_perfect_prediction_scores_one() -> None:
    scores = TaskScores(("wall", "ball", "cat"), (False, True, True))
    scores.add(disc(25), disc(25))
    result = scores.result()
    assert result["views"] == 1 and result["miou"] == result["J_ball"] == result["F_ball"] == result["J"] == 1
    assert "J_cat" not in result, "an object that no view shows has no score"


def test_region_and_outline_are_means_over_views_that_show_the_object() -> None:
    scores = TaskScores(("wall", "ball"), (False, True))
    scores.add(disc(25), disc(25))
    scores.add(disc(45), disc(25))
    scores.add(np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8))
    overlap = (disc(45) & disc(25)).sum() / (disc(45) | disc(25)).sum()
    result = scores.result()
    assert result["J_ball"] == pytest.approx((1 + overlap) / 2) and 0.5 <= result["F_ball"] < 1
    assert result["views"] == 3


def test_unknown_truth_is_not_scored() -> None:
    truth = disc(25)
    truth[:, 30:] = IGNORE_LABEL
    predicted = disc(25)
    predicted[:, 50:] = 1
    scores = TaskScores(("wall", "ball"), (False, True))
    scores.add(predicted, truth)
    assert scores.result()["J_ball"] == 1
