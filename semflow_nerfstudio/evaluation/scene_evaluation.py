"""Scores of several scenes: each scene's own, and their means."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from semflow_nerfstudio.evaluation.image_metrics import ImageEvaluation
from semflow_nerfstudio.evaluation.segmentation import mean_over_images


class SceneEvaluation:
    """One `ImageEvaluation` a scene."""

    def __init__(self, scenes: Sequence[str], class_names: Sequence[str], foreground: Bool[Tensor, "C"]) -> None:
        self.of = {name: ImageEvaluation(class_names, foreground) for name in scenes}
        """By scene."""

    def reset(self, foreground_only: bool = False) -> None:
        """Forget all images; `foreground_only` scores all classes that are not foreground as one from now on."""
        for evaluation in self.of.values():
            evaluation.reset(foreground_only)

    def add(
        self,
        scene: str,
        outputs: dict[str, Float[Tensor, "H W C"]],
        batch: dict[str, Tensor],
        class_colors: Float[Tensor, "C 3"],
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Score one image of a scene; see `ImageEvaluation.add`."""
        return self.of[scene].add(outputs, batch, class_colors)

    @property
    def images(self) -> list[dict[str, float]]:
        """Scores of all images."""
        return [image for evaluation in self.of.values() for image in evaluation.images]

    def result(self) -> dict[str, float]:
        """Scores since `reset`: of one scene, or with several the means over scenes and `SCENE/score` for each."""
        return join_scores({name: e.result() for name, e in self.of.items() if e.images})


def join_scores(scenes: dict[str, dict[str, float]]) -> dict[str, float]:
    """Scores of one scene; of several the means over the scenes that have a score, and each under `SCENE/score`."""
    if len(scenes) < 2:
        return next(iter(scenes.values()), {})
    each = {f"{name}/{key}": value for name, scores in scenes.items() for key, value in scores.items()}
    return mean_over_images(list(scenes.values())) | each
