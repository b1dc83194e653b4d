"""Strokes spread within an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.label_looks import Looks, class_weights
from semflow_nerfstudio.data.label_propagation import CarriedLabels
from semflow_nerfstudio.data.label_spreading import SURE, Picture, spread_labels
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

HEIGHT, WIDTH = 40, 60


def halves(value: float, other: float, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Left and right half of an image, with a little noise."""
    image = np.where(np.arange(width) < width // 2, value, other)[None].repeat(height, 0)
    return image + np.random.default_rng(0).normal(0, 0.01, image.shape)


def gray(values: np.ndarray) -> np.ndarray:
    return (255 * values.clip(0, 1))[..., None].repeat(3, -1).astype(np.uint8)


def strokes(*places: tuple[int, int, int], width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(row, column, class) each, a few pixels long."""
    labels = np.full((height, width), IGNORE_LABEL, np.uint8)
    for row, column, label in places:
        labels[row, column : column + 4] = label
    return labels


@pytest.mark.parametrize("by", ["colour", "depth", "depth in another unit"])
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (700, 300)])
def test_they_fill_their_side_of_an_edge(by: str, size: tuple[int, int]) -> None:
    width, height = size
    flat, edge = halves(0.5, 0.5, width, height), halves(0.3, 0.7, width, height)
    image, depth = (edge, None) if by == "colour" else (flat, 1000 * edge if "unit" in by else edge)
    labels = strokes((10, 4, 3), (height - 10, width - 8, 7), width=width, height=height)
    found = spread_labels(Picture.of(gray(image), depth), labels)
    truth = np.where(np.arange(width) < width // 2, 3, 7)[None].repeat(height, 0)
    own = labels != IGNORE_LABEL
    known = found.labels != IGNORE_LABEL
    assert not known[own].any() and known[~own].mean() > 0.9
    assert (found.labels == truth)[known].mean() > 0.99
    assert found.confidence[known].min() >= SURE - 1e-3 and not found.confidence[~known].any()


def test_where_nothing_tells_them_apart_the_middle_stays_unlabelled() -> None:
    found = spread_labels(Picture.of(gray(halves(0.5, 0.5)), None), strokes((20, 2, 3), (20, 54, 7)))
    middle = found.labels[:, 26:34]
    assert (middle == IGNORE_LABEL).mean() > 0.9 and (found.labels == 3).any() and (found.labels == 7).any()


def test_sure_hints_count_as_strokes_and_unsure_ones_do_not() -> None:
    image, labels = gray(halves(0.3, 0.7)), strokes((10, 2, 3), (30, 2, 5))
    for confidence, classes in ((0.9, {3, 5, 7}), (0.2, {3, 5})):
        hint = CarriedLabels(strokes((20, 50, 7)), np.full((HEIGHT, WIDTH), confidence, np.float16))
        found = set(np.unique(spread_labels(Picture.of(image, None), labels, hint).labels)) - {IGNORE_LABEL}
        assert found == classes


def test_of_one_class_nothing_spreads_and_what_other_frames_told_stays() -> None:
    image, labels = gray(halves(0.3, 0.7)), strokes((20, 2, 3))
    assert (spread_labels(Picture.of(image, None), labels).labels == IGNORE_LABEL).all()
    hint = CarriedLabels(strokes((20, 50, 7)), np.full((HEIGHT, WIDTH), 0.2, np.float16))
    found = spread_labels(Picture.of(image, None), labels, hint)
    assert np.array_equal(found.labels, hint.labels) and np.array_equal(found.confidence, hint.confidence)


def test_where_every_pixel_is_told_nothing_is_left_to_spread() -> None:
    """Half of the pixels by strokes, the rest by sure labels of other frames; or every other pixel of a large image."""
    truth = np.where(np.arange(WIDTH) < WIDTH // 2, 3, 7)[None].repeat(HEIGHT, 0).astype(np.uint8)
    own = np.where(np.arange(HEIGHT)[:, None] % 2 == 0, truth, IGNORE_LABEL).astype(np.uint8)
    other = np.where(own == IGNORE_LABEL, truth, IGNORE_LABEL).astype(np.uint8)
    hint = CarriedLabels(other, np.full((HEIGHT, WIDTH), 0.9, np.float16))
    found = spread_labels(Picture.of(gray(halves(0.3, 0.7)), None), own, hint)
    assert np.array_equal(np.where(own == IGNORE_LABEL, found.labels, own), truth)
    wide = np.full((200, 700), IGNORE_LABEL, np.uint8)
    wide[::2, ::2] = np.where(np.arange(700) < 350, 3, 7)[None, ::2]
    found = spread_labels(Picture.of(gray(halves(0.3, 0.7, 700, 200)), None), wide)
    assert (found.labels[1::2, :340][:, 1::2] == 3).all() and (found.labels[1::2, 360:][:, 1::2] == 7).all()


def test_unknown_depth_is_no_edge() -> None:
    depth = np.full((HEIGHT, WIDTH), np.nan)
    labels = strokes((10, 4, 3), (30, 50, 7))
    with_holes, without = (spread_labels(Picture.of(gray(halves(0.3, 0.7)), d), labels) for d in (depth, None))
    assert np.array_equal(with_holes.labels, without.labels)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "scene"
    make_scene(folder, SceneOptions(frames=4, size="96x54"))
    return folder


def test_scribbles_of_a_scene_label_most_of_it_rightly(scene: Path) -> None:
    """And only with `auto` and `image`; the datamanager hands both out as labels of less weight."""

    def shown(method: str, labels: str = "scribbles-1") -> tuple[np.ndarray, np.ndarray]:
        config = SemFlowDataManagerConfig(data=scene, label_propagation=method)  # type: ignore[arg-type]
        config.dataparser = DynamicSceneDataParserConfig(data=scene, labelled_frames=labels)
        dataset = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0).train_dataset
        rows = [dataset.get_metadata({"image_idx": k}) for k in range(4)]
        empty = np.full((54, 96), IGNORE_LABEL)
        carried = [row["carried_labels"][..., 0].numpy() if "carried_labels" in row else empty for row in rows]
        return np.stack([row["labels"][..., 0].numpy() for row in rows]), np.stack(carried)

    truth, nothing = shown("auto", "all")
    assert (nothing == IGNORE_LABEL).all()
    own, spread = shown("auto")
    known = spread != IGNORE_LABEL
    assert known.mean() > 0.6 and (spread == truth)[known].mean() > 0.93
    assert not known[own != IGNORE_LABEL].any()
    flow_alone = shown("optical-flow")[1] != IGNORE_LABEL
    assert 0 < flow_alone.mean() < 0.3
    assert (shown("trajectories")[1] == IGNORE_LABEL).all()


# ---------------------------------------------------------------- what classes look like


def pictures(*values: float) -> list[Picture]:
    """Frames with a red thing of the given width on the left, and gray beside it."""
    found = []
    for share in values:
        image = gray(halves(0.5, 0.5))
        image[:, : int(share * WIDTH)] = (200, 20, 20)
        found.append(Picture.of(image, None))
    return found


def test_looks_tell_what_the_strokes_of_other_frames_are_of() -> None:
    """The second frame has a stroke on the gray alone: only the first frame's says what red is."""
    first, second = pictures(0.5, 0.3)
    both, gray_alone = (np.full((HEIGHT, WIDTH), IGNORE_LABEL, np.uint8) for _ in range(2))
    both[5:15, 4:14], both[5:15, 45:55], gray_alone[25:30, 40:50] = 3, 7, 7
    drawn = [both, gray_alone]
    looks = Looks.of([picture.sample(own, 2) for picture, own in zip((first, second), drawn, strict=True)])
    assert looks is not None and looks.classes.tolist() == [3, 7] and looks.trust == 1
    alone, together = (spread_labels(second, drawn[1], None, by) for by in (None, looks))
    assert (alone.labels == IGNORE_LABEL).all(), "of one class nothing spreads"
    shown = looks.probability(second.appearance)
    np.testing.assert_allclose(shown.sum(0), 1, rtol=1e-5)
    assert (shown[0, :, :15] > 0.9).all() and (shown[1, :, 22:] > 0.9).all()
    assert (together.labels[:, :15] == 3).mean() > 0.9 and (together.labels[:20, 22:] == 7).mean() > 0.9
    few = Looks.of([first.sample(strokes((10, 4, 3), (30, 50, 7)), 2)])
    assert few is not None and few.trust == 8 / 200
    assert (spread_labels(second, drawn[1], None, few).labels == IGNORE_LABEL).all(), "four pixels say too little"


def test_without_depth_on_a_frame_none_is_compared_by_it() -> None:
    with_depth, without = Picture.of(gray(halves(0.3, 0.7)), halves(0.3, 0.7)), pictures(0.5)[0]
    own = strokes((10, 4, 3), (30, 50, 7))
    looks = Looks.of([picture.sample(own, 2) for picture in (with_depth, without)])
    assert looks is not None and looks.seeds.m == 5
    assert looks.probability(with_depth.appearance).shape == (2, HEIGHT, WIDTH)
    assert Looks.of([with_depth.sample(strokes((10, 4, 3)), 1)]) is None


def test_classes_are_weighed_by_where_they_are_found() -> None:
    """Half of the strokes are of a class that a tenth of the pixels have: it weighs less, and finds its share."""
    votes = np.array([[0.9, 0.1]] * 10 + [[0.2, 0.8]] * 90, np.float32)
    share = np.array([0.5, 0.5], np.float32)
    weights = class_weights(votes, share)
    assert weights[0] < 0.6 and weights[1] > 1.4
    found = votes * weights / (votes * weights).sum(-1, keepdims=True)
    assert abs(found[:, 0].mean() - 0.1) < abs((votes[:, 0]).mean() - 0.1)
    np.testing.assert_allclose(class_weights(np.full((4, 2), 0.5, np.float32), share), 1)
