"""Class tables and label images: ids are uint8 in the order of the table, 255 is "ignore" and never a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
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
    "extend_class_table",
    "majority_resize",
    "make_class_table",
    "merge_class_tables",
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
    source: Path | None = None
    """File that states names and colours."""
    foreground_source: Path | None = None
    """File that states what is foreground, where that is another one."""

    def __len__(self) -> int:
        return len(self.names)

    def ids_in(self, names: Sequence[str]) -> UInt8[np.ndarray, "256"]:
        """What this table's ids are in another order of names; `IGNORE_LABEL` for classes that are not among them."""
        lookup = np.full(IGNORE_LABEL + 1, IGNORE_LABEL, np.uint8)
        for index, name in enumerate(self.names):
            if name in names:
                lookup[index] = list(names).index(name)
        return lookup

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
    source: Path,
    names: list[str],
    colors: list[tuple[int, int, int]] | None,
    foreground: list[str],
    foreground_source: Path | None = None,
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
        source=source,
        foreground_source=foreground_source,
    )


def merge_class_tables(tables: Sequence[ClassTable]) -> ClassTable:
    """One table of the classes of several scenes: matched by name, in the order in which they first occur.

    Classes to which no table gives a colour get a free one. A table without any foreground class says nothing about the
    foreground.

    Raises:
        SceneDataError: naming both files, where a class has two colours, a colour two classes, or a class is foreground
            in one table and not in the other; or too many classes.
    """
    if len(tables) == 1:
        return tables[0]
    colors, names, flags = _Agreement(), _Agreement(), _Agreement()
    for table in tables:
        file, foreground_file = table.source, table.foreground_source or table.source
        for name, color, flag in zip(table.names, table.colors.tolist(), table.foreground.tolist(), strict=True):
            if table.colors_given:
                shown = ",".join(map(str, color))
                colors.add(name, shown, file, f"give class '{name}' the colours {{}} and {{}}: use one of them in both")
                names.add(shown, name, file, f"give colour {shown} to the classes '{{}}' and '{{}}': recolour one")
            if table.foreground.any():
                differ = f"disagree whether '{name}' is foreground ({{}}, {{}}): say the same in both"
                flags.add(name, "yes" if flag else "no", foreground_file, differ)
    merged = list(dict.fromkeys(name for table in tables for name in table.names))
    if len(merged) > MAX_CLASSES:
        raise SceneDataError(f"{tables[-1].source} brings the classes to {len(merged)}: use at most {MAX_CLASSES}.")
    given = {name: _parse_color(color) for name, (color, _) in colors.said.items()}
    return ClassTable(
        names=tuple(merged),
        colors=_with_free_colors([given.get(name) for name in merged]),
        foreground=np.array([flags.said.get(name, ("no", None))[0] == "yes" for name in merged]),
        colors_given=any(table.colors_given for table in tables),
        source=tables[0].source,
        foreground_source=tables[0].foreground_source,
    )


def extend_class_table(base: ClassTable, table: ClassTable | None) -> ClassTable:
    """The classes of trained networks, in their order and colours, then those that only a new scene's table has.

    Raises:
        SceneDataError: too many classes.
    """
    if table is None:
        return base
    new = [index for index, name in enumerate(table.names) if name not in base.names]
    if len(base) + len(new) > MAX_CLASSES:
        raise SceneDataError(f"{table.source} brings the classes to {len(base) + len(new)}: use at most {MAX_CLASSES}.")
    taken = {tuple(color) for color in base.colors.tolist()}
    colors: list[tuple[int, int, int] | None] = [(r, g, b) for r, g, b in base.colors.tolist()]
    for r, g, b in table.colors[new].tolist():
        colors.append((r, g, b) if (r, g, b) not in taken else None)
    flags = dict(zip(base.names, base.foreground.tolist(), strict=True))
    if table.foreground.any():
        flags |= dict(zip(table.names, table.foreground.tolist(), strict=True))
    names = (*base.names, *(table.names[index] for index in new))
    return ClassTable(
        names=names,
        colors=_with_free_colors(colors),
        foreground=np.array([flags.get(name, False) for name in names]),
        source=table.source,
        foreground_source=table.foreground_source,
    )


class _Agreement:
    """What several files say about the same things."""

    def __init__(self) -> None:
        self.said: dict[Hashable, tuple[str, Path | None]] = {}

    def add(self, what: Hashable, value: str, file: Path | None, conflict: str) -> None:
        """`conflict` says, with two gaps for the values, what it means that files differ."""
        first, other = self.said.setdefault(what, (value, file))
        if first != value:
            raise SceneDataError(f"{other} and {file} {conflict.format(first, value)}.")


def _with_free_colors(colors: Sequence[tuple[int, int, int] | None]) -> UInt8[np.ndarray, "C 3"]:
    """The colours, and default ones that are not among them where there is none."""
    taken = {color for color in colors if color is not None}
    spare = (tuple(color) for color in default_colors(len(colors) + len(taken)).tolist())
    free = (color for color in spare if color not in taken)
    return np.array([next(free) if color is None else color for color in colors], np.uint8).reshape(-1, 3)


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
    return make_class_table(path, names, colors, foreground, foreground_path)


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
