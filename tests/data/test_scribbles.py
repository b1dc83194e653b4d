"""Simulated scribbles: as many pixels as asked for, right, the same every time, on every class."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from semflow_nerfstudio.data.protocols import SCRIBBLES, labelled_frames, scribble_share
from semflow_nerfstudio.data.scribbles import scribbles
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

LABELS = np.zeros((90, 160), np.uint8)
LABELS[40:, :] = 1
LABELS[20:60, 30:50] = 2
LABELS[50:58, 100:112] = 3
LABELS[:10, 120:] = IGNORE_LABEL


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_share_and_labels(share: float) -> None:
    kept = scribbles(LABELS, share, 3)
    known = kept != IGNORE_LABEL
    assert known.sum() == round(share * (LABELS != IGNORE_LABEL).sum())
    np.testing.assert_array_equal(kept[known], LABELS[known])
    assert set(np.unique(kept[known])) == {0, 1, 2, 3}


def test_the_same_every_time_and_another_for_every_frame() -> None:
    np.testing.assert_array_equal(scribbles(LABELS, 0.01, 3), scribbles(LABELS, 0.01, 3))
    assert (scribbles(LABELS, 0.01, 3) != scribbles(LABELS, 0.01, 4)).any()


def test_strokes_hang_together() -> None:
    """Pixels of a stroke have neighbours in it, unlike pixels that are scattered."""
    known = scribbles(LABELS, 0.02, 0) != IGNORE_LABEL
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert (known & binary_dilation(known, ring)).sum() > 0.9 * known.sum()


def test_nothing_labelled() -> None:
    nothing = np.full((20, 20), IGNORE_LABEL, np.uint8)
    assert (scribbles(nothing, 0.01, 0) == IGNORE_LABEL).all()


def test_protocol() -> None:
    assert SCRIBBLES == {"scribbles-1": 0.01}
    assert labelled_frames("scribbles-1", 12) == tuple(range(12))
    assert scribble_share(" Scribbles-1 ") == 0.01 and scribble_share("completion-25") is None
