"""Videos of a trained run, one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from semflow_nerfstudio.visuals.colors import depth_to_rgb, scalar_to_rgb
from semflow_nerfstudio.visuals.layout import Picture, to_picture, video_frame
from semflow_nerfstudio.visuals.trajectories import RenderView, to_cameras
from semflow_nerfstudio.visuals.video import VideoWriter

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Progress, Run

CAPTIONS = {
    "rgb": "colour",
    "semantics_overlay": "semantics over colour",
    "static_rgb": "static",
    "dynamic_rgb": "movers",
}
"""What outputs are called in pictures, where not by their own name."""


def as_picture(
    name: str, values: Float[Tensor, "H W C"], near: float | None = None, far: float | None = None
) -> Picture:
    """An output as an 8-bit picture: depths and scalars are coloured."""
    if name == "depth":
        return to_picture(depth_to_rgb(values[..., 0], near, far))
    if values.shape[-1] == 1:
        return to_picture(scalar_to_rgb(values[..., 0]))
    return to_picture(values)


def render_video(
    run: Run,
    views: Sequence[RenderView],
    out: Path,
    outputs: Sequence[str] = ("rgb", "semantics"),
    fps: float = 12.0,
    legend: bool = True,
    captions: bool = True,
    progress: Progress | None = None,
) -> None:
    """Render views to a video or a folder of PNGs; nothing is kept in memory.

    Raises:
        ValueError: an output does not exist.
    """
    with VideoWriter(out, fps, resume=not out.suffix) as writer:
        for index, frame in enumerate(video_frames(run, views, outputs, legend, captions, writer)):
            if frame is not None:
                writer.add(frame, index)
            if progress is not None:
                progress(index + 1, len(views))


def video_frames(
    run: Run, views: Sequence[RenderView], outputs: Sequence[str], legend: bool, captions: bool, writer: VideoWriter
) -> Iterable[Picture | None]:
    """The frames of a video one by one; None for those that the writer has already."""
    near, far = depth_limits(run)
    colors = (run.model.class_colors.cpu().numpy() * 255).round().astype(np.uint8)
    for index, view in enumerate(views):
        if writer.done(index):
            yield None
            continue
        rendered = run.render(to_cameras([view]))
        unknown = [name for name in outputs if name not in rendered]
        if unknown:
            raise ValueError(f"this run has no output '{unknown[0]}'; it has {', '.join(rendered)}")
        panels = {CAPTIONS.get(name, name): as_picture(name, rendered[name], near, far) for name in outputs}
        names = run.model.class_names if legend else ()
        yield video_frame(panels, names, colors if len(names) else None, view.time, captions=captions)


def depth_limits(run: Run) -> tuple[float | None, float | None]:
    """Depths that get the first and the last colour, the same in all frames."""
    scene = run.model.scene(run.model.shown_scene)
    return scene.near, scene.far
