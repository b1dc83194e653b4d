"""Every importer against files in its real format, and labels that come back as they were."""

from pathlib import Path

import numpy as np
import pytest
from label_files import (
    FRAMES,
    HEIGHT,
    WIDTH,
    box,
    coco,
    ids,
    labelme,
    palette_png,
    png,
    write_coco,
    write_cvat,
    write_davis,
    write_ids,
    write_json,
    write_labelme,
)
from PIL import Image

from semflow_nerfstudio.data.label_files import (
    COMPLETION_STAMP,
    CONFIDENCE_FOLDER,
    encode_labels,
    save_image,
    write_class_table,
)
from semflow_nerfstudio.data.labels import ClassTable, make_class_table
from semflow_nerfstudio.data.modalities import decode_labels
from semflow_nerfstudio.process.labels.found import LabelSource
from semflow_nerfstudio.process.labels.importer import FORMATS, import_labels

FIXTURE = Path(__file__).parent / "fixtures/hand_clip_labels.json"


def take(path, out, frames=FRAMES, skipped=(), size=(WIDTH, HEIGHT), **options):
    """Import; returns what was found, and a function that reads the labels of a frame as names."""
    found = import_labels(LabelSource(path, **options), frames, skipped, out, size, lambda done, total, note="": None)
    names = [entry["name"] for entry in found.classes]
    colors = [tuple(entry["color"]) for entry in found.classes] if "color" in found.classes[0] else None
    table = make_class_table(Path("table"), names, colors, [])

    def read(name):
        labels = decode_labels(found.files[name], table)
        return np.array([*names, "?"], dtype=object)[np.where(labels == 255, len(names), labels)]

    return found, read


def expected(k, *names):
    return np.array(names, dtype=object)[ids(k)]


def instances(found, name):
    return np.asarray(Image.open(found.instances[name]))


WRITERS = {
    "masks": (write_cvat, ("background", "hand", "ring")),
    "coco": (
        lambda folder, **options: write_coco(folder / "annotations/instances.json", **options),
        ("?", "hand", "ring"),
    ),
    "davis": (write_davis, ("background", "object 1", "object 2")),
    "labelme": (write_labelme, ("?", "hand", "ring")),
    "ids": (write_ids, ("rest", "hand", "ring")),
}


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_on_all_frames(kind, told, tmp_path):
    write, names = WRITERS[kind]
    write(tmp_path / "labels")
    found, read = take(tmp_path / "labels", tmp_path / "out", format=kind if told else None)
    assert list(found.files) == FRAMES
    for k, name in enumerate(FRAMES):
        np.testing.assert_array_equal(read(name), expected(k, *names))
    assert (found.instances.keys() == found.files.keys()) == (kind != "ids")
    for name in found.instances:
        numbers, k = instances(found, name), FRAMES.index(name)
        assert numbers.dtype == np.uint16 and [len(np.unique(numbers[ids(k) == part])) for part in (1, 2)] == [1, 1]
        assert len(np.unique(numbers)) == 3 and (numbers[ids(k) == 0] == 0).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_on_some_frames(kind, tmp_path):
    WRITERS[kind][0](tmp_path / "labels", frames=FRAMES[1:3])
    found, read = take(tmp_path / "labels", tmp_path / "out")
    assert list(found.files) == FRAMES[1:3]
    np.testing.assert_array_equal(read(FRAMES[2]), expected(2, *WRITERS[kind][1]))


@pytest.mark.parametrize("kind", FORMATS)
def test_other_sizes_are_scaled(kind, tmp_path):
    WRITERS[kind][0](tmp_path / "labels")
    _, read = take(tmp_path / "labels", tmp_path / "out", size=(2 * WIDTH, 2 * HEIGHT))
    np.testing.assert_array_equal(read(FRAMES[1]), np.kron(ids(1), np.ones((2, 2), int)).choose(WRITERS[kind][1]))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_frame_turned_is_refused(kind, tmp_path):
    WRITERS[kind][0](tmp_path / "labels")
    with pytest.raises(ValueError, match=r"24x16 but the images are 16x24.*unrotated"):
        take(tmp_path / "labels", tmp_path / "out", size=(HEIGHT, WIDTH))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_labels_of_frames_that_do_not_exist_are_named(kind, tmp_path):
    WRITERS[kind][0](tmp_path / "labels")
    with pytest.raises(ValueError, match=r"frames that do not exist: .*shot_02.*shot_03"):
        take(tmp_path / "labels", tmp_path / "out", frames=FRAMES[:2])
    found, _ = take(tmp_path / "labels", tmp_path / "out", frames=FRAMES[:2], skipped=FRAMES[2:])
    assert list(found.files) == FRAMES[:2]


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_background_is_what_nobody_drew_on(kind, tmp_path):
    WRITERS[kind][0](tmp_path / "labels")
    for name in ("rest", "wall"):  # a class that the COCO file has, and a new one
        found, read = take(tmp_path / "labels", tmp_path / "out", background=name, foreground=("hand",))
        np.testing.assert_array_equal(read(FRAMES[3]), expected(3, name, "hand", "ring"))
        assert [e["name"] for e in found.classes if e.get("foreground")] == ["hand"]


def test_background_renames_that_of_masks_and_davis(tmp_path):
    for kind in ("masks", "davis"):
        write, names = WRITERS[kind]
        write(tmp_path / kind)
        _, read = take(tmp_path / kind, tmp_path / "out", background="wall")
        np.testing.assert_array_equal(read(FRAMES[0]), expected(0, "wall", *names[1:]))
    with pytest.raises(ValueError, match="leave --background out"):
        take(write_ids(tmp_path / "ids"), tmp_path / "out", background="wall")


def test_coco_compressed_and_uncompressed_crowds_and_order(tmp_path):
    mask = ids(0) == 2

    def change(content):
        one, two = content["annotations"]
        content["annotations"] = [
            two,
            one,
            {**one, "category_id": 3, "iscrowd": 1, "segmentation": [box(0, 0, 24, 16)]},
        ]

    path = write_coco(tmp_path / "a.json", change, frames=FRAMES[:1])
    found, read = take(path, tmp_path / "out")
    # The hand comes after the ring and hides it; the crowd is last in the file, but lies below, and is no instance.
    assert set(np.unique(read(FRAMES[0])[ids(0) > 0])) == {"hand"} and (read(FRAMES[0])[ids(0) == 0] == "rest").all()
    assert set(np.unique(instances(found, FRAMES[0])[ids(0) == 0])) == {0}
    packed = pytest.importorskip("pycocotools.mask").encode(np.asfortranarray(mask.astype(np.uint8)))

    def pack(content):
        content["annotations"][1]["segmentation"] = {"counts": packed["counts"].decode(), "size": [HEIGHT, WIDTH]}

    _, read = take(write_coco(tmp_path / "b.json", pack, frames=FRAMES[:1]), tmp_path / "out")
    np.testing.assert_array_equal(read(FRAMES[0]), expected(0, "?", "hand", "ring"))


def test_coco_tracks_are_instances_and_annotations_else(tmp_path):
    found, _ = take(write_coco(tmp_path / "a.json"), tmp_path / "out")
    assert {tuple(np.unique(instances(found, name))) for name in FRAMES} == {(0, 1, 2)}

    def untrack(content):
        for annotation in content["annotations"]:
            del annotation["attributes"]

    found, _ = take(write_coco(tmp_path / "b.json", untrack), tmp_path / "out")
    assert [np.unique(instances(found, name)).max() for name in FRAMES] == [2, 4, 6, 8]


def test_coco_images_without_annotations_are_not_labelled(tmp_path):
    path = write_coco(tmp_path / "a.json", lambda c: c.update(annotations=c["annotations"][:2]))
    found, _ = take(path, tmp_path / "out", background="rest")
    assert list(found.files) == FRAMES[:1]


def test_labelme_shapes(tmp_path):
    content = labelme(FRAMES[0])
    content["shapes"] = [
        {"label": "disc", "points": [[12, 8], [12, 13]], "shape_type": "circle", "group_id": None},
        {"label": "wedge", "points": [[0, 0], [6, 0], [0, 6]], "shape_type": "polygon", "group_id": None},
        {"label": "wedge", "points": [[24, 16], [18, 16], [24, 10]], "shape_type": "polygon"},
        {"label": "__ignore__", "points": [[11, 7], [13, 9]], "shape_type": "rectangle"},
    ]
    path = write_json(tmp_path / "shot_00.json", content)
    found, read = take(path, tmp_path / "out", background="rest")
    labels = read(FRAMES[0])
    assert [entry["name"] for entry in found.classes] == ["disc", "wedge", "rest"]
    assert abs((labels == "disc").sum() + 4 - np.pi * 25) < 5 and (labels[7:9, 11:13] == "?").all()
    assert labels[0, 0] == labels[15, 23] == "wedge" and labels[0, 23] == "rest"
    numbers = instances(found, FRAMES[0])
    assert len({numbers[0, 0], numbers[15, 23], numbers[5, 12]}) == 3 and numbers[8, 12] == 0


def test_davis_2016_and_void(tmp_path):
    png(tmp_path / "a" / FRAMES[0], np.where(ids(0) > 0, 255, 0).astype(np.uint8))
    found, read = take(tmp_path / "a", tmp_path / "out")
    assert [entry["name"] for entry in found.classes] == ["background", "object 1"]
    np.testing.assert_array_equal(read(FRAMES[0]) == "object 1", ids(0) > 0)
    palette_png(tmp_path / "b" / FRAMES[0], np.where(ids(0) == 2, 255, ids(0)))
    found, read = take(tmp_path / "b", tmp_path / "out")
    np.testing.assert_array_equal(read(FRAMES[0]), expected(0, "background", "object 1", "?"))
    assert found.classes[1]["color"] == [128, 0, 0] and found.classes[1]["foreground"]


def test_voc_borders_and_ignored_colours(tmp_path):
    folder = write_cvat(tmp_path / "labels", frames=FRAMES[:1])
    with (folder / "labelmap.txt").open("a") as file:
        file.write("ignore:9,9,9::\n")
    path = folder / "SegmentationClass" / FRAMES[0]
    pixels = np.array(Image.open(path))
    pixels[0, :5], pixels[1, :5] = (224, 224, 192), (9, 9, 9)
    png(path, pixels)
    _, read = take(folder, tmp_path / "out")
    assert (read(FRAMES[0])[:2, :5] == "?").all() and (read(FRAMES[0])[:2, 5:] == "background").all()


@pytest.mark.parametrize(
    "table",
    [
        ["rest", "hand", "ring"],
        {"0": "rest", "1": "hand", "2": "ring"},
        {"hand": 1, "rest": 0, "ring": 2},
        [{"name": "rest"}, {"name": "hand"}, {"name": "ring"}],
        {"classes": [{"id": 2, "name": "ring"}, {"id": 0, "name": "rest"}, {"id": 1, "name": "hand"}]},
    ],
)
def test_tables_of_id_images(table, tmp_path):
    labels = np.where(ids(0) == 2, 255, ids(0)).astype(np.uint8)
    png(tmp_path / "l" / FRAMES[0], labels)
    write_json(tmp_path / "l/classes.json", table)
    for path in (tmp_path / "l", tmp_path / "l/classes.json"):
        _, read = take(path, tmp_path / "out")
        np.testing.assert_array_equal(read(FRAMES[0]), expected(0, "rest", "hand", "?"))


def test_completed_labels_are_taken_without_their_confidence(tmp_path):
    """What `semflow complete` wrote, corrected by hand or not; another folder's `confidence` may be anything."""
    names, colors = ("rest", "hand", "ring"), np.array([[9, 9, 9], [200, 0, 0], [0, 200, 0]], np.uint8)
    table = ClassTable(names, colors, np.zeros(3, bool))
    for k, frame in enumerate(FRAMES):
        save_image(tmp_path / "done/labels" / frame, encode_labels(ids(k), table, "RGB"))
        save_image(tmp_path / "done" / CONFIDENCE_FOLDER / frame, Image.new("L", (WIDTH, HEIGHT), 250))
    write_class_table(tmp_path / "done", table)
    with pytest.raises(ValueError, match="both label"):
        take(tmp_path / "done", tmp_path / "out")
    write_json(tmp_path / "done" / COMPLETION_STAMP, {})
    _, read = take(tmp_path / "done", tmp_path / "out")
    for k, frame in enumerate(FRAMES):
        np.testing.assert_array_equal(read(frame), expected(k, *names))


def test_names_match_without_endings_in_folders_and_by_the_number_of_a_video(tmp_path):
    def rename(*names):
        return lambda content: [i.update(file_name=n) for i, n in zip(content["images"], names, strict=False)]

    for name in ("shot_00.jpg", "task/shot_00.JPEG", "a\\shot_00.png", "shot_00"):
        path = write_coco(tmp_path / "a.json", rename(name), frames=FRAMES[:1])
        assert list(take(path, tmp_path / "out")[0].files) == FRAMES[:1]
    path = write_coco(tmp_path / "a.json", rename("frame_000007.PNG"), frames=FRAMES[:1])
    assert list(take(path, tmp_path / "out", frames=["00003.png", "00007.png"])[0].files) == ["00007.png"]
    path = write_coco(tmp_path / "a.json", rename("right/0.png", "left/0.png"), frames=FRAMES[:2])
    stereo = ["images/left/0.png", "images/right/0.png"]
    _, read = take(path, tmp_path / "out", frames=stereo)
    np.testing.assert_array_equal(read(stereo[1]), expected(0, "?", "hand", "ring"))
    path = write_coco(tmp_path / "a.json", rename("0.png"), frames=FRAMES[:1])
    with pytest.raises(ValueError, match=r"may belong to images/left/0.png or to images/right/0.png"):
        take(path, tmp_path / "out", frames=stereo)
    path = write_coco(tmp_path / "a.json", rename("shot_00.png", "shot_00.jpg"), frames=FRAMES[:2])
    with pytest.raises(ValueError, match=r"both label shot_00.png"):
        take(path, tmp_path / "out")


def test_greys_are_not_read_by_value(tmp_path):
    """Colours of a table of greys are left out: single-channel images would be read by grey value."""
    folder = write_cvat(tmp_path / "labels", frames=FRAMES[:1])
    (folder / "labelmap.txt").write_text("rest:0,0,0::\nhand:1,1,1::\nring:200,200,200::\n")
    colors = np.array([0, 1, 200], np.uint8)
    png(folder / "SegmentationClass" / FRAMES[0], np.repeat(colors[ids(0)][..., None], 3, axis=2))
    found, read = take(folder, tmp_path / "out")
    assert "color" not in found.classes[0]
    np.testing.assert_array_equal(read(FRAMES[0]), expected(0, "rest", "hand", "ring"))


def test_the_hand_drawn_labels_fit_the_real_clip(test_data, tmp_path):
    """The outline of the hand follows edges of the picture: moved aside, even onto the books, it finds weaker ones."""
    folder = test_data / "hand_clip/images"
    if not folder.is_dir():
        pytest.skip(f"no hand_clip in {test_data}")
    frames = sorted(path.name for path in folder.iterdir())
    found, read = take(FIXTURE, tmp_path, frames=frames, size=(512, 384))
    assert len(found.files) == 3 and [entry["name"] for entry in found.classes] == ["rest", "shelf", "hand"]
    for name in found.files:
        labels = read(name)
        assert 0.1 < (labels == "hand").mean() < 0.25 and 0.3 < (labels == "shelf").mean() < 0.5
        assert (labels == "?").mean() < 0.03
        grey = np.sqrt(np.asarray(Image.open(folder / name).convert("L")).astype(float))
        edges = np.hypot(*np.gradient(grey))
        hand = labels == "hand"
        outline = np.argwhere(hand[:-1, :-1] & ~(hand[1:, :-1] & hand[:-1, 1:]))
        outline = outline[((outline > 14) & (outline < np.array(hand.shape) - 14)).all(axis=1)]
        strength = {
            shift: edges[tuple((outline + shift).T)].mean() for shift in [(0, 0), (12, 0), (-12, 0), (0, 12), (0, -12)]
        }
        aside = [value for shift, value in strength.items() if shift != (0, 0)]
        assert strength[0, 0] > 1.25 * max(aside) and strength[0, 0] > 2 * np.mean(edges)


def test_nothing_that_could_be_labels(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "a.mp4").write_bytes(b"?")
    write_json(tmp_path / "other" / "a.json", {"hello": 1})
    write_json(tmp_path / "two" / "a.json", coco())
    write_json(tmp_path / "two" / "b.json", coco())
    cases = {
        "none": "does not exist",
        "empty": "holds neither",
        "a.zip": "unpack it",
        "a.mp4": "no label file",
        "other": "neither COCO nor LabelMe",
        "two": "pass the JSON file that is meant",
    }
    for name, sentence in cases.items():
        with pytest.raises(ValueError, match=sentence):
            take(tmp_path / name, tmp_path / "out")
    with pytest.raises(ValueError, match="--labels-format is voc"):
        take(tmp_path / "two", tmp_path / "out", format="voc")
    with pytest.raises(ValueError, match=r"no class cat, only rest, hand, ring"):
        take(tmp_path / "two/a.json", tmp_path / "out", foreground=("cat",))
