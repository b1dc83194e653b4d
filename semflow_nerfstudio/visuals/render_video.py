"""Videos of a trained run, one frame at a time."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from semflow_nerfstudio.visuals.camera_path import CropBox
from semflow_nerfstudio.visuals.colors import depth_to_rgb, scalar_to_rgb
from semflow_nerfstudio.visuals.frame_folder import claim_folder, encode_folder
from semflow_nerfstudio.visuals.layout import Picture, split_screen, to_picture, video_frame, with_alpha
from semflow_nerfstudio.visuals.trajectories import RenderView, to_cameras
from semflow_nerfstudio.visuals.video import ALPHA_FORMATS, VideoWriter, check_target, frame_files, frame_rate

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Progress, Run

CAPTIONS = {
    "rgb": "colour",
    "semantics_overlay": "semantics over colour",
    "static_rgb": "static",
    "dynamic_rgb": "movers",
}
"""What outputs are called in pictures, where not by their own name."""


@dataclass(frozen=True)
class Look:
    """What the frames of a video show."""

    outputs: tuple[str, ...] = ("rgb", "semantics")
    """Outputs side by side, or the left and the right one of a split screen."""
    split: tuple[float, float] | None = None
    """Where a split screen is cut in the first and in the last frame, as a share of the width; None: no split."""
    legend: bool = True
    """Whether the class legend is burnt in."""
    captions: bool = True
    """Whether the outputs' names are burnt in."""
    alpha: bool = False
    """One output alone, transparent where nothing is seen."""

    def check(self, out: Path) -> None:
        """Raise ValueError where this cannot be shown, or not in a file of that kind."""
        check_target(out)
        if not self.outputs:
            raise ValueError("there is nothing to render: name at least one output, such as rgb")
        if self.split is not None and (len(self.outputs) != 2 or self.alpha):
            raise ValueError("a split screen shows two outputs, the left and the right one, and takes no alpha")
        if self.split is not None and not all(0 <= place <= 1 for place in self.split):
            raise ValueError(f"a split screen is cut at shares of its width from 0 to 1, not at {self.split}")
        if self.alpha and len(self.outputs) != 1:
            raise ValueError("alpha takes one output, such as rgb, without others beside it")
        if self.alpha and out.suffix.lower() not in ALPHA_FORMATS:
            raise ValueError(f"{out}: {out.suffix} has no alpha channel; write a .webm, or a folder of PNGs")


def as_picture(
    name: str, values: Float[Tensor, "H W C"], near: float | None = None, far: float | None = None
) -> Picture:
    """An output as an 8-bit picture: depths and scalars are coloured."""
    if name == "depth":
        return to_picture(depth_to_rgb(values[..., 0], near, far))
    if values.shape[-1] == 1:
        return to_picture(scalar_to_rgb(values[..., 0]))
    return to_picture(values)


@dataclass
class VideoRenderer:
    """Renders the frames of a video one by one."""

    run: Run
    views: Sequence[RenderView]
    look: Look = field(default_factory=Look)
    crop: CropBox | None = None
    """Box outside which nothing is shown."""

    def frame(self, index: int) -> Picture:
        """Frame `index` as an RGB picture, or RGBA where the look asks for alpha.

        Raises:
            ValueError: an output does not exist.
        """
        view = self.views[index]
        # Files with alpha hold the colour of what is there, not its mixture with what is behind.
        rendered = self.run.render(to_cameras([view]), self.crop, (0.0, 0.0, 0.0) if self.look.alpha else None)
        unknown = [name for name in self.look.outputs if name not in rendered]
        if unknown:
            raise ValueError(f"this run has no output '{unknown[0]}'; it has {', '.join(rendered)}")
        near, far = depth_limits(self.run)
        panels = {CAPTIONS.get(name, name): as_picture(name, rendered[name], near, far) for name in self.look.outputs}
        if self.look.alpha:
            (name,), opacity = self.look.outputs, rendered["accumulation"]
            if name == "rgb":
                panels = {name: to_picture(rendered[name] / opacity.clamp(min=1e-3))}
            return with_alpha(next(iter(panels.values())), opacity)
        if self.look.split is not None:
            first, last = self.look.split
            place = first + (last - first) * index / max(len(self.views) - 1, 1)
            panels = {"": split_screen(panels, place, self.look.captions)}
        names, colors = legend_of(self.run) if self.look.legend else ((), None)
        return video_frame(panels, names, colors, view.time, captions=self.look.captions and self.look.split is None)

    def settings(self) -> dict[str, Any]:
        """All that decides what the frames show, as JSON values."""
        from semflow_nerfstudio.editing.scene_state_file import to_json

        digest = hashlib.blake2b(digest_size=8)
        for view in self.views:
            numbers = [view.fx, view.fy, view.cx, view.cy, view.width, view.height, view.time]
            digest.update(view.camera_to_world.double().numpy().tobytes() + np.array(numbers, np.float64).tobytes())
        return {
            "run": self.run.config.get_base_dir().name,
            "step": self.run.model.step,
            "views": digest.hexdigest(),
            **asdict(self.look),
            "crop": None if self.crop is None else asdict(self.crop),
            "scene_state": to_json(self.run.model.scene_state),
            "display": self.run.model.display.settings(),
        }


def look_of(run: Run) -> Look:
    """Colour beside semantics, or beside motion where the run has no classes."""
    return Look() if run.model.class_names else Look(outputs=("rgb", "flow"))


def render_video(
    run: Run,
    views: Sequence[RenderView],
    out: Path,
    look: Look | None = None,
    fps: float = 12.0,
    crop: CropBox | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Render views to a video or a folder of PNGs; nothing is kept in memory.

    What was left unfinished is continued. A folder remembers what its frames show, so that frames of other settings are
    never mixed with them. The frames of a video wait in a hidden folder beside it until it is complete.

    Args:
        run: What to render, with its scene state.
        views: From where and when.
        out: .mp4, .gif, .webm, or a folder.
        look: What the frames show.
        fps: Frames per second.
        crop: Box outside which nothing is shown.
        overwrite: Render a folder's frames anew if they show something else.
        progress: Told after every frame.

    Raises:
        ValueError: an output does not exist, the look does not fit the kind of file, or the folder's frames show
            something else.
    """
    look = look or Look()
    look.check(out)
    frame_rate(fps)
    renderer = VideoRenderer(run, views, look, crop)
    if not out.suffix:
        claim_folder(out, renderer.settings(), overwrite)
        _render_frames(renderer, out, progress)
        return
    frames = out.with_name(f".{out.name.replace('.', '_')}_frames")  # without an ending, as folders of frames are
    claim_folder(frames, renderer.settings(), overwrite=True)
    try:
        _render_frames(renderer, frames, progress)
    finally:
        if not frame_files(frames):  # nothing to go on from
            shutil.rmtree(frames)
    encode_folder(frames, out, fps, look.alpha)
    shutil.rmtree(frames)


def _render_frames(renderer: VideoRenderer, folder: Path, progress: Progress | None) -> None:
    with VideoWriter(folder, resume=True, alpha=renderer.look.alpha) as writer:
        for index in range(len(renderer.views)):
            if not writer.done(index):
                writer.add(renderer.frame(index), index)
            if progress is not None:
                progress(index + 1, len(renderer.views))


def legend_of(run: Run) -> tuple[Sequence[str], np.ndarray]:
    """Names and RGB (uint8) of the classes that are coloured, as the scene state and the display have them."""
    colors, shown = run.model.shown_classes()
    shown = shown & run.model.display.listed(run.model.class_names, shown.device)
    names = [name for name, visible in zip(run.model.class_names, shown.tolist(), strict=True) if visible]
    return names, (colors[shown].cpu().numpy() * 255).round().astype(np.uint8)


def depth_limits(run: Run) -> tuple[float | None, float | None]:
    """Depths that get the first and the last colour, the same in all frames."""
    scene = run.model.scene(run.model.shown_scene)
    return scene.near, scene.far
