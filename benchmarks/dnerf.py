"""Train `semantic-flow-lite` on a D-NeRF scene (colour only) and report PSNR on its `val` split.

    python -m benchmarks.dnerf --scene PATH/TO/lego [--scale 0.25] [--steps 2000]

The shovel angles of train and test differ, so `val` it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig

from benchmarks.machine import describe
from benchmarks.scenes import RESULTS
from semflow_nerfstudio.cli.report import finite, print_scores, progress, write_json
from semflow_nerfstudio.configs.methods import LITE_STEPS, lite
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.runs import evaluate, train


@dataclass
class DNeRFBenchmark:
    """Which scene, and how."""

    scene: Path
    """Folder in D-NeRF's format."""
    scale: float = 0.25
    """Size of the images relative to the files."""
    steps: int = LITE_STEPS
    """Training steps."""
    seed: int = 0
    """Seed."""
    out: Path = Path("outputs/benchmarks")
    """Where the run goes."""

    def main(self) -> None:
        """Train, score and write."""
        config = lite(self.steps)
        manager = config.pipeline.datamanager
        assert isinstance(manager, SemFlowDataManagerConfig)
        manager.data, manager.dataparser = self.scene, DNeRFDataParserConfig(data=self.scene)
        manager.camera_res_scale_factor = self.scale
        config.output_dir, config.experiment_name, config.machine.seed = self.out, self.scene.name, self.seed
        with progress(f"Training on {self.scene.name}") as update:
            run, seconds = train(config, lambda step, psnr: update(step + 1, self.steps, f"psnr {psnr:.1f}"))
        with progress("Evaluating") as update:
            scores = finite(evaluate(run, None, update))
        result = {
            "benchmark": "dnerf",
            "scene": self.scene.name,
            "method": config.method_name,
            "scale": self.scale,
            "split": "val",
            "steps": self.steps,
            "seed": self.seed,
            "train_seconds": seconds,
            "machine": describe(run.model.device),
            "scores": scores,
        }
        write_json(RESULTS / f"dnerf_{self.scene.name}_seed{self.seed}.json", result)
        print_scores(scores, f"{self.scene.name}, val, {seconds:.0f} s of training")


if __name__ == "__main__":
    tyro.cli(DNeRFBenchmark).main()
