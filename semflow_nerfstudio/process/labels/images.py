"""Label images: CVAT's and Pascal VOC's colour masks, DAVIS palette PNGs, and id PNGs with a JSON table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.files import load_image, read_image_size
from semflow_nerfstudio.data.label_files import COMPLETION_STAMP, CONFIDENCE_FOLDER
from semflow_nerfstudio.data.labels import ClassTable, majority_resize, make_class_table, read_label_map
from semflow_nerfstudio.data.modalities import decode_labels
from semflow_nerfstudio.data.resize import resize_nearest
from semflow_nerfstudio.process.labels.found import LabelImage, LabelSet, LabelSource, Painted, read_json
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

LABEL_MAP = "labelmap.txt"
VOC_CLASSES, VOC_OBJECTS = "SegmentationClass", "SegmentationObject"
VOC_VOID = (224, 224, 192)
"""Colour of the border that Pascal VOC draws around objects, to be ignored."""
VOC_BACKGROUND = "background"
IGNORED_IDS = (255, 65535)
MAX_ID = 65535


def png_files(folder: Path) -> list[Path]:
    """All PNGs below a folder, hidden ones aside."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png" and path.name[0] != ".")


def read_masks(folder: Path, source: LabelSource) -> LabelSet:
    """Colour masks in the colours of labelmap.txt: in SegmentationClass/, or beside it.

    SegmentationObject/ tells instances apart, by colour in every frame. `background` in the label map is what CVAT
    paints where nobody drew; `source.background` gives it another name. In a folder that `semflow complete` wrote, its
    confidence images are no masks.
    """
    table = read_label_map(folder / LABEL_MAP, folder / "foreground_object.txt")
    if source.background is not None:
        if VOC_BACKGROUND not in table.names or source.background in set(table.names) - {VOC_BACKGROUND}:
            raise SceneDataError(
                f"{folder / LABEL_MAP} has no class `{VOC_BACKGROUND}` to be called {source.background}: leave "
                "--background out; colour masks say what every pixel is."
            )
        renamed = tuple(source.background if name == VOC_BACKGROUND else name for name in table.names)
        table = replace(table, names=renamed)
    stated = [tuple(int(v) for v in color) for color in (*table.colors, *table.ignore_colors)]
    if VOC_VOID not in stated:
        table = replace(table, ignore_colors=np.concatenate([table.ignore_colors, np.array([VOC_VOID], np.uint8)]))
    within = folder / VOC_CLASSES if (folder / VOC_CLASSES).is_dir() else folder
    objects = folder / VOC_OBJECTS
    images = []
    completed = (folder / COMPLETION_STAMP).is_file()
    for path in png_files(within):
        name = path.relative_to(within).as_posix()
        if completed and path.is_relative_to(folder / CONFIDENCE_FOLDER):
            continue
        paint = partial(_paint_mask, path, objects / name if (objects / name).is_file() else None, table)
        images.append(LabelImage(name, str(path), read_image_size(path), paint))
    return LabelSet(table, images)


def _paint_mask(path: Path, objects: Path | None, table: ClassTable, width: int, height: int) -> Painted:
    ids = majority_resize(decode_labels(path, table), width, height, len(table))
    if objects is None:
        return ids, None
    image = load_image(objects)
    if image.size != read_image_size(path):
        raise SceneDataError(f"{objects} has another size than {path}: export both again.")
    pixels = np.asarray(image.convert("RGB")).astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    void = VOC_VOID[0] << 16 | VOC_VOID[1] << 8 | VOC_VOID[2]
    keys = np.setdiff1d(np.unique(pixels), [0, void])
    numbers = np.where(np.isin(pixels, keys), np.searchsorted(keys, pixels) + 1, 0).astype(np.uint16)
    return ids, np.where(ids == IGNORE_LABEL, 0, resize_nearest(numbers, width, height)).astype(np.uint16)


def read_davis(folder: Path, source: LabelSource) -> LabelSet:
    """DAVIS annotations: palette PNGs of object numbers, 0 the background and 255 void; or black and white.

    White is the one object of DAVIS 2016, where there are no other numbers. Every object is a class of its own,
    `object 1` and so on, and an instance.
    """
    files = png_files(folder)
    values: set[int] = set()
    colors: np.ndarray | None = None
    for path in files:
        image = load_image(path)
        if image.mode not in ("P", "L", "1"):
            raise SceneDataError(
                f"{path} is a colour image without a {LABEL_MAP}: add one (`name:red,green,blue::` for each class)."
            )
        values |= set(np.unique(np.asarray(image)).tolist())
        if image.mode == "P" and colors is None:
            colors = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    single = values <= {0, IGNORE_LABEL}
    last = 1 if single else max(values - {IGNORE_LABEL}, default=0)
    names = [source.background or VOC_BACKGROUND, *(f"object {k}" for k in range(1, last + 1))]
    usable = colors is not None and last < len(colors) and len(np.unique(colors[: last + 1], axis=0)) == last + 1
    stated = [(int(r), int(g), int(b)) for r, g, b in colors[: last + 1]] if usable and colors is not None else None
    table = make_class_table(folder, names, stated, names[1:])
    lookup = np.full(256, IGNORE_LABEL, np.int64)
    lookup[: last + 1] = np.arange(last + 1)
    if single:
        lookup[IGNORE_LABEL] = 1
    return LabelSet(table, _index_images(files, folder, lookup, len(table), objects=True))


def read_ids(folder: Path, path: Path, source: LabelSource) -> LabelSet:
    """PNGs of ids (8 or 16 bits, or palette images), and the JSON file that says which class has which id."""
    if source.background is not None:
        raise SceneDataError(f"{path}: leave --background out; id images say what every pixel is.")
    entries = read_table(path)
    ids = [entry["id"] for entry in entries]
    colors = [entry.get("color") for entry in entries]
    for entry in entries:
        color = entry.get("color")
        good = isinstance(color, list) and len(color) == 3 and all(type(v) is int and 0 <= v < 256 for v in color)
        if color is not None and not good:
            raise SceneDataError(f"{path} has {color!r} as color of {entry['name']}: write [red, green, blue].")
    stated = [(c[0], c[1], c[2]) for c in colors if c is not None]
    foreground = [entry["name"] for entry in entries if entry.get("foreground") is True]
    table = make_class_table(
        path, [e["name"] for e in entries], stated if len(stated) == len(ids) else None, foreground
    )
    lookup = np.full(MAX_ID + 1, -1, np.int64)
    lookup[list(IGNORED_IDS)] = IGNORE_LABEL
    lookup[ids] = table.file_ids if table.file_ids is not None else np.arange(len(ids))
    return LabelSet(table, _index_images(png_files(folder), folder, lookup, len(table), objects=False))


def read_table(path: Path) -> list[dict[str, Any]]:
    """Entries with `id` and `name` out of any of: a list of names or of objects with `name` (and `id`), the same under
    `classes`, {"id": "name"}, {"name": id}.

    Raises:
        SceneDataError: none of these, or an id twice or beyond 16 bits.
    """
    content = read_json(path)
    listed = content.get("classes", content) if isinstance(content, dict) else content
    if isinstance(listed, dict):
        by_id = all(isinstance(name, str) and key.isdecimal() and len(key) < 6 for key, name in listed.items())
        entries = [{"id": int(k), "name": v} if by_id else {"id": v, "name": k} for k, v in listed.items()]
    elif isinstance(listed, list):
        entries = [
            {"id": place, "name": entry} if isinstance(entry, str) else {"id": place, **entry}
            for place, entry in enumerate(listed)
            if isinstance(entry, str | dict)
        ]
        entries = entries if len(entries) == len(listed) else []
    else:
        entries = []
    if not entries or not all(isinstance(entry.get("name"), str) for entry in entries):
        raise SceneDataError(f'{path} is no class table: write {{"classes": [{{"id": 0, "name": "rest"}}, ...]}}.')
    seen: set[int] = set()
    for entry in entries:
        number = entry["id"]
        if type(number) is not int or not 0 <= number <= MAX_ID or number in seen:
            raise SceneDataError(
                f"{path} gives {entry['name']} the id {number!r}: write a number from 0 to {MAX_ID} of its own."
            )
        seen.add(number)
    return entries


def _index_images(
    files: Sequence[Path], folder: Path, table: np.ndarray, count: int, objects: bool
) -> list[LabelImage]:
    """Images whose values are looked up in a table of class ids; -1 there is an error."""

    def paint(path: Path, width: int, height: int) -> Painted:
        image = load_image(path)
        values = np.asarray(image).astype(np.int64)
        if values.ndim != 2:
            raise SceneDataError(f"{path} is a colour image: store the ids in a single-channel PNG.")
        unknown = (values < 0) | (values >= len(table))
        unknown |= table[np.where(unknown, 0, values)] < 0
        if unknown.any():
            raise SceneDataError(
                f"{path} has {int(unknown.sum())} pixels with ids of no class, for example {int(values[unknown][0])}: "
                "add the id to the class table, or write 255 for pixels to ignore."
            )
        ids = majority_resize(table[values].astype(np.uint8), width, height, count)
        return ids, np.where(ids == IGNORE_LABEL, 0, ids).astype(np.uint16) if objects else None

    return [
        LabelImage(path.relative_to(folder).as_posix(), str(path), read_image_size(path), partial(paint, path))
        for path in files
    ]
