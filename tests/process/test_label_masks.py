"""Polygons, ellipses and run lengths as masks; against pycocotools where it is installed."""

import numpy as np
import pytest
from label_files import runs

from semflow_nerfstudio.process.labels.masks import (
    check_counts,
    ellipse_mask,
    polygon_mask,
    runs_mask,
    unpack_counts,
)


def blob(seed: int, height: int = 37, width: int = 53) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    angle = np.arctan2(y - height / 2, x - width / 2)
    radius = 12 + 3 * np.sin(3 * angle + rng.uniform(0, 6)) + 2 * rng.standard_normal((height, width))
    return np.hypot(y - height / 2, x - width / 2) < radius


def test_a_polygon_covers_the_pixels_whose_centres_it_holds():
    mask = polygon_mask(np.array([[2.5, 1.5], [8.4, 1.5], [8.4, 6.6], [2.5, 6.6]]), 12, 9)
    expected = np.zeros((9, 12), bool)
    expected[1:7, 2:8] = True
    np.testing.assert_array_equal(mask, expected)


def test_polygons_of_any_direction_concave_and_over_the_edge():
    arrow = np.array([[-5.0, 3.2], [14.1, -4.0], [9.7, 5.5], [17.3, 20.0]])
    mask = polygon_mask(arrow, 15, 11)
    np.testing.assert_array_equal(mask, polygon_mask(arrow[::-1], 15, 11))
    for i in range(11):
        for j in range(15):
            x, y, inside = j + 0.5, i + 0.5, False  # count the edges left of the centre
            for (x0, y0), (x1, y1) in zip(arrow, np.roll(arrow, -1, axis=0), strict=True):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                    inside = not inside
            assert mask[i, j] == inside, (i, j)


def test_neighbouring_polygons_neither_overlap_nor_leave_gaps():
    left = polygon_mask(np.array([[0, 0], [7.3, 0], [4.1, 9], [0, 9]]), 10, 9)
    right = polygon_mask(np.array([[7.3, 0], [10, 0], [10, 9], [4.1, 9]]), 10, 9)
    assert (left ^ right).all()


def test_an_ellipse():
    mask = ellipse_mask((10.0, 5.0), (6.0, 3.0), 20, 10)
    assert abs(mask.sum() - np.pi * 18) < 4 and mask[5, 15] and not mask[9, 10] and not mask[5, 16]


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_come_back(seed):
    mask = blob(seed)
    height, width = mask.shape
    np.testing.assert_array_equal(runs_mask(check_counts(runs(mask), width, height), width, height), mask)


def test_compressed_run_lengths_by_hand():
    # 7 is one character: 48 + 7. 40 = 8 + 32 * 1: "8" with the continuation bit, then 1. The fourth is a difference to
    # the second: 38 - 40 = -2, which is 30 in five bits with the sign bit set.
    text = chr(48 + 7) + chr(48 + (8 | 32)) + chr(48 + 1) + chr(48 + 5) + chr(48 + 30)
    assert unpack_counts(text) == [7, 40, 5, 38]


@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_agrees(seed):
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    mask = blob(seed)
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert unpack_counts(packed["counts"].decode()) == runs(mask)
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    points = np.stack([26 + 20 * np.cos(angles), 18 + 15 * np.sin(angles)], axis=1)
    ours = polygon_mask(points, 53, 37)
    theirs = coco.decode(coco.merge(coco.frPyObjects([points.ravel().tolist()], 37, 53))).astype(bool)
    # They round outlines to a fifth of a pixel, so pixels that an edge passes through may differ.
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95


@pytest.mark.parametrize("counts", [[5, 5], [100, -4], [96.0], [True] * 96, ["96"], [10**30]])
def test_wrong_run_lengths(counts):
    with pytest.raises(ValueError, match="run lengths"):
        check_counts(counts, 12, 8)


@pytest.mark.parametrize("text", ["\x00", "é", "P" * 50, chr(48 + 33)])
def test_wrong_compressed_run_lengths(text):
    with pytest.raises(ValueError, match=r"it (is|ends)"):
        unpack_counts(text)
