"""`semflow bench quality`: trains the rows on scenes, scores them, and keeps one JSON a run."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils import writer

from semflow_nerfstudio.benchmarking import machine
from semflow_nerfstudio.benchmarking.baselines import (
    baseline_scores,
    kept_labels,
    warped_neighbour_labels,
    withheld_frames,
)
from semflow_nerfstudio.benchmarking.geometry import geometry_scores, render_training_views
from semflow_nerfstudio.benchmarking.overrides import apply_overrides
from semflow_nerfstudio.benchmarking.quality_rows import QualityRow
from semflow_nerfstudio.benchmarking.records import Records, RunKey
from semflow_nerfstudio.configs.methods import by_name
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.frame_features import missing_weights
from semflow_nerfstudio.data.layout import read_scene_folder
from semflow_nerfstudio.data.procedural import make_scene
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
from semflow_nerfstudio.runs import Run, evaluate, evenly_spaced, train

OUT = Path("outputs/benchmarks/quality")
"""Where trained runs and built-in scenes go."""
Report = Callable[[str, int, int, str], None]
"""(what is going on, done, total, note)."""


@dataclass
class QualityRun:
    """One row on one scene with one seed."""

    row: QualityRow
    scene: Path
    """Its folder; of a row on a built-in scene, where that will be."""
    seed: int
    steps: int
    views: int | None
    out: Path = OUT

    @property
    def key(self) -> RunKey:
        """What the run measures."""
        row = self.row
        settings: dict[str, Any] = {
            "method": row.method,
            "downscale": row.downscale,
            "steps": self.steps,
            "views": self.views,
            "withheld": row.withheld,
            "make": None if row.make is None else asdict(row.make),
        }
        return RunKey(
            "quality", row.name, self.scene.name, self.seed, machine.package_commit(), settings | row.overrides
        )

    @property
    def title(self) -> str:
        return f"{self.row.name}, {self.scene.name}, seed {self.seed}"

    def config(self) -> TrainerConfig:
        """What is trained."""
        row = self.row
        config = by_name(row.method, self.steps)
        manager = config.pipeline.datamanager
        assert isinstance(manager, SemFlowDataManagerConfig)
        manager.data = self.scene
        if row.make is not None and row.make.synchronised:
            manager.dataparser = SemFlowDataParserConfig(data=self.scene)
        else:
            manager.dataparser = DynamicSceneDataParserConfig(
                data=self.scene,
                downscale_factor=row.downscale,  # type: ignore[arg-type]
                labelled_frames=kept_labels(self.scene) if row.withheld else "all",
                eval_protocol="label-holdout" if row.withheld else "all-views",
            )
        config.output_dir, config.experiment_name, config.machine.seed = self.out, self.scene.name, self.seed
        config.set_timestamp()
        config.timestamp += f"_{self.key.fingerprint}"  # or runs that start in the same second share a folder
        return apply_overrides(config, row.overrides)

    def reason_not_to(self) -> str | None:
        """Why this run cannot be made here or means nothing on its scene; None where it can."""
        if self.row.make is not None:
            return None
        has_views = bool(read_scene_folder(self.scene).test_views)
        if self.row.withheld == has_views:
            return "made of scenes without held-out views" if has_views else "the scene has no held-out views"
        encoder = self.row.overrides.get("data.frame_features.encoder")
        return None if encoder is None else missing_weights(encoder)


def measure(run: QualityRun, report: Report, keep: bool = False) -> dict[str, Any]:
    """Train, score and describe one run.

    Args:
        run: What to measure.
        report: Told how far it is.
        keep: Leave the trained run's folder where it is.
    """
    if run.row.make is not None and not run.scene.is_dir():
        make_scene(run.scene, run.row.make, progress=lambda done, total: report("making the scene", done, total, ""))
    cpu = time.process_time()
    config = run.config()
    trained, seconds = train(config, lambda step, psnr: report("training", step + 1, run.steps, f"psnr {psnr:.1f}"))
    cpu = time.process_time() - cpu
    total = len(trained.pipeline.datamanager.eval_dataset)  # type: ignore[arg-type]
    views = list(range(total)) if run.views is None else evenly_spaced(total, run.views)
    scores = evaluate(trained, views, lambda done, count: report("held-out views", done, count, ""))
    training = render_training_views(trained, lambda done, count: report("training views", done, count, ""))
    scores |= geometry_scores(trained, training)
    result: dict[str, Any] = {
        "method": run.row.method,
        "steps": run.steps,
        "train_seconds": seconds,
        "train_cpu_seconds": cpu,
        "views": views,
        "machine": machine.describe(trained.model.device),
        "scores": scores,
    }
    if run.row.baselines:
        result["baselines"] = baseline_scores(trained, training, views)
    if run.row.withheld:
        frames = withheld_frames(len(read_scene_folder(run.scene).images))
        result["withheld_frames"] = frames
        result["baselines"] = {"warped neighbours": warped_neighbour_labels(run.scene, frames, run.row.downscale)}
    _finish(trained, keep)
    return result


def _finish(run: Run, keep: bool) -> None:
    """Close the run's loggers, which nerfstudio keeps for the whole process, and remove its folder."""
    for logger in writer.EVENT_WRITERS:
        if isinstance(logger, writer.TensorboardWriter):
            logger.tb_writer.close()
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()
    if not keep:
        shutil.rmtree(run.config.get_base_dir(), ignore_errors=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def planned(
    rows: Sequence[QualityRow],
    scenes: Sequence[Path],
    seeds: Sequence[int],
    steps: int | None = None,
    views: int | None = None,
    out: Path | None = None,
) -> list[QualityRun]:
    """The runs of rows on scenes, seed by seed, so that the first seed of all comes before the second of any.

    Rows on built-in scenes are measured once, whatever scenes are given; these are made under `out`.

    Args:
        rows: What to measure.
        scenes: Folders in the Semantic Dynamic Scene layout.
        seeds: Of training.
        steps: Training steps in place of each row's own.
        views: Held-out views in place of each row's own.
        out: Where trained runs go.
    """
    out = out or OUT
    runs = []
    for seed in seeds:
        for row in rows:
            if row.make is not None:
                options = json.dumps(asdict(row.make), sort_keys=True)
                folder = out / "scenes" / hashlib.sha256(options.encode()).hexdigest()[:8] / "built-in"
                runs.append(QualityRun(row, folder, seed, steps or row.steps, views or row.views, out))
        for scene in scenes:
            given = [row for row in rows if row.make is None]
            runs += [QualityRun(r, scene.resolve(), seed, steps or r.steps, views or r.views, out) for r in given]
    return runs


def find(records: Records, run: QualityRun, any_commit: bool = False) -> dict[str, Any] | None:
    """A run's record, if it was made already."""
    return records.find(run.key, any_commit)
