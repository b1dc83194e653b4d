"""Temperature of the class probabilities, fitted to the training rays while training runs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semflow_nerfstudio.scene_frames import IGNORE_LABEL

RATE = 0.05
"""Share of a Newton step that one batch makes: the scale is that of the last twenty batches or so."""
LEAST, MOST = 0.02, 50.0


class Calibration(nn.Module):
    """Divides logits by a temperature such that softmax gives probabilities that training labels bear out.

    The temperature takes no part in training: labels are never moved by it, only how sure they are.
    """

    inverse_temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inverse_temperature", torch.ones(()))

    def forward(self, logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        """Calibrated logits."""
        return logits * self.inverse_temperature

    @torch.no_grad()
    def update(self, logits: Float[Tensor, "R C"], labels: Int[Tensor, "R"]) -> None:
        """Move the temperature toward the one that makes a batch's labels most likely.

        With s = 1 / T the cross-entropy of s z has the derivative E[E_p z - z_y] and the second one E[Var_p z]: it is
        convex in s, and a part of a Newton step is taken. `IGNORE_LABEL` says nothing.
        """
        labelled = (labels != IGNORE_LABEL).to(logits)
        scale = self.inverse_temperature
        p = (logits * scale).softmax(-1)
        mean = (p * logits).sum(-1)
        given = logits.gather(-1, torch.where(labels == IGNORE_LABEL, 0, labels.long())[:, None])[:, 0]
        slope = ((mean - given) * labelled).sum()
        curvature = ((p * (logits - mean[:, None]).square()).sum(-1) * labelled).sum()
        step = slope / curvature.clamp(min=1e-6)
        # far from the optimum a Newton step may be anything: the scale changes by half at most, before the rate
        step = step.clamp(-0.5 * scale, 0.5 * scale)
        scale.copy_((scale - RATE * step).clamp(LEAST, MOST))
