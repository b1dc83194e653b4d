"""Few labels within an image -> most of its pixels: the random walker, before training.

From every pixel a walk starts that hardly steps across edges of colour or depth; its label is the one that it most
probably meets first (Grady, "Random Walks for Image Segmentation", 2006; scikit-image's implementation).
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float, UInt8
from skimage.segmentation import random_walker

from semflow_nerfstudio.data.label_propagation import CarriedLabels
from semflow_nerfstudio.data.resize import resize_area
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

EDGES = 1000.0
"""How much edges hinder a walk (the random walker's beta)."""
DEPTH_EDGES = 3.0
"""Weight of edges of depth relative to edges of colour."""
SURE = 0.7
"""What is less probable stays unlabelled. (On three scenes with strokes on 1 % of the pixels: .87 to .94 of all pixels
are surer than that, and .95 to .99 of these are right.)"""
WIDTH = 320
"""Larger images are looked at in this width."""


def spread_labels(
    image: UInt8[np.ndarray, "H W 3"],
    inverse_depth: Float[np.ndarray, "H W"] | None,
    labels: UInt8[np.ndarray, "H W"],
    hints: CarriedLabels | None = None,
) -> CarriedLabels:
    """Labels of the pixels of a sparsely labelled image that have none.

    Args:
        image: Its colours.
        inverse_depth: In any unit, relative disparity as well; NaN unknown. None: colours alone.
        labels: 255 where there are none.
        hints: What other frames told; the sure part of it is believed.

    Returns:
        Labels with the probability that a walk meets them first; 255 where that is less than `SURE`.
    """
    height, width = labels.shape
    seeds = labels.copy()
    if hints is not None:
        believed = (labels == IGNORE_LABEL) & (hints.labels != IGNORE_LABEL) & (hints.confidence > 0.5)
        seeds[believed] = hints.labels[believed]
    scale = min(1.0, WIDTH / width)
    size = max(2, round(width * scale)), max(2, round(height * scale))
    channels = [resize_area(image, *size).astype(np.float64) / 255]
    depth = None if inverse_depth is None else _edges_of(inverse_depth)
    if depth is not None:
        channels.append(DEPTH_EDGES * resize_area(depth, *size)[..., None])
    rows = (np.arange(height) * size[1] // height)[:, None].repeat(width, 1)
    columns = (np.arange(width) * size[0] // width)[None].repeat(height, 0)
    known = seeds != IGNORE_LABEL
    present = np.unique(seeds[known])
    small = np.zeros(size[::-1], np.int32)
    # Own labels last: of two in one small pixel they count.
    for part in (known & (labels == IGNORE_LABEL), labels != IGNORE_LABEL):
        small[rows[part], columns[part]] = np.searchsorted(present, seeds[part]) + 1
    if len(present) < 2:  # nothing tells where the one class ends
        return CarriedLabels.none(height, width) if hints is None else hints
    if (small > 0).all():  # nobody has to walk
        probability = np.moveaxis(np.eye(len(present))[small - 1], -1, 0)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # probabilities a little outside [0, 1]
            probability = random_walker(
                np.concatenate(channels, axis=-1),
                small,
                beta=EDGES,
                mode="cg_j",
                channel_axis=-1,
                return_full_prob=True,
            )
    best = probability.argmax(0)[rows, columns]
    sure = probability.max(0).clip(0, 1)[rows, columns]
    taken = (labels == IGNORE_LABEL) & (sure >= SURE)
    return CarriedLabels(
        np.where(taken, present[best], IGNORE_LABEL).astype(np.uint8), np.where(taken, sure, 0).astype(np.float16)
    )


def _edges_of(inverse_depth: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"] | None:
    """In [0, 1] for nearly all pixels, whatever the unit; unknown ones as the middle."""
    known = inverse_depth[np.isfinite(inverse_depth)]
    if not len(known):
        return None
    low, middle, high = np.quantile(known, (0.01, 0.5, 0.99))
    if high <= low:
        return None
    filled = np.where(np.isfinite(inverse_depth), inverse_depth, middle)
    return ((filled - low) / (high - low)).clip(-0.5, 1.5).astype(np.float32)
