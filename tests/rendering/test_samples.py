"""Samples along rays."""

import torch

from semflow_nerfstudio.rendering.samples import Samples, heaviest, pick


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
