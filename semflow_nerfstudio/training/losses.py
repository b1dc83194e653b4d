"""Losses: pure functions of what was rendered and what was seen. A better prediction lowers every one of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semflow_nerfstudio.scene_frames import IGNORE_LABEL

EPS = 1e-6


def masked_mean(values: Float[Tensor, "*batch"], weight: Tensor | None = None) -> Float[Tensor, ""]:
    """Mean of the values where the mask (or weight) holds; 0 where it holds nowhere."""
    if weight is None:
        return values.mean()
    weight = weight.to(values)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def color_loss(
    predicted: Float[Tensor, "R 3"], seen: Float[Tensor, "R 3"], weight: Tensor | None = None
) -> Float[Tensor, ""]:
    """Mean squared error of colours."""
    return masked_mean((predicted - seen).square().mean(-1), weight)


def semantic_loss(
    logits: Float[Tensor, "R C"], labels: Int[Tensor, "R"], weight: Float[Tensor, "R"] | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy on labelled pixels; `IGNORE_LABEL` says nothing."""
    labels = labels.long()
    labelled = labels != IGNORE_LABEL
    each = torch.nn.functional.cross_entropy(logits, torch.where(labelled, labels, 0), reduction="none")
    return masked_mean(each, labelled if weight is None else labelled * weight)


def occlusion_weight(own: Float[Tensor, "R k"], advected: Float[Tensor, "R k"]) -> Float[Tensor, "R"]:
    """How much the same samples of a ray weigh in both passes, in [0, 1]: low where the neighbour occludes them."""
    return (1 - (own - advected).abs().sum(-1) / 2).clamp(0, 1).detach()


def optical_flow_loss(
    predicted: Float[Tensor, "R 2"],
    given: Float[Tensor, "R 2"],
    mask: Bool[Tensor, "R"],
    robust_scale: float = 0.0,
) -> Float[Tensor, ""]:
    """L1 in pixels where the forward-backward mask holds.

    With a `robust_scale` c > 0, errors beyond c pixels count less and less: c log(1 + e / c).
    """
    error = (predicted - given).abs().sum(-1)
    if robust_scale > 0:
        error = robust_scale * torch.log1p(error / robust_scale)
    return masked_mean(error, mask)


def cycle_loss(
    points: Float[Tensor, "*batch 3"], returned: Float[Tensor, "*batch 3"], weight: Tensor | None = None
) -> Float[Tensor, ""]:
    """Forward then backward along the flow returns to the point: L1."""
    return masked_mean((points - returned).abs().sum(-1), weight)


def ray_smoothness_loss(
    displacement: Float[Tensor, "R k 3"], points: Float[Tensor, "R k 3"], weight: Float[Tensor, "R k"]
) -> Float[Tensor, ""]:
    """Neighbouring samples of a ray move alike: L1 of differences, fading with their distance, where both weigh."""
    gap = (points[:, 1:] - points[:, :-1]).norm(dim=-1)
    near = torch.exp(-gap / gap.mean().clamp(min=EPS)).detach()
    change = (displacement[:, 1:] - displacement[:, :-1]).abs().sum(-1)
    return (change * near * (weight[:, 1:] * weight[:, :-1]).sqrt()).sum(-1).mean()


def time_smoothness_loss(
    after: Float[Tensor, "*batch 3"], before: Float[Tensor, "*batch 3"], weight: Tensor | None = None
) -> Float[Tensor, ""]:
    """Little acceleration: the mean velocities after and before a frame agree (second order in time), L1."""
    return masked_mean((after - before).abs().sum(-1), weight)


def magnitude_loss(displacement: Float[Tensor, "*batch 3"], weight: Tensor | None = None) -> Float[Tensor, ""]:
    """L1 of motion: what need not move, does not."""
    return masked_mean(displacement.abs().sum(-1), weight)


def static_flow_loss(displacement: Float[Tensor, "*batch 3"], weight: Tensor | None = None) -> Float[Tensor, ""]:
    """L2 of motion on static pixels."""
    return masked_mean(displacement.square().sum(-1), weight)


def rigidity_loss(
    points: Float[Tensor, "Q 3"],
    moved: Float[Tensor, "Q 3"],
    group: Int[Tensor, "Q"],
    weight: Float[Tensor, "Q"],
    radius: float,
) -> Float[Tensor, ""]:
    """Neighbouring trajectories keep their distance: mean change of the distances of near points, L1.

    Args:
        points: Surface points.
        moved: Where the flow takes them.
        group: Points of different groups (frames) are no neighbours.
        weight: How much a point counts.
        radius: Distance at which a pair counts 1/e of a close one.
    """
    before, after = torch.cdist(points, points), torch.cdist(moved, moved)
    near = torch.exp(-((before / radius) ** 2)) * (group[:, None] == group) * weight[:, None] * weight
    near = near * (1 - torch.eye(len(points), device=points.device))
    return masked_mean((after - before).abs(), near.detach())


def silhouette_loss(
    weights: Float[Tensor, "Q k"], labels: Int[Tensor, "Q"], there: Int[Tensor, "Q k"], live: Bool[Tensor, "Q"]
) -> Float[Tensor, ""]:
    """No weight where a trajectory lands on another class: sum_i w_i [l_i != l], mean over live, labelled rays.

    Args:
        weights: Weights of samples of a ray.
        labels: The ray's label.
        there: Label of the pixel in another frame that a sample's trajectory lands on; `IGNORE_LABEL` says nothing.
        live: Rays that count.
    """
    wrong = (there != labels[:, None]) & (there != IGNORE_LABEL)
    return masked_mean((weights * wrong).sum(-1), live & (labels != IGNORE_LABEL))


def blend_static_loss(blend: Float[Tensor, "R S"], static: Tensor) -> Float[Tensor, ""]:
    """b toward 0 everywhere on static rays."""
    return masked_mean(blend.mean(-1), static)


def blend_prior_loss(blend: Float[Tensor, "R S"]) -> Float[Tensor, ""]:
    """b toward 0 everywhere."""
    return blend.mean()


def hidden_blend_loss(
    blend: Float[Tensor, "R S"],
    distances: Float[Tensor, "R S"],
    given: Float[Tensor, "R"],
    moving: Tensor,
    margin: float,
) -> Float[Tensor, ""]:
    """b toward 0 farther than a relative margin behind the given distance, on moving rays: mean over such samples."""
    behind = (distances > (1 + margin) * given[:, None]) & moving.bool()[:, None]
    return masked_mean(blend, behind)


def dynamicness_loss(dynamicness: Float[Tensor, "R"], moving: Tensor, known: Tensor) -> Float[Tensor, ""]:
    """The movers' share of a ray toward the motion mask: binary cross-entropy where the mask is known."""
    p = 1e-3 + (1 - 2e-3) * dynamicness.clamp(0, 1)  # a clamp alone has no gradient where it is most wrong
    target = moving.to(p)
    return masked_mean(-(target * p.log() + (1 - target) * (1 - p).log()), known)


def surface_loss(
    weights: Float[Tensor, "R S"],
    distances: Float[Tensor, "R S"],
    given: Float[Tensor, "R"],
    mask: Tensor,
    tolerance: float,
) -> Float[Tensor, ""]:
    """Nothing in front of the given distance, and the ray ends there: sum_front w + (1 - sum_around w)^2.

    `around` is within the relative tolerance, `front` nearer than that. Unlike the line-of-sight loss it has no
    barrier: thinning what wrongly stands in front costs nothing, even while it uncovers what lies far behind.
    """
    log_ratio = distances.clamp(min=EPS).log() - given.clamp(min=EPS).log()[:, None]
    in_front = (weights * (log_ratio < -tolerance)).sum(-1)
    around = (weights * (log_ratio.abs() <= tolerance)).sum(-1)
    return masked_mean(in_front + (1 - around).square(), mask)


def line_of_sight_loss(
    weights: Float[Tensor, "R S"],
    distances: Float[Tensor, "R S"],
    given: Float[Tensor, "R"],
    mask: Tensor,
    tolerance: float | Tensor = 0.0,
) -> Float[Tensor, ""]:
    """All weight of a ray near the given distance: sum_i w_i max(0, |log(t_i / t)| - tolerance).

    Unlike a loss on the expected distance it acts on the whole distribution, so surfaces do not smear along the ray.
    """
    ratio = (distances.clamp(min=EPS).log() - given.clamp(min=EPS).log()[:, None]).abs()
    return masked_mean((weights * (ratio - tolerance).clamp(min=0)).sum(-1), mask)


class Groups(NamedTuple):
    """Rays sorted by group. Everything has a fixed size, so that nothing waits for the device."""

    order: Int[Tensor, "R"]
    """The rays, group by group."""
    first: Int[Tensor, "R"]
    """Where a ray's group begins in that order."""
    count: Int[Tensor, "R"]
    """Rays in a ray's group."""

    @classmethod
    def of(cls, group: Int[Tensor, "R"], mask: Bool[Tensor, "R"]) -> Groups:
        """Groups of the masked rays; all others are one group more."""
        key = torch.where(mask, group.long(), torch.iinfo(torch.long).max)
        ordered, order = key.sort(stable=True)
        first = torch.searchsorted(ordered, key)
        return cls(order, first, torch.searchsorted(ordered, key, right=True) - first)

    def median(self, values: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
        """The (lower) median of each ray's group."""
        ascending = values.detach()[self.order].argsort()
        order = self.order[ascending][self.first[self.order[ascending]].argsort(stable=True)]
        return values[order[self.first + (self.count - 1) // 2]]

    def mean(self, values: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
        """The mean of each ray's group."""
        return torch.zeros_like(values).index_add(0, self.first, values)[self.first] / self.count


def normalize_by_mad(values: Float[Tensor, "R"], groups: Groups) -> Float[Tensor, "R"]:
    """(values - median) / mean absolute deviation of each group, which fixes scale and shift."""
    deviation = values - groups.median(values)
    return deviation / groups.mean(deviation.abs()).clamp(min=EPS)


def relative_depth_loss(
    inverse_depth: Float[Tensor, "R"],
    disparity: Float[Tensor, "R"],
    frame: Int[Tensor, "R"],
    min_rays: int = 64,
) -> Float[Tensor, ""]:
    """Rendered inverse camera-z depth against a disparity of unknown scale and shift.

    Both are normalised by median and mean absolute deviation over the rays of each frame that has at least
    `min_rays` of them with a disparity; the sign is positive, nearer is larger in both.
    """
    known = disparity.isfinite()
    groups = Groups.of(frame, known)
    given = normalize_by_mad(torch.where(known, disparity, 0.0), groups)
    each = groups.mean((normalize_by_mad(inverse_depth, groups) - given).square())
    begins = groups.first[groups.order] == torch.arange(len(frame), device=frame.device)
    counts = begins & (known & (groups.count >= min_rays))[groups.order]
    return masked_mean(each[groups.order], counts)


def order_loss(
    dynamic_distance: Float[Tensor, "R"], static_distance: Float[Tensor, "R"], static: Tensor
) -> Float[Tensor, ""]:
    """Dynamic depth toward the (stopped) static depth on static rays, relative L1; errors of more than the static depth
    count as much as it and teach nothing."""
    error = (dynamic_distance / static_distance.detach().clamp(min=EPS) - 1).abs()
    return masked_mean(error.clamp(max=1.0), static)


def weight_entropy_loss(weights: Float[Tensor, "R S"]) -> Float[Tensor, ""]:
    """Entropy of the normalised weights of a ray, times what the ray sees: few samples should carry it."""
    total = weights.sum(-1, keepdim=True)
    share = weights / total.clamp(min=EPS)
    bits = -(share * share.clamp(min=EPS).log()).sum(-1)
    return (bits * total[..., 0].detach()).mean()


def blend_entropy_loss(blend: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Binary entropy of b: a point is static or dynamic, not half of each."""
    p = blend.clamp(1e-4, 1 - 1e-4)
    return -(p * p.log() + (1 - p) * (1 - p).log()).mean()


def depth_guided_blend_loss(
    blend: Float[Tensor, "R S"],
    distances: Float[Tensor, "R S"],
    given: Float[Tensor, "R"],
    moving: Tensor,
    threshold: float = 0.03,
) -> Float[Tensor, ""]:
    """On dynamic rays, b toward 1 within a relative threshold of the given distance and toward 0 elsewhere (paper)."""
    near = ((distances / given.clamp(min=EPS)[:, None] - 1).abs() < threshold).to(blend)
    return masked_mean((blend - near).square().mean(-1), moving)
