"""A camera that stands still."""

from __future__ import annotations

import numpy as np

from semflow_nerfstudio.process.frames import Frames
from semflow_nerfstudio.process.poses.track import PoseTrack

DEPTHS = (1.0, 5.0)
"""Near and far of a scene whose depth nothing tells: any choice shows the same pictures."""
FOCAL_SHARE = 0.85
"""Focal length as a share of the longer side where none is given: a phone's main camera, filming."""
WARNING = (
    "A camera that stands still sees no parallax: colours, labels and motion are learned from its own place, but depth "
    "is a guess, and views from elsewhere will be wrong. Give --disparity for a better guess, or move the camera."
)


def static_poses(frames: Frames, focal: float | None) -> PoseTrack:
    """One pose for all frames; `focal` in pixels of the source."""
    scale = np.array([frames.width / frames.source_width, frames.height / frames.source_height])
    length = focal if focal is not None else FOCAL_SHARE * max(frames.source_width, frames.source_height)
    count = len(frames.frames)
    intrinsics = np.array([*(length * scale), frames.width / 2, frames.height / 2])
    return PoseTrack(
        method="a camera that stands still",
        poses=np.tile(np.eye(4)[:3], (count, 1, 1)),
        intrinsics=np.tile(intrinsics, (count, 1)),
        width=frames.width,
        height=frames.height,
        known=np.ones(count, bool),
        depth_range=DEPTHS,
    )
