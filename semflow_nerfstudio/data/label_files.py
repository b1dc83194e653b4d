"""Writing label images and class tables such that this package reads them as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from semflow_nerfstudio.data.files import load_image
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.whole_file import whole_file

HEADER = "# label:color_rgb:parts:actions"
CONFIDENCE_FOLDER = "confidence"
"""Where `semflow complete` writes how sure it is, as images of the labels' names."""
COMPLETION_STAMP = "complete.json"
"""What it made the images in a folder from."""


def image_mode(example: Path | None, classes: ClassTable) -> str:
    """The kind of image that holds labels like those of an example: RGB colours, P palette, or L ids.

    Without an example RGB where the class table states colours, ids where it does not.
    """
    if example is None:
        return "RGB" if classes.colors_given else "L"
    mode = load_image(example).mode
    if mode == "P":
        return "P"
    grey_table = classes.colors_given and bool((classes.colors == classes.colors[:, :1]).all())
    return "L" if mode not in ("RGB", "RGBA") and not grey_table else "RGB"


def encode_labels(ids: UInt8[np.ndarray, "H W"], classes: ClassTable, mode: str) -> Image.Image:
    """Class ids as an image of a mode of `image_mode`; 255 stays to be ignored."""
    if mode == "RGB":
        return Image.fromarray(classes.colorize(ids))
    numbers = np.full(IGNORE_LABEL + 1, IGNORE_LABEL, np.uint8)
    by_color = mode == "P" and classes.colors_given
    if by_color or classes.file_ids is None:
        numbers[: len(classes)] = np.arange(len(classes))
    else:
        kept = np.flatnonzero(classes.file_ids != IGNORE_LABEL)
        numbers[classes.file_ids[kept]] = kept
    image = Image.fromarray(numbers[ids])
    if mode == "P":
        palette = np.zeros((IGNORE_LABEL + 1, 3), np.uint8)
        palette[numbers[: len(classes)]] = classes.colors
        palette[IGNORE_LABEL] = classes.colorize(np.array([IGNORE_LABEL]))[0]
        image.putpalette(palette.tobytes())
    return image


def with_ignored_color(classes: ClassTable) -> ClassTable:
    """A table in whose colours ignored pixels can be painted: itself, or with a line for a colour that it lacks."""
    if not classes.colors_given or len(classes.ignore_colors):
        return classes
    taken = {tuple(color) for color in classes.colors.tolist()}
    free = next(color for color in ((level,) * 3 for level in (255, 0, *range(254, 0, -1))) if color not in taken)
    order = np.arange(len(classes), dtype=np.uint8) if classes.file_ids is None else classes.file_ids
    return replace(
        classes,
        ignore_colors=np.array([free], np.uint8),
        file_ids=np.append(order, np.uint8(IGNORE_LABEL)),
    )


def save_image(path: Path, image: Image.Image) -> None:
    """Save a PNG such that it is never half-written."""
    with whole_file(path) as partial:
        image.save(partial, format="PNG")


def write_class_table(folder: Path, classes: ClassTable) -> None:
    """Write labelmap.txt and foreground_object.txt, which give every class the id that it has."""
    order = np.arange(len(classes)) if classes.file_ids is None else classes.file_ids
    ignored = iter(classes.ignore_colors)
    lines = [HEADER]
    for class_id in order:
        name = "ignore" if class_id == IGNORE_LABEL else classes.names[class_id]
        color = next(ignored, None) if class_id == IGNORE_LABEL else classes.colors[class_id]
        if color is not None:
            lines.append(f"{name}:{','.join(str(part) for part in color)}::")
    foreground = [name for name, flag in zip(classes.names, classes.foreground, strict=True) if flag]
    for name, text in (("labelmap.txt", lines), ("foreground_object.txt", foreground)):
        with whole_file(folder / name) as partial:
            partial.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
