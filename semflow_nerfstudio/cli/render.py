"""`semflow render`: semantic videos of a trained run, edited or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from semflow_nerfstudio.visuals.paths import PathName


@dataclass
class Render:
    """Render a video: outputs side by side or on a split screen, class legend and time burnt in."""

    run: tyro.conf.Positional[Path]
    """The run's folder, or its config.yml."""
    out: tyro.conf.Positional[Path]
    """What to write: .mp4, .gif or .webm, or a folder for PNGs; an interrupted render is continued."""
    outputs: tuple[str, ...] | None = None
    """Outputs shown side by side: rgb, semantics, semantics_overlay, depth, flow, static_rgb, dynamic_rgb, ...; rgb and
    semantics by default (of a run without labels rgb and flow), with --alpha rgb alone."""
    split: tuple[float, ...] | None = None
    """Show two outputs on a split screen: where it is cut, as a share of the width, such as 0.5; two numbers let the
    cut run from the first to the second."""
    scene_state: Path | None = None
    """Edits to show: a scene_state.json; by default those that `semflow select` chose, else none."""
    only: tuple[str, ...] = ()
    """Show these targets alone: class:NAME, instance:ID, moving or static."""
    highlight: tuple[str, ...] = ()
    """Tint and outline these targets."""
    classes: str = ""
    """Colour only classes whose names contain one of these parts, separated by ;."""
    overlay_opacity: float | None = None
    """Strength of the colours in semantics_overlay, from 0 to 1; by default the model's own."""
    probability_of: str | None = None
    """Class that the class_probability output shows; by default the first of the foreground."""
    alpha: bool = False
    """Transparent where nothing is seen: folders of PNGs and .webm."""
    scene: str | None = None
    """Scene of a run of several; by default the one that `semflow select` chose, else the first."""
    path: PathName = "fixed"
    """Camera: fixed, orbit, frames, stabilised, interpolate, or file (with --camera-path)."""
    camera_path: Path | None = None
    """Camera-path JSON of the viewer's Render tab, its crop included; implies --path file."""
    frame: int = 0
    """Training frame whose camera the path starts from."""
    time: float | None = None
    """Time in [0, 1] that stands still; by default time runs from the first frame to the last."""
    num_frames: int = 60
    """Frames of the video."""
    fps: float | None = None
    """Frames per second; by default a camera path file's own, else 12."""
    scale: float = 1.0
    """Size of a panel relative to the training frames."""
    legend: bool = True
    """Whether the class legend is burnt in."""
    captions: bool = True
    """Whether the outputs' names are burnt in."""
    overwrite: bool = False
    """Render a folder's frames anew if they show something else."""

    def main(self) -> None:
        """Render with a progress display."""
        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.editing.scene_state import SceneState, isolate
        from semflow_nerfstudio.editing.scene_state_file import load_scene_state
        from semflow_nerfstudio.runs import load_run
        from semflow_nerfstudio.visuals.camera_path import from_camera_path_json
        from semflow_nerfstudio.visuals.paths import focus_depth, named_path
        from semflow_nerfstudio.visuals.render_video import look_of, render_video
        from semflow_nerfstudio.visuals.trajectories import RenderView, to_cameras

        look = self.look()
        look.check(self.out)
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"--scale is {self.scale}: use a number above 0, such as 0.5.")
        given = SceneState() if self.scene_state is None else load_scene_state(self.scene_state)
        isolate(given, self.only)  # says now, before the run is loaded, if these are no targets
        path = None if self.camera_path is None else from_camera_path_json(self.camera_path)
        crop, fps = (None, 12.0) if path is None else (path.crop, path.fps)
        run = load_run(self.run)
        if None not in (self.scene, given.scene) and self.scene != given.scene:
            raise ValueError(
                f"{self.scene_state} edits scene '{given.scene}', but --scene is '{self.scene}': choose one"
            )
        if self.outputs is None and not self.alpha:
            look = replace(look, outputs=look_of(run).outputs)
        scene = self.scene or given.scene
        if scene is not None:
            run.model.show_scene(scene)
        state = run.model.scene_state if self.scene_state is None else given
        if self.only:
            state = isolate(state, self.only)
        if state != run.model.scene_state:
            with progress("Looking for objects") as update:
                self.edit(run, state, update)
        with progress("Looking for objects") as update:
            run.show(self.display(run.model.class_names), update)
        camera = "file" if self.camera_path is not None else self.path
        time = self.time if self.time is not None else (None if camera in ("file", "frames") else (0.0, 1.0))

        def focus(view: RenderView) -> float:
            with run.model.unedited():
                outputs = run.render(to_cameras([view]))
            return focus_depth(view, outputs["depth"], outputs["accumulation"])

        views = named_path(camera, run.frames, self.num_frames, self.frame, focus, time, self.camera_path)
        views = [v.scaled_to(*(max(1, round(side * self.scale)) for side in (v.width, v.height))) for v in views]
        with progress("Rendering") as update:
            fps = fps if self.fps is None else self.fps
            render_video(run, views, self.out, look, fps, crop, self.overwrite, update)
        print(self.out)

    def look(self) -> Any:
        """What the frames show.

        Raises:
            ValueError: --split is not one or two numbers.
        """
        from semflow_nerfstudio.visuals.render_video import Look

        if self.split is not None and len(self.split) not in (1, 2):
            raise ValueError("--split takes one number, where the screen is cut, or two that the cut runs between.")
        split = None if self.split is None else (self.split[0], self.split[-1])
        outputs = self.outputs or (("rgb",) if self.alpha else ("rgb", "semantics"))
        return Look(outputs, split, self.legend, self.captions, self.alpha)

    def display(self, names: Sequence[str]) -> Any:
        """How classes are shown."""
        from semflow_nerfstudio.visuals.display import Display, matching

        unlisted = frozenset(names) - frozenset(matching(names, self.classes))
        return Display(self.overlay_opacity, unlisted, self.probability_of, self.highlight)

    def edit(self, run: Any, state: Any, update: Any) -> None:
        """Show the run edited; errors name the file that the state is from."""
        try:
            run.edit(state, update)
        except ValueError as error:
            if self.scene_state is None:
                raise
            raise ValueError(f"{self.scene_state}: {error}") from error
