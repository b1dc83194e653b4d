"""nerfstudio's proposal sampling with densities that know the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.model_components.losses import interlevel_loss, ray_samples_to_sdist
from nerfstudio.model_components.ray_samplers import (
    LinearDisparitySampler,
    ProposalNetworkSampler,
    SpacedSampler,
    UniformLinDispPiecewiseSampler,
    UniformSampler,
)
from torch import Tensor, nn

from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.sampling.collider import set_near_far
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene import Scene


@dataclass
class ProposalSamplingConfig(SavedConfig):
    """Proposal sampling."""

    proposal_samples: tuple[int, ...] = (64,)
    """Samples of each proposal pass, coarse to fine; as many passes as the scene has proposal fields."""
    samples: int = 24
    """Samples that the fields are evaluated at."""
    update_every: int = 3
    """Steps between updates of the proposal fields once they have warmed up."""
    warmup: int = 200
    """Steps until then."""
    anneal_steps: int = 200
    """Steps until proposals are trusted fully (mip-NeRF 360, eq. 18)."""
    anneal_slope: float = 10.0
    """How soon they are trusted."""


Density = Callable[..., Float[Tensor, "R S 1"]]
"""(level, positions (R, S, 3), times (R, 1)) -> density, as `Scene.proposal_density`."""


class Proposed(NamedTuple):
    """What sampling hands on for its own losses."""

    ray_samples: list[RaySamples]
    weights: list[Float[Tensor, "R S 1"]]


def initial_sampler(scene: Scene) -> SpacedSampler:
    """Spacing along the rays of a scene before anything is known about it."""
    if scene.near is not None and scene.far is not None:
        return LinearDisparitySampler(single_jitter=True)
    if scene.bounded:
        return UniformSampler(single_jitter=True)
    return UniformLinDispPiecewiseSampler(single_jitter=True)


class ProposalSampling(nn.Module):
    """Samples rays of one scene where its proposal densities are."""

    def __init__(self, scene: Scene, config: ProposalSamplingConfig) -> None:
        super().__init__()
        levels = len(scene.proposal_fields)
        if len(config.proposal_samples) != levels:
            count = len(config.proposal_samples)
            raise ValueError(f"proposal_samples has {count} entries for {levels} proposal fields")
        self.config = config
        self.sampler = ProposalNetworkSampler(
            num_proposal_samples_per_ray=config.proposal_samples,
            num_nerf_samples_per_ray=config.samples,
            num_proposal_network_iterations=levels,
            single_jitter=True,
            update_sched=self._update_interval,
            initial_sampler=initial_sampler(scene),
        )

    def _update_interval(self, step: int) -> float:
        return float(np.interp(step, [0, self.config.warmup], [0, self.config.update_every]))

    def set_step(self, step: int) -> None:
        """Tell the sampler how far training is."""
        fraction = min(1.0, step / max(1, self.config.anneal_steps))
        slope = self.config.anneal_slope
        self.sampler.set_anneal(slope * fraction / ((slope - 1) * fraction + 1))
        self.sampler.step_cb(step)

    def forward(
        self, rays: RayBundle, times: Float[Tensor, "R 1"], scene: Scene, density: Density | None = None
    ) -> tuple[Samples, Proposed]:
        """Rays -> samples, and what the proposal losses need; `density` stands in for the scene's own."""
        rays = set_near_far(rays, scene)
        density = density or scene.proposal_density
        densities = [partial(density, i, times=times) for i in range(len(scene.proposal_fields))]
        final, weights, ray_samples = self.sampler(rays, density_fns=densities)
        frustums = final.frustums
        samples = Samples(
            origins=rays.origins,
            directions=rays.directions,
            times=times,
            starts=frustums.starts[..., 0],
            ends=frustums.ends[..., 0],
        )
        return samples, Proposed([*ray_samples, final], weights)


def proposal_losses(proposed: Proposed, weights: Float[Tensor, "R S"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Interlevel and distortion losses for the final weights."""
    every = [*proposed.weights, weights[..., None]]
    trained = any(w.requires_grad for w in proposed.weights)
    interlevel = interlevel_loss(every, proposed.ray_samples) if trained else weights.new_zeros(())
    return torch.as_tensor(interlevel), distortion_loss(ray_samples_to_sdist(proposed.ray_samples[-1]), weights)


def distortion_loss(edges: Float[Tensor, "R E"], weights: Float[Tensor, "R S"]) -> Float[Tensor, ""]:
    """mip-NeRF 360's distortion loss of the intervals between ascending edges.

    sum_ij w_i w_j |m_i - m_j| by running sums, as the middles m ascend: S terms a ray where nerfstudio's has S squared.
    """
    middle, length = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=-1)
    moment = weights * middle
    before, moment_before = weights.cumsum(-1) - weights, moment.cumsum(-1) - moment
    between = 2 * (weights * (middle * before - moment_before)).sum(-1)
    return (between + (weights.square() * length).sum(-1) / 3).mean()
