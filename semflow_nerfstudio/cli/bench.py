"""`semflow bench`: measurements, whose results the README's tables are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semflow_nerfstudio.cli.bench_speed import Scale, Speed
from semflow_nerfstudio.cli.bench_tasks import Tasks, TaskTables


@dataclass
class Quality:
    """Train and score configurations: main rows, ablations, robustness, baselines, withheld labels.

    Every run is one JSON file. What is there already is not made again, so an interrupted measurement goes on where it
    was. Scenes are folders in the Semantic Dynamic Scene layout; `withheld` is measured on those without held-out
    views, everything else on those with, and `generated` on built-in scenes that it makes.
    """

    scenes: list[Path] = field(default_factory=list)
    """Scenes to measure on."""
    groups: list[Literal["main", "ablations", "robustness", "baselines", "withheld", "generated", "all"]] = field(
        default_factory=lambda: ["all"]  # type: ignore[arg-type]
    )
    """Which rows."""
    only: list[str] = field(default_factory=list)
    """Keep the rows whose names hold one of these words."""
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    """Seeds of training."""
    results: Path = Path("benchmarks/results/quality")
    """Where the JSON files are."""
    only_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Say what there is to measure and what is measured already, and stop."""
    steps: int | None = None
    """Training steps in place of each row's own."""
    views: int | None = None
    """Held-out views, evenly spread, in place of each row's own (24 at quarter size, all at half size)."""
    any_commit: bool = False
    """Also take results of other commits of the package for measured."""
    keep: bool = False
    """Keep the trained runs under `out`."""
    out: Path = Path("outputs/benchmarks/quality")
    """Where training writes."""

    def main(self) -> None:
        """Measure what is not measured yet."""
        from semflow_nerfstudio.benchmarking import quality
        from semflow_nerfstudio.benchmarking.quality_rows import chosen_rows
        from semflow_nerfstudio.benchmarking.records import Records
        from semflow_nerfstudio.cli.report import print_scores, progress

        if min(self.steps or 1, self.views or 1) < 1:
            raise ValueError("--steps and --views must be at least 1.")
        rows = chosen_rows(self.groups, self.only)
        if not self.scenes and any(row.make is None for row in rows):
            raise ValueError("--scenes is missing: only the group `generated` makes its own.")
        records, open_runs = Records(self.results), []
        for run in quality.planned(rows, self.scenes, self.seeds, self.steps, self.views, self.out):
            run.config()  # a wrong setting is found before the first hour of training
            reason, there = run.reason_not_to(), quality.find(records, run, self.any_commit)
            state = "measured" if there else f"not measured: {reason}" if reason else "to do"
            if state == "to do":
                open_runs.append(run)
            if self.only_list or reason:
                print(f"{run.title}: {state}")
        for number, run in enumerate([] if self.only_list else open_runs):
            if quality.find(records, run, self.any_commit):
                continue  # another row of this measurement is configured alike
            with progress(f"{number + 1}/{len(open_runs)} {run.title}") as update:
                result = quality.measure(
                    run, lambda what, done, total, note: update(done, total, f"{what} {note}"), self.keep
                )
            path = records.write(run.key, result)
            shown = ("psnr", "dynamic_psnr", "miou", "miou_moving", "boundary_f", "ece", "flow_epe_moving")
            print_scores(
                {name: result["scores"].get(name) for name in shown}, f"{run.title}, {result['train_seconds']:.0f} s"
            )
            print(path)


@dataclass
class Tables:
    """Print the tables of a folder of results as Markdown."""

    results: Path = Path("benchmarks/results/quality")
    """Where the JSON files are."""

    def main(self) -> None:
        """Print them."""
        from semflow_nerfstudio.benchmarking.quality_tables import TABLES
        from semflow_nerfstudio.benchmarking.records import Records

        records = Records(self.results).all()
        print("\n\n".join(f"{name}\n\n{make(records)}" for name, make in TABLES.items()))


@dataclass
class Bench:
    """Measure: `semflow bench quality --help`, `semflow bench speed --help`, `semflow bench tasks --help`."""

    what: (
        Annotated[Quality, tyro.conf.subcommand("quality")]
        | Annotated[Speed, tyro.conf.subcommand("speed")]
        | Annotated[Scale, tyro.conf.subcommand("scale")]
        | Annotated[Tasks, tyro.conf.subcommand("tasks")]
        | Annotated[TaskTables, tyro.conf.subcommand("task-tables")]
        | Annotated[Tables, tyro.conf.subcommand("tables")]
    )

    def main(self) -> None:
        """Run the measurement."""
        self.what.main()
