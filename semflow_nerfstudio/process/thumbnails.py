"""Small pictures of what a scene holds, as data URIs: nothing is fetched when they are shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from semflow_nerfstudio.data.files import load_image, rgb_pixels
from semflow_nerfstudio.data.modalities import (
    decode_disparity,
    read_depth,
    read_flow,
    read_labels,
    read_mask,
)
from semflow_nerfstudio.data.records import FrameRecord
from semflow_nerfstudio.data.resize import resize_area
from semflow_nerfstudio.process.check import SceneContents
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.visuals.colors import depth_to_rgb, flow_to_rgb, flow_wheel_image, overlay
from semflow_nerfstudio.visuals.layout import to_picture

SIDE = 160
"""Longer side of a thumbnail, pixels."""
MAX_ROWS = 24
MOTION_COLOR = (1.0, 0.25, 0.1)
FLOW_QUANTILE = 0.98
"""Of the lengths of all flow that is shown, the one that gets the full colour."""
COLUMNS = ("frame", "flow to the next", "moving", "labels", "disparity or depth")


@dataclass(frozen=True)
class Row:
    """The pictures of one frame, in the order of COLUMNS; None: there is none."""

    name: str
    pictures: tuple[str | None, ...]


@dataclass(frozen=True)
class Thumbnails:
    """Rows of pictures, and what explains their colours."""

    rows: list[Row]
    flow_wheel: str | None
    flow_limit: float
    """Pixels of the scene's images per frame that get the full colour."""
    ignored: bool
    """Whether labels leave pixels out."""


def make_thumbnails(found: SceneContents) -> Thumbnails:
    """Pictures of up to MAX_ROWS frames, evenly spread, labelled ones first.

    Raises:
        SceneDataError: something in the scene cannot be read.
    """
    chosen = choose([record.labels is not None for record in found.records])
    size = thumbnail_size(*found.size)
    flows = {k: read_flow(path, *size) for k in chosen if (path := found.records[k].flow_forward) is not None}
    lengths = [np.linalg.norm(flow[valid], axis=-1) for flow, valid in flows.values() if valid.any()]
    limit = max(float(np.quantile(np.concatenate(lengths), FLOW_QUANTILE)), 1e-3) if lengths else 1.0
    rows, ignored = [], False
    for k in chosen:
        record = found.records[k]
        image = _image(found.images[k], size)
        labels, hidden = _labels(image, record, found, size)
        ignored |= hidden
        pictures = (
            _encode(image),
            None if k not in flows else _encode(_flow(*flows[k], limit)),
            _moving(image, record, size),
            labels,
            _depth(record, size),
        )
        rows.append(Row(found.images[k].name, pictures))
    wheel = _encode(to_picture(flow_wheel_image(48))) if flows else None
    return Thumbnails(rows, wheel, limit * found.size[0] / size[0], ignored)


def choose(labelled: Sequence[bool]) -> list[int]:
    """Up to MAX_ROWS frames in order: labelled ones first, then those that are evenly spread."""
    count = len(labelled)
    first = [k for k in range(count) if labelled[k]]
    first = [first[round(i)] for i in np.linspace(0, len(first) - 1, min(len(first), MAX_ROWS))]
    spread = [round(i) for i in np.linspace(0, count - 1, min(count, MAX_ROWS))]
    return sorted(dict.fromkeys([*first, *_thinned([k for k in spread if k not in first], MAX_ROWS - len(first))]))


def _thinned(values: Sequence[int], count: int) -> Iterator[int]:
    for i in np.linspace(0, len(values) - 1, min(len(values), count)):
        yield values[round(i)]


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) with the longer side at most SIDE."""
    scale = min(1.0, SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _image(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    return cv2.resize(rgb_pixels(load_image(path)), size, interpolation=cv2.INTER_AREA)


def _flow(flow: np.ndarray, valid: np.ndarray, limit: float) -> UInt8[np.ndarray, "H W 3"]:
    shown = np.where(valid[..., None], flow, np.nan).astype(np.float32)
    return to_picture(flow_to_rgb(torch.from_numpy(shown), limit))


def _moving(image: np.ndarray, record: FrameRecord, size: tuple[int, int]) -> str | None:
    if record.motion_mask is None:
        return None
    grey = torch.from_numpy(image).float().mean(dim=-1, keepdim=True).expand(-1, -1, 3) / 255
    moving = torch.from_numpy(read_mask(record.motion_mask, *size) == 1)
    return _encode(to_picture(overlay(grey, torch.tensor(MOTION_COLOR).expand_as(grey), 0.7, moving)))


def _labels(
    image: np.ndarray, record: FrameRecord, found: SceneContents, size: tuple[int, int]
) -> tuple[str | None, bool]:
    """The labels over the frame, and whether they leave something out."""
    if record.labels is None or found.classes is None:
        return None, False
    ids = read_labels(record.labels, found.classes, *size)
    colors = torch.from_numpy(found.classes.colorize(ids)).float() / 255
    known = torch.from_numpy(ids != IGNORE_LABEL)
    drawn = to_picture(overlay(torch.from_numpy(image).float() / 255, colors, 0.65, known))
    return _encode(drawn), not bool(known.all())


def _depth(record: FrameRecord, size: tuple[int, int]) -> str | None:
    if record.depth is not None:
        values = read_depth(record.depth, *size)
    elif record.disparity is not None:
        disparity = decode_disparity(record.disparity)
        values = -resize_area(np.nan_to_num(disparity, nan=float(np.nanmin(disparity))), *size)
    else:
        return None
    return _encode(to_picture(depth_to_rgb(torch.from_numpy(values))))


def _encode(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
