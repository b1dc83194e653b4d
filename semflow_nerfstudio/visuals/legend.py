"""Text burnt into pictures: class legends, panel captions and time stamps. Pictures are numpy uint8 (H, W, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Place = Literal["below", "top-left", "top-right", "bottom-left", "bottom-right"]
Picture = UInt8[np.ndarray, "H W 3"]

BACKGROUND = (24, 24, 28)
"""Colour of legend strips and of the space between panels."""
TEXT = (240, 240, 240)
_BOX_OPACITY = 0.72


def font_size_for(width: int) -> int:
    """Font size in pixels that stays readable in a picture of that width: 11 at 240, 14 at 480, 32 at 1920."""
    return max(11, 8 + round(width / 80))


def add_legend(
    picture: Picture,
    names: Sequence[str],
    colors: UInt8[np.ndarray, "C 3"],
    place: Place = "below",
    font_size: int | None = None,
) -> Picture:
    """Burn a class legend, a colour swatch and a name per class, into a copy of the picture.

    Args:
        picture: RGB.
        names: Classes to show, in this order.
        colors: RGB of each of them; the swatches have exactly these colours.
        place: "below" adds a strip under the picture whose height depends only on the width, the names and the font
            size, so that all frames of a video agree; a corner draws over the picture, and classes for which there is
            not even room for swatches are left out.
        font_size: In pixels; by default it follows the picture's width.

    Raises:
        ValueError: if names and colours do not agree in number.
    """
    colors = np.asarray(colors)
    if colors.shape != (len(names), 3):
        raise ValueError(
            f"A legend of {len(names)} names needs colours of shape ({len(names)}, 3), got {colors.shape}."
        )
    if not names:
        return picture.copy()
    height, width = picture.shape[:2]
    cell = _Cell(font_size or font_size_for(width))
    if place == "below":
        rows = cell.wrap(names, width)
        strip = Image.new("RGB", (width, len(rows) * cell.height + cell.gap), BACKGROUND)
        draw = ImageDraw.Draw(strip)
        for row, entries in enumerate(rows):
            for left, index, text in entries:
                cell.draw(draw, left, row * cell.height + cell.gap // 2, text, colors[index])
        return np.concatenate([picture, np.asarray(strip)])

    per_column = max(1, (height - 2 * cell.gap) // cell.height)
    columns = -(-len(names) // per_column)
    column_width = min(max(cell.width(name) for name in names), max(cell.text_left + 1, (width - cell.gap) // columns))
    fitting = per_column * max(1, (width - cell.gap) // column_width)
    rows = min(per_column, len(names))
    box = Image.new("RGB", (min(columns * column_width + cell.gap, width), rows * cell.height + cell.gap), BACKGROUND)
    left, top = _corner_position(picture, box.size, place)
    region = picture[top : top + box.height, left : left + box.width]
    box = Image.fromarray(_blend(region, np.asarray(box)[: region.shape[0], : region.shape[1]], _BOX_OPACITY))
    draw = ImageDraw.Draw(box)
    for index, name in enumerate(names[:fitting]):
        column, row = divmod(index, per_column)
        text = cell.shorten(name, column_width)
        cell.draw(draw, column * column_width, row * cell.height + cell.gap // 2, text, colors[index])
    result = picture.copy()
    result[top : top + box.height, left : left + box.width] = np.asarray(box)
    return result


def add_caption(picture: Picture, text: str, place: Corner = "top-left", font_size: int | None = None) -> Picture:
    """Burn a line of text on a dark ground into a corner of a copy of the picture; too long a text is cut with "...".

    Args:
        picture: RGB.
        text: One line; an empty text returns the picture unchanged.
        place: Corner.
        font_size: In pixels; by default it follows the picture's width.
    """
    if not text:
        return picture.copy()
    font = _font(font_size or font_size_for(picture.shape[1]))
    margin = max(2, round(font.size / 3))
    text = _shorten(font, text, picture.shape[1] - 2 * margin)
    ascent, descent = font.getmetrics()
    size = (round(font.getlength(text)) + 2 * margin, ascent + descent + margin)
    left, top = _corner_position(picture, size, place)
    result = picture.copy()
    region = result[top : top + size[1], left : left + size[0]]
    box = Image.fromarray(_blend(region, np.array(BACKGROUND, dtype=np.uint8), _BOX_OPACITY))
    ImageDraw.Draw(box).text((margin, margin // 2), text, fill=TEXT, font=font)
    region[...] = np.asarray(box)
    return result


def add_time_stamp(
    picture: Picture, time: float, place: Corner = "bottom-right", font_size: int | None = None
) -> Picture:
    """Burn the time in [0, 1] into a corner of a copy of the picture; always equally wide, so it does not jitter."""
    return add_caption(picture, f"t = {time:.3f}", place, font_size)


class _Cell:
    """Measures and draws one legend entry: a swatch and a name."""

    def __init__(self, font_size: int):
        self.font = _font(font_size)
        self.gap = max(4, font_size // 2)
        self.height = round(font_size * 1.5)
        self.text_left = self.gap + font_size + self.gap // 2
        self.swatch = font_size

    def width(self, text: str) -> int:
        return self.text_left + round(self.font.getlength(text)) + self.gap // 2

    def shorten(self, text: str, width: int) -> str:
        return _shorten(self.font, text, width - self.text_left)

    def wrap(self, names: Sequence[str], width: int) -> list[list[tuple[int, int, str]]]:
        """Rows of (left edge, index, name), as many names a row as fit."""
        rows: list[list[tuple[int, int, str]]] = [[]]
        left = 0
        for index, name in enumerate(names):
            text = self.shorten(name, width)
            needed = self.width(text)
            if left and left + needed > width:
                rows.append([])
                left = 0
            rows[-1].append((left, index, text))
            left += needed
        return rows

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int, text: str, color: np.ndarray) -> None:
        red, green, blue = (int(value) for value in color)
        x, y = left + self.gap, top + (self.height - self.swatch) // 2
        # The outline keeps swatches visible whose colour is that of the ground.
        draw.rectangle((x, y, x + self.swatch - 1, y + self.swatch - 1), fill=(red, green, blue), outline=TEXT)
        draw.text((left + self.text_left, top + self.height // 2), text, fill=TEXT, font=self.font, anchor="lm")


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("This Pillow was built without FreeType and cannot draw text; install Pillow from PyPI.")
    return font


def _shorten(font: ImageFont.FreeTypeFont, text: str, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def _corner_position(picture: Picture, size: tuple[int, int], place: str) -> tuple[int, int]:
    vertical, _, horizontal = place.partition("-")
    if vertical not in ("top", "bottom") or horizontal not in ("left", "right"):
        raise ValueError(f"Unknown place '{place}': use below, top-left, top-right, bottom-left or bottom-right.")
    left = 0 if horizontal == "left" else max(0, picture.shape[1] - size[0])
    top = 0 if vertical == "top" else max(0, picture.shape[0] - size[1])
    return left, top


def _blend(under: np.ndarray, over: np.ndarray, opacity: float) -> np.ndarray:
    return np.round(under * (1 - opacity) + over * opacity).astype(np.uint8)
