"""What classes look like, by the strokes of all frames of a clip.

The strokes that are nearest to a pixel in colour, depth and place vote for its class. People draw strokes of about one
length on large and small things, which would make small ones look too likely: votes are weighed until each class has
the share of the pixels that it is found on (expectation maximisation of the class priors; Saerens et al., "Adjusting
the outputs of a classifier to new a priori probabilities", 2002).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree
from skimage.color import rgb2lab

from semflow_nerfstudio.scene_frames import IGNORE_LABEL

NEIGHBOURS = 20
"""Strokes' pixels that vote."""
REACH = 0.05
"""Distance at which a vote falls to 1/e, in units of CIELAB / 100."""
DEPTH, PLACE = 2.0, 0.5
"""What the range of inverse depth, and the width of the image, count in these units."""
MAX_SEEDS, MAX_ASKED = 20_000, 200_000
"""Pixels of strokes that are kept, and pixels that are asked for the shares of the classes."""
ENOUGH = 100
"""Strokes' pixels of a class, in the mean, that say what it looks like."""
ROUNDS, MOST = 5, 4.0
"""Rounds of weighing, and the largest weight."""


def appearance(
    image: Float[np.ndarray, "h w 3"], inverse_depth: Float[np.ndarray, "h w"] | None
) -> Float[np.ndarray, "h w d"]:
    """What pixels are compared by; colours in [0, 1], inverse depth in about [0, 1]."""
    height, width = image.shape[:2]
    place = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) / width
    parts = [rgb2lab(gaussian_filter(image, (1, 1, 0))) / 100, PLACE * place]
    if inverse_depth is not None:
        parts.append(DEPTH * inverse_depth[..., None])
    return np.concatenate(parts, axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Sample:
    """What a frame tells."""

    strokes: Float[np.ndarray, "s d"]
    """Appearance of the strokes' pixels."""
    labels: UInt8[np.ndarray, "s"]
    """Theirs."""
    asked: Float[np.ndarray, "a d"]
    """Appearance of some pixels, evenly spread."""

    @classmethod
    def of(cls, pixels: Float[np.ndarray, "h w d"], labels: UInt8[np.ndarray, "h w"], frames: int) -> Sample:
        """One of so many frames' sample, by its appearance and its strokes (255: none)."""
        drawn, (height, width) = labels != IGNORE_LABEL, labels.shape
        step = max(1, math.ceil(math.sqrt(frames * height * width / MAX_ASKED)))
        return cls(pixels[drawn], labels[drawn], pixels[::step, ::step].reshape(-1, pixels.shape[-1]))


@dataclass(frozen=True)
class Looks:
    """The strokes of a clip."""

    classes: UInt8[np.ndarray, "C"]
    """Ids, ascending."""
    seeds: KDTree
    """Appearance of the strokes' pixels."""
    votes: Float[np.ndarray, "S C"]
    """The class of each."""
    weights: Float[np.ndarray, "C"]
    """Of the classes' votes."""

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Looks | None:
        """Of the frames of a clip; None where strokes are of fewer than two classes.

        Where some frames have no inverse depth, none is compared by it.
        """
        drawn = np.concatenate([sample.labels for sample in samples])
        classes = np.unique(drawn)
        if len(classes) < 2:
            return None
        size = min(sample.strokes.shape[-1] for sample in samples)
        places = np.concatenate([sample.strokes[:, :size] for sample in samples])
        if len(drawn) > MAX_SEEDS:
            kept = np.random.default_rng(0).permutation(len(drawn))[:MAX_SEEDS]
            drawn, places = drawn[kept], places[kept]
        votes = (drawn[:, None] == classes).astype(np.float32)
        looks = cls(classes, KDTree(places), votes, np.ones(len(classes), np.float32))
        asked = np.concatenate([sample.asked[:, :size] for sample in samples])
        return replace(looks, weights=class_weights(looks._votes(asked), votes.mean(0)))

    @property
    def trust(self) -> float:
        """How much they say, in [0, 1]: less where strokes are few."""
        return min(1.0, len(self.votes) / (ENOUGH * len(self.classes)))

    def probability(self, pixels: Float[np.ndarray, "h w d"]) -> Float[np.ndarray, "C h w"]:
        """Of each class, by a frame's appearance."""
        flat = pixels.reshape(-1, pixels.shape[-1])[:, : self.seeds.m]
        found = _shares(self._votes(flat) * self.weights)
        return np.moveaxis(found.reshape(*pixels.shape[:2], -1), -1, 0)

    def _votes(self, pixels: Float[np.ndarray, "P d"]) -> Float[np.ndarray, "P C"]:
        distance, nearest = self.seeds.query(pixels, k=list(range(1, min(NEIGHBOURS, len(self.votes)) + 1)), workers=-1)
        strength = np.exp(-distance / REACH) + 1e-6  # far from all strokes the nearest still say something
        return np.einsum("pk,pkc->pc", strength.astype(np.float32), self.votes[nearest])


def class_weights(votes: Float[np.ndarray, "P C"], share: Float[np.ndarray, "C"]) -> Float[np.ndarray, "C"]:
    """Weights with which the classes' mean probabilities are the shares of pixels that they were weighed for.

    Args:
        votes: Of pixels all over the clip.
        share: Of the strokes' pixels that are of each class.
    """
    weights = np.ones_like(share)
    for _ in range(ROUNDS):
        weights = np.minimum(_shares(votes * weights).mean(0) / share, MOST)
    return weights


def _shares(values: Float[np.ndarray, "P C"]) -> Float[np.ndarray, "P C"]:
    return values / values.sum(-1, keepdims=True).clip(min=1e-9)
