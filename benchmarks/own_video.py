"""A hand-held clip from its images and poses to trained scenes and videos, as the README's "Your own video" has it.

    python -m benchmarks.own_video --clip PATH/TO/hand_clip [--downscale-factor 4] [--steps 2000]

Without labels, and with those of three frames (`tests/process/fixtures/hand_clip_labels.json`). Writes
`benchmarks/results/own_video_*.json` and two videos; where a labelled frame is held out, its labels are scored.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.machine import describe
from benchmarks.scenes import RESULTS
from semflow_nerfstudio.cli.report import finite, print_scores, progress, write_json
from semflow_nerfstudio.configs.methods import LITE_STEPS, lite
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
from semflow_nerfstudio.process.labels.found import LabelSource
from semflow_nerfstudio.process.labels.step import label_scene
from semflow_nerfstudio.process.pipeline import ProcessOptions, process_scene
from semflow_nerfstudio.runs import Run, evaluate, train
from semflow_nerfstudio.visuals.paths import named_path
from semflow_nerfstudio.visuals.render_video import look_of, render_video

LABELS = Path(__file__).resolve().parents[1] / "tests/process/fixtures/hand_clip_labels.json"


@dataclass
class OwnVideo:
    """Which clip, and how it is trained."""

    clip: Path
    """Folder with `images/` and `precomputed.json`."""
    labels: Path = LABELS
    """Labels of some frames, of any tool."""
    foreground: tuple[str, ...] = ("hand",)
    """Classes that move or are handled."""
    downscale_factor: int = 4
    """Size of the images in training."""
    steps: int = LITE_STEPS
    """Training steps."""
    seed: int = 0
    """Seed."""
    out: Path = Path("outputs/own_video")
    """Where scenes, runs and videos go."""

    def main(self) -> None:
        """Make the scene, then train, score and render it without labels and with them."""
        motion, labelled = self.out / "motion", self.out / "labelled"
        options = ProcessOptions(poses=str(self.clip / "precomputed.json"))
        summary = process_scene(self.clip / "images", motion, options, progress)
        shutil.rmtree(labelled, ignore_errors=True)
        shutil.copytree(motion, labelled)
        label_scene(labelled, LabelSource(self.labels, None, None, self.foreground), progress)
        for scene in (motion, labelled):
            self.run(scene, summary.pose_check.error)

    def run(self, scene: Path, epipolar_error: float) -> None:
        """Train, score, render and write."""
        config = lite(self.steps)
        manager = config.pipeline.datamanager
        assert isinstance(manager, SemFlowDataManagerConfig)
        manager.data = scene
        manager.dataparser = SemFlowDataParserConfig(data=scene, downscale_factor=self.downscale_factor)
        config.output_dir, config.machine.seed = self.out / "runs", self.seed
        config.experiment_name = scene.name
        with progress(f"Training on {scene.name}") as update:
            run, seconds = train(config, lambda step, psnr: update(step + 1, self.steps, f"psnr {psnr:.1f}"))
        with progress("Evaluating") as update:
            scores = finite(evaluate(run, None, update))
        frames = run.frames
        result: dict[str, Any] = {
            "benchmark": "own_video",
            "scene": self.clip.name,
            "labels": "none" if scene.name == "motion" else "three frames",
            "downscale_factor": self.downscale_factor,
            "size": [int(frames.width[0]), int(frames.height[0])],
            "frames": len(frames),
            "epipolar_error": epipolar_error,
            "steps": self.steps,
            "seed": self.seed,
            "train_seconds": seconds,
            "machine": describe(run.model.device),
            "scores": scores,
        }
        write_json(RESULTS / f"own_video_{self.clip.name}_{scene.name}_seed{self.seed}.json", result)
        print_scores(scores, f"{self.clip.name}, {result['labels']} labelled, {seconds:.0f} s of training")
        self.render(run, scene.name)

    def render(self, run: Run, name: str) -> None:
        """A video along the clip's own cameras."""
        views = named_path("frames", run.frames, len(run.frames), 0, lambda _: 1.0, None)
        with progress("Rendering") as update:
            render_video(run, views, self.out / f"{name}.mp4", look_of(run), overwrite=True, progress=update)
        print(self.out / f"{name}.mp4")


if __name__ == "__main__":
    tyro.cli(OwnVideo).main()
