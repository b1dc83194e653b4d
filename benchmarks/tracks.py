"""Measure point tracks: TAP-Vid's scores against the exact tracks of the built-in scene.

    python -m benchmarks.tracks [--run RUN]

Makes the built-in scene and trains it with all labels (or takes a run of it); points of its exact tracks are followed
from the frame that each is asked at through the whole clip. Writes one JSON under `benchmarks/results/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from benchmarks.editing import trained
from benchmarks.machine import describe
from semflow_nerfstudio.cli.report import finite, print_scores, write_json
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.tracking.scoring import read_true_tracks, score_tracks
from semflow_nerfstudio.tracking.tracker import Tracker, track_points

RESULTS = Path(__file__).parent / "results"


@dataclass
class Tracks:
    """Point tracks of the built-in scene."""

    size: str = "160x90"
    """Size of the scene's images."""
    steps: int = 1300
    """Training steps."""
    seed: int = 0
    """Seed of the training."""
    scene: Path | None = None
    """A scene of `semflow make-scene`, instead of making one."""
    run: Path | None = None
    """A run of the scene, instead of training one."""
    out: Path = field(default_factory=lambda: Path("outputs/benchmarks/tracks"))
    """Where the scene and the run go."""

    def main(self) -> None:
        """Train, follow, score."""
        scene = self.scene or self.out / f"built-in_{self.size}"
        if not scene.is_dir():
            make_scene(scene, SceneOptions(size=self.size))
        run, seconds = trained(scene, self.out, self.steps, self.seed, self.run)
        truth = read_true_tracks(scene)
        queries = truth.queries(Tracker(run).image_size)
        scores = finite(score_tracks(track_points(run, queries), truth))
        result = {
            "benchmark": "tracks",
            "scene": "built-in",
            "size": self.size,
            "steps": self.steps,
            "seed": self.seed,
            "points": len(queries),
            "train_seconds": seconds,
            "machine": describe(run.model.device),
            "scores": scores,
        }
        write_json(RESULTS / f"tracks_built-in_{self.size}_seed{self.seed}.json", result)
        print_scores(scores, f"{len(queries)} exact tracks")


if __name__ == "__main__":
    tyro.cli(Tracks).main()
