"""How near and far the scene is, in the units of the poses: what scales it for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.epipolar import pose_explains, some_matches
from semflow_nerfstudio.data.triangulation import Match, triangulate
from semflow_nerfstudio.process.optical_flow import consistent

ANCHORS = 8
"""Frames whose depth is looked at."""
GAPS = (1, 2, 4, 8, 16)
"""Frames apart at most; the farther apart, the surer is the depth, as long as the flow still finds its way."""
LEAST_VALID = 0.4
"""Share of the image where flow must hold to count."""
FLOW_ERROR = 0.4
"""Standard deviation of flow, pixels."""
LEAST_CERTAIN = 0.15
"""Depth counts where its relative standard deviation is below this."""
PERCENTILES = (1.0, 99.0)
MARGINS = (0.6, 1.3)
"""Movers may be nearer than anything static, and percentiles cut off the farthest."""
LARGEST_RATIO = 50.0
"""Far over near at most: a sky is drawn at the far end."""
LEAST_POINTS = 300
POINTS_PER_FRAME = 3000


def depth_range(
    cameras: FrameCameras,
    images: Sequence[UInt8[np.ndarray, "H W 3"]] | Callable[[int], UInt8[np.ndarray, "H W 3"]],
    flow: Callable[[np.ndarray, np.ndarray], np.ndarray],
    moving: Callable[[int], Bool[np.ndarray, "H W"] | None],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[float, float] | None:
    """Nearest and farthest camera depth of what stands still, with margins; None if the frames do not tell.

    Static pixels of a few frames are triangulated with the flow to the farthest frame that it still reaches.

    Args:
        cameras: Cameras of all frames, at the size of the images.
        images: The frames, or a function that reads them.
        flow: Optical flow from one image to another, (H, W, 2) pixels.
        moving: A frame's movers, which do not count, or None.
        progress: Told how many frames are done.
    """
    read = images if callable(images) else images.__getitem__
    depths: list[np.ndarray] = []
    anchors = np.unique(np.linspace(0, len(cameras) - 1, ANCHORS).round().astype(int)).tolist()
    for number, anchor in enumerate(anchors):
        depths.append(_depths(cameras, anchor, read, flow, moving(anchor)))
        progress(number + 1, len(anchors))
    found = np.concatenate(depths)
    if len(found) < LEAST_POINTS:
        return None
    near, far = np.percentile(found, PERCENTILES) * MARGINS
    return float(near), float(min(far, LARGEST_RATIO * near))


def _depths(
    cameras: FrameCameras,
    anchor: int,
    read: Callable[[int], np.ndarray],
    flow: Callable[[np.ndarray, np.ndarray], np.ndarray],
    moving: np.ndarray | None,
) -> Float[np.ndarray, "P"]:
    """Well-known camera depths of an anchor's static pixels, from the gap between frames that gives most of them."""
    image, best = read(anchor), np.zeros(0)
    for gap in GAPS:
        others = [other for other in (anchor - gap, anchor + gap) if 0 <= other < len(cameras)]
        if not others:
            break
        other = others[-1]
        there = read(other)
        forward = flow(image, there)
        valid = consistent(forward, flow(there, image))
        if valid.mean() < LEAST_VALID:
            break
        matches = some_matches(forward, valid if moving is None else valid & ~moving, POINTS_PER_FRAME)
        if not len(matches.here):
            continue
        on_line = pose_explains(cameras, anchor, other, matches).distance < 2 * FLOW_ERROR
        match = Match(other, matches.there, on_line)
        found = triangulate(cameras, anchor, matches.here, [match])
        deviation = FLOW_ERROR / np.sqrt(np.maximum(found.information, 1e-24))
        sure = found.ok & on_line & (deviation < LEAST_CERTAIN * found.inverse_depth)
        if sure.sum() > len(best):
            best = 1 / found.inverse_depth[sure]
    return best
