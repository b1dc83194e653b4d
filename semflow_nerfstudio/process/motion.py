"""Motion masks of a processed clip, and what moves in it before its poses are known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool
from PIL import Image

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.clip_motion import ClipMotion, Evidence, Flow, small_cameras
from semflow_nerfstudio.data.epipolar import some_matches
from semflow_nerfstudio.data.modalities import resize_flow
from semflow_nerfstudio.data.moving_pixels import Known, moving_pixels
from semflow_nerfstudio.data.resize import resize_area
from semflow_nerfstudio.process.epipolar import fit_rigid
from semflow_nerfstudio.process.frames import read_grey
from semflow_nerfstudio.process.optical_flow import Flows
from semflow_nerfstudio.whole_file import whole_file

MASKS = "motion_masks"
EVIDENCE = "process/motion_evidence"
"""Folder of what frames tell of motion, until all masks are made."""


def rough_mask(images: Sequence[Path], flows: Flows, frame: int, others: Sequence[int]) -> np.ndarray | None:
    """What moves in a frame, (H, W) bool, when no poses are known yet; None where no flow tells."""
    known: list[Known] = []
    for other in others:
        flow, valid = flows.read(frame, other)
        motion = fit_rigid(some_matches(flow, valid))
        if motion is not None:
            known.append((flow, valid, motion.explains, read_grey(images[other])))
    return moving_pixels(read_grey(images[frame]), known) if known else None


class PosedMotion:
    """What moves in the frames of a clip whose poses are known."""

    def __init__(self, images: Sequence[Path], flows: Flows, cameras: FrameCameras) -> None:
        small = small_cameras(cameras)
        size = small.width, small.height
        self.size = cameras.width, cameras.height

        def grey(frame: int) -> np.ndarray:
            return np.rint(resize_area(read_grey(images[frame]), *size)).astype(np.uint8)

        def flow(frame: int, forward: bool) -> tuple[int, Flow] | None:
            other = frame + (1 if forward else -1)
            if not 0 <= other < len(images) or not flows.has(frame, other):
                return None
            return other, resize_flow(*flows.read(frame, other), *size)

        self.clip = ClipMotion(small, lru_cache(maxsize=64)(grey), flow)

    def look(self, frame: int, kept: Path) -> None:
        """Collect what one frame tells, or read it from where it is kept; for all of them before `mask`."""
        if kept.is_file():
            with np.load(kept) as arrays:
                self.clip.take(frame, Evidence(**arrays))
            return
        found = self.clip.look(frame)
        with whole_file(kept) as hidden:
            np.savez_compressed(hidden, misfit=found.misfit, confirmed=found.confirmed, seen=found.seen)

    def mask(self, frame: int) -> Bool[np.ndarray, "H W"] | None:
        """What moves in a frame, at its own size; None where no flow tells."""
        moving, seen = self.clip.mask(frame)
        if not seen.any():
            return None
        return cv2.resize(moving.astype(np.float32), self.size, interpolation=cv2.INTER_LINEAR) > 0.5


def write_mask(path: Path, mask: Bool[np.ndarray, "H W"]) -> None:
    """Save a mask as 0 and 255."""
    with whole_file(path) as hidden:
        Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(hidden)


def read_mask(path: Path) -> Bool[np.ndarray, "H W"]:
    """A mask that `write_mask` wrote."""
    return read_grey(path) > 127
