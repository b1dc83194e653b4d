"""What readers of label files hand over, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.files import MAX_PIXELS
from semflow_nerfstudio.data.labels import ClassTable, default_colors, make_class_table
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

MAX_JSON_BYTES = 1_000_000_000
LISTED = 5
"""Names that a sentence lists."""
MAX_INSTANCES = 65535
MAX_COORDINATE = 1e6
Color = tuple[int, int, int]
Painted = tuple[UInt8[np.ndarray, "H W"], "UInt16[np.ndarray, 'H W'] | None"]
Mask = Callable[[int, int], Bool[np.ndarray, "height width"]]
"""A shape, drawn at a given (width, height) of the picture that it is on."""


@dataclass(frozen=True)
class LabelSource:
    """Labels that a user names, and how to read them."""

    path: Path
    """File or folder."""
    format: str | None = None
    """One of `importer.FORMATS`; None: told from the files."""
    background: str | None = None
    """Class of the pixels that nobody drew on; None: they are ignored."""
    foreground: tuple[str, ...] = ()
    """Classes that count as foreground; empty: those that the files call so."""


@dataclass(frozen=True)
class ImportedLabels:
    """Label images of a scene, and the classes in them."""

    files: Mapping[str, Path]
    """Label image by the name of the frame (`Frame.name`); frames without labels are missing."""
    classes: Sequence[Mapping[str, Any]]
    """`classes` of transforms.json: name, color and foreground of every class, in order of their ids."""
    instances: Mapping[str, Path] = field(default_factory=dict)
    """Image of instance ids by the name of the frame, where the files tell instances apart."""
    unused: Sequence[str] = ()
    """Names of labelled frames that were left out of the scene."""

    @property
    def warnings(self) -> list[str]:
        """What a user should know, as sentences."""
        if not self.unused:
            return []
        more = f" and {len(self.unused) - LISTED} more" if len(self.unused) > LISTED else ""
        return [
            f"Labels of {', '.join(self.unused[:LISTED])}{more} are not used, as the scene lacks these frames: take "
            "more frames (--rate, --count), or label others."
        ]


@dataclass(frozen=True)
class LabelImage:
    """The labels of one frame, checked but not yet drawn."""

    name: str
    """The frame's file name as the label file tells it, perhaps without an ending."""
    origin: str
    """What to call it in errors."""
    size: tuple[int, int]
    """(width, height) at which it was made."""
    paint: Callable[[int, int], Painted]
    """Class ids (255: ignore) at a given (width, height), and instance ids (0: none) where there are any."""


@dataclass(frozen=True)
class LabelSet:
    """All labels of a source."""

    classes: ClassTable
    images: list[LabelImage]


@dataclass(frozen=True)
class Shape:
    """Something drawn: a class id (255: ignore), an instance id (0: none), and where."""

    label: int
    instance: int
    mask: Mask


class Instances:
    """Numbers instances from 1 on, in the order in which they are met."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers: dict[Hashable, int] = {}

    def number(self, key: Hashable) -> int:
        """The number of an instance."""
        number = self._numbers.setdefault(key, len(self._numbers) + 1)
        if number > MAX_INSTANCES:
            raise SceneDataError(f"{self.path} has more than {MAX_INSTANCES} instances: import a part of it.")
        return number


def paint_shapes(shapes: Sequence[Shape], background: int) -> Callable[[int, int], Painted]:
    """Draws shapes in their order, so that later ones lie on top; elsewhere is the class id `background`."""

    def paint(width: int, height: int) -> Painted:
        ids = np.full((height, width), background, np.uint8)
        instances = np.zeros((height, width), np.uint16)
        for shape in shapes:
            inside = shape.mask(width, height)
            ids[inside] = shape.label
            instances[inside] = shape.instance
        return ids, instances

    return paint


def drawn_table(
    path: Path, names: Sequence[str], colors: Sequence[Color] | None, foreground: Sequence[str], background: str | None
) -> tuple[ClassTable, int]:
    """The class table of what is drawn, with the background as its last class if it is a new one, and its id (or 255).

    Class ids of the names given are `table.file_ids`.
    """
    names, taken = list(names), None if colors is None else list(colors)
    if background is not None and background not in names:
        names.append(background)
        if taken is not None:
            spare = ((int(r), int(g), int(b)) for r, g, b in default_colors(len(taken) + 2))
            taken.append(next(color for color in spare if color not in taken))
    table = make_class_table(path, names, taken, list(foreground))
    return table, IGNORE_LABEL if background is None else int(class_ids(table)[names.index(background)])


def class_ids(table: ClassTable) -> UInt8[np.ndarray, "L"]:
    """Class id (255: ignore) of every line of the table."""
    return np.arange(len(table), dtype=np.uint8) if table.file_ids is None else table.file_ids


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        SceneDataError: it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise SceneDataError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes: export the labels in parts.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SceneDataError(f"{path} cannot be read ({error.strerror}): correct the path.") from None
    except RecursionError:
        raise SceneDataError(f"{path} is nested too deeply to be a label file: export it again.") from None
    except ValueError as error:
        if isinstance(error, SceneDataError):
            raise
        raise SceneDataError(f"{path} is no valid JSON ({error}): correct that place.") from None


def is_number(value: Any, limit: float = MAX_COORDINATE) -> bool:
    """Whether a JSON value is a finite number that is not absurdly large."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -limit <= value <= limit


def picture_size(origin: str, width: Any, height: Any) -> tuple[int, int]:
    """A stated (width, height), checked before anything of that size is made.

    Raises:
        SceneDataError: no positive whole numbers, or too many pixels.
    """
    good = [is_number(value, 1e9) and value >= 1 and float(value).is_integer() for value in (width, height)]
    if not all(good):
        raise SceneDataError(f"{origin} states {width!r} x {height!r} as its size: write width and height in pixels.")
    if width * height > MAX_PIXELS:
        raise SceneDataError(f"{origin} states {width}x{height} as its size: at most {MAX_PIXELS:,} pixels are read.")
    return int(width), int(height)


def as_points(origin: str, values: Sequence[Any]) -> np.ndarray:
    """(N, 2) points out of x, y, x, y, ...

    Raises:
        SceneDataError: not pairs of sensible numbers.
    """
    for value in values:
        if not is_number(value):
            raise SceneDataError(f"{origin} has the coordinate {value!r}: draw that shape again, within the image.")
    if len(values) % 2:
        raise SceneDataError(f"{origin} has {len(values)} coordinates, which is no row of x, y: draw that shape again.")
    return np.array(values, np.float64).reshape(-1, 2)


def frame_name(path: Path, name: Any, key: str, climbs: bool = False) -> str:
    """The file name of an image as a JSON file tells it; it is only compared with the frames' names, never opened.

    Args:
        path: The JSON file.
        name: The value.
        key: Its key.
        climbs: Whether it may lead through parent folders ("../images/a.png"), which are then dropped.

    Raises:
        SceneDataError: no relative path, or one that leads out of its folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise SceneDataError(f"{path} has {name!r} as {key}: write the file name of the frame's image.")
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if parts[:1] == ("/",) or PureWindowsPath(name).drive or (".." in parts and not climbs):
        raise SceneDataError(
            f"{path} names {name} as {key}, which leads out of its folder: write the file name of the frame's image."
        )
    return "/".join(part for part in parts if part != "..")
