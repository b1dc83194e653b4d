"""Simulated scribbles: what an annotator's few strokes would leave of a full label image."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import distance_transform_edt, label

from semflow_nerfstudio.scene_frames import IGNORE_LABEL

MIN_PIXELS = 3
"""Even the smallest region that gets a stroke gets this many pixels; smaller regions get none."""
STROKE = 0.6
"""Length of a stroke relative to the diameter of its region's widest place."""
TURN = 0.25
"""Standard deviation of a stroke's turn at every pixel, in radians."""


def scribbles(labels: UInt8[np.ndarray, "H W"], share: float, seed: int) -> UInt8[np.ndarray, "H W"]:
    """Keep thin strokes inside the regions of a label image, `share` of the labelled pixels in all; 255 elsewhere.

    Every connected region gets strokes in proportion to the root of its area, as people label: small things are not
    forgotten. The same labels, share and seed give the same strokes.
    """
    rng = np.random.default_rng([seed, 7])
    regions = [
        found == number
        for class_id in np.unique(labels[labels != IGNORE_LABEL])
        for found, count in [_components(labels == class_id)]
        for number in range(1, count + 1)
    ]
    regions = [region for region in regions if region.sum() >= MIN_PIXELS**2]
    kept = np.zeros(labels.shape, bool)
    total = round(share * int((labels != IGNORE_LABEL).sum()))
    order = sorted(range(len(regions)), key=lambda i: int(regions[i].sum()))
    weights = np.array([np.sqrt(regions[i].sum()) for i in order])
    for rank, i in enumerate(order):
        left = total - int(kept.sum())
        wanted = max(MIN_PIXELS, round(left * weights[rank] / weights[rank:].sum()))
        _draw(kept, regions[i], min(wanted, left), rng)
    return np.where(kept, labels, IGNORE_LABEL).astype(np.uint8)


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    found = label(mask)
    assert isinstance(found, tuple)
    return found


def _draw(kept: np.ndarray, region: np.ndarray, wanted: int, rng: np.random.Generator) -> None:
    """Random walks that start deep inside the region, until `wanted` of its pixels are kept (or half of it is)."""
    depth = np.asarray(distance_transform_edt(np.pad(region, 1)))[1:-1, 1:-1]
    rows, columns = np.nonzero(region)
    weights = depth[rows, columns] ** 2
    length = max(MIN_PIXELS, round(2 * STROKE * float(depth.max())))
    wanted = min(wanted, len(rows) // 2)
    count, height, width = 0, *region.shape
    while count < wanted:
        start = rng.choice(len(rows), p=weights / weights.sum())
        place, angle = np.array([rows[start], columns[start]], float), rng.uniform(0, 2 * np.pi)
        for _ in range(length):
            row, column = np.rint(place).astype(int)
            if not (0 <= row < height and 0 <= column < width and region[row, column]) or count >= wanted:
                break
            count += not kept[row, column]
            kept[row, column] = True
            angle += rng.normal(0, TURN)
            place += (np.sin(angle), np.cos(angle))
