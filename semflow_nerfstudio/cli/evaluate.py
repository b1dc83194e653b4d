"""`semflow eval`: scores of a trained run on its held-out views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Evaluate:
    """Score a trained run on held-out views."""

    run: tyro.conf.Positional[Path]
    """The run's folder, or its config.yml."""
    out: Path | None = None
    """JSON file to write; by default `evaluation.json` beside the run's config.yml."""
    views: int | None = None
    """Evaluate this many views, evenly spread, instead of all."""
    scene: str | None = None
    """Evaluate this scene of a run of several; by default all, and the mean over scenes."""
    foreground_only: bool = False
    """Score all classes that are not foreground as one ("foreground only")."""

    def main(self) -> None:
        """Evaluate with a progress display, print a table and write the JSON."""
        from semflow_nerfstudio.cli.report import finite, print_scores, progress, write_json
        from semflow_nerfstudio.runs import evaluate, evenly_spaced, load_run

        if self.views is not None and self.views < 1:
            raise ValueError(f"--views is {self.views}: use at least 1, or leave it out to score all views.")
        run = load_run(self.run)
        views = run.views(self.scene)
        if self.views is not None:
            views = [views[index] for index in evenly_spaced(len(views), self.views)]
        with progress("Evaluating") as update:
            scores = finite(evaluate(run, views, update, self.foreground_only))
        out = self.out or run.config.get_base_dir() / "evaluation.json"
        write_json(out, scores)
        print_scores(scores, f"{run.config.method_name}, {scores['eval_views']} held-out views")
        print(out)
