"""Which losses a batch gives, and their weights (`losses.py` has the losses themselves)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semflow_nerfstudio.flow.trajectories import integrate
from semflow_nerfstudio.rendered import Rendered, seen_motion, seen_points
from semflow_nerfstudio.renderer import RenderConfig, render_advected, semantic_weights
from semflow_nerfstudio.rendering.compositing import composite, field_weights, mean_distance
from semflow_nerfstudio.rendering.samples import pick
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.training import losses as L
from semflow_nerfstudio.training.backgrounds import on_background
from semflow_nerfstudio.training.observed import Observed, given_distance

FLOW_WIDTH = 480.0
"""Optical flow losses are in pixels of an image this wide."""
RIGIDITY_RAYS = 256
"""Rays whose trajectories are compared with each other's."""
MIN_ACCUMULATION = 0.05
"""Rays that see less than this have no place, and so no optical flow."""


@dataclass
class LossWeights(SavedConfig):
    """Weight of every loss; 0 switches it off."""

    color: float = 3.0
    """Colour of both fields together."""
    static_color: float = 1.0
    """Colour of the static field alone, on static pixels."""
    dynamic_color: float = 3.0
    """Colour of the dynamic field alone, on moving pixels."""
    advected_color: float = 1.0
    """Colour of the dynamic field one frame away along the flow, on moving pixels."""
    semantic: float = 0.16
    """Cross-entropy of both fields' logits."""
    shared_semantic: float = 0.64
    """The same of the shared networks' logits alone, where several scenes are trained: what a new scene needs of them,
    they have to know without the residuals of these."""
    static_semantic: float = 0.08
    """Cross-entropy of the static field's logits, on static pixels."""
    dynamic_semantic: float = 0.08
    """Cross-entropy of the dynamic field's logits, on moving pixels."""
    consistency: float = 0.1
    """Cross-entropy of the logits rendered one frame away along the flow."""
    optical_flow: float = 0.08
    """Induced against given optical flow, L1 in pixels of a 480-wide image."""
    flow_robust_scale: float = 0.0
    """Pixels beyond which flow errors count less and less; 0 for plain L1."""
    flow_cycle: float = 1.0
    """Forward then backward along the flow."""
    flow_smooth: float = 0.1
    """Neighbouring samples move alike, and little acceleration."""
    flow_magnitude: float = 0.01
    """Motion everywhere."""
    rigidity: float = 0.0
    """Surface points near each other keep their distance along the flow."""
    rigidity_radius: float = 0.03
    """Distance, in scene units, up to which points are near each other."""
    silhouette: float = 0.1
    """Moving samples land on their own class in the neighbouring frames; only with `datamanager.silhouettes`."""
    static_flow: float = 0.5
    """Motion on static pixels."""
    blend_static: float = 0.1
    """Blending weight on static pixels."""
    blend_prior: float = 0.01
    """Blending weight everywhere: hidden and unseen space is static until something says otherwise."""
    hidden: float = 0.3
    """Blending weight behind the movers' surfaces, where the aligned disparity says these are: no colour says what is
    there, and new views see it."""
    hidden_margin: float = 0.1
    """Relative distance behind its surface that may still be a mover."""
    dynamicness: float = 0.01
    """The movers' share of a pixel toward its motion mask."""
    advected_blend_static: float = 0.0
    """As `blend_static`, one frame away along the flow; paper variant."""
    advected_dynamicness: float = 0.0
    """As `dynamicness`, of the dynamic field alone one frame away along the flow; paper variant."""
    surface: float = 0.3
    """Moving rays end at the aligned disparity's distance."""
    surface_tolerance: float = 0.03
    """Relative distance from there that counts as being there."""
    line_of_sight_static: float = 0.01
    """Weights of static rays near the aligned disparity's distance; weak, for they have parallax of their own."""
    line_of_sight_tolerance: float = 0.02
    """Relative distance from the disparity's surface that costs nothing."""
    depth: float = 0.04
    """Rendered inverse depth against disparity of unknown scale and shift, where alignment was not possible."""
    depth_everywhere: float = 0.0
    """As `depth`, where the disparity was aligned; paper variant."""
    order: float = 0.1
    """Dynamic depth toward static depth on static rays."""
    depth_guided_blend: float = 0.0
    """Blending toward 1 near the given depth on moving rays, 0 elsewhere; paper variant."""
    sparsity: float = 0.001
    """Entropy of the dynamic weights and of the blending weight."""
    proposal: float = 1.0
    """Interlevel loss of the proposal sampling."""
    proposal_surface: float = 0.02
    """The same as `surface` for the proposal densities, on all rays: sampling finds surfaces at once."""
    distortion: float = 0.002
    """Distortion loss of the final weights."""


def static_losses(scene: Scene, out: Rendered, seen: Observed, w: LossWeights) -> dict[str, Tensor]:
    """Losses of the first stage, which trains the static field on what does not move; on all where that is unknown."""
    static = taught_first(seen)
    color = on_background(scene, out.static_rgb, out.static_weights, seen.behind)
    result = {"color": w.color * L.color_loss(color, seen.image, static)}
    if out.static_logits is not None and seen.labels is not None:
        result["semantic"] = w.semantic * L.semantic_loss(
            scene.among_own(out.static_logits), seen.labels, seen.believed(static)
        )
        if out.shared_logits is not None:
            alone = scene.among_own(out.shared_logits)
            result["shared_semantic"] = w.shared_semantic * L.semantic_loss(alone, seen.labels, seen.believed(static))
    result.update(depth_losses(out, seen, w, static_only=True))
    return result


def taught_first(seen: Observed) -> Bool[Tensor, "R"]:
    """The rays that teach the static field in the first stage: static ones, or all where nothing says what moves."""
    return seen.static if seen.motion is not None else torch.ones_like(seen.moving)


def dynamic_losses(
    scene: Scene,
    out: Rendered,
    seen: Observed,
    w: LossWeights,
    config: RenderConfig,
    direction: int,
    advected: int,
    everywhere: bool = False,
) -> dict[str, Tensor]:
    """Losses of the second stage.

    Args:
        scene: The rays' scene.
        out: What was rendered, with flows.
        seen: What is known.
        w: Weights.
        config: How rays are rendered.
        direction: +1 or -1: the time direction of this step's advected pass.
        advected: Rays in the passes of the dynamic field alone, moving ones first.
        everywhere: Whether the dynamic field alone has to show the static rays' colours and labels, too.
    """
    assert out.dynamic is not None and out.flow is not None
    moving, static, blend = seen.moving, seen.static, out.dynamic.blend
    mover_rays = out.mover_rays
    result = {
        "color": w.color * L.color_loss(on_background(scene, out.rgb, out.weights.total, seen.behind), seen.image),
        "static_color": w.static_color
        * L.color_loss(on_background(scene, out.static_rgb, out.static_weights, seen.behind), seen.image, static),
        "blend_prior": w.blend_prior * L.blend_prior_loss(blend),
    }
    if out.logits is not None and out.static_logits is not None and seen.labels is not None:
        result["semantic"] = w.semantic * L.semantic_loss(scene.among_own(out.logits), seen.labels, seen.label_weight)
        if out.shared_logits is not None:
            alone = scene.among_own(out.shared_logits)
            result["shared_semantic"] = w.shared_semantic * L.semantic_loss(alone, seen.labels, seen.label_weight)
        still = seen.believed(static)
        result["static_semantic"] = w.static_semantic * L.semantic_loss(
            scene.among_own(out.static_logits), seen.labels, still
        )
    if seen.motion is not None:
        known = seen.motion != L.IGNORE_LABEL
        result["blend_static"] = w.blend_static * L.blend_static_loss(blend, static[mover_rays])
        result["dynamicness"] = w.dynamicness * L.dynamicness_loss(
            out.dynamicness[mover_rays], moving[mover_rays], known[mover_rays]
        )
    if w.order > 0:
        distances = out.samples.distances[mover_rays]
        own = mean_distance(out.dynamic_weights, distances, harmonic=not scene.bounded)
        still = mean_distance(out.static_weights[mover_rays], distances, harmonic=not scene.bounded)
        result["order"] = w.order * L.order_loss(own, still, static[mover_rays])
    result.update(mover_losses(scene, out, seen, w, config, direction, advected, everywhere))
    result.update(flow_losses(scene, out, seen, w, config))
    result.update(depth_losses(out, seen, w))
    return result


def mover_losses(
    scene: Scene,
    out: Rendered,
    seen: Observed,
    w: LossWeights,
    config: RenderConfig,
    direction: int,
    count: int,
    everywhere: bool = False,
) -> dict[str, Tensor]:
    """The dynamic field alone, at its own time and seen from the neighbouring frame's, on moving rays or on all."""
    flow, dynamic = out.flow, out.dynamic
    assert flow is not None and dynamic is not None and out.dynamic_alphas is not None
    rows = random_rays(seen.moving[flow.rays], count)
    rays = flow.rays[rows]
    # Where nothing says what moves, the rendering itself does: else the dynamic field learns to show everything alone.
    moving = (seen.moving if seen.motion is not None else out.dynamicness.detach())[rays]
    live, image = torch.ones_like(moving) if everywhere else moving, seen.image[rays]
    alone = field_weights(out.dynamic_alphas[rows])
    behind = None if seen.behind is None else seen.behind[rays]
    own = on_background(scene, composite(alone, dynamic.rgb[rows]), alone, behind)
    result = {"dynamic_color": w.dynamic_color * L.color_loss(own, image, live)}
    if w.sparsity > 0:
        result["sparsity"] = w.sparsity * (L.weight_entropy_loss(alone) + L.blend_entropy_loss(dynamic.blend[rows]))
    kept = pick(alone, flow.picked[rows])
    labels = None if seen.labels is None or flow.logits is None else seen.labels[rays]
    believed = live.float() if seen.label_weight is None else live * seen.label_weight[rays]
    if labels is not None and flow.logits is not None:
        logits = composite(semantic_weights(kept, None, config), flow.logits[rows])
        result["dynamic_semantic"] = w.dynamic_semantic * L.semantic_loss(scene.among_own(logits), labels, believed)
    if max(w.advected_color, w.consistency, w.advected_blend_static, w.advected_dynamicness) <= 0:
        return result
    there = render_advected(scene, out, rows, direction, config)
    weight = live * flow.exists(direction)[rows] * L.occlusion_weight(kept, there.weights)
    result["advected_color"] = w.advected_color * L.color_loss(
        on_background(scene, there.rgb, there.weights, behind), image, weight
    )
    if labels is not None and there.logits is not None:
        result["consistency"] = w.consistency * L.semantic_loss(
            scene.among_own(there.logits),
            labels,
            weight if seen.label_weight is None else weight * seen.label_weight[rays],
        )
    if seen.motion is not None:
        still = seen.static[rays] & flow.exists(direction)[rows]
        result["advected_blend_static"] = w.advected_blend_static * L.blend_static_loss(there.blend, still)
        share = (there.weights * there.blend).sum(-1)
        result["advected_dynamicness"] = w.advected_dynamicness * L.dynamicness_loss(share, moving, weight)
    return result


def flow_losses(scene: Scene, out: Rendered, seen: Observed, w: LossWeights, config: RenderConfig) -> dict[str, Tensor]:
    """Induced optical flow against the given one, and priors on the flow field."""
    flow, result = out.flow, {}
    assert flow is not None
    cameras, rays = scene.bank.cameras, flow.rays
    scale = FLOW_WIDTH * torch.stack([torch.ones_like(seen.aspect), seen.aspect], dim=-1)[rays]
    points, solid, errors = seen_points(out)[rays], out.accumulation[rays] > MIN_ACCUMULATION, []
    for step, given, neighbour in ((1, seen.flow, scene.next_frame), (-1, seen.flow_backward, scene.previous_frame)):
        if given is None:
            continue
        target = neighbour[seen.frame[rays]]
        pixels, depth = cameras.project(points + seen_motion(out, step), target.clamp(min=0))
        valid = given[1][rays] & same_time(scene, out, target, step) & (depth > 1e-3) & solid
        share = torch.stack([pixels[:, 0] / cameras.width, pixels[:, 1] / cameras.height], dim=-1)
        induced = torch.where(valid[:, None], share - seen.pixel[rays], 0.0)
        errors.append(L.optical_flow_loss(induced * scale, given[0][rays] * scale, valid, w.flow_robust_scale))
    if errors:
        result["optical_flow"] = w.optical_flow * torch.stack(errors).mean()
    weight = flow.weights.detach()
    after, before = (flow.displacement(d) / gap_in_taus(scene, out, d)[:, None, None] for d in (1, -1))
    both = (flow.exists(1) & flow.exists(-1))[:, None]
    result["flow_smooth"] = w.flow_smooth * (
        L.time_smoothness_loss(after, before, weight * both) + L.ray_smoothness_loss(after, flow.points, weight)
    )
    result["flow_magnitude"] = w.flow_magnitude * (L.magnitude_loss(after) + L.magnitude_loss(before)) / 2
    result["static_flow"] = w.static_flow * L.static_flow_loss(after, seen.static[rays, None].expand_as(weight))
    if w.rigidity > 0:
        rows = random_rays(seen.moving[rays], RIGIDITY_RAYS)
        share = weight[rows] / weight[rows].sum(-1, keepdim=True).clamp(min=L.EPS)
        place = composite(share, flow.points[rows])
        moved = [place + composite(share, flow.displacement(d)[rows]) for d in (1, -1)]
        counts = weight[rows].sum(-1) * seen.moving[rays[rows]]
        each = [L.rigidity_loss(place, m, seen.frame[rays[rows]], counts, w.rigidity_radius) for m in moved]
        result["rigidity"] = w.rigidity * torch.stack(each).mean()
    if w.flow_cycle > 0:
        result["flow_cycle"] = w.flow_cycle * L.cycle_loss(flow.points, forward_and_back(scene, out, config), weight)
    return result


def same_time(scene: Scene, out: Rendered, target: Int[Tensor, "Q"], step: int) -> Bool[Tensor, "Q"]:
    """Whether the frames that given flow leads to (-1: none) are of the time that trajectories go to: a camera may skip
    times at which others took pictures."""
    flow = out.flow
    assert flow is not None
    bank = scene.bank
    reached = bank.timeline.time(flow.window.index[:, flow.window.center + step].to(bank.frame_times))
    there = bank.frame_times[target.clamp(min=0)]
    return (target >= 0) & ((there - reached).abs() < 1e-3 * scene.timeline.tau)


def gap_in_taus(scene: Scene, out: Rendered, step: int) -> Float[Tensor, "Q"]:
    """Signed time from the flow pass's rays to the window's neighbouring frame time; `step` where there is none."""
    flow = out.flow
    assert flow is not None
    times = out.samples.times[flow.rays, 0]
    neighbour = scene.bank.timeline.time(flow.window.index[:, flow.window.center + step].to(times))
    gap = (neighbour - times) / scene.timeline.tau
    return torch.where(flow.exists(step), gap, float(step))


def forward_and_back(scene: Scene, out: Rendered, config: RenderConfig) -> Float[Tensor, "Q k 3"]:
    """The flow pass's points one frame forward, and back again."""
    flow = out.flow
    assert flow is not None
    there = flow.trajectories[:, :, flow.window.center + 1]
    start = scene.bank.timeline.time(flow.window.index[:, flow.window.center + 1].to(there))

    def per_point(values: Tensor) -> Tensor:
        return values[:, None].expand(there.shape[:2]).reshape(-1, 1)

    back = integrate(
        scene.velocity,
        there.reshape(-1, 3),
        per_point(start),
        per_point(out.samples.times[flow.rays, 0] - start),
        scene.timeline.tau,
        config.substeps,
        config.integrator,
    )
    return back.reshape(there.shape)


def depth_losses(out: Rendered, seen: Observed, w: LossWeights, static_only: bool = False) -> dict[str, Tensor]:
    """Geometry from disparity: along the line of sight where it is aligned, relative where it is not."""
    result = {}
    distances, shown = out.samples.distances, taught_first(seen) if static_only else torch.ones_like(seen.moving)
    if seen.disparity is not None and w.depth > 0:
        wanted = torch.where(shown, seen.disparity, torch.nan)
        if seen.inverse_depth is not None:  # of other frames
            wanted = torch.where(seen.inverse_depth.isfinite(), torch.nan, wanted)
        inverse = seen.z_ratio / out.distance.clamp(min=L.EPS)
        result["depth"] = w.depth * L.relative_depth_loss(inverse, wanted, seen.frame)
    if seen.inverse_depth is None:
        return result
    if w.depth_everywhere > 0:
        wanted = torch.where(shown, seen.inverse_depth, torch.nan)
        inverse = seen.z_ratio / out.distance.clamp(min=L.EPS)
        result["depth_everywhere"] = w.depth_everywhere * L.relative_depth_loss(inverse, wanted, seen.frame)
    known, given = given_distance(seen)
    static = known & (seen.static if seen.motion is not None else True)
    result["line_of_sight_static"] = w.line_of_sight_static * L.line_of_sight_loss(
        out.static_weights if seen.motion is not None else out.weights.total,
        distances,
        given,
        static,
        w.line_of_sight_tolerance,
    )
    if seen.motion is None or static_only:
        return result
    moving = known & seen.moving
    result["surface"] = w.surface * L.surface_loss(out.weights.total, distances, given, moving, w.surface_tolerance)
    rays = out.mover_rays
    if out.dynamic is not None:
        result["hidden"] = w.hidden * L.hidden_blend_loss(
            out.dynamic.blend, distances[rays], given[rays], moving[rays], w.hidden_margin
        )
    if w.depth_guided_blend > 0 and out.dynamic is not None:
        result["depth_guided_blend"] = w.depth_guided_blend * L.depth_guided_blend_loss(
            out.dynamic.blend, distances[rays], given[rays], moving[rays]
        )
    return result


def random_rays(mask: Tensor, count: int) -> Int[Tensor, "Q"]:
    """`count` random rays, those of the mask first; a fixed number, so that nothing waits for the device."""
    order = torch.rand(mask.shape, device=mask.device) + mask
    return order.topk(min(count, mask.shape[0])).indices


MODALITIES = {
    "labels": "labels",
    "flow_forward": "flow",
    "flow_backward": "flow",
    "motion_mask": "motion_mask",
    "disparity": "disparity",
    "depth": "depth",
    "inverse_depth": "inverse_depth",
}
"""What a batch's keys belong to, by the names of `SceneFrames.has`."""


def present_modalities(batch: dict[str, Tensor], has: frozenset[str]) -> dict[str, Tensor]:
    """A batch as it would be if it were of one scene alone: what only other scenes have is left out, not unknown."""
    return {key: value for key, value in batch.items() if key not in MODALITIES or MODALITIES[key] in has}
