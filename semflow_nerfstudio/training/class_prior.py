"""How often classes are labelled: what to say of classes that no label names, and where nothing is seen."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semflow_nerfstudio.scene_frames import IGNORE_LABEL, NEVER


class ClassPrior(nn.Module):
    """Counts the training labels of every class. Takes no part in training.

    A class of the table that never occurs learns nothing but to be unlikely where something is seen; in the gaps
    between surfaces, where all logits are next to nothing, it would win.
    """

    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_classes))

    @torch.no_grad()
    def update(self, labels: Int[Tensor, "R"]) -> None:
        """Count a batch's labels; `IGNORE_LABEL` says nothing."""
        labelled = labels != IGNORE_LABEL
        batch = torch.zeros_like(self.counts)
        batch.index_add_(0, torch.where(labelled, labels, 0).long(), labelled.to(self.counts))
        self.counts += batch  # ones alone would be lost on a count of 2^24

    def forward(self, logits: Float[Tensor, "R C"], transmittance: Float[Tensor, "R"]) -> Float[Tensor, "R C"]:
        """Logits of rays, where the light that is left behind everything sees classes as often as they are labelled.

        Nothing changes while nothing was counted.
        """
        total = self.counts.sum()
        guess = (self.counts.clamp(min=0.5) / total.clamp(min=0.5)).log() * (total > 0)
        known = (self.counts > 0) | (total == 0)
        return torch.where(known, logits + transmittance[:, None] * guess, NEVER)
