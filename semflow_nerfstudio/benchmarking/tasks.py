"""Trains and scores one row of `semflow bench tasks` on one scene."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from filelock import FileLock
from nerfstudio.engine.trainer import TrainerConfig

from semflow_nerfstudio.benchmarking.machine import describe, package_commit
from semflow_nerfstudio.benchmarking.records import RunKey
from semflow_nerfstudio.benchmarking.task_rows import Row
from semflow_nerfstudio.benchmarking.task_scoring import protocol_times, score
from semflow_nerfstudio.configs.methods import lite
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.labels import merge_class_tables
from semflow_nerfstudio.data.layout import TEST_FOLDER, TEST_LABEL_FOLDER, SceneFolder, read_scene_folder
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.runs import load_run, train

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""
OnStep = Callable[[int, float], None]
"""(step, PSNR)."""

BUILT_IN = {"target": 11, "source_a": 12, "source_b": 13}
"""Names and seeds of the built-in scenes that are made where none are given."""
BUILT_IN_SIZE = "240x135"
"""Their size, where no other is asked for."""


@dataclass(frozen=True)
class Plan:
    """One row on one scene with one seed."""

    row: Row
    scene: Path
    seed: int
    sources: tuple[Path, ...]
    """Scenes of the run that adaptations start from."""
    steps: int
    """Training steps for each scene; in adaptations those without labels."""
    source_steps: int
    """Steps of the source scenes' run."""
    scale: int
    """Downscale factor of the images."""
    views: int | None
    """Held-out views that are scored for each protocol, evenly spread; None: all."""
    out: Path
    """Where runs go."""
    partner: Path | None = None
    """The other scene in the model of rows of two scenes."""

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
        made = {scene.parent.name for scene in self.built_in}
        if made - {BUILT_IN_SIZE}:  # the scenes' own names do not tell
            settings["built_in_size"] = sorted(made)
        if self.row.fields_too:
            settings |= {"adapt": self.row.adapt, "fields_too": True}
        elif self.adapts:
            settings |= {
                "adapt": self.row.adapt,
                "scratch": self.row.scratch,
                "sources": [source.name for source in self.sources],
                "source_steps": self.source_steps,
            }
        if self.row.together:
            settings["together"] = [scene.name for scene in self.scenes]
        return RunKey("tasks", self.row.name, self.scene.name, self.seed, package_commit(), settings)

    @property
    def adapts(self) -> bool:
        """Whether this begins with a run of the source scenes."""
        return self.row.adapt is not None and not self.row.fields_too

    @property
    def scenes(self) -> tuple[Path, ...]:
        """The scenes in the row's model; two are in one order, whichever of them is scored."""
        if not self.row.together:
            return (self.scene,)
        assert self.partner is not None
        return tuple(sorted((self.scene, self.partner), key=lambda scene: (scene.name, str(scene))))

    @property
    def built_in(self) -> set[Path]:
        """The built-in scenes that this needs."""
        used = (*self.scenes, *(self.sources if self.adapts else ()))
        return {scene for scene in used if scene.parent.parent == built_in_folder(self.out)}

    def reason_not_to(self) -> str | None:
        """Why this cannot be measured, as far as the scenes are there; None where it can."""
        if not all(scene.is_dir() for scene in self.scenes):
            return None  # built-in scenes may still have to be made
        folders = {scene: _listed(scene) for scene in self.scenes}
        tables = [folder.classes for folder in folders.values()]
        parser = _read(self._base(self.steps, self.row.name), (self.scene,))
        parser.labelled_frames = self.row.labels
        try:
            merge_class_tables([table for table in tables if table is not None])
            labelled = parser.setup().scored_times(folders[self.scene])
        except SceneDataError as error:
            return str(error)
        count = len(folders[self.scene].images)
        if any(labelled & protocol_times(spec, count) for spec in self.row.scored_as):
            return None
        return (
            f"{self.scene} has no held-out view with labels that {self.row.name} could be scored on: add "
            f"{TEST_FOLDER} and {TEST_LABEL_FOLDER}"
        )

    def config(self) -> TrainerConfig:
        """The row's training; an adaptation's `adapt_from` is filled in when its source is trained.

        Raises:
            ValueError: a setting that there is not.
        """
        count = len(self.scenes)
        before = 0 if self.row.fields_too else count * self.steps
        config = self._base(before + (self.row.adapt or 0), self.row.name)
        parser = _read(config, self.scenes)
        parser.labelled_frames = self.row.labels
        for name, value in self.row.overrides.items():
            override(config.pipeline, name, value)
        model: Any = config.pipeline.model
        if self.row.fields_too:  # or the shortest would end in the static stage
            model.static_steps = min(model.static_steps, config.max_num_iterations // 4)
        if self.row.together:
            _name_by_content(config, self.scenes)
        else:
            config.set_timestamp()
            config.timestamp += f"_{self.key.fingerprint}"  # or runs that start in the same second share a folder
        if self.adapts:
            override(config.pipeline, "model.adapt_field_steps", self.steps)
            override(config.pipeline, "model.adapt_label_steps", self.row.adapt)
        return config

    def source_config(self) -> TrainerConfig:
        """Training of the source scenes; for rows from scratch a single step, which leaves the networks untrained."""
        steps = 1 if self.row.scratch else self.source_steps
        config = self._base(steps, f"sources-{'untrained' if self.row.scratch else steps}")
        _read(config, self.sources)
        _name_by_content(config, self.sources)
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


def _read(config: TrainerConfig, scenes: tuple[Path, ...]) -> Any:
    """Let a training read one scene or several; returns its parser's configuration."""
    parser: Any = config.pipeline.datamanager.dataparser  # type: ignore[attr-defined]
    if len(scenes) == 1:
        (parser.data,) = scenes
    else:
        parser.data, parser.scenes = scenes[0].parent, tuple(str(scene.resolve()) for scene in scenes)
    return parser


def _name_by_content(config: TrainerConfig, scenes: tuple[Path, ...]) -> None:
    """Give a training that several rows need the folder that no other scenes, length or code would have."""
    places = hashlib.sha256("\n".join(str(scene.resolve()) for scene in scenes).encode()).hexdigest()[:8]
    names = [scene.name for scene in scenes]
    config.timestamp = "_".join([*names, places, f"{config.max_num_iterations}steps", package_commit()])


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


def built_in_folder(out: Path) -> Path:
    """Where built-in scenes are made, below it one folder for each size."""
    return out / "scenes"


def check_scenes(scenes: Sequence[Path], sources: Sequence[Path], out: Path) -> None:
    """Look at all scenes before anything is trained, but for built-in ones that are still to be made.

    Raises:
        ValueError: one is not there, cannot be read, or is called as another: results are known by folders' names.
    """
    given = [*(("--scenes", scene) for scene in scenes), *(("--sources", source) for source in sources)]
    for option, scene in given:
        if _is_built_in(scene, out) and not scene.exists():
            continue
        if not (scene / "poses_bounds.npy").is_file():
            raise ValueError(
                f"{scene} is no scene, for it has no poses_bounds.npy: give folders of scenes with {option}"
            )
        _listed(scene)
    for (_, scene), (_, other) in combinations(given, 2):
        if scene.resolve() == other.resolve():
            raise ValueError(f"{scene} is given twice: name every scene once in --scenes and --sources")
        if scene.name == other.name:
            raise ValueError(
                f"{scene} and {other} have one name, by which results are known: rename one of the folders"
            )


@cache
def _listed(scene: Path) -> SceneFolder:
    """A scene's files; every row asks for them, and long clips have many."""
    return read_scene_folder(scene)


def _is_built_in(scene: Path, out: Path) -> bool:
    return scene.parent.parent == built_in_folder(out) and scene.name in BUILT_IN


def make_built_in_scenes(plans: Sequence[Plan], size: str, frames: int = 12) -> None:
    """Make the built-in scenes that plans need and that are not there yet."""
    for scene in sorted(set().union(*(plan.built_in for plan in plans))):
        if not scene.is_dir():
            make_scene(scene, SceneOptions(seed=BUILT_IN[scene.name], size=size, frames=frames))


def trained_once(config: TrainerConfig, on_step: OnStep | None = None) -> float:
    """Train what several rows need, unless its folder has it already.

    Returns:
        The seconds that it took.
    """
    folder = config.get_base_dir()
    done = folder / "done"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # another measurement may need the same
        if not done.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _, seconds = train(config, on_step)
            done.write_text(f"{seconds:.1f}\n", encoding="utf-8")
    return float(done.read_text(encoding="utf-8"))


def measure(plan: Plan, progress: Progress, keep: bool = False) -> dict[str, Any]:
    """Train a row and score it; `keep` leaves the trained run on disk. Runs that several rows need stay there anyway.

    Returns:
        `train_seconds`, `machine`, `method`, and `scores`, see `score`.
    """
    row, config = plan.row, plan.config()

    def told(what: str, steps: int) -> OnStep:
        return lambda step, _: progress(what, step + 1, steps)

    if plan.adapts:
        source = plan.source_config()
        trained_once(source, told("source scenes", source.max_num_iterations))
        override(config.pipeline, "model.adapt_from", source.get_base_dir())
    on_step = told("training", config.max_num_iterations)
    if row.together:
        seconds = trained_once(config, on_step)
        run = load_run(config.get_base_dir())
    else:
        run, seconds = train(config, on_step)
        if row.adapt == 0:  # zero-shot training reads no label, not even those that it is scored with
            run = load_run(config.get_base_dir())
    scene = plan.scenes.index(plan.scene)
    result = {
        "train_seconds": seconds,
        "machine": describe(run.model.device),
        "method": config.method_name,
        "scores": score(run, row, scene, plan.views, lambda done, total: progress("scoring", done, total)),
    }
    if not keep and not row.together:
        shutil.rmtree(config.get_base_dir(), ignore_errors=True)
    return result
