"""`semflow bench tasks`: training with few labels and adaptation to a new scene, measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class Tasks:
    """Measure completion, tracking, scribbles, two scenes in one model and adaptation, each beside its baselines.

    Every run is one JSON file. What is there already is not made again, so an interrupted measurement goes on where it
    was. Without scenes, built-in ones are made: one to measure on, two to adapt from. The second scene of a model of
    two is the next one in `scenes`, or the first source.
    """

    scenes: list[Path] = field(default_factory=list)
    """Scenes to measure on, folders in the Semantic Dynamic Scene layout with held-out views."""
    sources: list[Path] = field(default_factory=list)
    """Scenes that adaptations start from, with the same class names."""
    only: list[str] = field(default_factory=list)
    """Keep the rows whose names hold one of these words, such as completion, tracking-25, two-scenes, adaptation.
    "=NAME" keeps that row alone."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of training."""
    steps: int = 2000
    """Training steps for each scene; in adaptations those without labels, before those with."""
    source_steps: int | None = None
    """Steps of the run that adaptations start from; by default `steps`."""
    scale: int = 1
    """Downscale factor of the images."""
    views: int | None = None
    """Score this many held-out views for each protocol, evenly spread, instead of all."""
    size: str = "240x135"
    """Image size of the built-in scenes."""
    only_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Say what there is to measure and what is measured already, and stop."""
    any_commit: bool = False
    """Also take results of other commits of the package for measured."""
    keep: bool = False
    """Keep the trained runs."""
    results: Path = Path("benchmarks/results/tasks")
    """Where the JSON files are."""
    out: Path = Path("outputs/benchmarks/tasks")
    """Where runs and built-in scenes go."""

    def main(self) -> None:
        """Measure what is not measured yet."""
        from semflow_nerfstudio.benchmarking import tasks
        from semflow_nerfstudio.benchmarking.records import Records
        from semflow_nerfstudio.benchmarking.task_rows import BUILT_IN_NAMES, chosen_rows
        from semflow_nerfstudio.cli.report import print_scores, progress

        source_steps = self.steps if self.source_steps is None else self.source_steps
        if min(self.steps, source_steps, self.scale, self.views or 1) < 1:
            raise ValueError("--steps, --source-steps, --scale and --views must be at least 1")
        rows = chosen_rows(self.only)
        folder = tasks.built_in_folder(self.out) / self.size
        target, made = BUILT_IN_NAMES
        scenes = self.scenes or [folder / target]
        sources = tuple(self.sources or [folder / name for name in made])
        tasks.check_scenes(scenes, sources, self.out)
        records = Records(self.results)
        plans = [
            tasks.Plan(
                row,
                scene,
                seed,
                sources,
                self.steps,
                source_steps,
                self.scale,
                self.views,
                self.out,
                scenes[(number + 1) % len(scenes)] if len(scenes) > 1 else sources[0],
            )
            for number, scene in enumerate(scenes)
            for seed in self.seeds
            for row in rows
        ]
        open_plans = [plan for plan in plans if records.find(plan.key, self.any_commit) is None]
        if not self.only_list:
            tasks.make_built_in_scenes(open_plans, self.size)
        left = []
        for plan in plans:
            reason = plan.reason_not_to() if plan in open_plans else None
            if plan in open_plans and reason is None:
                left.append(plan)
            if self.only_list or reason:
                state = f"not measured: {reason}" if reason else "to do" if plan in left else "measured"
                print(f"{plan.title}: {state}")
        if self.only_list:
            return
        for plan in left:
            plan.config()  # a wrong setting is found before the first hour of training
        for number, plan in enumerate(left):
            with progress(f"{number + 1}/{len(left)} {plan.title}") as update:
                result = tasks.measure(plan, lambda what, done, total: update(done, total, what), self.keep)
            path = records.write(plan.key, result)
            for protocol, methods in result["scores"].items():
                for method, scores in methods.items():
                    shown = {name: scores.get(name) for name in ("views", "miou", "miou_moving", "J", "F")}
                    print_scores(shown, f"{plan.title}: {method} on {protocol}")
            print(path)


@dataclass
class TaskTables:
    """Print the tables of `semflow bench tasks` as Markdown."""

    results: tyro.conf.Positional[Path] = Path("benchmarks/results/tasks")
    """Where the JSON files are."""

    def main(self) -> None:
        """Print them."""
        from semflow_nerfstudio.benchmarking.records import Records
        from semflow_nerfstudio.benchmarking.task_tables import TABLES

        records = Records(self.results).all()
        print("\n\n".join(f"{name}\n\n{make(records)}" for name, make in TABLES.items()))
