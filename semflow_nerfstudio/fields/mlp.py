"""Small networks and activations that all fields share."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class _TruncatedExp(torch.autograd.Function):
    """exp whose gradient is clamped, so that a few huge logits cannot destroy a field."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.clamp(max=15))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * torch.exp(x.clamp(-15, 15))


def truncated_exp(x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """exp(x) with a clamped gradient: the density activation (instant-ngp)."""
    return _TruncatedExp.apply(x)  # type: ignore[return-value]


def full_precision(x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Half-precision values, as autocast makes them, in float32; others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Mlp(nn.Sequential):
    """Layers whose output is never in half precision: densities are exponentials of it."""

    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return full_precision(super().forward(input))


def mlp(in_dim: int, hidden_dim: int, out_dim: int, num_hidden: int = 1, bias: bool = True) -> Mlp:
    """Linear layers with ReLU between them; `num_hidden` hidden layers of width `hidden_dim`.

    Fields leave the biases out, as instant-ngp does: their grids can learn any, and on a CPU they cost a third.
    """
    layers: list[nn.Module] = []
    width = in_dim
    for _ in range(num_hidden):
        layers += [nn.Linear(width, hidden_dim, bias=bias), nn.ReLU(inplace=True)]
        width = hidden_dim
    return Mlp(*layers, nn.Linear(width, out_dim, bias=bias))


def zero_init(layer: nn.Module) -> None:
    """Zero weight and bias of a linear layer: what it feeds starts as if it were not there."""
    assert isinstance(layer, nn.Linear)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def spherical_harmonics(directions: Float[Tensor, "*batch 3"], degree: int) -> Float[Tensor, "*batch D"]:
    """Real spherical harmonics of unit directions up to band `degree` - 1 (at most 3 bands, D = degree squared)."""
    if not 1 <= degree <= 3:
        raise ValueError(f"spherical harmonics are implemented for 1 to 3 bands, not {degree}")
    x, y, z = directions.unbind(-1)
    bands = [torch.full_like(x, 0.28209479)]
    if degree > 1:
        bands += [0.48860251 * y, 0.48860251 * z, 0.48860251 * x]
    if degree > 2:
        bands += [
            1.09254843 * x * y,
            1.09254843 * y * z,
            0.31539157 * (3 * z * z - 1),
            1.09254843 * x * z,
            0.54627422 * (x * x - y * y),
        ]
    return torch.stack(bands, dim=-1)


def frequency_encoding(values: Float[Tensor, "*batch D"], num_frequencies: int) -> Float[Tensor, "*batch E"]:
    """The values themselves and their sines and cosines at octaves from 1 (E = D (1 + 2 num_frequencies))."""
    octaves = 2.0 ** torch.arange(num_frequencies, device=values.device, dtype=values.dtype)
    phases = (values[..., None] * octaves).flatten(-2)
    return torch.cat([values, phases.sin(), phases.cos()], dim=-1)
