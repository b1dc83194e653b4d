"""Train `semantic-flow-lite` on scenes and score their held-out views.

    python -m benchmarks.scenes --scenes PATH [PATH ...] [--downscale-factor 4] [--steps 2000] [--seed 0]

Writes one JSON a scene under `benchmarks/results/` and, beside the run, a semantic video.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from benchmarks.machine import describe
from semflow_nerfstudio.cli.report import finite, print_scores, progress, write_json
from semflow_nerfstudio.configs.methods import LITE_STEPS, lite
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.runs import evaluate, evenly_spaced, train
from semflow_nerfstudio.visuals.paths import named_path
from semflow_nerfstudio.visuals.render_video import render_video

RESULTS = Path(__file__).parent / "results"


@dataclass
class SceneBenchmark:
    """Which scenes to train on, and how."""

    scenes: list[Path]
    """Folders in the Semantic Dynamic Scene layout."""
    downscale_factor: int = 4
    """Size of the images."""
    labelled_frames: str = "all"
    """Which training frames keep their labels."""
    steps: int = LITE_STEPS
    """Training steps."""
    views: int | None = None
    """Score this many held-out views, evenly spread, instead of all."""
    seed: int = 0
    """Seed."""
    out: Path = field(default_factory=lambda: Path("outputs/benchmarks"))
    """Where runs and videos go."""

    def main(self) -> None:
        """Run every scene in turn."""
        for scene in self.scenes:
            self.run(scene)

    def run(self, scene: Path) -> None:
        """Train, score, render and write one scene."""
        config = lite(self.steps)
        manager = config.pipeline.datamanager
        assert isinstance(manager, SemFlowDataManagerConfig)
        manager.data = scene
        manager.dataparser = DynamicSceneDataParserConfig(
            data=scene, downscale_factor=self.downscale_factor, labelled_frames=self.labelled_frames
        )
        config.output_dir, config.experiment_name, config.machine.seed = self.out, scene.name, self.seed
        with progress(f"Training on {scene.name}") as update:
            run, seconds = train(config, lambda step, psnr: update(step + 1, self.steps, f"psnr {psnr:.1f}"))
        total = len(run.pipeline.datamanager.eval_dataset)  # type: ignore[arg-type]
        views = None if self.views is None else evenly_spaced(total, self.views)
        with progress("Evaluating") as update:
            scores = evaluate(run, views, update)
        result: dict[str, Any] = {
            "benchmark": "scenes",
            "scene": scene.name,
            "method": config.method_name,
            "downscale_factor": self.downscale_factor,
            "labelled_frames": self.labelled_frames,
            "steps": self.steps,
            "seed": self.seed,
            "train_seconds": seconds,
            "rays_per_second": manager.train_num_rays_per_batch * self.steps / seconds,
            "machine": describe(run.model.device),
            "scores": finite(scores),
        }
        name = f"scene_{scene.name.lower()}_{self.downscale_factor:g}x_{self.labelled_frames}_seed{self.seed}"
        write_json(RESULTS / f"{name.replace(',', '-')}.json", result)
        print_scores(finite(scores), f"{scene.name} at 1/{self.downscale_factor:g}, {seconds:.0f} s of training")
        views_of_video = named_path("fixed", run.frames, 48, len(run.frames) // 2, lambda _: 1.0, (0.0, 1.0))
        with progress("Rendering") as update:
            render_video(run, views_of_video, self.out / f"{scene.name}.mp4", progress=update)
        print(self.out / f"{scene.name}.mp4")


if __name__ == "__main__":
    tyro.cli(SceneBenchmark).main()
