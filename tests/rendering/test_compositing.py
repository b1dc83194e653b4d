"""Blended volume rendering against plain loops, and at its limits."""

import math

import pytest
import torch
from torch import Tensor

from semflow_nerfstudio.rendering.compositing import (
    blended_weights,
    composite,
    entropy,
    field_weights,
    mean_distance,
    opacities,
    paper_blended_weights,
    transmittances,
)


def random_rays(rays: int = 64, samples: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Static and dynamic alphas and blending weights, with exact zeros and ones among them."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, rays, samples, generator=generator)
    values = values.where(torch.rand(values.shape, generator=generator) > 0.1, values.round())
    values[:2, : rays // 2] *= 0.05
    return values[0], values[1], values[2]


def loop(static: list[float], dynamic: list[float], blend: list[float]) -> tuple[list[float], list[float], float]:
    """The method's formulas for one ray, in Python's double precision."""
    left, static_weights, dynamic_weights = 1.0, [], []
    for a_s, a_d, b in zip(static, dynamic, blend, strict=True):
        p, q = b * a_d, (1 - b) * a_s
        alpha = 1 - (1 - p) * (1 - q)
        share = p / (p + q) if p + q > 0 else 0.0
        dynamic_weights.append(left * alpha * share)
        static_weights.append(left * alpha * (1 - share) if p + q > 0 else 0.0)
        left *= 1 - alpha
    return static_weights, dynamic_weights, left


def test_weights_sum_to_what_the_ray_loses() -> None:
    weights = blended_weights(*random_rays())
    torch.testing.assert_close(weights.total.sum(-1), 1 - weights.transmittance, atol=1e-5, rtol=0)
    assert (weights.static >= 0).all() and (weights.dynamic >= 0).all()


def test_blended_weights_match_a_plain_loop() -> None:
    static, dynamic, blend = random_rays(rays=16)
    weights = blended_weights(static, dynamic, blend)
    for ray in range(16):
        expected = loop(static[ray].tolist(), dynamic[ray].tolist(), blend[ray].tolist())
        got = (weights.static[ray], weights.dynamic[ray], weights.transmittance[ray])
        for mine, reference in zip(got, expected, strict=True):
            torch.testing.assert_close(mine.double(), torch.tensor(reference, dtype=torch.float64), atol=1e-6, rtol=0)


def test_field_weights_and_opacities_match_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    density, deltas = torch.rand(2, 8, 10, generator=generator) * 3
    weights = field_weights(opacities(density, deltas))
    for ray in range(8):
        optical_depth = 0.0
        for i in range(10):
            step = density[ray, i].item() * deltas[ray, i].item()
            expected = math.exp(-optical_depth) * (1 - math.exp(-step))
            assert weights[ray, i].item() == pytest.approx(expected, abs=1e-6)
            optical_depth += step


def test_tiny_opacities_keep_their_digits() -> None:
    alpha = opacities(torch.tensor([1e-9]), torch.tensor([1.0]))
    torch.testing.assert_close(alpha, torch.tensor([1e-9]))


@pytest.mark.parametrize("blend, alone", [(0.0, "static"), (1.0, "dynamic")])
def test_limits_of_blending_are_one_field_alone(blend: float, alone: str) -> None:
    static, dynamic, _ = random_rays()
    weights = blended_weights(static, dynamic, torch.full_like(static, blend))
    own, other = (weights.static, weights.dynamic) if alone == "static" else (weights.dynamic, weights.static)
    alphas = static if alone == "static" else dynamic
    torch.testing.assert_close(own, field_weights(alphas), atol=1e-6, rtol=0)
    assert torch.equal(other, torch.zeros_like(other))
    torch.testing.assert_close(weights.transmittance, transmittances(alphas)[1], atol=1e-6, rtol=0)


def test_paper_form_sums_to_four_thirds_where_ours_sums_to_one() -> None:
    opaque, half = torch.ones(1, 40), torch.full((1, 40), 0.5)
    assert paper_blended_weights(opaque, opaque, half).total.sum().item() == pytest.approx(4 / 3, abs=1e-5)
    assert blended_weights(opaque, opaque, half).total.sum().item() == pytest.approx(1, abs=1e-5)


def test_paper_form_equals_ours_where_one_field_is_empty() -> None:
    static, _, blend = random_rays()
    empty = torch.zeros_like(static)
    ours, papers = blended_weights(static, empty, blend), paper_blended_weights(static, empty, blend)
    torch.testing.assert_close(ours.static, papers.static)
    torch.testing.assert_close(ours.transmittance, papers.transmittance)


@pytest.mark.parametrize("weigh", [blended_weights, paper_blended_weights])
@pytest.mark.parametrize("static", [0.0, 1.0])
@pytest.mark.parametrize("dynamic", [0.0, 1.0])
@pytest.mark.parametrize("blend", [0.0, 0.5, 1.0])
def test_gradients_are_finite_at_extremes(weigh, static: float, dynamic: float, blend: float) -> None:
    inputs = [torch.full((2, 5), v, requires_grad=True) for v in (static, dynamic, blend)]
    weights = weigh(*inputs)
    (
        composite(weights.total, torch.rand(2, 5, 3)).sum() + mean_distance(weights.dynamic, torch.rand(2, 5)).sum()
    ).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)


def test_empty_space_can_become_dense() -> None:
    """The gradient of the weights at alpha 0 is that of a vanishing alpha, not 0."""
    static, dynamic = torch.zeros(1, 3, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    weights = blended_weights(static, dynamic, torch.full((1, 3), 0.25))
    (weights.static.sum() + 2 * weights.dynamic.sum()).backward()
    torch.testing.assert_close(static.grad, torch.full((1, 3), 0.75))
    torch.testing.assert_close(dynamic.grad, torch.full((1, 3), 0.5))


def test_gradients_of_blended_weights() -> None:
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.rand(2, 4, generator=generator, dtype=torch.float64).mul(0.9).add(0.05) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *x: tuple(blended_weights(*x)), [x.requires_grad_() for x in inputs])


def test_mean_distance_is_the_last_samples_where_nothing_is_seen() -> None:
    distances = torch.tensor([[1.0, 2.0, 4.0]]).expand(2, 3)
    weights = torch.tensor([[0.25, 0.0, 0.25], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(mean_distance(weights, distances), torch.tensor([2.5, 4.0]))


def test_entropy_is_relative_to_uniform() -> None:
    rows = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    torch.testing.assert_close(entropy(rows), torch.tensor([1.0, 0.0, 0.5]), atol=1e-6, rtol=0)
    assert entropy(torch.ones(3, 1)).tolist() == [0, 0, 0]


def test_harmonic_mean_keeps_to_the_surface_of_unbounded_scenes() -> None:
    """A hundredth of the weight at the far end of an unbounded scene is no place ten times as far."""
    weights, distances = torch.tensor([[0.99, 0.01]]), torch.tensor([[1.0, 800.0]])
    assert mean_distance(weights, distances).item() == pytest.approx(8.99)
    assert mean_distance(weights, distances, harmonic=True).item() == pytest.approx(1 / (0.99 + 0.01 / 800))
    weights = torch.zeros_like(weights)
    assert mean_distance(weights, distances, harmonic=True).item() == 800
