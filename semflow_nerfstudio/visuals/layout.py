"""Pictures composed of pictures: panels side by side, grids, video frames. Pictures are numpy uint8 (H, W, 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from semflow_nerfstudio.visuals.legend import (
    BACKGROUND,
    TEXT,
    Picture,
    Place,
    add_caption,
    add_legend,
    add_time_stamp,
    font_size_for,
)

_MISSING = (60, 60, 66)


def to_picture(image: Float[Tensor, "H W C"]) -> Picture:
    """A float image in [0, 1] with one or three channels as uint8; values outside are clamped, NaN is black."""
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"A picture has shape (H, W, 1) or (H, W, 3), got {tuple(image.shape)}.")
    scaled = image.detach().float().nan_to_num(0.0).clamp(0, 1).mul(255).round().byte()
    return scaled.expand(-1, -1, 3).contiguous().cpu().numpy()


def pad_to_even(picture: Picture) -> Picture:
    """Repeat the last column and row where width or height is odd: H.264 in yuv420p has even sizes only."""
    height, width = picture.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return picture
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def grid(rows: Sequence[Sequence[Picture | None]], separator: int = 4) -> Picture:
    """Lay pictures out in rows and columns.

    Every column is as wide as its widest picture and every row as high as its highest; smaller ones are centred.
    None leaves a grey cell, and so do rows that are shorter than others.

    Raises:
        ValueError: if there is no picture at all.
    """
    columns = max((len(row) for row in rows), default=0)
    cells = [[*row, *[None] * (columns - len(row))] for row in rows]
    present = [cell for row in cells for cell in row if cell is not None]
    if not present:
        raise ValueError("A grid needs at least one picture.")
    fallback = present[0].shape
    heights = [max([c.shape[0] for c in row if c is not None], default=fallback[0]) for row in cells]
    widths = [max([c.shape[1] for c in col if c is not None], default=fallback[1]) for col in zip(*cells, strict=True)]
    size = (sum(heights) + separator * (len(heights) - 1), sum(widths) + separator * (len(widths) - 1))
    canvas = np.empty((*size, 3), dtype=np.uint8)
    canvas[:] = BACKGROUND
    top = 0
    for row, height in zip(cells, heights, strict=True):
        left = 0
        for cell, width in zip(row, widths, strict=True):
            if cell is None:
                canvas[top : top + height, left : left + width] = _MISSING
            else:
                y, x = top + (height - cell.shape[0]) // 2, left + (width - cell.shape[1]) // 2
                canvas[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
            left += width + separator
        top += height + separator
    return canvas


def with_alpha(picture: Picture, opacity: Float[Tensor, "H W 1"]) -> np.ndarray:
    """RGBA (H, W, 4) of a picture and its opacity in [0, 1]."""
    return np.concatenate([picture, to_picture(opacity)[..., :1]], axis=-1)


def split_screen(panels: Mapping[str, Picture], place: float, captions: bool = True) -> Picture:
    """Two pictures of one size in one: the first left of a line at `place` (a share of the width), the second right.

    Raises:
        ValueError: there are not two pictures, or their sizes differ.
    """
    if len(panels) != 2 or len({panel.shape for panel in panels.values()}) != 1:
        raise ValueError("a split screen needs two pictures of one size")
    (left_name, left), (right_name, right) = panels.items()
    if captions:
        left, right = add_caption(left, left_name), add_caption(right, right_name, "top-right")
    column = round(place * left.shape[1])
    result = np.concatenate([left[:, :column], right[:, column:]], axis=1)
    if 0 < column < left.shape[1]:
        result[:, max(column - 1, 0) : column + 1] = TEXT
    return result


def side_by_side(panels: Mapping[str, Picture], captions: bool = True, separator: int = 4) -> Picture:
    """Panels in one row, in the mapping's order, with their names as captions."""
    return grid([[add_caption(p, name) if captions else p for name, p in panels.items()]], separator)


def overview_grid(
    columns: Mapping[str, Sequence[Picture | None]], times: Sequence[float] | None = None, separator: int = 4
) -> Picture:
    """A grid with one column per named picture and one row per time.

    Args:
        columns: Name -> one picture per row; None where there is none. The names are burnt into the first row.
        times: Time of each row in [0, 1], burnt into the first column.
        separator: Space between cells in pixels.

    Raises:
        ValueError: if the columns (and times) do not have the same length, or there is no picture.
    """
    lengths = {name: len(pictures) for name, pictures in columns.items()}
    if len({*lengths.values(), *([len(times)] if times is not None else [])}) > 1:
        raise ValueError(f"The columns of an overview must have one picture per time, got {lengths} for times {times}.")
    rows: list[list[Picture | None]] = [list(row) for row in zip(*columns.values(), strict=True)]
    size = next((cell.shape for row in rows for cell in row if cell is not None), None)
    for index, row in enumerate(rows):
        for column, name in enumerate(columns):
            cell = row[column]
            if cell is None and size is not None:
                cell = np.empty(size, dtype=np.uint8)
                cell[:] = _MISSING
            if cell is not None and index == 0:
                cell = add_caption(cell, name)
            if cell is not None and column == 0 and times is not None:
                cell = add_time_stamp(cell, times[index], "bottom-left")
            row[column] = cell
    return grid(rows, separator)


def video_frame(
    panels: Mapping[str, Picture],
    class_names: Sequence[str] = (),
    class_colors: np.ndarray | None = None,
    time: float | None = None,
    legend: Place = "below",
    captions: bool = True,
) -> Picture:
    """One frame of a semantic video: captioned panels side by side, class legend, time stamp; even in size.

    Args:
        panels: Caption -> picture, left to right.
        class_names: Classes of the legend; none: no legend.
        class_colors: Their RGB, uint8 (C, 3).
        time: Time in [0, 1] for the stamp in the lower right corner (left, if the legend is there); None: no stamp.
        legend: "below" or a corner of the whole frame.
        captions: Whether to burn the panels' names in.
    """
    frame = side_by_side(panels, captions)
    if time is not None:
        # As large as the captions, which follow the width of a panel, and not under a legend in the same corner.
        size = font_size_for(next(iter(panels.values())).shape[1])
        frame = add_time_stamp(frame, time, "bottom-left" if legend == "bottom-right" else "bottom-right", size)
    if class_names:
        if class_colors is None:
            raise ValueError("A legend needs class_colors beside class_names.")
        frame = add_legend(frame, class_names, class_colors, legend)
    return pad_to_even(frame)
