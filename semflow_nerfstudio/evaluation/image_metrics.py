"""Scores of rendered images, one by one and over a whole evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semflow_nerfstudio.evaluation.calibration import BINS, confidence_histogram, expected_calibration_error
from semflow_nerfstudio.evaluation.metrics import dynamic_psnr, lpips, psnr, ssim
from semflow_nerfstudio.evaluation.segmentation import SegmentationAccumulator, mean_over_images
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.visuals.colors import colorize_labels

SSIM_WINDOW = 11
"""Images with a side shorter than this have no SSIM."""


class ImageEvaluation:
    """Accumulates scores of evaluation images; plain values, nothing that belongs to the network."""

    def __init__(self, class_names: Sequence[str], foreground: Bool[Tensor, "C"]) -> None:
        self.class_names = tuple(class_names)
        self.foreground = [bool(f) for f in foreground]
        self.reset()

    def reset(self, foreground_only: bool = False) -> None:
        """Forget all images; `foreground_only` scores all classes that are not foreground as one from now on."""
        self.segmentation = SegmentationAccumulator(
            len(self.class_names), self.foreground, self.class_names, merge_static=foreground_only
        )
        self.images: list[dict[str, float]] = []
        self.calibration = torch.zeros(BINS, 3, dtype=torch.float64)

    def add(
        self, outputs: dict[str, Float[Tensor, "H W C"]], batch: dict[str, Tensor], class_colors: Float[Tensor, "C 3"]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Score one image.

        Returns:
            Scores, NaN where the image has nothing to score; and pictures (truth beside prediction).
        """
        rgb = outputs["rgb"]
        truth = batch["image"].to(rgb)[..., :3]
        scores = {"psnr": float(psnr(rgb, truth)), "ssim": math.nan}
        if min(rgb.shape[:2]) >= SSIM_WINDOW:
            scores["ssim"] = float(ssim(rgb, truth))
        perceptual = lpips(rgb, truth)
        if perceptual is not None:
            scores["lpips"] = float(perceptual)
        pictures = {"img": torch.cat([truth, rgb], dim=1), "depth": outputs["depth"] / outputs["depth"].max()}
        pictures["depth"] = pictures["depth"].expand(*rgb.shape[:2], 3)
        if self.class_names:
            labels = batch.get("labels")
            known = torch.full(rgb.shape[:2], IGNORE_LABEL) if labels is None else labels[..., 0].cpu()
            scores |= self.segmentation.add(outputs["label"][..., 0].long().cpu(), known)
            if "semantic_confidence" in outputs:
                right = outputs["label"][..., 0].long().cpu() == known.long()
                seen = known != IGNORE_LABEL
                confidence = outputs["semantic_confidence"][..., 0].cpu()
                self.calibration += confidence_histogram(confidence[seen], right[seen])
            moving = torch.tensor([*self.foreground, *[False] * (IGNORE_LABEL + 1 - len(self.foreground))])[
                known.long()
            ]
            scores["dynamic_psnr"] = float(dynamic_psnr(rgb, truth, moving.to(rgb.device)))
            seen = colorize_labels(known.long().to(rgb.device), class_colors)
            pictures["semantics"] = torch.cat([seen, outputs["semantics"]], dim=1)
        self.images.append(scores)
        return scores, pictures

    def result(self) -> dict[str, float]:
        """Means over images and data-set level scores of everything added since `reset`.

        `ece`, the expected calibration error of the confidence over all labelled pixels, is among them.
        """
        result = mean_over_images(self.images)
        if not self.class_names:
            return result
        return result | self.segmentation.result() | {"ece": expected_calibration_error(self.calibration)}
