"""Motion masks of frames that have none, from their optical flow and the poses; labels are never asked."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import UInt8
from rich.progress import track

from semflow_nerfstudio.data.clip_motion import ClipMotion, Flow, small_cameras
from semflow_nerfstudio.data.dataset import UNKNOWN_MOTION, SemFlowDataset
from semflow_nerfstudio.data.modalities import resize_flow
from semflow_nerfstudio.data.parser_outputs import say
from semflow_nerfstudio.data.resize import resize_area
from semflow_nerfstudio.data.scene_assembly import frame_cameras


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
    """What moves in the training frames of one scene, looked at in a small size."""

    def __init__(self, dataset: SemFlowDataset, scene: int) -> None:
        self.dataset = dataset
        self.first, self.last = dataset.frame_range(scene)
        cameras = small_cameras(frame_cameras(dataset, self.first, self.last))
        self.size = cameras.width, cameras.height
        self.motion = ClipMotion(cameras, lru_cache(maxsize=64)(self._grey), self._flow)

    def masks(self, frames: list[int]) -> dict[int, UInt8[np.ndarray, "h w"]]:
        """By frame: 0 static, 1 moving, 255 where no flow is valid."""
        count = self.last - self.first
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            looked = pool.map(self.motion.look, range(count))
            for _ in track(looked, "Finding what moves", total=count, transient=True):
                pass
            return dict(zip(frames, pool.map(self._mask, frames), strict=True))

    def _mask(self, frame: int) -> UInt8[np.ndarray, "h w"]:
        moving, seen = self.motion.mask(frame - self.first)
        return np.where(moving, 1, np.where(seen, 0, UNKNOWN_MOTION)).astype(np.uint8)

    def _flow(self, frame: int, forward: bool) -> tuple[int, Flow] | None:
        frame += self.first
        other, given = self.dataset.flow_target(frame, forward), self.dataset.read_flow(frame, forward)
        return None if other is None or given is None else (other - self.first, resize_flow(*given, *self.size))

    def _grey(self, frame: int) -> UInt8[np.ndarray, "h w"]:
        image = self.dataset.get_image_uint8(frame + self.first).numpy()
        return np.rint(resize_area(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), *self.size)).astype(np.uint8)
