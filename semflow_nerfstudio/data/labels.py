"""Class tables and label images: ids are uint8 in the order of the table, 255 is "ignore" and never a class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.resize import majority_resize
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

__all__ = [
    "IGNORE_NAMES",
    "MAX_CLASSES",
    "ClassTable",
    "default_colors",
    "majority_resize",
    "make_class_table",
    "read_label_map",
]

IGNORE_NAMES = frozenset({"ignore", "void", "unlabelled", "unlabeled"})
"""Names of lines in a label map that declare a colour to be ignored instead of a class."""
MAX_CLASSES = IGNORE_LABEL
"""Ids 0..254 are classes."""


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Names, colours and roles of C classes; a class's id is its position."""

    names: tuple[str, ...]
    colors: UInt8[np.ndarray, "C 3"]
    """RGB."""
    foreground: Bool[np.ndarray, "C"]
    """Classes that count as foreground in metrics and editing."""
    colors_given: bool = True
    """Whether the data set states the colours: then palette images are read by colour, otherwise by index."""
    ignore_colors: UInt8[np.ndarray, "K 3"] = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    """RGB of pixels to ignore."""
    file_ids: UInt8[np.ndarray, "L"] | None = None
    """Class id (255: ignore) of each number that id images hold, where the table has lines that are no class; None: the
    numbers are the class ids."""

    def __len__(self) -> int:
        return len(self.names)

    def colorize(self, ids: Int[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
        """RGB of class ids; ignored pixels become the first declared ignore colour, otherwise white.

        Raises:
            ValueError: on an id that is neither a class nor 255.
        """
        if ids.size and not ((ids < len(self)) | (ids == IGNORE_LABEL)).all():
            raise ValueError(f"label id {int(ids[(ids >= len(self)) & (ids != IGNORE_LABEL)].max())} is no class")
        lookup = np.full((IGNORE_LABEL + 1, 3), 255, np.uint8)
        lookup[: len(self)] = self.colors
        if len(self.ignore_colors):
            lookup[IGNORE_LABEL] = self.ignore_colors[0]
        return lookup[ids]

    def ids_of_colors(
        self, colors: UInt8[np.ndarray, "*shape 3"]
    ) -> tuple[UInt8[np.ndarray, "*shape"], Bool[np.ndarray, "*shape"]]:
        """Ids of exact RGB colours, and a mask of the pixels whose colour the table does not have (id 255)."""
        pixels = _color_keys(colors)
        ids = np.full(pixels.shape, IGNORE_LABEL, np.uint8)
        unknown = np.ones(pixels.shape, bool)
        for index, key in enumerate(_color_keys(np.concatenate([self.colors, self.ignore_colors]))):
            here = pixels == key
            unknown &= ~here
            if index < len(self):
                ids[here] = index
        return ids, unknown


def _color_keys(colors: UInt8[np.ndarray, "*shape 3"]) -> Int[np.ndarray, "*shape"]:
    parts = colors.astype(np.int32)
    return (parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2]


def default_colors(count: int) -> UInt8[np.ndarray, "count 3"]:
    """Distinct colours for classes without given ones: id 0 dark grey, then hues by the golden ratio."""
    index = np.arange(count)[:, None]
    hue = (index * 0.618034 + np.array([[0.0, 2 / 3, 1 / 3]])) % 1
    value = 0.75 + 0.25 * (index % 3 == 1) - 0.25 * (index % 3 == 2)
    colors = (255 * value * (0.25 + 0.75 * np.clip(np.abs(hue * 6 - 3) - 1, 0, 1))).round().astype(np.uint8)
    colors[:1] = 64
    return colors


def make_class_table(
    source: Path, names: list[str], colors: list[tuple[int, int, int]] | None, foreground: list[str]
) -> ClassTable:
    """Check and build a class table out of its lines; `source` is the file that is named in errors.

    Lines with a name out of IGNORE_NAMES are no classes: their colour, and their number in id images, is ignored.

    Raises:
        SceneDataError: empty or too long table, a name or colour that occurs twice, unknown foreground class.
    """
    is_class = [name.lower() not in IGNORE_NAMES for name in names]
    kept = [name for name, keep in zip(names, is_class, strict=True) if keep]
    if not kept:
        raise SceneDataError(f"{source} declares no class: add one `name:red,green,blue::` line (or entry) per class.")
    if len(names) > MAX_CLASSES:
        raise SceneDataError(f"{source} declares {len(names)} classes: merge them to at most {MAX_CLASSES}.")
    for name, count in Counter(kept).items():
        if count > 1 or not name:
            raise SceneDataError(f"{source} names class '{name}' {count} times: give every class one name of its own.")
    for color, count in Counter(colors or []).items():
        if count > 1:
            raise SceneDataError(f"{source} gives colour {color} to {count} classes: give every class its own colour.")
    for name in foreground:
        if name not in kept:
            raise SceneDataError(f"{source} calls '{name}' foreground but has no such class: correct the name.")
    table = default_colors(len(kept)) if colors is None else np.array(colors, np.uint8)[is_class]
    ignored = np.zeros((0, 3), np.uint8) if colors is None else np.array(colors, np.uint8)[~np.array(is_class)]
    file_ids = np.full(len(names), IGNORE_LABEL, np.uint8)
    file_ids[is_class] = np.arange(len(kept))
    return ClassTable(
        names=tuple(kept),
        colors=table,
        foreground=np.array([name in foreground for name in kept]),
        colors_given=colors is not None,
        ignore_colors=ignored,
        file_ids=file_ids,
    )


def read_label_map(path: Path, foreground_path: Path | None = None) -> ClassTable:
    """Read `labelmap.txt` (CVAT/VOC: a header comment, then `name:r,g,b::` lines; a class's id is its line order).

    Lines named ignore, void, unlabelled or unlabeled declare a colour to be ignored and are no class. `foreground_path`
    (`foreground_object.txt`, one class name a line) says what counts as foreground; without it nothing does.

    Raises:
        SceneDataError: unreadable line, empty table, duplicate name or colour, unknown foreground class.
    """
    names: list[str] = []
    colors: list[tuple[int, int, int]] = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, rest = text.partition(":")
        color = _parse_color(rest.partition(":")[0])
        if color is None:
            raise SceneDataError(
                f"{path} line {number} reads '{text}': write it as `name:red,green,blue::` with numbers from 0 to 255."
            )
        names.append(name.strip())
        colors.append(color)
    table = make_class_table(path, names, colors, [])
    if foreground_path is None or not foreground_path.is_file():
        return table
    foreground = [line.strip() for line in _read_text(foreground_path).splitlines() if line.strip()]
    for name in foreground:
        if name not in table.names:
            raise SceneDataError(
                f"{foreground_path} lists '{name}' but {path.name} has no such class: correct the name or remove the "
                "line."
            )
    return make_class_table(path, names, colors, foreground)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SceneDataError(
            f"{path} (the class table) does not exist: write one `name:red,green,blue::` line per class."
        ) from None
    except UnicodeDecodeError:
        raise SceneDataError(f"{path} is no UTF-8 text: save it again as plain UTF-8.") from None


def _parse_color(text: str) -> tuple[int, int, int] | None:
    try:
        parts = [int(part) for part in text.split(",")]
    except ValueError:
        return None
    if len(parts) != 3 or not all(0 <= part <= 255 for part in parts):
        return None
    return parts[0], parts[1], parts[2]
