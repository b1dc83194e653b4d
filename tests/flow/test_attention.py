"""Attention over the tokens of a flow."""

import pytest
import torch
from builders import shake
from torch import Tensor, nn

from semflow_nerfstudio.flow.aggregation import FlowTokens
from semflow_nerfstudio.flow.attention import FlowAttention, MeanAggregation, weighted_attention, weighted_mean

WIDTH, TOKENS, FLOWS, FEATURES = 8, 4, 10, 5


def random_tokens(seed: int = 0) -> FlowTokens:
    generator = torch.Generator().manual_seed(seed)
    return FlowTokens(
        torch.randn(FLOWS, TOKENS, FEATURES, generator=generator), torch.rand(FLOWS, TOKENS, generator=generator)
    )


def random_attention(num_layers: int = 2) -> FlowAttention:
    torch.manual_seed(0)
    module = FlowAttention(FEATURES, WIDTH, num_heads=2, num_layers=num_layers)
    shake(module)
    return module


def both() -> list[nn.Module]:
    torch.manual_seed(0)
    return [random_attention(), MeanAggregation(FEATURES, WIDTH)]


def test_attention_is_the_softmax_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, FLOWS, 2, TOKENS, 3, generator=generator, dtype=torch.float64)
    expected = torch.softmax(q @ k.transpose(-1, -2) / 3**0.5, dim=-1) @ v
    got = weighted_attention(q, k, v, torch.ones(FLOWS, TOKENS, dtype=torch.float64))
    torch.testing.assert_close(got, expected)


def test_token_of_weight_two_counts_as_two() -> None:
    q, k, v = torch.randn(3, 1, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    doubled = weighted_attention(q, k, v, torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64))
    index = torch.tensor([0, 1, 1, 2])
    repeated = weighted_attention(q, k[:, :, index], v[:, :, index], torch.ones(1, 4, dtype=torch.float64))
    torch.testing.assert_close(doubled, repeated)


def plain(module: FlowAttention, features: Tensor) -> Tensor:
    """The whole block by torch's own attention, for tokens that all count fully."""
    x = module.project(features)
    for layer in module.layers:
        q, k, v = layer["qkv"](layer["norm"](x)).chunk(3, dim=-1)  # type: ignore[index]
        heads = [t.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for t in (q, k, v)]
        mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)
        x = x + layer["out"](mixed)  # type: ignore[index]
        x = x + layer["mlp"](layer["mlp_norm"](x))  # type: ignore[index]
    return x.mean(dim=1)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_flow_attention_is_a_transformer_block(num_layers: int) -> None:
    module, tokens = random_attention(num_layers), random_tokens()
    got = module(FlowTokens(tokens.features, torch.ones(FLOWS, TOKENS)))
    torch.testing.assert_close(got, plain(module, tokens.features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("module", both(), ids=["attention", "mean"])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_tokens_of_no_weight_have_no_influence(module: nn.Module, size: float) -> None:
    features, weight = random_tokens()
    weight[:, 2] = 0
    changed = features.clone()
    changed[:, 2] = size * torch.randn(FLOWS, FEATURES, generator=torch.Generator().manual_seed(1))
    kept = [0, 1, 3]
    expected = module(FlowTokens(features, weight))
    torch.testing.assert_close(module(FlowTokens(changed, weight)), expected)
    torch.testing.assert_close(module(FlowTokens(features[:, kept], weight[:, kept])), expected)


def test_hidden_token_with_a_huge_score_does_not_drown_the_others() -> None:
    q = k = torch.tensor([1.0, 2.0, 100.0]).reshape(1, 1, 3, 1)
    v = torch.tensor([1.0, 3.0, 7.0]).reshape(1, 1, 3, 1)
    got = weighted_attention(q, k, v, torch.tensor([[1.0, 1.0, 0.0]]))[:, :, :2]
    torch.testing.assert_close(got, weighted_attention(q[:, :, :2], k[:, :, :2], v[:, :, :2], torch.ones(1, 2)))


@pytest.mark.parametrize("module", both(), ids=["attention", "mean"])
def test_output_is_continuous_as_a_token_fades(module: nn.Module) -> None:
    features, weight = random_tokens()

    def with_weight(value: float) -> Tensor:
        faded = weight.clone()
        faded[:, 1] = value
        return module(FlowTokens(features, faded))

    gone = with_weight(0.0)
    gaps = [(with_weight(w) - gone).abs().max().item() for w in (1e-2, 1e-4, 1e-6)]
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-3


@pytest.mark.parametrize("module", both(), ids=["attention", "mean"])
def test_flows_without_tokens_give_zeros_and_finite_gradients(module: nn.Module) -> None:
    features = random_tokens().features.requires_grad_()
    out = module(FlowTokens(features, torch.zeros(FLOWS, TOKENS)))
    assert torch.equal(out, torch.zeros(FLOWS, WIDTH))
    module.zero_grad()
    out.sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_order_of_tokens_does_not_matter() -> None:
    features, weight = random_tokens()
    for module in both():
        expected = module(FlowTokens(features, weight))
        torch.testing.assert_close(module(FlowTokens(features.flip(1), weight.flip(1))), expected)


def test_every_weight_of_the_attention_learns() -> None:
    module = random_attention()
    module(random_tokens()).square().sum().backward()
    # Keys' biases shift all scores of a query alike, which softmax does not see.
    still = [n for n, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert still == []


def test_mean_aggregation_is_a_weighted_mean() -> None:
    torch.manual_seed(0)
    module, (features, weight) = MeanAggregation(FEATURES, WIDTH), random_tokens()
    values = module.project(features)
    expected = (values * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
    torch.testing.assert_close(module(FlowTokens(features, weight)), expected)


def test_weighted_mean_vanishes_with_its_last_token() -> None:
    values = torch.ones(1, 1, 2)
    assert weighted_mean(values, torch.tensor([[0.5]])).tolist() == [[1, 1]]
    torch.testing.assert_close(weighted_mean(values, torch.tensor([[1e-3]])), torch.full((1, 2), 1e-2))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of its 3 heads"):
        FlowAttention(FEATURES, 8, num_heads=3)


def test_attention_that_tokens_receive() -> None:
    """It sums to one over the tokens that count, and is the mean over these of the first layer's own weights."""
    attention, tokens = random_attention(), random_tokens()
    tokens.weight[0, 2] = 0
    got = attention.received(tokens)
    assert got.shape == (len(tokens.weight), 2, tokens.weight.shape[1])
    torch.testing.assert_close(got.sum(-1), torch.ones_like(got.sum(-1)))
    assert got.transpose(1, 2)[tokens.weight == 0].abs().max() < 1e-6
    layer = attention.layers[0]
    assert isinstance(layer, nn.ModuleDict)
    x = attention.project(tokens.features)
    queries, keys, _ = layer["qkv"](layer["norm"](x)).chunk(3, dim=-1)
    flow, head = 1, slice(4, 8)  # the second head, token by token
    scores = torch.softmax(queries[flow, :, head] @ keys[flow, :, head].T / 2 + tokens.weight[flow].log(), -1)
    asked = tokens.weight[flow] / tokens.weight[flow].sum()
    torch.testing.assert_close(got[flow, 1], (scores * asked[:, None]).sum(0))
