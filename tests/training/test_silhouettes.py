"""Movers held to their label's silhouette in the neighbouring frames."""

from dataclasses import replace

import pytest
import torch
from builders import HEIGHT, TIMES, WIDTH, random_samples
from test_objective import FRAMES, random_observed, rendered

from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.training.silhouettes import Silhouettes


def label_images(label: int) -> torch.Tensor:
    return torch.full((len(TIMES), HEIGHT, WIDTH), label, dtype=torch.uint8)


@pytest.mark.parametrize("step", [-1, 1])
def test_only_weight_that_lands_on_another_class_costs(step: int) -> None:
    scene, _, out = rendered(random_samples(torch.tensor(TIMES)[FRAMES]))
    seen = random_observed()
    seen = replace(seen, labels=torch.full_like(FRAMES, 2).to(torch.uint8), motion=torch.ones_like(seen.motion))

    def loss(label: int) -> torch.Tensor:
        value = Silhouettes({scene.name: label_images(label)}).loss(scene, out, seen, step)
        assert value is not None
        return value

    assert loss(2) == 0 and loss(IGNORE_LABEL) == 0
    wrong = loss(0)
    assert out.flow is not None
    live = out.flow.exists(step)
    assert 0 < wrong <= (out.flow.weights.sum(-1) * live).sum() / live.sum() + 1e-6, "points out of view say nothing"
    gradient = torch.autograd.grad(wrong, scene.dynamic_field.grid.table)[0]
    assert gradient.abs().max() > 0, "it thins what is in the wrong place"


def test_nothing_to_say_without_label_images() -> None:
    scene, _, out = rendered()
    assert Silhouettes(None).loss(scene, out, random_observed(), 1) is None
    unlabelled = replace(random_observed(), labels=None)
    assert Silhouettes({scene.name: label_images(0)}).loss(scene, out, unlabelled, 1) is None
