"""Samples along rays as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class Samples:
    """S samples along each of R rays, in scene units; `directions` have length one."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]
    times: Float[Tensor, "R 1"]
    """In [0, 1]."""
    starts: Float[Tensor, "R S"]
    """Distance along the ray where a sample begins."""
    ends: Float[Tensor, "R S"]

    @cached_property
    def distances(self) -> Float[Tensor, "R S"]:
        """Distance of the samples' midpoints along the ray."""
        return (self.starts + self.ends) / 2

    @property
    def deltas(self) -> Float[Tensor, "R S"]:
        return self.ends - self.starts

    @cached_property
    def positions(self) -> Float[Tensor, "R S 3"]:
        """Midpoints."""
        return self.origins[:, None] + self.directions[:, None] * self.distances[..., None]

    @property
    def sources(self) -> Float[Tensor, "R S 3"]:
        """Where the fields are read: at the midpoints, unless the scene is edited (`rendering/edited.py`)."""
        return self.positions

    @property
    def sample_directions(self) -> Float[Tensor, "R S 3"]:
        """The ray's direction at every sample (a view, no copy)."""
        return self.directions[:, None].expand(*self.starts.shape, 3)

    def sample_times(self) -> Float[Tensor, "R S 1"]:
        """The ray's time at every sample (a view, no copy)."""
        return self.times[:, None].expand(*self.starts.shape, 1)

    def rays(self, index: Int[Tensor, "Q"]) -> Samples:
        """The samples of some of the rays."""
        return Samples(
            self.origins[index], self.directions[index], self.times[index], self.starts[index], self.ends[index]
        )


def heaviest(weights: Float[Tensor, "R S"], count: int) -> Int[Tensor, "R k"]:
    """Indices of the `count` samples of each ray that weigh most, in order along the ray."""
    if count >= weights.shape[-1]:
        return torch.arange(weights.shape[-1], device=weights.device).expand_as(weights)
    return weights.detach().topk(count, dim=-1).indices.sort(dim=-1).values


def pick_weights(weights: Float[Tensor, "R S"], index: Int[Tensor, "R k"]) -> Float[Tensor, "R k"]:
    """Weights of the `heaviest` samples, standing in for all of the ray's.

    The heaviest one left out is subtracted, so that a sample fades in as it enters the selection and nothing jumps,
    and the rest is scaled to the ray's whole sum. The gradient is that of the weights scaled without the subtraction:
    where weights are much alike, what is left of them after it is small, and the scaling would blow up the gradient.
    """
    kept = weights.gather(1, index)
    if index.shape[-1] >= weights.shape[-1]:
        return kept
    total, values = weights.sum(-1, keepdim=True), weights.detach()
    threshold = values.topk(index.shape[-1] + 1, dim=-1).values[:, -1:]
    faded = _scaled_to_sum((kept.detach() - threshold).clamp(min=0), total.detach())
    if not weights.requires_grad:
        return faded
    plain = _scaled_to_sum(kept, total)
    return faded + (plain - plain.detach())


def _scaled_to_sum(weights: Float[Tensor, "R k"], total: Float[Tensor, "R 1"]) -> Float[Tensor, "R k"]:
    return weights * (total / weights.sum(-1, keepdim=True).clamp(min=1e-8)).clamp(max=1e4)


def pick(values: Float[Tensor, "R S *rest"], index: Int[Tensor, "R k"]) -> Float[Tensor, "R k *rest"]:
    """Values of the picked samples of each ray."""
    if values.dim() > 2:
        expanded = index.reshape(*index.shape, *([1] * (values.dim() - 2))).expand(*index.shape, *values.shape[2:])
        return values.gather(1, expanded)
    return values.gather(1, index)
