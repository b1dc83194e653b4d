"""Colours for what the model computes: classes, flow, depth and scalars as RGB in [0, 1]. Only torch is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Rgb = tuple[float, float, float]

UNKNOWN_COLOR: Rgb = (0.0, 0.0, 0.0)
"""Colour of pixels that have no label, no flow or no depth."""

_FLOW_SEGMENTS = (
    # (steps to the next key colour, key colour), clockwise in the image from "to the right". The steps are those of
    # the Middlebury benchmark (Baker et al. 2011): few where hues look alike, so that equal angles look equally far.
    (15, (1.0, 0.0, 0.0)),
    (6, (1.0, 1.0, 0.0)),
    (4, (0.0, 1.0, 0.0)),
    (11, (0.0, 1.0, 1.0)),
    (13, (0.0, 0.0, 1.0)),
    (6, (1.0, 0.0, 1.0)),
)
_BEYOND_MAX_DIMMING = 0.75

_DEPTH_RAMP = (
    (0.19, 0.08, 0.30),
    (0.26, 0.36, 0.84),
    (0.18, 0.66, 0.95),
    (0.16, 0.90, 0.68),
    (0.56, 0.98, 0.33),
    (0.90, 0.86, 0.20),
    (0.98, 0.57, 0.16),
    (0.84, 0.24, 0.06),
    (0.48, 0.03, 0.02),
)
_HEAT_RAMP = (
    (0.00, 0.00, 0.02),
    (0.25, 0.05, 0.40),
    (0.58, 0.15, 0.40),
    (0.87, 0.32, 0.23),
    (0.98, 0.62, 0.08),
    (0.99, 0.99, 0.65),
)
_QUANTILE_LIMIT = 1_000_000


def colorize_labels(
    labels: Int[Tensor, "*batch"] | UInt8[Tensor, "*batch"],
    class_colors: Float[Tensor, "C 3"],
    unknown_color: Rgb = UNKNOWN_COLOR,
) -> Float[Tensor, "*batch 3"]:
    """The colour of every class id; ids outside 0..C-1, so also the ignore label, get `unknown_color`."""
    class_colors = class_colors.to(labels.device)
    table = torch.cat([class_colors, class_colors.new_tensor([unknown_color])])
    known = (labels >= 0) & (labels < class_colors.shape[0])
    return table[torch.where(known, labels.long(), class_colors.shape[0])]


def colorize_probabilities(
    probabilities: Float[Tensor, "*batch C"], class_colors: Float[Tensor, "C 3"], soft: bool = False
) -> Float[Tensor, "*batch 3"]:
    """The colour of the most probable class, or with `soft` the mean class colour under the probabilities."""
    if soft:
        return (probabilities @ class_colors.to(probabilities)).clamp(0, 1)
    return colorize_labels(probabilities.argmax(dim=-1), class_colors)


def colorize_logits(
    logits: Float[Tensor, "*batch C"], class_colors: Float[Tensor, "C 3"], soft: bool = False
) -> Float[Tensor, "*batch 3"]:
    """`colorize_probabilities` of unnormalised log probabilities."""
    return colorize_probabilities(logits.softmax(dim=-1) if soft else logits, class_colors, soft)


def overlay(
    rgb: Float[Tensor, "*batch 3"],
    colors: Float[Tensor, "*batch 3"],
    opacity: float | Float[Tensor, "*batch 1"] = 0.5,
    where: Bool[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch 3"]:
    """Blend `colors` over `rgb` with an opacity in [0, 1]; with `where` only there."""
    blended = rgb + opacity * (colors - rgb)
    return blended if where is None else torch.where(where[..., None], blended, rgb)


def flow_to_rgb(flow: Float[Tensor, "*batch 2"], max_magnitude: float | Float[Tensor, ""]) -> Float[Tensor, "*batch 3"]:
    """Colours of optical flow on the Middlebury wheel: the hue is the direction, paler is slower, zero is white.

    Args:
        flow: (u right, v down) in pixels. Not finite: unknown, drawn black.
        max_magnitude: length in pixels that gets the full colour. Keep it fixed over a video. Longer is darkened.
    """
    flow = flow.float()
    wheel = _flow_wheel(flow.device)
    known = flow.isfinite().all(dim=-1, keepdim=True)
    flow = torch.where(known, flow, torch.zeros_like(flow))
    position = torch.atan2(flow[..., 1], flow[..., 0]) / (2 * math.pi) % 1.0 * wheel.shape[0]
    hue = _interpolate_table(wheel, position, cyclic=True)
    radius = torch.linalg.vector_norm(flow, dim=-1, keepdim=True) / max(float(max_magnitude), 1e-9)
    color = torch.where(radius <= 1, 1 - radius * (1 - hue), hue * _BEYOND_MAX_DIMMING)
    return torch.where(known, color, color.new_tensor(UNKNOWN_COLOR))


def flow_wheel_image(size: int) -> Float[Tensor, "size size 3"]:
    """The key to `flow_to_rgb`: a disc whose pixels show the flow that leads from the centre to them, on white."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    flow = torch.stack([u, v], dim=-1)
    outside = torch.linalg.vector_norm(flow, dim=-1, keepdim=True) > 1
    return torch.where(outside, torch.ones(3), flow_to_rgb(flow, 1.0))


def value_range(values: Float[Tensor, "*batch"], low: float = 0.02, high: float = 0.98) -> tuple[float, float]:
    """Two quantiles of the finite values: limits for a picture that outliers do not spoil. (0, 1) if none is finite."""
    finite = values[values.isfinite()].float()
    if finite.numel() == 0:
        return 0.0, 1.0
    finite = finite[:: math.ceil(finite.numel() / _QUANTILE_LIMIT)]
    limits = torch.quantile(finite, finite.new_tensor([low, high]))
    return float(limits[0]), float(limits[1])


def depth_to_rgb(
    depth: Float[Tensor, "*batch"], near: float | None = None, far: float | None = None
) -> Float[Tensor, "*batch 3"]:
    """Colours of depth from violet (`near`) over green to dark red (`far`); unknown (not finite) is black.

    Limits left out are the 2nd and 98th percentile of this very tensor: give both for videos, or the colours flicker.
    """
    if near is None or far is None:
        low, high = value_range(depth)
        near, far = low if near is None else near, high if far is None else far
    return _apply_ramp(depth, near, far, _DEPTH_RAMP)


def scalar_to_rgb(values: Float[Tensor, "*batch"], low: float = 0.0, high: float = 1.0) -> Float[Tensor, "*batch 3"]:
    """Heat map from black (`low`) over red to pale yellow (`high`); not finite is black as well."""
    return _apply_ramp(values, low, high, _HEAT_RAMP)


def _apply_ramp(values: Tensor, low: float, high: float, ramp: Sequence[Rgb]) -> Tensor:
    values = values.float()
    table = values.new_tensor(ramp)
    known = values.isfinite()
    span = max(high - low, 1e-9)
    unit = ((torch.where(known, values, values.new_tensor(low)) - low) / span).clamp(0, 1)
    color = _interpolate_table(table, unit * (len(ramp) - 1), cyclic=False)
    return torch.where(known[..., None], color, color.new_tensor(UNKNOWN_COLOR))


def _interpolate_table(table: Tensor, position: Tensor, cyclic: bool) -> Tensor:
    """Rows of `table` at fractional indices, linearly interpolated."""
    size = table.shape[0]
    lower = position.floor().long().clamp(0, size - 1)
    upper = (lower + 1) % size if cyclic else (lower + 1).clamp(max=size - 1)
    return torch.lerp(table[lower], table[upper], (position - lower)[..., None])


def _flow_wheel(device: torch.device) -> Tensor:
    colors = []
    for index, (steps, start) in enumerate(_FLOW_SEGMENTS):
        end = _FLOW_SEGMENTS[(index + 1) % len(_FLOW_SEGMENTS)][1]
        fraction = torch.arange(steps, device=device)[:, None] / steps
        colors.append(torch.lerp(fraction.new_tensor([start]), fraction.new_tensor([end]), fraction))
    return torch.cat(colors)
