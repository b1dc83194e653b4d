"""Motion masks of frames that have none, from their optical flow and the poses; labels are never asked."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import cv2
import numpy as np
from jaxtyping import UInt8
from rich.progress import track

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.dataset import UNKNOWN_MOTION, SemFlowDataset
from semflow_nerfstudio.data.epipolar import pose_explains
from semflow_nerfstudio.data.modalities import resize_flow
from semflow_nerfstudio.data.moving_pixels import Known, moving_pixels
from semflow_nerfstudio.data.parser_outputs import say
from semflow_nerfstudio.data.resize import resize_area
from semflow_nerfstudio.data.scene_assembly import frame_cameras

WIDTH = 480
"""Wider frames are looked at in this width."""


def derive_motion_masks(dataset: SemFlowDataset) -> None:
    """Find out what moves in the training frames without a motion mask; says of each scene what came of it.

    The masks go to `dataset.derived_motion`. A frame without flow to another training frame gets none.
    """
    assert dataset.scenes is not None
    for scene, record in enumerate(dataset.scenes):
        first, last = record.frame_range
        wanted = [k for k in range(first, last) if dataset.frames[k].motion_mask is None]
        neighbours = {k: [n for f in (True, False) if (n := dataset.flow_target(k, f)) is not None] for k in wanted}
        wanted = [k for k in wanted if neighbours[k]]
        if not wanted:
            continue
        found = _SceneMotion(dataset, scene).masks(wanted)
        dataset.use_derived_motion(found)
        known = sum(int((mask != UNKNOWN_MOTION).sum()) for mask in found.values())
        moving = sum(int((mask == 1).sum()) for mask in found.values())
        which = "its frames" if len(wanted) == last - first else f"{len(wanted)} of its {last - first} frames"
        say(
            f"{record.name}: what moves in {which} is derived from optical flow and poses, for want of motion masks: "
            f"{100 * moving / max(known, 1):.1f} % of the pixels whose flow is valid."
        )


class _SceneMotion:
    """Frames of one scene, small enough to be looked at quickly."""

    def __init__(self, dataset: SemFlowDataset, scene: int) -> None:
        first, last = dataset.frame_range(scene)
        self.dataset, self.first = dataset, first
        cameras = frame_cameras(dataset, first, last)
        if cameras.width > WIDTH:
            cameras = cameras.scaled_to(WIDTH, max(1, round(cameras.height * WIDTH / cameras.width)))
        self.cameras: FrameCameras = cameras
        self.size = cameras.width, cameras.height
        self.grey = lru_cache(maxsize=16)(self._grey)

    def masks(self, frames: list[int]) -> dict[int, UInt8[np.ndarray, "h w"]]:
        """By frame: 0 static, 1 moving, 255 where no flow is valid."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = track(pool.map(self._mask, frames), "Finding what moves", total=len(frames), transient=True)
            return dict(zip(frames, found, strict=True))

    def _mask(self, frame: int) -> UInt8[np.ndarray, "h w"]:
        known: list[Known] = []
        seen = np.zeros(self.size[::-1], bool)
        for forward in (True, False):
            other, given = self.dataset.flow_target(frame, forward), self.dataset.read_flow(frame, forward)
            if other is None or given is None:
                continue
            flow, valid = resize_flow(*given, *self.size)
            explain = partial(pose_explains, self.cameras, frame - self.first, other - self.first)
            known.append((flow, valid, explain, self.grey(other)))
            seen |= valid
        moving = moving_pixels(self.grey(frame), known)
        return np.where(moving, 1, np.where(seen, 0, UNKNOWN_MOTION)).astype(np.uint8)

    def _grey(self, frame: int) -> UInt8[np.ndarray, "h w"]:
        grey = cv2.cvtColor(self.dataset.get_image_uint8(frame).numpy(), cv2.COLOR_RGB2GRAY)
        return np.rint(resize_area(grey, *self.size)).astype(np.uint8)
