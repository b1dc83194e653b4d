"""`semflow demo`: from nothing to a semantic video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SUMMARY = (
    "psnr",
    "ssim",
    "miou",
    "miou_dataset",
    "miou_moving",
    "boundary_f",
    "total_accuracy",
    "class_accuracy",
    "dynamic_psnr",
    "copy_psnr",
    "copy_miou",
    "train_seconds",
    "rays_per_second",
    "device",
    "seed",
)
"""What the summary holds first, as far as there are labels; the rest of the scores follows."""
LONGEST = 240
"""Longer side in pixels that images of one's own are brought to, so that a laptop can train on them in minutes."""


@dataclass
class Demo:
    """Make the built-in scene (or take one of your own), train on it, evaluate held-out views and render a video."""

    data: Path | None = None
    """A scene of your own in either layout, such as `semflow process` makes, in place of the built-in one."""
    downscale_factor: int | None = None
    """Size of its images is divided by this; by default as often as it takes for a longer side of at most 240."""
    out: Path = Path("outputs/demo")
    """Where everything goes."""
    size: str = "160x90"
    """Width x height of the scene's images."""
    frames: int = 12
    """Frames of the clip."""
    steps: int = 1100
    """Training steps."""
    views: int = 18
    """Held-out views that are scored, evenly spread over times and cameras."""
    video_frames: int = 24
    """Frames of the video: half with a fixed camera and running time, half with a moving camera."""
    seed: int = 0
    """Seed of scene and training."""

    def main(self) -> None:
        """Run the demo, showing progress, and end with a table and the paths of what was made."""
        from semflow_nerfstudio.cli.report import finite, print_scores, progress, write_json
        from semflow_nerfstudio.runs import evaluate, evenly_spaced

        if min(self.steps, self.views, self.video_frames) < 1:
            raise ValueError("--steps, --views and --video-frames must be at least 1.")
        self.out.mkdir(parents=True, exist_ok=True)
        with compiling():
            scene = self.make_scene() if self.data is None else self.data
        run, seconds, rays = self.train(scene)
        total = len(run.pipeline.datamanager.eval_dataset)  # type: ignore[arg-type]
        with progress("Evaluating held-out views") as update:
            scores = evaluate(run, evenly_spaced(total, self.views), update)
        scores |= {
            "train_seconds": seconds,
            "rays_per_second": rays / seconds,
            "device": str(run.model.device),
            "seed": self.seed,
        }
        summary = finite({name: scores.pop(name) for name in SUMMARY if name in scores} | scores)
        write_json(self.out / "summary.json", summary)
        self.render(run)
        where = "the built-in scene" if self.data is None else str(self.data)
        shown = {name: summary[name] for name in SUMMARY if name in summary}
        print_scores(shown, f"{min(self.views, total)} held-out views of {where}")
        for made in ("summary.json", "overview.png", "semantics.mp4"):
            print(self.out / made)
        print(f"browse it: ns-viewer --load-config {run.config.get_base_dir() / 'config.yml'}")

    def make_scene(self) -> Path:
        """The built-in scene; one that is there already is used again if it was made with the same options."""
        import json
        from dataclasses import asdict

        from semflow_nerfstudio.cli.report import progress, write_json
        from semflow_nerfstudio.data.procedural import SceneOptions, make_scene

        options = SceneOptions(frames=self.frames, size=self.size, seed=self.seed)
        scene, note = self.out / "scene", self.out / "scene.json"
        if scene.is_dir() and note.is_file() and json.loads(note.read_text()) == asdict(options):
            return scene
        with progress("Making the scene") as update:
            make_scene(scene, options, overwrite=True, progress=update)
        write_json(note, asdict(options))
        return scene

    def train(self, scene: Path) -> tuple[Any, float, int]:
        """Train `semantic-flow-lite`; returns the run, its seconds and how many rays it saw."""
        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.configs.methods import lite
        from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
        from semflow_nerfstudio.runs import train

        config = lite(self.steps)
        manager = config.pipeline.datamanager
        assert isinstance(manager, SemFlowDataManagerConfig)
        manager.dataparser = self.parser(scene)
        manager.data = scene
        config.output_dir, config.experiment_name = self.out / "runs", "demo"
        config.machine.seed = self.seed
        rays = manager.train_num_rays_per_batch * self.steps
        with progress("Training") as update:
            run, seconds = train(config, lambda step, psnr: update(step + 1, self.steps, f"psnr {psnr:.1f}"))
        return run, seconds, rays

    def parser(self, scene: Path) -> Any:
        """What reads a scene, at the size that was asked for."""
        from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
        from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
        from semflow_nerfstudio.process.check import has_transforms, read_scene

        if self.data is None:
            return DynamicSceneDataParserConfig(data=scene)
        factor = self.downscale_factor or math.ceil(max(read_scene(scene).size) / LONGEST)
        if has_transforms(scene):
            return SemFlowDataParserConfig(data=scene, downscale_factor=factor)
        return DynamicSceneDataParserConfig(data=scene, downscale_factor=factor)

    def render(self, run: Any) -> None:
        """Write overview.png and semantics.mp4."""
        from PIL import Image

        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.visuals.overview import overview
        from semflow_nerfstudio.visuals.paths import focus_depth, named_path
        from semflow_nerfstudio.visuals.render_video import look_of, render_video
        from semflow_nerfstudio.visuals.trajectories import to_cameras

        Image.fromarray(np.asarray(overview(run, rows=3))).save(self.out / "overview.png")
        middle, half = len(run.frames) // 2, max(1, self.video_frames // 2)

        def focus(view: Any) -> float:
            outputs = run.render(to_cameras([view]))
            return focus_depth(view, outputs["depth"], outputs["accumulation"])

        still = named_path("fixed", run.frames, half, middle, focus, (0.0, 1.0))
        moving = named_path("orbit", run.frames, half, middle, focus, (0.0, 1.0))
        with progress("Rendering the video") as update:
            render_video(run, [*still, *moving], self.out / "semantics.mp4", look_of(run), progress=update)


@contextmanager
def compiling() -> Iterator[None]:
    """Let another process compile the hash grid's kernels into numba's cache meanwhile, where there is none yet.

    Should that fail, training compiles them itself.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "semflow_nerfstudio.encodings.warm_up"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        process.wait()
    finally:
        process.kill()
