"""Label images of many views scored together: accuracies, IoUs, and region J and boundary F of every object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from semflow_nerfstudio.evaluation.boundaries import boundary_f, davis_tolerance
from semflow_nerfstudio.evaluation.segmentation import SegmentationAccumulator, mean_of_known
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


class TaskScores:
    """Scores of predicted label images of one method on one set of views."""

    def __init__(self, class_names: Sequence[str], foreground: Sequence[bool]) -> None:
        self.class_names = list(class_names)
        self.foreground = [bool(flag) for flag in foreground]
        self.segmentation = SegmentationAccumulator(len(self.class_names), self.foreground, self.class_names)
        self.regions: dict[str, list[float]] = {}
        self.outlines: dict[str, list[float]] = {}
        self.views = 0

    def add(self, prediction: UInt8[np.ndarray, "H W"], truth: UInt8[np.ndarray, "H W"]) -> None:
        """Count one view; pixels of unknown truth are not scored."""
        self.views += 1
        self.segmentation.add(prediction, truth)
        known = truth != IGNORE_LABEL
        tolerance = davis_tolerance(*truth.shape)
        for class_id, (name, moves) in enumerate(zip(self.class_names, self.foreground, strict=True)):
            true, predicted = truth == class_id, (prediction == class_id) & known
            if not moves or not true.any():
                continue
            self.regions.setdefault(name, []).append(float((true & predicted).sum() / (true | predicted).sum()))
            self.outlines.setdefault(name, []).append(boundary_f(predicted, true, tolerance, ~known))

    def result(self) -> dict[str, float]:
        """`views`; those of `SegmentationAccumulator.result`; `J_<class>` and `F_<class>` of every foreground class,
        means over the views that show it (F with DAVIS' tolerance), and their means `J` and `F`."""
        regions = {f"J_{name}": mean_of_known(values) for name, values in self.regions.items()}
        outlines = {f"F_{name}": mean_of_known(values) for name, values in self.outlines.items()}
        means = {"J": mean_of_known(list(regions.values())), "F": mean_of_known(list(outlines.values()))}
        return {"views": self.views} | self.segmentation.result() | means | regions | outlines
