"""Measure instances: a run's, found from its own motion and semantics, against a scene's `instances/` images.

    python -m benchmarks.instances --scene PATH/TO/Courtyard [--run RUN]

True and found instances are paired one to one, so that the sum of their IoU over all training frames together is as
large as it can be: an instance that changes its id from frame to frame, or falls into pieces, scores for one part only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from numpy import ndarray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from benchmarks.editing import trained
from benchmarks.machine import describe
from semflow_nerfstudio.cli.report import print_scores, progress, write_json
from semflow_nerfstudio.data.resize import resize_nearest
from semflow_nerfstudio.export.export import export_run
from semflow_nerfstudio.export.options import ExportOptions

RESULTS = Path(__file__).parent / "results"
CLASS_UNIT = 10
"""Ids in `instances/` are the class's id times this, plus the instance's number."""


def paired(truth: ndarray, found: ndarray) -> dict[int, tuple[int, float]]:
    """True instances with the found ones that they are paired with, and the IoU of the two.

    Args:
        truth: Ids of all frames, (F, H, W).
        found: The same of the run; 0 is none.

    Returns:
        By true id: the found id (0: none is left for it) and the IoU.
    """
    true_ids, found_ids = np.unique(truth), np.setdiff1d(np.unique(found), [0])
    iou = np.zeros((len(true_ids), len(found_ids)))
    for i, one in enumerate(true_ids):
        for j, other in enumerate(found_ids):
            a, b = truth == one, found == other
            iou[i, j] = (a & b).sum() / (a | b).sum()
    pairs = dict(zip(*linear_sum_assignment(-iou), strict=True))
    return {
        int(one): (int(found_ids[pairs[i]]), float(iou[i, pairs[i]])) if i in pairs else (0, 0.0)
        for i, one in enumerate(true_ids)
    }


@dataclass
class Instances:
    """Instances of a run against a scene's."""

    scene: Path
    """Folder in the Semantic Dynamic Scene layout, with `instances/`."""
    downscale_factor: int = 4
    """Size of the images."""
    steps: int = 1000
    """Training steps."""
    seed: int = 0
    """Seed."""
    run: Path | None = None
    """A run of the scene, instead of training one."""
    out: Path = field(default_factory=lambda: Path("outputs/benchmarks/instances"))
    """Where the run and its masks go."""

    def main(self) -> None:
        """Train, export the instances' masks, score."""
        files = sorted((self.scene / "instances").glob("*.png"))
        if not files:
            raise ValueError(f"{self.scene}: it has no instances/ with images of instances' ids to score with")
        run, seconds = trained(self.scene, self.out, self.steps, self.seed, self.run, self.downscale_factor)
        masks = self.out / f"{self.scene.name}_masks_seed{self.seed}"
        with progress("Masks") as update:
            export_run(run, masks, ExportOptions(what=("masks",)), progress=update)
        found = np.stack([np.asarray(Image.open(file)) for file in sorted((masks / "masks/instances").glob("*.png"))])
        height, width = found.shape[1:]
        truth = np.stack([resize_nearest(np.asarray(Image.open(file)), width, height) for file in files])
        pairs = paired(truth, found)
        names, moving = run.model.class_names, run.model.get_buffer("foreground").tolist()
        iou = {f"{names[i // CLASS_UNIT]} {i % CLASS_UNIT}": value for i, (_, value) in pairs.items()}
        movers = [value for i, (_, value) in pairs.items() if moving[i // CLASS_UNIT]]
        scores = {
            "iou_moving": float(np.mean(movers)),
            "iou": float(np.mean(list(iou.values()))),
            "true_instances": len(pairs),
            "found_instances": len(np.setdiff1d(np.unique(found), [0])),
        }
        result = {
            "benchmark": "instances",
            "scene": self.scene.name,
            "size": f"1/{self.downscale_factor}",
            "steps": self.steps,
            "seed": self.seed,
            "frames": len(files),
            "train_seconds": seconds,
            "machine": describe(run.model.device),
            "scores": scores,
            "iou": iou,
        }
        write_json(RESULTS / f"instances_{self.scene.name.lower()}_seed{self.seed}.json", result)
        print_scores(scores | iou, f"instances of {self.scene.name}")


if __name__ == "__main__":
    tyro.cli(Instances).main()
