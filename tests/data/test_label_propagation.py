"""Labels carried along known flow: where they land, how sure they are, and what is never read."""

import numpy as np
import pytest

from semflow_nerfstudio.data.label_propagation import (
    DECAY,
    CarriedLabels,
    carry_labels,
    labels_are_partial,
    without_edges,
)
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

HEIGHT, WIDTH, FRAMES, SPEED = 6, 16, 5, 1.5
NEXT = np.array([1, 2, 3, 4, -1])
PREVIOUS = np.array([-1, 0, 1, 2, 3])
LINES, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


def world(frame: int) -> np.ndarray:
    """Class 1 right of an edge that moves to the right by 1.5 pixels a frame, class 0 left of it."""
    return (COLUMNS + 0.5 > 4 + SPEED * frame).astype(np.uint8)


def flow(frame: int, forward: bool):
    target = (NEXT if forward else PREVIOUS)[frame]
    if target < 0:
        return None
    motion = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    motion[..., 0] = SPEED if forward else -SPEED
    return motion, np.ones((HEIGHT, WIDTH), bool)


def test_labels_follow_the_flow_from_both_sides() -> None:
    """Every pixel whose chain stays in the image gets the right label but at the edge's own pixel; two ways are surer
    than one, and a chain of one step than one of two."""
    labels = [world(0), None, None, None, world(4)]
    carried = carry_labels(labels, NEXT, PREVIOUS, flow)
    for frame in (1, 2, 3):
        found = carried[frame].labels
        known = (found != IGNORE_LABEL) & (np.abs(COLUMNS + 0.5 - (4 + SPEED * frame)) > 1)
        np.testing.assert_array_equal(found[known], world(frame)[known])
    middle = carried[2]
    assert (middle.labels[:, 3:12] != IGNORE_LABEL).all()
    one = 1 - (1 - DECAY**2) ** 2
    assert float(middle.confidence[2, 11]) == pytest.approx(one, abs=2e-3)
    assert float(carried[1].confidence[2, 0]) == pytest.approx(DECAY**3, abs=2e-3)  # its way back leaves the image


def test_one_side_only_decays_with_length() -> None:
    carried = carry_labels([world(0), None, None, None, None], NEXT, PREVIOUS, flow)
    for frame in (1, 2, 3, 4):
        assert float(carried[frame].confidence[3, 12]) == pytest.approx(DECAY**frame, abs=2e-3)
        left = int(np.ceil(SPEED * frame)) - 1  # what comes from outside the image is not known
        assert (carried[frame].labels[:, : max(left - 1, 0)] == IGNORE_LABEL).all()
    assert (carried[0].labels == IGNORE_LABEL).all()  # has labels of its own


def test_flow_that_does_not_return_is_not_believed() -> None:
    """Invalid flow ends the chain; flow there and back that differ by pixels leave little confidence."""

    def broken(frame: int, forward: bool):
        motion, valid = flow(frame, forward) or (None, None)
        if motion is None or valid is None:
            return None
        valid, motion = valid.copy(), motion.copy()
        if not forward:
            valid[0] = False
            motion[3:, :, 1] += 2.0
        return motion, valid

    carried = carry_labels([world(0), None, None, None, None], NEXT, PREVIOUS, broken)[1]
    assert (carried.labels[0] == IGNORE_LABEL).all()
    assert (carried.labels[1:3, 4:] != IGNORE_LABEL).all()
    assert (carried.labels[3:] == IGNORE_LABEL).all()


def test_scribbles_spread_along_the_clip() -> None:
    """A pixel labelled in one frame labels the same point in all others; labelled pixels keep their own."""
    labels = [np.full((HEIGHT, WIDTH), IGNORE_LABEL, np.uint8) for _ in range(FRAMES)]
    labels[2][3, 8], labels[0][1, 2] = 1, 0
    carried = carry_labels(labels, NEXT, PREVIOUS, flow)
    for frame in (0, 1, 3, 4):
        (columns,) = (carried[frame].labels[3] == 1).nonzero()
        assert len(columns) and (np.abs(columns - (8 + SPEED * (frame - 2))) <= 1).all()
    assert (carried[3].labels[1] == 0).any()
    assert carried[2].labels[3, 8] == IGNORE_LABEL and float(carried[2].confidence[3, 8]) == 0


def test_ignored_pixels_of_labelled_frames_stay_ignored() -> None:
    """In a densely labelled frame what has no label was left out on purpose."""
    first = world(0)
    first[0] = IGNORE_LABEL
    carried = carry_labels([first, None, None, None, world(4)], NEXT, PREVIOUS, flow)
    assert (carried[0].labels == IGNORE_LABEL).all() and (carried[0].confidence == 0).all()


def test_frames_without_neighbours_get_nothing() -> None:
    apart = np.full(FRAMES, -1)
    carried = carry_labels([world(0), None, None, None, None], apart, apart, flow)
    assert all((frame.labels == IGNORE_LABEL).all() for frame in carried)


def test_what_counts_as_partial() -> None:
    sparse = np.full((HEIGHT, WIDTH), IGNORE_LABEL, np.uint8)
    sparse[0, 0] = 1
    assert labels_are_partial([world(0), None]) and labels_are_partial([sparse, sparse])
    assert not labels_are_partial([world(0), world(1)]) and not labels_are_partial([None, None])
    mostly = world(0)
    mostly[:2] = IGNORE_LABEL
    assert not labels_are_partial([mostly, world(1)])


def test_edges_are_left_out_and_strokes_stay() -> None:
    """Two pixels on each side of an edge are unsure, more in wide images; ignored pixels are no class, so that a stroke
    in unlabelled surroundings stays whole, but not where another class is near."""
    left = without_edges(world(0))
    np.testing.assert_array_equal(left[0], [0, 0, *[IGNORE_LABEL] * 4, *[1] * 10])
    wide = without_edges(np.repeat(np.array([[0, 1]], np.uint8), 480, axis=1))
    assert list(np.flatnonzero(wide[0] == IGNORE_LABEL)) == list(range(476, 484))
    strokes = np.full((9, 20), IGNORE_LABEL, np.uint8)
    strokes[4, 1:8], strokes[4, 15:], strokes[6, 16] = 0, 2, 5
    kept = without_edges(strokes)
    np.testing.assert_array_equal(kept[4, :14], strokes[4, :14])
    assert (kept[4, 15:19] == IGNORE_LABEL).all() and kept[4, 19] == 2 and kept[6, 16] == IGNORE_LABEL
    carried = CarriedLabels(world(0), np.full(world(0).shape, 0.5, np.float16)).without_edges()
    np.testing.assert_array_equal(carried.labels, left)
    assert ((carried.confidence == 0.5) == (left != IGNORE_LABEL)).all() and carried.confidence[0, 3] == 0
