"""`semflow render`: semantic videos of a trained run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from semflow_nerfstudio.visuals.paths import PathName


@dataclass
class Render:
    """Render a video: outputs side by side, class legend and time burnt in."""

    run: tyro.conf.Positional[Path]
    """The run's folder, or its config.yml."""
    out: tyro.conf.Positional[Path]
    """What to write: .mp4, .gif or .webm, or a folder for PNGs (an interrupted folder is continued)."""
    outputs: tuple[str, ...] = ("rgb", "semantics")
    """Outputs shown side by side: rgb, semantics, semantics_overlay, depth, flow, static_rgb, dynamic_rgb, ..."""
    scene: str | None = None
    """Scene of a run of several; by default the one that `semflow select` chose, else the first."""
    path: PathName = "fixed"
    """Camera: fixed, orbit, frames, stabilised, interpolate, or file (with --camera-path)."""
    camera_path: Path | None = None
    """Camera-path JSON of the viewer's Render tab; implies --path file."""
    frame: int = 0
    """Training frame whose camera the path starts from."""
    time: float | None = None
    """Time in [0, 1] that stands still; by default time runs from the first frame to the last."""
    num_frames: int = 60
    """Frames of the video."""
    fps: float = 12.0
    """Frames per second."""
    scale: float = 1.0
    """Size of a panel relative to the training frames."""
    legend: bool = True
    """Whether the class legend is burnt in."""
    captions: bool = True
    """Whether the outputs' names are burnt in."""

    def main(self) -> None:
        """Render with a progress display."""
        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.runs import load_run
        from semflow_nerfstudio.visuals.paths import median_depth, named_path
        from semflow_nerfstudio.visuals.render_video import render_video
        from semflow_nerfstudio.visuals.trajectories import RenderView, to_cameras

        if not 0 < self.scale < float("inf"):
            raise ValueError(f"--scale is {self.scale}: use a number above 0, such as 0.5.")
        run = load_run(self.run)
        if self.scene is not None:
            run.model.show_scene(self.scene)
        camera = "file" if self.camera_path is not None else self.path
        time = self.time if self.time is not None else (None if camera in ("file", "frames") else (0.0, 1.0))

        def focus(view: RenderView) -> float:
            outputs = run.render(to_cameras([view]))
            return median_depth(outputs["depth"], outputs["accumulation"])

        views = named_path(camera, run.frames, self.num_frames, self.frame, focus, time, self.camera_path)
        views = [v.scaled_to(*(max(1, round(side * self.scale)) for side in (v.width, v.height))) for v in views]
        with progress("Rendering") as update:
            render_video(run, views, self.out, self.outputs, self.fps, self.legend, self.captions, update)
        print(self.out)
