"""Samples along rays."""

import pytest
import torch

from semflow_nerfstudio.rendering.samples import Samples, heaviest, pick, pick_weights


def make_samples() -> Samples:
    origins = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    directions = torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0]])
    edges = torch.tensor([[0.0, 1.0, 2.0, 4.0], [1.0, 2.0, 5.0, 6.0]])
    return Samples(origins, directions, torch.tensor([[0.0], [0.5]]), edges[:, :-1], edges[:, 1:])


def test_positions_are_midpoints() -> None:
    samples = make_samples()
    torch.testing.assert_close(samples.distances, torch.tensor([[0.5, 1.5, 3.0], [1.5, 3.5, 5.5]]))
    torch.testing.assert_close(samples.deltas, torch.tensor([[1.0, 1.0, 2.0], [1.0, 3.0, 1.0]]))
    torch.testing.assert_close(samples.positions[0, 2], torch.tensor([0.0, 0.0, 3.0]))
    torch.testing.assert_close(samples.positions[1, 0], torch.tensor([1.9, 3.2, 3.0]))


def test_rays_are_a_subset() -> None:
    samples = make_samples()
    some = samples.rays(torch.tensor([1]))
    assert torch.equal(some.positions, samples.positions[1:])
    assert torch.equal(some.sample_times(), samples.sample_times()[1:])


def test_heaviest_samples_stay_in_order_along_the_ray() -> None:
    weights = torch.tensor([[0.1, 0.3, 0.2], [0.5, 0.0, 0.4]])
    picked = heaviest(weights, 2)
    assert picked.tolist() == [[1, 2], [0, 2]]
    assert heaviest(weights, 9).tolist() == [[0, 1, 2], [0, 1, 2]]
    torch.testing.assert_close(pick(weights, picked), torch.tensor([[0.3, 0.2], [0.5, 0.4]]))
    values = torch.rand(2, 3, 2, 4)
    assert torch.equal(pick(values, picked)[1, 1], values[1, 2])


def test_picked_weights_by_hand() -> None:
    weights = torch.tensor([[0.1, 0.3, 0.2, 0.05]])
    # less the heaviest one left out, 0.1, they are 0.2 and 0.1, and all weights sum to 0.65
    expected = torch.tensor([[2, 1]]) * 0.65 / 3
    torch.testing.assert_close(pick_weights(weights, heaviest(weights, 2)), expected)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 99])
def test_picked_weights_keep_the_whole_sum(count: int) -> None:
    weights = torch.rand(20, 8, generator=torch.Generator().manual_seed(0)) ** 4
    kept = pick_weights(weights, heaviest(weights, count))
    assert (kept >= 0).all() and kept.shape == (20, min(count, 8))
    torch.testing.assert_close(kept.sum(-1), weights.sum(-1))
    if count >= 8:
        assert torch.equal(kept, weights)


def test_samples_fade_in_as_they_enter_the_selection() -> None:
    """One sample overtakes another: each sample's share moves no faster than the weights do."""
    t = torch.linspace(0, 1, 2001)[:, None]
    weights = (1 - t) * torch.tensor([[0.5, 0.2, 0.1, 0.05]]) + t * torch.tensor([[0.4, 0.1, 0.25, 0.05]])
    picked = heaviest(weights, 2)
    assert len(picked.unique(dim=0)) == 2
    shares = torch.zeros_like(weights).scatter(1, picked, pick_weights(weights, picked))
    assert shares.diff(dim=0).abs().max() < 1e-3


def test_gradient_of_picked_weights_is_that_of_weights_that_do_not_fade() -> None:
    """Also where the heaviest weights are nearly equal, and fading leaves next to nothing of them to divide by."""
    weights = torch.tensor([[0.1, 0.3001, 0.2999, 0.2998]], dtype=torch.double, requires_grad=True)
    logits = torch.tensor([2.0, -1.0], dtype=torch.double)
    (pick_weights(weights, heaviest(weights, 2))[0] @ logits).backward()
    assert weights.grad is not None
    # S = total (2 a - b) / (a + b) with a = .3001, b = .2999, total = .9998
    a, b, total = 0.3001, 0.2999, 0.9998
    mean = (2 * a - b) / (a + b)
    expected = [mean, mean + total * (2 - mean) / (a + b), mean + total * (-1 - mean) / (a + b), mean]
    torch.testing.assert_close(weights.grad[0], torch.tensor(expected, dtype=torch.double))


def test_picked_weights_of_a_ray_that_sees_nothing() -> None:
    weights = torch.zeros(1, 6, requires_grad=True)
    kept = pick_weights(weights, heaviest(weights, 2))
    kept.sum().backward()
    assert not kept.any() and weights.grad is not None and weights.grad.isfinite().all()
