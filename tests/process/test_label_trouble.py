"""Wrong and hostile label files: one clear sentence each, and nothing is written."""

import math

import numpy as np
import pytest
from label_files import (
    FRAMES,
    HEIGHT,
    WIDTH,
    ids,
    labelme,
    palette_png,
    png,
    write_coco,
    write_cvat,
    write_ids,
    write_json,
)
from PIL import Image
from test_label_import import take

from semflow_nerfstudio.data.checks import SceneDataError


def refused(path, tmp_path, sentence):
    with pytest.raises(SceneDataError, match=sentence) as caught:
        take(path, tmp_path / "out", frames=FRAMES[:1])
    assert str(caught.value).count("\n") == 0 and len(str(caught.value)) < 700
    assert not (tmp_path / "out").exists()


def segmentation(value):
    return lambda content: content["annotations"][0].update(segmentation=value)


def image(**values):
    return lambda content: content["images"][0].update(values)


COCO = {
    "climbs": (image(file_name="../../x.png"), r"names ../../x.png as file_name, which leads out of its folder"),
    "climbs within": (image(file_name="a/../../x.png"), "leads out of its folder"),
    "climbs in Windows": (image(file_name="..\\..\\x.png"), "leads out of its folder"),
    "absolute": (image(file_name="/etc/passwd"), r"names /etc/passwd as file_name, which leads out"),
    "drive": (image(file_name="C:\\shot_00.png"), "leads out of its folder"),
    "no name": (image(file_name=None), "has None as file_name"),
    "NUL": (image(file_name="shot_00\0.png"), "as file_name"),
    "huge": (image(width=100_000, height=100_000), r"states 100000x100000 as its size: at most 100,000,000"),
    "absurd": (image(width=10**400, height=1), "write width and height in pixels"),
    "negative": (image(width=-24), "write width and height in pixels"),
    "no size": (image(height=None), r"states 24 x None as its size"),
    "two points": (segmentation([[1, 1, 5, 5]]), r"polygon of 2 points: at least 3"),
    "odd": (segmentation([[1, 1, 5, 5, 6, 6, 7]]), "7 coordinates"),
    "NaN": (segmentation([[1, 1, 5, math.nan, 6, 6]]), "the coordinate nan"),
    "infinite": (segmentation([[1, 1, 5, math.inf, 6, 6]]), "the coordinate inf"),
    "far away": (segmentation([[1, 1, 5, 1e300, 6, 6]]), r"coordinate 1e\+300"),
    "text": (segmentation([[1, 1, 5, "5", 6, 6]]), "the coordinate '5'"),
    "boxes only": (segmentation([]), "has no segmentation"),
    "short runs": (segmentation({"counts": [5, 5], "size": [16, 24]}), r"sum up to 10 instead of 24 x 16"),
    "negative runs": (segmentation({"counts": [400, -16], "size": [16, 24]}), "whole numbers from 0 on"),
    "turned runs": (segmentation({"counts": [384], "size": [24, 16]}), r"run lengths for \[24, 16\]"),
    "huge runs": (segmentation({"counts": [10**10], "size": [10**5, 10**5]}), r"but its image is 24x16"),
    "broken string": (segmentation({"counts": "\x00", "size": [16, 24]}), "no compressed run-length string"),
    "endless string": (segmentation({"counts": "P" * 99, "size": [16, 24]}), "no compressed run-length string"),
    "no counts": (segmentation({"size": [16, 24]}), "has no counts"),
    "no image": (lambda c: c["annotations"][0].update(image_id=99), "belongs to image 99"),
    "no category": (lambda c: c["annotations"][0].update(category_id=[3]), r"has category \[3\]"),
    "no annotation": (lambda c: c["annotations"].append(4), "has 4 among its annotations"),
    "two ids": (lambda c: c["images"].append(c["images"][0]), "occurs twice, in images"),
    "no class name": (lambda c: c["categories"][0].pop("name"), "no name for category 3"),
    "one name twice": (lambda c: c["categories"][0].update(name="hand"), "names class 'hand' 2 times"),
    "too many classes": (
        lambda c: c["categories"].extend({"id": 100 + k, "name": f"c{k}"} for k in range(300)),
        "merge them to at most 255",
    ),
    "nothing drawn": (lambda c: c.update(annotations=[]), "holds no labels"),
}


@pytest.mark.parametrize("case", COCO)
def test_coco(case, tmp_path):
    change, sentence = COCO[case]
    refused(write_coco(tmp_path / "a.json", change, frames=FRAMES[:1]), tmp_path, sentence)


def shape(**values):
    return lambda content: content["shapes"][0].update(values)


LABELME = {
    "climbs": (lambda c: c.update(imagePath="../../x"), "frames that do not exist: x"),
    "absolute": (lambda c: c.update(imagePath="/etc/passwd"), r"/etc/passwd as imagePath, which leads out"),
    "drive": (lambda c: c.update(imagePath="D:\\x.png"), "leads out of its folder"),
    "huge": (lambda c: c.update(imageWidth=100_000, imageHeight=100_000), "100000x100000 as its size"),
    "no size": (lambda c: c.update(imageWidth=None), "states None x 16"),
    "no label": (shape(label=None), "no label for shape 0"),
    "line": (shape(shape_type="linestrip"), "is a linestrip, not a polygon"),
    "two points": (shape(shape_type="polygon"), "polygon of 2 points"),
    "NaN": (shape(points=[[1, 1], [2, math.nan]]), "the coordinate nan"),
    "malformed": (shape(points=[1, 2]), "malformed points"),
    "no radius": (shape(shape_type="circle", points=[[3, 3], [3, 3]]), "circle without a centre"),
    "three corners": (shape(points=[[1, 1], [2, 2], [3, 3]]), "rectangle of 3 points"),
    "no mask": (lambda c: c["shapes"][1].update(mask=None), "no PNG in base64"),
    "broken mask": (lambda c: c["shapes"][1].update(mask="!!!!"), "no PNG in base64"),
    "mask over the edge": (lambda c: c["shapes"][1].update(points=[[23, 15], [25, 17]]), "over the edge"),
    "nothing drawn": (lambda c: c.update(shapes=[]), "draw something"),
}


@pytest.mark.parametrize("case", LABELME)
def test_labelme(case, tmp_path):
    content = labelme(FRAMES[0])
    LABELME[case][0](content)
    refused(write_json(tmp_path / "shot_00.json", content), tmp_path, LABELME[case][1])


def test_colours_and_ids_of_no_class(tmp_path):
    folder = write_cvat(tmp_path / "masks", frames=FRAMES[:1])
    pixels = np.array(Image.open(folder / "SegmentationClass" / FRAMES[0]))
    pixels[3, 3] = (1, 2, 3)
    png(folder / "SegmentationClass" / FRAMES[0], pixels)
    refused(folder, tmp_path, r"shot_00.png has 1 pixels whose colour is in no class, most often 1,2,3")
    folder = write_ids(tmp_path / "ids", frames=FRAMES[:1])
    png(folder / FRAMES[0], np.full((HEIGHT, WIDTH), 8, np.uint16))
    refused(folder, tmp_path, "384 pixels with ids of no class, for example 8")
    png(folder / FRAMES[0], np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    refused(folder, tmp_path, "store the ids in a single-channel PNG")
    png(tmp_path / "davis" / FRAMES[0], np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    refused(tmp_path / "davis", tmp_path, r"colour image without a labelmap.txt")


@pytest.mark.parametrize(
    "table",
    [
        "x",
        {},
        [],
        {"classes": [1]},
        [{"id": -1, "name": "a"}],
        [{"id": 70000, "name": "a"}],
        [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
        {"a": 1.5},
        [{"name": "a", "color": [1, 2]}],
    ],
)
def test_tables(table, tmp_path):
    png(tmp_path / "l" / FRAMES[0], ids(0))
    write_json(tmp_path / "l/classes.json", table)
    refused(tmp_path / "l", tmp_path, r"classes.json (is no class table|gives|has)")


@pytest.mark.parametrize("text", ["{", "\xff\xfe", "[" * 100_000, '{"a": 1e', ""])
def test_json_that_is_none(text, tmp_path):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    refused(tmp_path / "a.json", tmp_path, r"a.json is (no valid JSON|nested too deeply)")


def test_broken_pictures(tmp_path):
    palette_png(tmp_path / "l" / FRAMES[0], ids(0))
    path = tmp_path / "l" / FRAMES[0]
    path.write_bytes(path.read_bytes()[:-40])
    refused(tmp_path / "l", tmp_path, "cannot be read as an image")


def test_nothing_else_than_the_scene_is_written(tmp_path):
    """A frame's label file has the name of the frame, never one out of the label file."""
    path = write_coco(tmp_path / "in/a.json", image(file_name="deep/er/shot_00.png"), frames=FRAMES[:1])
    take(path, tmp_path / "out", frames=FRAMES[:1])
    written = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert written == ["in/a.json", "out/instances/shot_00.png", "out/labels/shot_00.png"]
