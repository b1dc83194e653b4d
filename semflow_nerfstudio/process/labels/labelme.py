"""LabelMe JSON: one file per image, with polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.labels import IGNORE_NAMES
from semflow_nerfstudio.data.resize import resize_half
from semflow_nerfstudio.process.labels.found import (
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
from semflow_nerfstudio.process.labels.masks import ellipse_mask, polygon_mask

IGNORE = "__ignore__"
"""LabelMe's name for what is to be ignored."""


def is_labelme(content: Any) -> bool:
    """Whether a JSON value is a LabelMe file."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(files: Sequence[Path], where: Path, source: LabelSource) -> LabelSet:
    """Labels of LabelMe files. Files without shapes count as not labelled.

    Shapes lie on top of those before them in their file, as LabelMe shows them. Classes are in the order of their
    names. An instance is a shape, or all shapes of a class that share a group id, in all files.
    """
    contents = {path: read_json(path) for path in files}
    names: set[str] = set()
    for path, content in contents.items():
        if not is_labelme(content):
            raise SceneDataError(f"{path} is no LabelMe file (it lacks shapes or imagePath): save it again.")
        for place, shape in enumerate(content["shapes"]):
            label = shape.get("label") if isinstance(shape, dict) else None
            if not isinstance(label, str) or not label:
                raise SceneDataError(f"{path} has no label for shape {place}: give it a class in LabelMe.")
            names.add(label)
    ordered = sorted(names - {IGNORE}) + ["ignore"] * (IGNORE in names and not names & IGNORE_NAMES)
    if not names:
        raise SceneDataError(f"{where} holds LabelMe files without shapes: draw something on one of the images.")
    table, background = drawn_table(where, ordered, None, [], source.background)
    labels = dict(zip(ordered, (int(label) for label in class_ids(table)), strict=False))
    instances = Instances(where)
    images = []
    for path, content in contents.items():
        size = picture_size(str(path), content.get("imageWidth"), content.get("imageHeight"))
        shapes = []
        for place, shape in enumerate(content["shapes"]):
            origin = f"{path} (shape {place}, {shape['label']})"
            label = labels.get(shape["label"], 255)
            group = shape.get("group_id")
            key = (path, place) if not isinstance(group, int | str) else (shape["label"], group)
            number = instances.number(key) if label < len(table) else 0
            shapes.append(Shape(label, number, _mask(origin, shape, size)))
        if shapes:
            # LabelMe writes where the image is, seen from the JSON file, which may lead through parent folders.
            name = frame_name(path, content["imagePath"], "imagePath", climbs=True)
            images.append(LabelImage(name, str(path), size, paint_shapes(shapes, background)))
    return LabelSet(table, images)


def _mask(origin: str, shape: dict[str, Any], size: tuple[int, int]) -> Mask:
    kind, listed = shape.get("shape_type", "polygon"), shape.get("points")
    if not isinstance(listed, list) or not all(isinstance(point, list) and len(point) == 2 for point in listed):
        raise SceneDataError(f"{origin} has malformed points: save the file again in LabelMe.")
    points = as_points(origin, [value for point in listed for value in point])
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise SceneDataError(f"{origin} is a {kind}, not a polygon, rectangle, circle or mask: draw one of these.")
    return make(origin, shape, points, size)


def _polygon(origin: str, shape: dict[str, Any], points: np.ndarray, size: tuple[int, int]) -> Mask:
    if len(points) < 3:
        raise SceneDataError(f"{origin} is a polygon of {len(points)} points: at least 3 enclose anything.")
    return _draws(points, size)


def _rectangle(origin: str, shape: dict[str, Any], points: np.ndarray, size: tuple[int, int]) -> Mask:
    """Two opposite corners, or all four."""
    if len(points) not in (2, 4):
        raise SceneDataError(f"{origin} is a rectangle of {len(points)} points: draw it again.")
    if len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return _draws(points, size)


def _draws(points: np.ndarray, size: tuple[int, int]) -> Mask:
    share = points / size
    return lambda width, height: polygon_mask(share * (width, height), width, height)


def _circle(origin: str, shape: dict[str, Any], points: np.ndarray, size: tuple[int, int]) -> Mask:
    """Its centre and a point on it."""
    if len(points) != 2 or (points[0] == points[1]).all():
        raise SceneDataError(f"{origin} is a circle without a centre and another point: draw it again.")
    radius = math.hypot(*(points[1] - points[0]))
    (x, y), (full_width, full_height) = points[0], size

    def draw(width: int, height: int) -> np.ndarray:
        right, down = width / full_width, height / full_height
        return ellipse_mask((x * right, y * down), (radius * right, radius * down), width, height)

    return draw


def _bitmap(origin: str, shape: dict[str, Any], points: np.ndarray, size: tuple[int, int]) -> Mask:
    """A PNG in base64, and its upper left and lower right pixel."""
    try:
        with Image.open(BytesIO(base64.b64decode(shape.get("mask") or "", validate=True))) as image:
            if image.width > size[0] or image.height > size[1]:
                raise SceneDataError(f"{origin} has a mask larger than its image: draw it again.")
            values = np.asarray(image.convert("L")) > 0
    except SceneDataError:
        raise
    except (binascii.Error, TypeError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise SceneDataError(f"{origin} has a mask that is no PNG in base64: draw it again.") from None
    left, top = (int(value) for value in np.round(points[0])) if len(points) == 2 else (-1, -1)
    bottom, right = top + values.shape[0], left + values.shape[1]
    if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
        raise SceneDataError(f"{origin} has a mask that reaches over the edge of its image: draw it again.")

    def draw(width: int, height: int) -> np.ndarray:
        whole = np.zeros((size[1], size[0]), np.int64)
        whole[top:bottom, left:right] = values
        return resize_half(whole, 1, width, height)

    return draw


_Maker = Callable[[str, dict[str, Any], np.ndarray, tuple[int, int]], Mask]
_MAKERS: dict[str, _Maker] = {"polygon": _polygon, "rectangle": _rectangle, "circle": _circle, "mask": _bitmap}
