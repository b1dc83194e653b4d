"""Camera paths of a trained run by name: what `semflow render` and `semflow demo` show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semflow_nerfstudio.cameras import pixel_centers
from semflow_nerfstudio.visuals.camera_path import from_camera_path_json
from semflow_nerfstudio.visuals.trajectories import (
    RenderView,
    from_cameras,
    interpolate,
    orbit,
    retime,
    stabilised,
    time_sweep,
)

PathName = Literal["fixed", "orbit", "frames", "stabilised", "interpolate", "file"]
"""fixed: a frame's camera stands still. orbit: it sways in a circle. frames: the training cameras as they are.
stabilised: their path without shake. interpolate: a smooth path through them. file: a camera-path JSON."""


def named_path(
    name: PathName,
    cameras: Cameras,
    num_frames: int,
    frame: int,
    focus_depth: Callable[[RenderView], float],
    time: float | tuple[float, float] | None,
    file: Path | None = None,
) -> list[RenderView]:
    """Views along a path.

    Args:
        name: Which path.
        cameras: The training frames' cameras.
        num_frames: Frames of the video (frames, file: as many as there are).
        frame: Training frame whose camera fixed and orbit start from.
        focus_depth: Depth (scene units) that a view looks at; asked for orbits only.
        time: A time that stands still, (first, last) that run evenly, or None for the path's own.
        file: Camera-path JSON.

    Raises:
        ValueError: the frame does not exist, or `file` is missing.
    """
    if num_frames < 1:
        raise ValueError(f"A path needs at least one frame, got {num_frames}.")
    views = from_cameras(cameras)
    if not -len(views) <= frame < len(views):
        raise ValueError(f"there is no training frame {frame}; choose one from 0 to {len(views) - 1}")
    start = views[frame]
    if name == "file":
        if file is None:
            raise ValueError("a path from a file needs --camera-path FILE, the JSON of the viewer's Render tab")
        return retime(from_camera_path_json(file).views, time)
    if name == "fixed":
        return retime([start] * num_frames, (0.0, 1.0) if time is None else time)
    if name == "orbit":
        return orbit(start, focus_depth(start), num_frames, time=(0.0, 1.0) if time is None else time)
    if name == "frames":
        return retime(views, time)
    if name == "stabilised":
        views = stabilised(views, window=2.0)
    if len(views) < 2:
        return time_sweep(start, num_frames)
    # Every so-manieth frame of a finer path: evenly spaced, and exactly as many as asked for.
    path = interpolate(views, max(1, num_frames - 1))[:: len(views) - 1]
    return retime(path[:num_frames], time)


def focus_depth(view: RenderView, distance: Float[Tensor, "H W 1"], accumulation: Float[Tensor, "H W 1"]) -> float:
    """Median camera depth of what a view sees.

    Args:
        view: From where.
        distance: Along the rays: the model's `depth` output.
        accumulation: How much is seen.
    """
    uv = pixel_centers(view.width, view.height, distance.device)
    x, y = (uv[..., :1] - view.cx) / view.fx, (uv[..., 1:] - view.cy) / view.fy
    depth = distance / (1 + x.square() + y.square()).sqrt()
    seen = depth[accumulation > 0.5]
    return float((seen if seen.numel() else depth).median())
