"""COCO JSON: polygons and run lengths (compressed or not) of instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.resize import resize_half
from semflow_nerfstudio.process.labels.found import (
    Color,
    Instances,
    LabelImage,
    LabelSet,
    LabelSource,
    Mask,
    Shape,
    as_points,
    class_ids,
    drawn_table,
    frame_name,
    paint_shapes,
    picture_size,
    read_json,
)
from semflow_nerfstudio.process.labels.masks import check_counts, polygon_mask, runs_mask, unpack_counts

KEYS = ("images", "annotations", "categories")


def is_coco(content: Any) -> bool:
    """Whether a JSON value has the lists of a COCO file."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in KEYS)


def read_coco(path: Path, source: LabelSource) -> LabelSet:
    """Labels of a COCO file. Images without annotations count as not labelled.

    Annotations lie on top of those before them in the file; crowds (`iscrowd`) lie below all others and are no
    instances. An instance is an annotation, or all that share a `track_id` (their own or in `attributes`, as CVAT
    writes it).
    """
    content = read_json(path)
    if not is_coco(content):
        raise SceneDataError(f"{path} lacks one of the lists {', '.join(KEYS)}: export it as COCO JSON.")
    images, categories = _by_id(path, content["images"], "images"), _by_id(path, content["categories"], "categories")
    for key, category in categories.items():
        if not isinstance(category.get("name"), str):
            raise SceneDataError(f"{path} has no name for category {key!r}: write one.")
    names = [category["name"] for category in categories.values()]
    foreground = [category["name"] for category in categories.values() if category.get("isthing") == 1]
    table, background = drawn_table(path, names, _colors(categories), foreground, source.background)
    labels = dict(zip(categories, (int(label) for label in class_ids(table)), strict=False))
    drawn: dict[Any, list[tuple[bool, Shape]]] = {}
    sizes: dict[Any, tuple[int, int]] = {}
    instances = Instances(path)
    for place, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict):
            raise SceneDataError(f"{path} has {annotation!r} among its annotations: export it again.")
        origin = f"{path} (annotation {annotation.get('id', f'at place {place}')!r})"
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if not isinstance(image_id, int | str) or image_id not in images:
            raise SceneDataError(f"{origin} belongs to image {image_id!r}, which its images lack: export it again.")
        if not isinstance(category_id, int | str) or category_id not in labels:
            raise SceneDataError(f"{origin} has category {category_id!r}, which its categories lack: add it there.")
        image = images[image_id]
        if image_id not in sizes:
            sizes[image_id] = picture_size(f"{path} (image {image_id!r})", image.get("width"), image.get("height"))
        crowd = annotation.get("iscrowd") in (1, True)
        label = labels[category_id]
        number = 0 if crowd or label >= len(table) else instances.number(_instance(annotation, place))
        mask = _mask(origin, annotation.get("segmentation"), sizes[image_id])
        drawn.setdefault(image_id, []).append((crowd, Shape(label, number, mask)))
    return LabelSet(
        table,
        [
            LabelImage(
                name=frame_name(path, images[key].get("file_name"), "file_name"),
                origin=f"{path} (image {images[key].get('file_name')})",
                size=sizes[key],
                paint=paint_shapes([shape for _, shape in sorted(shapes, key=lambda item: not item[0])], background),
            )
            for key, shapes in drawn.items()
        ],
    )


def _by_id(path: Path, entries: list[Any], key: str) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        number = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(number, int | str) or number in found:
            raise SceneDataError(f"{path} has no id, or one that occurs twice, in {key}: {number!r}; export it again.")
        found[number] = entry
    return found


def _colors(categories: dict[Any, dict[str, Any]]) -> list[Color] | None:
    """Colours of all categories, as in COCO's panoptic files, or none."""
    colors: list[Color] = []
    for category in categories.values():
        color = category.get("color")
        if not isinstance(color, list) or len(color) != 3 or not all(type(v) is int and 0 <= v < 256 for v in color):
            return None
        colors.append((color[0], color[1], color[2]))
    return colors if len(set(colors)) == len(colors) else None


def _instance(annotation: dict[str, Any], place: int) -> tuple[str, Any]:
    attributes = annotation.get("attributes")
    for holder in (annotation, attributes if isinstance(attributes, dict) else {}):
        if isinstance(holder.get("track_id"), int | str):
            return "track", holder["track_id"]
    return "annotation", place


def _mask(origin: str, segmentation: Any, size: tuple[int, int]) -> Mask:
    if isinstance(segmentation, list) and segmentation:
        return _polygons(origin, segmentation, size)
    if isinstance(segmentation, dict):
        return _runs(origin, segmentation, size)
    raise SceneDataError(f"{origin} has no segmentation: draw a polygon or a mask; boxes alone are no labels.")


def _polygons(origin: str, polygons: list[Any], size: tuple[int, int]) -> Mask:
    """The union of flat lists x, y, x, y, ..."""
    parts = []
    for polygon in polygons:
        points = as_points(origin, polygon if isinstance(polygon, list) else [polygon])
        if len(points) < 3:
            raise SceneDataError(f"{origin} has a polygon of {len(points)} points: at least 3 enclose anything.")
        parts.append(points / size)

    def draw(width: int, height: int) -> np.ndarray:
        return np.logical_or.reduce([polygon_mask(points * (width, height), width, height) for points in parts])

    return draw


def _runs(origin: str, segmentation: dict[str, Any], size: tuple[int, int]) -> Mask:
    counts, stated = segmentation.get("counts"), segmentation.get("size")
    if stated != [size[1], size[0]]:
        raise SceneDataError(
            f"{origin} has run lengths for {stated} (height, width) but its image is {size[0]}x{size[1]}: export again."
        )
    if not isinstance(counts, list | str):
        raise SceneDataError(f"{origin} has no counts in its segmentation: export it again.")
    try:
        lengths = check_counts(unpack_counts(counts) if isinstance(counts, str) else counts, *size)
    except ValueError as error:
        raise SceneDataError(f"{origin} has a broken mask ({error}): export it again.") from None
    return lambda width, height: resize_half(runs_mask(lengths, *size).astype(np.int64), 1, width, height)
