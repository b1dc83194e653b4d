"""Few labels within an image -> most of its pixels: the random walker, before training.

From every pixel a walk starts that hardly steps across edges of colour or depth; its label is the one that it most
probably meets first (Grady, "Random Walks for Image Segmentation", 2006; scikit-image's implementation). What the
strokes of all frames look like (`label_looks.py`) has a say where those of its own image are far.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from skimage.segmentation import random_walker

from semflow_nerfstudio.data.label_looks import Looks, Sample, appearance
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
DOUBT = 0.02
"""Least probability of any class by either, so that neither alone rules a class out."""


@dataclass(frozen=True)
class Picture:
    """A sparsely labelled image in the size in which it is looked at (h, w)."""

    colors: Float[np.ndarray, "h w 3"]
    """In [0, 1]."""
    inverse_depth: Float[np.ndarray, "h w"] | None
    """In about [0, 1]; None where nothing is known of it."""
    rows: Int[np.ndarray, "H W"]
    """Where the pixels of the image lie in it."""
    columns: Int[np.ndarray, "H W"]

    @classmethod
    def of(cls, image: UInt8[np.ndarray, "H W 3"], inverse_depth: Float[np.ndarray, "H W"] | None) -> Picture:
        """Of an image and its inverse depth in any unit, relative disparity as well; NaN unknown."""
        height, width = image.shape[:2]
        scale = min(1.0, WIDTH / width)
        size = max(2, round(width * scale)), max(2, round(height * scale))
        depth = None if inverse_depth is None else _edges_of(inverse_depth)
        return cls(
            resize_area(image, *size).astype(np.float64) / 255,
            None if depth is None else resize_area(depth, *size),
            np.broadcast_to((np.arange(height) * size[1] // height)[:, None], (height, width)),
            np.broadcast_to((np.arange(width) * size[0] // width)[None], (height, width)),
        )

    def shrunk(self, *layers: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w"]:
        """Labels in this size; later layers lie on top, and 255 is transparent."""
        small = np.full(self.colors.shape[:2], IGNORE_LABEL, np.uint8)
        for layer in layers:
            known = layer != IGNORE_LABEL
            small[self.rows[known], self.columns[known]] = layer[known]
        return small

    @property
    def appearance(self) -> Float[np.ndarray, "h w d"]:
        """What its pixels are compared by with those of other frames."""
        return appearance(self.colors, self.inverse_depth)

    def sample(self, labels: UInt8[np.ndarray, "H W"], frames: int) -> Sample:
        """What it tells of the classes' looks, as one of so many frames."""
        return Sample.of(self.appearance, self.shrunk(labels), frames)


def spread_labels(
    picture: Picture,
    labels: UInt8[np.ndarray, "H W"],
    hints: CarriedLabels | None = None,
    looks: Looks | None = None,
) -> CarriedLabels:
    """Labels of the pixels of a sparsely labelled image that have none.

    Args:
        picture: The image.
        labels: 255 where there are none.
        hints: What other frames told; the sure part of it is believed.
        looks: What the clip's classes look like; None: only this image's strokes count.

    Returns:
        Labels with their probability: that a walk meets them first, times that of their looks; 255 where that is less
        than `SURE`.
    """
    height, width = labels.shape
    believed = np.full_like(labels, IGNORE_LABEL)
    if hints is not None:
        sure = (hints.labels != IGNORE_LABEL) & (hints.confidence > 0.5)
        believed[sure] = hints.labels[sure]
    seeds = picture.shrunk(believed, labels)
    present = np.setdiff1d(seeds, [IGNORE_LABEL])
    classes = present if looks is None else np.union1d(present, looks.classes)
    if not len(present) or len(classes) < 2:  # nothing tells where the one class ends
        return CarriedLabels.none(height, width) if hints is None else hints
    probability = np.zeros((len(classes), *seeds.shape), np.float32)
    if len(present) > 1:
        probability[np.searchsorted(classes, present)] = _walk(picture, seeds, present)
    else:  # every walk would meet the one class first, which says nothing
        probability += 1 / len(classes)
    if looks is not None:
        shown = np.zeros_like(probability)
        shown[np.searchsorted(classes, looks.classes)] = looks.probability(picture.appearance)
        probability = (probability + DOUBT) * (shown + DOUBT) ** looks.trust
        probability /= probability.sum(0)
    best = probability.argmax(0)[picture.rows, picture.columns]
    sure = probability.max(0).clip(0, 1)[picture.rows, picture.columns]
    taken = (labels == IGNORE_LABEL) & (sure >= SURE)
    return CarriedLabels(
        np.where(taken, classes[best], IGNORE_LABEL).astype(np.uint8), np.where(taken, sure, 0).astype(np.float16)
    )


def _walk(
    picture: Picture, seeds: UInt8[np.ndarray, "h w"], present: UInt8[np.ndarray, "C"]
) -> Float[np.ndarray, "C h w"]:
    """Probability that a walk from each pixel meets each class first."""
    if (seeds != IGNORE_LABEL).all():  # nobody has to walk
        return present[:, None, None] == seeds
    channels = [picture.colors]
    if picture.inverse_depth is not None:
        channels.append(DEPTH_EDGES * picture.inverse_depth[..., None])
    numbers = np.where(seeds == IGNORE_LABEL, 0, np.searchsorted(present, seeds) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # probabilities a little outside [0, 1]
        return random_walker(
            np.concatenate(channels, axis=-1),
            numbers,
            beta=EDGES,
            mode="cg_j",
            channel_axis=-1,
            return_full_prob=True,
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
