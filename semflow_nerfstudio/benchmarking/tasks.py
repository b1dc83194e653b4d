"""Trains and scores one row of `semflow bench tasks` on one scene."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nerfstudio.engine.trainer import TrainerConfig

from semflow_nerfstudio.benchmarking.machine import commit, describe
from semflow_nerfstudio.benchmarking.records import RunKey
from semflow_nerfstudio.benchmarking.task_rows import Row
from semflow_nerfstudio.configs.methods import lite
from semflow_nerfstudio.data.label_propagation import fill_holes
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.data.protocols import labelled_frames
from semflow_nerfstudio.evaluation.carried_labels import LabelCarrying
from semflow_nerfstudio.evaluation.task_scores import TaskScores
from semflow_nerfstudio.runs import Run, evenly_spaced, train

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""

BUILT_IN = {"target": 11, "source_a": 12, "source_b": 13}
"""Names and seeds of the built-in scenes that are made where none are given."""
BUILT_IN_NAMES = ("target", ("source_a", "source_b"))
"""The scene to measure on, and those to adapt from."""


@dataclass(frozen=True)
class Plan:
    """One row on one scene with one seed."""

    row: Row
    scene: Path
    seed: int
    sources: tuple[Path, ...]
    """Scenes of the run that adaptations start from."""
    steps: int
    """Training steps; in adaptations those without labels."""
    source_steps: int
    """Steps of the source scenes' run."""
    scale: int
    """Downscale factor of the images."""
    views: int | None
    """Held-out views that are scored, evenly spread; None: all."""
    out: Path
    """Where runs go."""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.row.name} on {self.scene.name}, seed {self.seed}"

    @property
    def key(self) -> RunKey:
        """What this measures."""
        settings: dict[str, Any] = {
            "labels": self.row.labels,
            "steps": self.steps,
            "scale": self.scale,
            "views": self.views,
            **self.row.overrides,
        }
        if self.row.adapt is not None:
            settings |= {
                "adapt": self.row.adapt,
                "scratch": self.row.scratch,
                "sources": [source.name for source in self.sources],
                "source_steps": self.source_steps,
            }
        return RunKey("tasks", self.row.name, self.scene.name, self.seed, commit() or "unknown", settings)

    def config(self) -> TrainerConfig:
        """The row's training; an adaptation's `adapt_from` is filled in when its source is trained.

        Raises:
            ValueError: a setting that there is not.
        """
        steps = self.steps + (self.row.adapt or 0)
        config = self._base(steps, self.row.name)
        parser: Any = config.pipeline.datamanager.dataparser  # type: ignore[attr-defined]
        parser.data = self.scene
        parser.labelled_frames = self.row.labels
        for name, value in self.row.overrides.items():
            override(config.pipeline, name, value)
        if self.row.adapt is not None:
            override(config.pipeline, "model.adapt_field_steps", self.steps)
            override(config.pipeline, "model.adapt_label_steps", self.row.adapt)
        return config

    def source_config(self) -> TrainerConfig:
        """Training of the source scenes; for rows from scratch a single step, which leaves the networks untrained."""
        steps = 1 if self.row.scratch else self.source_steps
        config = self._base(steps, f"sources-{'untrained' if self.row.scratch else steps}")
        parser: Any = config.pipeline.datamanager.dataparser  # type: ignore[attr-defined]
        parser.data, parser.scenes = self.sources[0].parent, tuple(str(source.resolve()) for source in self.sources)
        return config

    def _base(self, steps: int, name: str) -> TrainerConfig:
        config = lite(steps)
        parser: Any = config.pipeline.datamanager.dataparser  # type: ignore[attr-defined]
        parser.downscale_factor = self.scale
        config.pipeline.datamanager.data = None
        config.machine.seed = self.seed
        config.output_dir = self.out / "runs"
        config.experiment_name = f"{name}_seed{self.seed}_{self.scale}x"
        config.steps_per_eval_image = 0
        return config

    def source_run(self, on_step: Callable[[int, float], None] | None = None) -> Path:
        """Folder of the trained source run, made once for all rows that start from it."""
        config = self.source_config()
        config.timestamp = "_".join(source.name for source in self.sources)
        folder = config.get_base_dir()
        done = folder / "done"
        if not done.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            train(config, on_step)
            done.touch()
        return folder


def override(target: Any, name: str, value: Any) -> None:
    """Set a nested attribute by its dotted name.

    Raises:
        ValueError: there is no such attribute.
    """
    *path, last = name.split(".")
    for part in path:
        target = getattr(target, part, None)
    if not hasattr(target, last):
        raise ValueError(f"there is no setting '{name}'")
    setattr(target, last, value)


def make_built_in_scenes(folder: Path, size: str, frames: int = 12) -> None:
    """Make the built-in scenes that are not there yet, under their names in BUILT_IN."""
    for name, seed in BUILT_IN.items():
        if not (folder / name).is_dir():
            make_scene(folder / name, SceneOptions(seed=seed, size=size, frames=frames))


def measure(plan: Plan, progress: Progress, keep: bool = False) -> dict[str, Any]:
    """Train a row and score it; `keep` leaves the trained run on disk.

    Returns:
        `train_seconds`, `machine`, and `scores`: by protocol, then by method (model, and where the row has baselines
        flow_2d and warped; copy), what `TaskScores` says.
    """
    config = plan.config()
    total = config.max_num_iterations
    if plan.row.adapt is not None:
        steps = plan.source_config().max_num_iterations
        source = plan.source_run(lambda step, _: progress("source scenes", step + 1, steps))
        override(config.pipeline, "model.adapt_from", source)
    run, seconds = train(config, lambda step, _: progress("training", step + 1, total))
    scores = score(run, plan, progress)
    result = {
        "train_seconds": seconds,
        "machine": describe(run.model.device),
        "method": config.method_name,
        "scores": scores,
    }
    if not keep:
        shutil.rmtree(config.get_base_dir(), ignore_errors=True)
    return result


def score(run: Run, plan: Plan, progress: Progress) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of a trained row's held-out views, by protocol and method."""
    dataset: Any = run.pipeline.datamanager.eval_dataset
    train_set: Any = run.pipeline.datamanager.train_dataset
    times = np.asarray(train_set.scenes[0].distinct_times)
    views = range(len(dataset)) if plan.views is None else evenly_spaced(len(dataset), plan.views)
    names, foreground = run.model.class_names, run.model.get_buffer("foreground").tolist()
    unlabelled = {spec: _unlabelled_times(spec, len(times)) for spec in plan.row.scored_as}
    carrying = LabelCarrying(run) if plan.row.baselines else None
    tables: dict[str, dict[str, TaskScores]] = {spec: {} for spec in plan.row.scored_as}
    for done, index in enumerate(views):
        camera = dataset.cameras[index : index + 1]
        time = int(np.abs(times - float(camera.times.reshape(-1)[0])).argmin())
        truth = dataset.label_image(index)
        outputs = run.render(camera)
        found = {"model": outputs["label"][..., 0].numpy().astype(np.uint8)}
        if carrying is not None:
            found["flow_2d"] = carrying.carried(camera, outputs["depth"])
            found["warped"] = carrying.warped(camera, outputs["depth"])
        found |= _copy(train_set, camera)
        for spec, allowed in unlabelled.items():
            if time in allowed:
                for method, labels in found.items():
                    tables[spec].setdefault(method, TaskScores(names, foreground)).add(labels, truth)
        progress("scoring", done + 1, len(views))
    return {spec: {method: table.result() for method, table in methods.items()} for spec, methods in tables.items()}


def _unlabelled_times(spec: str, count: int) -> set[int]:
    """The times on which a protocol is scored: those without labels, or all where all have some."""
    times = set(range(count))
    return times - set(labelled_frames(spec, count)) or times


def _copy(train_set: Any, camera: Any) -> dict[str, np.ndarray]:
    """The labels of the labelled training frame of the nearest time, shown in place of a rendering."""
    labelled = np.array([frame.labels is not None for frame in train_set.frames])
    if not labelled.any():
        return {}
    gap = np.abs(train_set.cameras.times[:, 0].numpy() - float(camera.times.reshape(-1)[0]))
    frame = int(np.where(labelled, gap, np.inf).argmin())
    return {"copy": fill_holes(train_set.label_image(frame))}
