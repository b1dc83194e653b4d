"""Volume rendering of a static and a dynamic field, separately and blended (paper section 3.4). Pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class BlendedWeights(NamedTuple):
    """Weights of the samples when both fields are rendered together."""

    static: Float[Tensor, "*rays S"]
    dynamic: Float[Tensor, "*rays S"]
    transmittance: Float[Tensor, "*rays"]
    """What is left behind the last sample, T_end."""

    @property
    def total(self) -> Float[Tensor, "*rays S"]:
        """Weight of a sample whatever field it belongs to; sums to 1 - T_end (but for the paper's form)."""
        return self.static + self.dynamic


def opacities(density: Float[Tensor, "*rays S"], deltas: Float[Tensor, "*rays S"]) -> Float[Tensor, "*rays S"]:
    """alpha = 1 - exp(-sigma delta)."""
    return -torch.expm1(-density * deltas)


def transmittances(alphas: Float[Tensor, "*rays S"]) -> tuple[Float[Tensor, "*rays S"], Float[Tensor, "*rays"]]:
    """Light left before each sample, T_i = prod_{j<i} (1 - alpha_j), and behind the last one."""
    through = torch.cumprod(1 - alphas, dim=-1)
    before = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)
    return before, through[..., -1]


def field_weights(alphas: Float[Tensor, "*rays S"]) -> Float[Tensor, "*rays S"]:
    """Weights T_i alpha_i of one field alone."""
    return transmittances(alphas)[0] * alphas


def blended_weights(
    static_alphas: Float[Tensor, "*rays S"],
    dynamic_alphas: Float[Tensor, "*rays S"],
    blend: Float[Tensor, "*rays S"],
) -> BlendedWeights:
    """Weights of both fields rendered together.

    With p = b a^d and q = (1 - b) a^s a sample stops 1 - (1 - p)(1 - q) of the light, split in proportion p : q,
    so that the weights sum to 1 - T_end.
    """
    p = blend * dynamic_alphas
    q = (1 - blend) * static_alphas
    before, left = transmittances(p + q - p * q)
    # p q is what both would stop. In this form values and gradients are right where both vanish, too.
    both = p * q / (p + q).clamp(min=1e-10)
    return BlendedWeights(static=before * q * (1 - both), dynamic=before * p * (1 - both), transmittance=left)


def paper_blended_weights(
    static_alphas: Float[Tensor, "*rays S"],
    dynamic_alphas: Float[Tensor, "*rays S"],
    blend: Float[Tensor, "*rays S"],
) -> BlendedWeights:
    """The reference's form: weights T_i p_i and T_i q_i, which can sum to 4/3. For the paper variant only."""
    p = blend * dynamic_alphas
    q = (1 - blend) * static_alphas
    before, left = transmittances(p + q - p * q)
    return BlendedWeights(static=before * q, dynamic=before * p, transmittance=left)


def composite(weights: Float[Tensor, "*rays S"], values: Float[Tensor, "*rays S C"]) -> Float[Tensor, "*rays C"]:
    """Weighted sum along the ray."""
    # Not a batched matrix product: with one row and few columns that is several times slower on a CPU.
    return (weights[..., None] * values).sum(-2)


def mean_distance(
    weights: Float[Tensor, "*rays S"], distances: Float[Tensor, "*rays S"], harmonic: bool = False, eps: float = 1e-6
) -> Float[Tensor, "*rays"]:
    """Expected distance along the ray of what is seen; the last sample where nothing is.

    `harmonic` takes one over the expected inverse distance: for unbounded scenes, where a trace of weight at the far
    end, a thousand times farther, would carry the mean away from every surface.
    """
    total = weights.sum(-1)
    values = 1 / distances.clamp(min=eps) if harmonic else distances
    mean = (weights * values).sum(-1) / total.clamp(min=eps)
    mean = 1 / mean.clamp(min=eps) if harmonic else mean
    return torch.where(total > eps, mean, distances[..., -1])


def entropy(probabilities: Float[Tensor, "*rays C"]) -> Float[Tensor, "*rays"]:
    """Entropy relative to the uniform distribution, in [0, 1]."""
    count = probabilities.shape[-1]
    if count < 2:
        return torch.zeros_like(probabilities[..., 0])
    bits = -(probabilities * probabilities.clamp(min=1e-10).log()).sum(-1)
    return bits / torch.log(torch.tensor(float(count)))
