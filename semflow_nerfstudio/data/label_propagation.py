"""Labels carried along the given optical flow to pixels that have none, before training.

Every pixel follows the flow from frame to frame, forward and backward, until it reaches a pixel that is labelled; what
it finds there counts the less the longer the chain and the worse flow there and back agree. Labels are read from what
the data set hands out for training: a frame whose labels may not be used has none to give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

from semflow_nerfstudio.data.resize import SPARSE_SHARE, is_sparse
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

Flow = tuple[Float[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]
"""Optical flow in pixels (u right, v down), and where it is valid."""
FlowReader = Callable[[int, bool], Flow | None]
"""(frame, forward?) -> its flow to the next or previous frame; None where there is none."""

DECAY = 0.97
"""Confidence left after every frame."""
CYCLE_BASE, CYCLE_SHARE = 0.5, 0.05
"""Disagreement of flow there and back, in pixels and as a share of the way made, at which confidence falls to 1/e."""
MIN_CONFIDENCE = 0.05
"""What is surer than this becomes a label."""
EDGE_WIDTH, EDGE_SHARE = 2, 1 / 240
"""Pixels beside an edge that are unsure of their side, at least and as a share of the image's width."""


@dataclass(frozen=True)
class CarriedLabels:
    """Labels of one frame that came from others."""

    labels: UInt8[np.ndarray, "H W"]
    """255 where nothing reached the pixel, or where it has a label of its own."""
    confidence: Float[np.ndarray, "H W"]
    """float16 in [0, 1]."""

    @classmethod
    def none(cls, height: int, width: int) -> CarriedLabels:
        """Nothing reached this frame."""
        return cls(np.full((height, width), IGNORE_LABEL, np.uint8), np.zeros((height, width), np.float16))

    def without_edges(self) -> CarriedLabels:
        """Without what lies beside another class (`without_edges`)."""
        labels = without_edges(self.labels)
        return CarriedLabels(labels, np.where(labels == IGNORE_LABEL, 0, self.confidence).astype(np.float16))


def labels_are_partial(labels: Sequence[UInt8[np.ndarray, "H W"] | None]) -> bool:
    """Whether some frames have labels, and frames or most pixels of frames have none."""
    shares = [0.0 if frame is None else float((frame != IGNORE_LABEL).mean()) for frame in labels]
    return any(shares) and min(shares) < SPARSE_SHARE


def carry_labels(
    labels: Sequence[UInt8[np.ndarray, "H W"] | None],
    next_frame: Int[np.ndarray, "N"],
    previous_frame: Int[np.ndarray, "N"],
    flow: FlowReader,
) -> list[CarriedLabels]:
    """Labels for the unlabelled pixels of N frames of one size, in order of time.

    Args:
        labels: Of every frame; None for frames without.
        next_frame: Index of the frame that a frame's forward flow leads to, -1 for none.
        previous_frame: Likewise for backward flow.
        flow: Reads flow.
    """
    height, width = next(frame for frame in labels if frame is not None).shape
    count = len(labels)
    ways = []
    for forward, target in ((True, next_frame), (False, previous_frame)):
        order = range(count - 1, -1, -1) if forward else range(count)
        ways.append(_chains(labels, target, order, flow, forward, (height, width)))
    return [_vote(ways[0][k], ways[1][k]) for k in range(count)]


def _chains(
    labels: Sequence[UInt8[np.ndarray, "H W"] | None],
    target: Int[np.ndarray, "N"],
    order: range,
    flow: FlowReader,
    forward: bool,
    shape: tuple[int, int],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Label and confidence that every pixel of every frame finds in one direction of time.

    The state of a pixel is where its chain ends: source frame, place there and confidence. A frame's state is that of
    the pixels which its flow leads to, so that every flow is read once, and places are kept to fractions of a pixel, so
    that rounding does not add up along the chain.
    """
    height, width = shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    dense = np.array([own is not None and not is_sparse(own) for own in labels])
    uses = Counter(int(frame) for frame in target)
    states: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for k in order:
        source = np.full(shape, -1, np.int32)
        place, confidence = grid.copy(), np.zeros(shape, np.float32)
        there = int(target[k])
        step = flow(k, forward) if there in states else None
        if step is not None:
            motion, valid = step
            landing = grid + motion
            near = np.rint(np.nan_to_num(landing, nan=-1.0)).astype(np.int64)
            inside = valid & (near >= 0).all(-1) & (near < [width, height]).all(-1)
            rows, columns = near[inside][:, 1], near[inside][:, 0]
            sources, places, confidences = states[there]
            sure = confidences[rows, columns] * DECAY
            back = flow(there, not forward)
            if back is not None:
                sure = sure * _agreement(motion[inside], back[0][rows, columns], back[1][rows, columns])
            source[inside] = sources[rows, columns]
            # Of a scribble the pixel itself is meant, not what lies a fraction of a pixel beside it.
            fraction = (landing[inside] - near[inside]) * dense[source[inside], None]
            place[inside] = places[rows, columns] + fraction
            confidence[inside] = sure
            confidence[source < 0] = 0
        found[k] = _read(labels, source, place, confidence)
        own = labels[k]
        if own is not None:
            labelled = np.ones(shape, bool) if dense[k] else own != IGNORE_LABEL
            source[labelled], place[labelled], confidence[labelled] = k, grid[labelled], 1.0
            found[k][1][labelled] = 0
        states[k] = source, place, confidence
        uses[there] -= 1
        if uses[there] <= 0:
            states.pop(there, None)
    return [found[k] for k in range(len(labels))]


def _agreement(
    motion: Float[np.ndarray, "P 2"], back: Float[np.ndarray, "P 2"], valid: Bool[np.ndarray, "P"]
) -> Float[np.ndarray, "P"]:
    """How well flow there and back cancel, in [0, 1]; 1 where the way back is not known."""
    error = np.linalg.norm(motion + back, axis=-1)
    scale = CYCLE_BASE + CYCLE_SHARE * np.linalg.norm(motion, axis=-1)
    return np.where(valid, np.exp(-((error / scale) ** 2)), 1.0)


def _read(
    labels: Sequence[UInt8[np.ndarray, "H W"] | None],
    source: Int[np.ndarray, "H W"],
    place: Float[np.ndarray, "H W 2"],
    confidence: Float[np.ndarray, "H W"],
) -> tuple[UInt8[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """The labels at the ends of chains."""
    height, width = source.shape
    result = np.full(source.shape, IGNORE_LABEL, np.uint8)
    near = np.rint(place).astype(np.int64).clip(0, [width - 1, height - 1])
    for frame in np.unique(source[source >= 0]):
        own, here = labels[frame], source == frame
        assert own is not None
        result[here] = own[near[here][:, 1], near[here][:, 0]]
    sure = np.where(result == IGNORE_LABEL, 0, confidence)
    return result, sure


def _vote(before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> CarriedLabels:
    """Both directions of time together: agreement adds up, disagreement cancels."""
    (first, one), (second, other) = before, after
    agree = first == second
    labels = np.where(one >= other, first, second)
    confidence = np.where(agree, 1 - (1 - one) * (1 - other), np.abs(one - other))
    known = confidence > MIN_CONFIDENCE
    return CarriedLabels(
        np.where(known, labels, IGNORE_LABEL).astype(np.uint8), np.where(known, confidence, 0).astype(np.float16)
    )


def without_edges(labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Labels without those of pixels that have another class near them (`EDGE_WIDTH`).

    Nearly all that is wrong of carried labels lies there: flows are blurred across edges, and off by a pixel or two.
    Ignored pixels are no class: strokes stay whole.
    """
    size = 2 * max(EDGE_WIDTH, round(EDGE_SHARE * labels.shape[1])) + 1
    unlabelled = labels == IGNORE_LABEL
    lowest = minimum_filter(labels, size)  # ignored is the highest value
    highest = maximum_filter(np.where(unlabelled, 0, labels), size)
    return np.where(lowest < highest, IGNORE_LABEL, labels).astype(np.uint8)


def fill_holes(labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Labels with every ignored pixel set to the nearest labelled one's; all ignored stay so."""
    holes = labels == IGNORE_LABEL
    if holes.all() or not holes.any():
        return labels
    nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
    rows, columns = np.asarray(nearest)
    return labels[rows, columns]
