"""Which frames of a clip may show their labels, and which views are evaluated."""

from __future__ import annotations

import math
from typing import Literal, get_args

from semflow_nerfstudio.data.checks import SceneDataError

EvalProtocol = Literal["all-views", "dynnerf", "train-holdout", "label-holdout"]
"""all-views: every camera at every time minus the training images (with partial labels: the times without labels only);
dynnerf: the first camera at all times; train-holdout: training frames held out at an interval; label-holdout: training
frames whose labels are withheld, whose colours are trained on."""

EVAL_PROTOCOLS: tuple[str, ...] = get_args(EvalProtocol)
LABEL_TASKS = ("completion", "tracking")
LABEL_SHARES = (75, 50, 25)
"""Percent of the frames that keep their labels."""
NAMED_PROTOCOLS = tuple(f"{task}-{share}" for task in LABEL_TASKS for share in LABEL_SHARES)
SCRIBBLES = {"scribbles-1": 0.01}
"""Protocols that show some of the pixels of every frame's labels, as simulated scribbles, and which share of them."""


def scribble_share(spec: str) -> float | None:
    """Share of the pixels that a protocol of SCRIBBLES shows; None for all others, which show whole frames."""
    return SCRIBBLES.get(spec.strip().lower())


def labelled_frames(spec: str, num_frames: int, clip: object = "the clip") -> tuple[int, ...]:
    """Sorted 0-based indices (in order of time) of the frames whose labels may be used.

    Args:
        spec: `all`, `none`, indices such as `0,5,11`, one of SCRIBBLES (all frames), or one of NAMED_PROTOCOLS: of
            n = floor(share * num_frames + .5) labelled frames, completion takes the first ceil(n / 2) and the last
            floor(n / 2), tracking the first n.
        num_frames: number of distinct times of the clip, before anything is held out.
        clip: what errors call it: of several scenes' clips, which differ in length, only one may be too short.

    Raises:
        SceneDataError: naming --labelled-frames, on anything else or an index that the clip does not have.
    """
    name = spec.strip().lower()
    if name == "all" or name in SCRIBBLES:
        return tuple(range(num_frames))
    if name == "none":
        return ()
    if name in NAMED_PROTOCOLS:
        task, share = name.split("-")
        count = (2 * int(share) * num_frames + 100) // 200
        first = count if task == "tracking" else math.ceil(count / 2)
        return tuple(range(first)) + tuple(range(num_frames - (count - first), num_frames))
    try:
        indices = [int(part) for part in name.split(",")]
    except ValueError:
        raise SceneDataError(
            f"--labelled-frames is '{spec}': use all, none, indices such as 0,5,11, or one of "
            f"{', '.join((*NAMED_PROTOCOLS, *SCRIBBLES))}."
        ) from None
    outside = [index for index in indices if not 0 <= index < num_frames]
    if outside:
        raise SceneDataError(
            f"--labelled-frames is '{spec}' but {clip} has no frame {outside[0]}: use indices from 0 to "
            f"{num_frames - 1}."
        )
    if len(set(indices)) != len(indices):
        raise SceneDataError(f"--labelled-frames is '{spec}': name every frame once.")
    return tuple(sorted(indices))
