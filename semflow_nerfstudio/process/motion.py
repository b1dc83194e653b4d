"""Motion masks of a processed clip, and what moves in it before its poses are known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.epipolar import pose_explains, some_matches
from semflow_nerfstudio.data.moving_pixels import Known, moving_pixels
from semflow_nerfstudio.process.epipolar import fit_rigid
from semflow_nerfstudio.process.frames import read_grey
from semflow_nerfstudio.process.optical_flow import Flows
from semflow_nerfstudio.process.steps import whole_file

MASKS = "motion_masks"


def rough_mask(images: Sequence[Path], flows: Flows, frame: int, others: Sequence[int]) -> np.ndarray | None:
    """What moves in a frame, (H, W) bool, when no poses are known yet; None where no flow tells."""
    known: list[Known] = []
    for other in others:
        flow, valid = flows.read(frame, other)
        motion = fit_rigid(some_matches(flow, valid))
        if motion is not None:
            known.append((flow, valid, motion.explains, read_grey(images[other])))
    return moving_pixels(read_grey(images[frame]), known) if known else None


def posed_mask(
    images: Sequence[Path], flows: Flows, frame: int, others: Sequence[int], cameras: FrameCameras
) -> np.ndarray | None:
    """What moves in a frame, (H, W) bool, when the poses are known; None where no flow tells."""
    known: list[Known] = [
        (*flows.read(frame, other), partial(pose_explains, cameras, frame, other), read_grey(images[other]))
        for other in others
    ]
    return moving_pixels(read_grey(images[frame]), known) if known else None


def write_mask(path: Path, mask: Bool[np.ndarray, "H W"]) -> None:
    """Save a mask as 0 and 255."""
    with whole_file(path) as hidden:
        Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(hidden)


def read_mask(path: Path) -> Bool[np.ndarray, "H W"]:
    """A mask that `write_mask` wrote."""
    return read_grey(path) > 127
