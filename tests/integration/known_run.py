"""A run whose fields are formulas: a ball that rolls in front of a wall beside a pillar, each of a class of its own."""

from __future__ import annotations

import torch
from analytic import (
    BALL,
    PILLAR,
    PILLAR_ID,
    PILLAR_RADIUS,
    DynamicFormula,
    FlowFormula,
    KnownObjects,
    ProposalFormula,
    StaticFormula,
)
from tiny_runs import model_of
from torch import Tensor, nn

from semflow_nerfstudio.fields.space import SceneSpace
from semflow_nerfstudio.runs import Run
from semflow_nerfstudio.sampling.proposal import ProposalSampling, ProposalSamplingConfig

WALL_CLASS, PILLAR_CLASS, BALL_CLASS = 0, 1, 2


class KnownInstances(KnownObjects):
    """Instance 0 is the ball, instance 1 the pillar."""

    def label(self, number: int) -> int:
        return BALL_CLASS if number == BALL else PILLAR_CLASS


def certain(labels: Tensor, count: int) -> Tensor:
    """Logits of labels."""
    return 8.0 * nn.functional.one_hot(labels, count).float()


def make_known(run: Run) -> None:
    """Put the formulas in place of what a run has learnt."""
    model = model_of(run)
    (name,) = model.scenes
    scene, count = model.scene(name), len(model.class_names)
    assert model.shared is not None and count > BALL_CLASS
    scene.space = SceneSpace(torch.tensor([[-1.0] * 3, [1.0] * 3]), True)
    scene.near, scene.far, scene.residual = None, None, False  # what the cameras see is in the box
    scene.static_field, scene.dynamic_field = StaticFormula(), DynamicFormula()  # type: ignore[assignment]
    scene.flow_field = FlowFormula(float(scene.timeline.tau))  # type: ignore[assignment]
    scene.proposal_fields = nn.ModuleList([ProposalFormula()])
    sampler = ProposalSampling(scene, ProposalSamplingConfig(proposal_samples=(48,), samples=24))
    sampler.set_step(1000)
    model.samplers[name] = sampler.eval()

    def static_logits(maps: Tensor, bank: nn.Module, points: Tensor) -> Tensor:
        pillar = (points - torch.tensor(PILLAR)).norm(dim=-1) < 1.2 * PILLAR_RADIUS
        return certain(torch.where(pillar, PILLAR_CLASS, WALL_CLASS), count)

    def flow_logits(maps: Tensor, bank: nn.Module, window: object, trajectories: Tensor, *_: object) -> Tensor:
        return certain(torch.full(trajectories.shape[:2], BALL_CLASS), count)

    model.shared.class_prior.counts.zero_()  # of other labels
    model.shared.static_logits = static_logits  # type: ignore[method-assign]
    model.shared.flow_logits = flow_logits  # type: ignore[method-assign]


__all__ = ["BALL", "BALL_CLASS", "PILLAR", "PILLAR_CLASS", "PILLAR_ID", "WALL_CLASS", "KnownInstances", "make_known"]
