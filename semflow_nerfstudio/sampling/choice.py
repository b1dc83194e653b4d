"""Which sampler a scene gets."""

from __future__ import annotations

from typing import Literal

from semflow_nerfstudio.sampling.occupancy import OccupancySampling, OccupancySamplingConfig
from semflow_nerfstudio.sampling.proposal import ProposalSampling, ProposalSamplingConfig
from semflow_nerfstudio.scene import Scene

SamplerName = Literal["proposal", "occupancy"]
Sampling = ProposalSampling | OccupancySampling


def make_sampler(
    name: SamplerName, scene: Scene, proposal: ProposalSamplingConfig, occupancy: OccupancySamplingConfig
) -> Sampling:
    """The sampler of a scene; either takes its number of final samples from `proposal`."""
    if name == "occupancy":
        return OccupancySampling(scene, occupancy, proposal.samples)
    return ProposalSampling(scene, proposal)
