"""Label images and class tables are read as they were written, whatever kind they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semflow_nerfstudio.data.label_files import (
    encode_labels,
    image_mode,
    save_image,
    with_ignored_color,
    write_class_table,
)
from semflow_nerfstudio.data.labels import ClassTable, read_label_map
from semflow_nerfstudio.data.modalities import decode_labels
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

IDS = np.array([[0, 1, 2, 2], [2, 0, IGNORE_LABEL, 1]], np.uint8)
TABLE = "# a header\nfloor:10,20,30::\nignore:1,1,1::\nwall:40,50,60::\nball:70,80,90::\n"


@pytest.fixture
def classes(tmp_path: Path) -> ClassTable:
    """Three classes, with a colour to ignore between them, which makes file numbers differ from ids."""
    (tmp_path / "labelmap.txt").write_text(TABLE)
    (tmp_path / "foreground_object.txt").write_text("ball\n")
    return read_label_map(tmp_path / "labelmap.txt", tmp_path / "foreground_object.txt")


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_labels_come_back(classes: ClassTable, tmp_path: Path, mode: str) -> None:
    save_image(tmp_path / "deep" / "a.png", encode_labels(IDS, classes, mode))
    path = tmp_path / "deep" / "a.png"
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    with Image.open(path) as image:
        assert image.mode == mode
    np.testing.assert_array_equal(decode_labels(path, classes), IDS)
    assert image_mode(path, classes) == mode


@pytest.mark.parametrize("mode", ["P", "L"])
def test_labels_without_colours_come_back(tmp_path: Path, mode: str) -> None:
    colors = np.arange(9, dtype=np.uint8).reshape(3, 3)
    classes = ClassTable(("a", "b", "c"), colors, np.zeros(3, bool), colors_given=False)
    save_image(tmp_path / "a.png", encode_labels(IDS, classes, mode))
    np.testing.assert_array_equal(decode_labels(tmp_path / "a.png", classes), IDS)
    assert image_mode(None, classes) == "L"


def test_colours_where_there_is_no_example(classes: ClassTable) -> None:
    assert image_mode(None, classes) == "RGB"


def test_class_table_comes_back(classes: ClassTable, tmp_path: Path) -> None:
    write_class_table(tmp_path / "copy", classes)
    again = read_label_map(tmp_path / "copy" / "labelmap.txt", tmp_path / "copy" / "foreground_object.txt")
    assert again.names == classes.names
    for name in ("colors", "foreground", "ignore_colors", "file_ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(classes, name))


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_unknown_pixels_come_back_where_the_table_had_no_colour_for_them(mode: str, tmp_path: Path) -> None:
    """In a colour that is no class's, white where it is free; a table that can paint them stays as it is."""
    colors = np.array([[255, 255, 255], [0, 0, 0], [7, 8, 9]], np.uint8)
    plain = ClassTable(("a", "b", "c"), colors, np.array([False, True, False]))
    table = with_ignored_color(plain)
    assert with_ignored_color(table) is table and table.ignore_colors.tolist() == [[254, 254, 254]]
    write_class_table(tmp_path, table)
    again = read_label_map(tmp_path / "labelmap.txt", tmp_path / "foreground_object.txt")
    assert again.names == plain.names and again.foreground.tolist() == [False, True, False]
    save_image(tmp_path / "a.png", encode_labels(IDS, table, mode))
    np.testing.assert_array_equal(decode_labels(tmp_path / "a.png", again), IDS)
    by_number = ClassTable(("a", "b", "c"), colors, np.zeros(3, bool), colors_given=False)
    assert with_ignored_color(by_number) is by_number, "255 is never a class there"
