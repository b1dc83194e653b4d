"""Shared semantic networks and per-scene residuals."""

import torch

from semflow_nerfstudio.flow.semantic_network import SceneResidual, SemanticNetwork


def test_residual_starts_at_zero_and_learns() -> None:
    torch.manual_seed(0)
    residual, trunk = SceneResidual(5, 3), torch.randn(2, 4, 5)
    logits = residual(trunk)
    assert torch.equal(logits, torch.zeros(2, 4, 3))
    logits[..., 0].sum().backward()
    last = residual.layers[-1]
    assert last.weight.grad.abs().max() > 0  # type: ignore[union-attr]


def test_network_gives_a_logit_a_class_for_each_flow() -> None:
    torch.manual_seed(0)
    network, features = SemanticNetwork(6, 4), torch.randn(5, 7, 6)
    logits = network(features)
    assert logits.shape == (5, 7, 4)
    torch.testing.assert_close(logits[2, 3], network(features[2, 3]))
    assert (logits[0, 0] - logits[1, 0]).abs().max() > 0
