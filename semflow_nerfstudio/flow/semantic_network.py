"""Semantic networks: what a flow, or a static point, is (paper section 3.4)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.fields.mlp import mlp, zero_init


class SemanticNetwork(nn.Module):
    """Feature -> one logit vector. Shared by all scenes: it reads image features, never a scene's own field."""

    def __init__(self, in_dim: int, num_classes: int, hidden_dim: int = 64, num_hidden: int = 1) -> None:
        super().__init__()
        self.layers = mlp(in_dim, hidden_dim, num_classes, num_hidden)

    def forward(self, features: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch C"]:
        return self.layers(features)


class SceneResidual(nn.Module):
    """A field's own trunk feature -> logits added to the shared ones. Zero at the start, one per scene and field."""

    def __init__(self, trunk_dim: int, num_classes: int, hidden_dim: int = 32) -> None:
        super().__init__()
        self.layers = mlp(trunk_dim, hidden_dim, num_classes)
        zero_init(self.layers[-1])

    def forward(self, trunk: Float[Tensor, "*batch G"]) -> Float[Tensor, "*batch C"]:
        return self.layers(trunk)
