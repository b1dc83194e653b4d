"""Class tables, id <-> colour, label images, resizing by majority."""

import numpy as np
import pytest
from PIL import Image

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.labels import default_colors, majority_resize, make_class_table, read_label_map
from semflow_nerfstudio.data.modalities import decode_labels, read_labels


@pytest.fixture
def table(tmp_path):
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nvoid:255,255,255::\nperson:0,130,180::\nball:250,170,30\n"
    )
    (tmp_path / "foreground_object.txt").write_text("ball\nperson\n")
    return read_label_map(tmp_path / "labelmap.txt", tmp_path / "foreground_object.txt")


def test_label_map_ids_follow_the_lines(table):
    assert table.names == ("background", "person", "ball")
    assert table.colors.tolist() == [[0, 0, 0], [0, 130, 180], [250, 170, 30]]
    assert table.foreground.tolist() == [False, True, True]
    assert table.ignore_colors.tolist() == [[255, 255, 255]]
    assert table.file_ids.tolist() == [0, 255, 1, 2]


def test_colors_round_trip(table):
    ids = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (7, 5))
    back, unknown = table.ids_of_colors(table.colorize(ids))
    assert np.array_equal(back, ids) and not unknown.any()


def test_near_colors_are_unknown_and_never_a_class(table):
    colors = np.array([[[0, 0, 1], [0, 131, 180], [1, 0, 0], [250, 170, 30]]], np.uint8)
    ids, unknown = table.ids_of_colors(colors)
    assert unknown.tolist() == [[True, True, True, False]]
    assert ids.tolist() == [[255, 255, 255, 2]]


def test_colorize_refuses_ids_without_class(table):
    with pytest.raises(ValueError, match="3"):
        table.colorize(np.array([[3]], np.uint8))


def test_default_colors_differ():
    colors = default_colors(40)
    assert len(np.unique(colors, axis=0)) == 40


def test_label_images_in_all_modes(table, tmp_path):
    ids = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)
    file_numbers = np.array([[0, 2, 3], [3, 1, 2]], np.uint8)  # the lines of the table, of which 1 is `void`
    colors = table.colorize(ids)
    alpha = np.where(ids == 255, 0, 255).astype(np.uint8)[..., None]
    transparent = np.concatenate([np.where(alpha == 0, np.uint8(77), colors), alpha], axis=-1)
    palette = Image.fromarray(np.array([[3, 1, 2], [2, 0, 1]], np.uint8), "P")
    palette.putpalette([255, 255, 255, 0, 130, 180, 250, 170, 30, 0, 0, 0])
    for name, image in {
        "rgb": Image.fromarray(colors),
        "rgba": Image.fromarray(transparent),
        "grey8": Image.fromarray(file_numbers),
        "grey16": Image.fromarray(file_numbers.astype(np.uint16)),
        "palette": palette,
    }.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(decode_labels(tmp_path / f"{name}.png", table), ids), name


def test_palette_is_read_by_index_without_colors(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 255]], np.uint8), "P")
    image.putpalette([9, 9, 9] * 256)
    image.save(tmp_path / "ids.png")
    table = make_class_table(tmp_path, ["a", "b"], None, [])
    assert decode_labels(tmp_path / "ids.png", table).tolist() == [[0, 1, 255]]


def test_black_and_white_classes_are_not_ids(tmp_path):
    table = make_class_table(tmp_path, ["back", "front"], [(0, 0, 0), (255, 255, 255)], [])
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "bw.png")
    assert decode_labels(tmp_path / "bw.png", table).tolist() == [[0, 1]]


def test_unknown_color_is_an_error_with_color_and_count(table, tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, :3] = [1, 2, 3]
    pixels[1, 0] = [9, 9, 9]
    Image.fromarray(pixels).save(tmp_path / "bad.png")
    with pytest.raises(SceneDataError, match=r"bad\.png has 4 pixels .* 1,2,3 \(3 pixels\)"):
        decode_labels(tmp_path / "bad.png", table)


def test_unknown_id_is_an_error(table, tmp_path):
    Image.fromarray(np.array([[0, 4]], np.uint8)).save(tmp_path / "bad.png")
    with pytest.raises(SceneDataError, match=r"bad\.png has 1 pixels"):
        decode_labels(tmp_path / "bad.png", table)


def _majority_by_hand(ids, width, height, num_classes):
    """Every output pixel's rectangle cut into cells of the common refinement, counted one by one."""
    source_height, source_width = ids.shape
    result = np.zeros((height, width), np.uint8)
    fine = np.repeat(np.repeat(ids, height, axis=0), width, axis=1)  # (H * height, W * width)
    for i in range(height):
        for j in range(width):
            cell = fine[i * source_height : (i + 1) * source_height, j * source_width : (j + 1) * source_width]
            sparse = (ids < num_classes).mean() < 0.5
            ignored = (cell == 255).any() / 2 if sparse else int((cell == 255).sum())  # less than any class has
            votes = [(int((cell == label).sum()), -label) for label in range(num_classes)] + [(ignored, -255)]
            result[i, j] = -max(votes)[1]
    return result


@pytest.mark.parametrize("size", [(4, 3), (5, 5), (12, 9), (13, 7), (1, 1), (30, 20), (12, 5)])
def test_majority_against_counting(size):
    rng = np.random.default_rng(sum(size))
    ids = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (9, 12), p=[0.3, 0.2, 0.2, 0.1, 0.2])
    assert np.array_equal(majority_resize(ids, *size, 4), _majority_by_hand(ids, *size, 4))
    ids = np.where(rng.random(ids.shape) < 0.7, np.uint8(255), ids)
    assert np.array_equal(majority_resize(ids, *size, 4), _majority_by_hand(ids, *size, 4))


def test_no_click_is_lost() -> None:
    """Of sparse labels every class stays where one of its pixels was; elsewhere nothing is said."""
    ids = np.full((270, 480), 255, np.uint8)
    clicks = {(13, 57): 0, (100, 201): 2, (102, 201): 2, (250, 479): 1}
    for place, label in clicks.items():
        ids[place] = label
    small = majority_resize(ids, 120, 67, 3)
    assert {(int(y), int(x)): int(small[y, x]) for y, x in np.argwhere(small != 255)} == {
        (3, 14): 0,
        (24, 50): 2,
        (25, 50): 2,
        (62, 119): 1,
    }


def test_majority_lets_ignore_win_but_not_tie():
    ids = np.array([[255, 255, 1, 255, 0, 0], [255, 2, 1, 255, 0, 0]], np.uint8)
    assert majority_resize(ids, 3, 1, 3).tolist() == [[255, 1, 0]]


def test_read_labels_resizes(table, tmp_path):
    ids = np.kron(np.array([[0, 1], [2, 255]], np.uint8), np.ones((4, 4), np.uint8))
    Image.fromarray(table.colorize(ids)).save(tmp_path / "labels.png")
    assert read_labels(tmp_path / "labels.png", table, 2, 2).tolist() == [[0, 1], [2, 255]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "declares no class"),
        ("void:1,2,3::\n", "declares no class"),
        ("a:1,2,3::\na:4,5,6::\n", "'a' 2 times"),
        ("a:1,2,3::\nb:1,2,3::\n", r"\(1, 2, 3\) to 2 classes"),
        ("a:1,2,3::\nb:1,2\n", "line 2"),
        ("a:1,2,300::\n", "line 1"),
        ("just words\n", "line 1"),
    ],
)
def test_bad_label_maps(tmp_path, text, message):
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(SceneDataError, match=rf"labelmap\.txt.*{message}"):
        read_label_map(tmp_path / "labelmap.txt")


def test_foreground_must_be_a_class(tmp_path):
    (tmp_path / "labelmap.txt").write_text("a:1,2,3::\n")
    (tmp_path / "foreground_object.txt").write_text("b\n")
    with pytest.raises(SceneDataError, match=r"foreground_object\.txt lists 'b'"):
        read_label_map(tmp_path / "labelmap.txt", tmp_path / "foreground_object.txt")
