"""Flow attention: multi-head self-attention over the tokens of one flow (paper section 3.3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.fields.mlp import mlp
from semflow_nerfstudio.flow.aggregation import FlowTokens


def attention_weights(
    queries: Float[Tensor, "P H K D"], keys: Float[Tensor, "P H K D"], weight: Float[Tensor, "P K"]
) -> Float[Tensor, "P H K K"]:
    """softmax(q k^T / sqrt(D) + log w): a token of weight w counts as w tokens would; of weight 0, not at all."""
    # Products and sums instead of batched matrix products, which are slow where thousands of flows have three tokens.
    scores = (queries[..., :, None, :] * keys[..., None, :, :]).sum(-1) / queries.shape[-1] ** 0.5
    # A large finite number and not -inf, so that a flow without any token has finite values and gradients.
    bias = torch.where(weight > 0, weight.clamp(min=1e-30).log(), -1e4)
    return torch.softmax(scores + bias[:, None, None, :], dim=-1)


def weighted_attention(
    queries: Float[Tensor, "P H K D"],
    keys: Float[Tensor, "P H K D"],
    values: Float[Tensor, "P H K D"],
    weight: Float[Tensor, "P K"],
) -> Float[Tensor, "P H K D"]:
    """Attention over the tokens of P flows: `attention_weights` times the values."""
    return attention_weights(queries, keys, weight) @ values


class FlowAttention(nn.Module):
    """Self-attention over a flow's tokens, then their weighted mean. Flows without a token give zeros."""

    def __init__(self, token_dim: int, width: int = 32, num_heads: int = 2, num_layers: int = 1) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"attention width {width} must be a multiple of its {num_heads} heads")
        self.num_heads, self.width = num_heads, width
        self.project = nn.Linear(token_dim, width)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "mlp_norm": nn.LayerNorm(width),
                    "mlp": mlp(width, 2 * width, width),
                }
            )
            for _ in range(num_layers)
        )

    def forward(self, tokens: FlowTokens) -> Float[Tensor, "P width"]:
        x = self.project(tokens.features)
        flows, count, _ = x.shape
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            queries, keys, values = self.split(layer, x)
            mixed = weighted_attention(queries, keys, values, tokens.weight)
            x = x + layer["out"](mixed.transpose(1, 2).reshape(flows, count, self.width))
            x = x + layer["mlp"](layer["mlp_norm"](x))
        return weighted_mean(x, tokens.weight)

    def split(self, layer: nn.ModuleDict, x: Float[Tensor, "P K width"]) -> Float[Tensor, "3 P H K D"]:
        """Queries, keys and values of a layer."""
        return layer["qkv"](layer["norm"](x)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    @torch.no_grad()
    def received(self, tokens: FlowTokens) -> Float[Tensor, "P H K"]:
        """Attention of the first layer that each token gets from a flow's tokens, sums to 1 over them: what it sees."""
        layer = self.layers[0]
        assert isinstance(layer, nn.ModuleDict)
        queries, keys, _ = self.split(layer, self.project(tokens.features))
        asked = tokens.weight / tokens.weight.sum(-1, keepdim=True).clamp(min=1e-8)
        return (attention_weights(queries, keys, tokens.weight) * asked[:, None, :, None]).sum(-2)


class MeanAggregation(nn.Module):
    """The plain alternative to attention: project the tokens and average them."""

    def __init__(self, token_dim: int, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.project = mlp(token_dim, width, width)

    def forward(self, tokens: FlowTokens) -> Float[Tensor, "P width"]:
        return weighted_mean(self.project(tokens.features), tokens.weight)


def weighted_mean(values: Float[Tensor, "P K C"], weight: Float[Tensor, "P K"]) -> Float[Tensor, "P C"]:
    """Mean over tokens that goes to zero gently, over the last tenth of its weight, as the last token fades."""
    return (values * weight[..., None]).sum(1) / weight.sum(-1, keepdim=True).clamp(min=0.1)
