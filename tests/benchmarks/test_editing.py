"""What the benchmark of edits counts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.editing import SEMANTIC_FOLDERS, Courtyard, Pixels, centroid_distance, colors_of, view_of


def test_psnr_is_that_of_all_pixels_together() -> None:
    pixels = Pixels()
    truth, mask = np.zeros((4, 4, 3)), np.zeros((4, 4), bool)
    assert math.isnan(pixels.psnr)
    mask[0] = True
    pixels.add(truth + 0.1, truth, mask)
    assert pixels.psnr == pytest.approx(20) and pixels.count == 12
    pixels.add(truth + 0.2, truth, ~mask)
    assert pixels.psnr == pytest.approx(-10 * math.log10((4 * 0.01 + 12 * 0.04) / 16))


def test_views_and_centroids() -> None:
    assert view_of(Path("GT/00000003/cam10.jpg")) == (2, 9)
    mask, truth = np.zeros((2, 20, 20), bool)
    truth[4:8, 4:8] = True
    assert centroid_distance(mask, truth) == math.inf
    mask[7:11, 8:12] = True
    assert centroid_distance(mask, truth) == pytest.approx(5)


def test_the_person_is_where_labels_differ(tmp_path: Path) -> None:
    whole = np.zeros((8, 8, 3), np.uint8)
    whole[2:6, 2:5] = (220, 20, 60)
    for folder, image in zip(SEMANTIC_FOLDERS, (whole, np.zeros_like(whole)), strict=True):
        path = tmp_path / folder / "00000001"
        path.mkdir(parents=True)
        Image.fromarray(image).save(path / "cam03.png")
    file = tmp_path / "multiview_GT_without_person/00000001/cam03.jpg"
    mask = Courtyard(tmp_path).person(file, (4, 4))
    expected = np.zeros((4, 4), bool)
    expected[1:3, 1:3] = True  # half of a pixel is enough
    assert (mask == expected).all()


def test_scenes_without_such_views_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has no multiview_GT_without_person/ with views"):
        Courtyard(tmp_path).main()


def test_images_are_averaged_over_area(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :1] = 255
    Image.fromarray(image).save(tmp_path / "image.png")
    assert colors_of(tmp_path / "image.png", (2, 2))[0, 0] == pytest.approx(0.5, abs=0.01)
