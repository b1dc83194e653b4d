"""Which losses a batch gives, and their weights (`losses.py` has the losses themselves)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from semflow_nerfstudio.cameras import PIXEL_CENTER
from semflow_nerfstudio.flow.trajectories import integrate
from semflow_nerfstudio.renderer import (
    RenderConfig,
    Rendered,
    render_advected,
    seen_motion,
    seen_points,
    semantic_weights,
)
from semflow_nerfstudio.rendering.compositing import composite, field_weights, mean_distance
from semflow_nerfstudio.rendering.samples import pick
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.training import losses as L

FLOW_WIDTH = 480.0
"""Optical flow losses are in pixels of an image this wide."""
MIN_ACCUMULATION = 0.05
"""Rays that see less than this have no place, and so no optical flow."""


@dataclass
class LossWeights:
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
    static_flow: float = 0.5
    """Motion on static pixels."""
    blend_static: float = 0.1
    """Blending weight on static pixels."""
    blend_prior: float = 0.01
    """Blending weight everywhere: hidden and unseen space is static until something says otherwise."""
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
    order: float = 0.1
    """Dynamic depth toward static depth on static rays; paper variant."""
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


@dataclass
class Observed:
    """What is known about R training rays; None where the data set has no such thing."""

    image: Float[Tensor, "R 3"]
    pixel: Float[Tensor, "R 2"]
    """Pixel centre (u, v) as a share of the image's width and height."""
    aspect: Float[Tensor, "R"]
    """Image height divided by width."""
    frame: Int[Tensor, "R"]
    """Index of the training frame in its scene."""
    z_ratio: Float[Tensor, "R"]
    """Distance along the ray per camera-z depth (nerfstudio's directions_norm)."""
    labels: UInt8[Tensor, "R"] | None = None
    motion: UInt8[Tensor, "R"] | None = None
    """0 static, 1 moving, 255 unknown."""
    flow: tuple[Tensor, Tensor] | None = None
    """Forward flow (R, 2) as shares of the image's width and height, and its mask (R,)."""
    flow_backward: tuple[Tensor, Tensor] | None = None
    inverse_depth: Float[Tensor, "R"] | None = None
    """Aligned inverse camera-z depth, NaN unknown."""
    disparity: Float[Tensor, "R"] | None = None
    """Relative inverse depth, NaN unknown."""

    @property
    def moving(self) -> Tensor:
        """Rays known to show something that moves; all where nothing is known about motion."""
        if self.motion is None:
            return torch.ones_like(self.frame, dtype=torch.bool)
        return self.motion == 1

    @property
    def static(self) -> Tensor:
        """Rays known to show nothing that moves; none where nothing is known about motion."""
        if self.motion is None:
            return torch.zeros_like(self.frame, dtype=torch.bool)
        return self.motion == 0


def static_losses(scene: Scene, out: Rendered, seen: Observed, w: LossWeights) -> dict[str, Tensor]:
    """Losses of the first stage, which trains the static field on what does not move; on all where that is unknown."""
    static = seen.static if seen.motion is not None else torch.ones_like(seen.frame, dtype=torch.bool)
    color = on_background(scene, out.static_rgb, out.static_weights)
    result = {"color": w.color * L.color_loss(color, seen.image, static)}
    if out.static_logits is not None and seen.labels is not None:
        result["semantic"] = w.semantic * L.semantic_loss(out.static_logits, seen.labels, static.float())
    result.update(depth_losses(out, seen, w, static_only=True))
    return result


def dynamic_losses(
    scene: Scene, out: Rendered, seen: Observed, w: LossWeights, config: RenderConfig, direction: int, advected: int
) -> dict[str, Tensor]:
    """Losses of the second stage.

    Args:
        scene: The rays' scene.
        out: What was rendered, with flows.
        seen: What is known.
        w: Weights.
        config: How rays are rendered.
        direction: +1 or -1: the time direction of this step's advected pass.
        advected: Moving rays in the passes of the dynamic field alone.
    """
    assert out.dynamic is not None and out.flow is not None
    moving, static, blend = seen.moving, seen.static, out.dynamic.blend
    mover_rays = out.mover_rays
    result = {
        "color": w.color * L.color_loss(on_background(scene, out.rgb, out.weights.total), seen.image),
        "static_color": w.static_color
        * L.color_loss(on_background(scene, out.static_rgb, out.static_weights), seen.image, static),
        "blend_prior": w.blend_prior * blend.mean(),
    }
    if out.logits is not None and out.static_logits is not None and seen.labels is not None:
        result["semantic"] = w.semantic * L.semantic_loss(out.logits, seen.labels)
        result["static_semantic"] = w.static_semantic * L.semantic_loss(out.static_logits, seen.labels, static.float())
    if seen.motion is not None:
        known = seen.motion != L.IGNORE_LABEL
        result["blend_static"] = w.blend_static * L.blend_static_loss(blend, static[mover_rays])
        result["dynamicness"] = w.dynamicness * L.dynamicness_loss(
            out.dynamicness[mover_rays], moving[mover_rays], known[mover_rays]
        )
    if w.order > 0:
        distances = out.samples.distances[mover_rays]
        own = mean_distance(out.dynamic_weights, distances)
        still = mean_distance(out.static_weights[mover_rays], distances)
        result["order"] = w.order * L.order_loss(own, still, static[mover_rays])
    result.update(mover_losses(scene, out, seen, w, config, direction, advected))
    result.update(flow_losses(scene, out, seen, w, config))
    result.update(depth_losses(out, seen, w))
    return result


def mover_losses(
    scene: Scene, out: Rendered, seen: Observed, w: LossWeights, config: RenderConfig, direction: int, count: int
) -> dict[str, Tensor]:
    """The dynamic field alone, at its own time and seen from the neighbouring frame's, on moving rays."""
    flow, dynamic = out.flow, out.dynamic
    assert flow is not None and dynamic is not None and out.dynamic_alphas is not None
    rows = random_rays(seen.moving[flow.rays], count)
    rays = flow.rays[rows]
    # Where nothing says what moves, the rendering itself does: else the dynamic field learns to show everything alone.
    moving = seen.moving if seen.motion is not None else out.dynamicness.detach()
    live, image = moving[rays], seen.image[rays]
    alone = field_weights(out.dynamic_alphas[rows])
    own = on_background(scene, composite(alone, dynamic.rgb[rows]), alone)
    result = {"dynamic_color": w.dynamic_color * L.color_loss(own, image, live)}
    if w.sparsity > 0:
        result["sparsity"] = w.sparsity * (L.weight_entropy_loss(alone) + L.blend_entropy_loss(dynamic.blend[rows]))
    kept = pick(alone, flow.picked[rows])
    labels = None if seen.labels is None or flow.logits is None else seen.labels[rays]
    if labels is not None and flow.logits is not None:
        logits = composite(semantic_weights(kept, None, config), flow.logits[rows])
        result["dynamic_semantic"] = w.dynamic_semantic * L.semantic_loss(logits, labels, live.float())
    if max(w.advected_color, w.consistency, w.advected_blend_static, w.advected_dynamicness) <= 0:
        return result
    there = render_advected(scene, out, rows, direction, config)
    weight = live * flow.exists(direction)[rows] * L.occlusion_weight(kept, there.weights)
    result["advected_color"] = w.advected_color * L.color_loss(
        on_background(scene, there.rgb, there.weights), image, weight
    )
    if labels is not None and there.logits is not None:
        result["consistency"] = w.consistency * L.semantic_loss(there.logits, labels, weight)
    if seen.motion is not None:
        still = seen.static[rays] & flow.exists(direction)[rows]
        result["advected_blend_static"] = w.advected_blend_static * L.blend_static_loss(there.blend, still)
        share = (there.weights * there.blend).sum(-1)
        result["advected_dynamicness"] = w.advected_dynamicness * L.dynamicness_loss(share, live, weight)
    return result


def flow_losses(scene: Scene, out: Rendered, seen: Observed, w: LossWeights, config: RenderConfig) -> dict[str, Tensor]:
    """Induced optical flow against the given one, and priors on the flow field."""
    flow, result = out.flow, {}
    assert flow is not None
    cameras, rays = scene.bank.cameras, flow.rays
    size = torch.tensor([cameras.width, cameras.height], device=rays.device)
    scale = FLOW_WIDTH * torch.stack([torch.ones_like(seen.aspect), seen.aspect], dim=-1)[rays]
    points, solid, errors = seen_points(out)[rays], out.accumulation[rays] > MIN_ACCUMULATION, []
    for step, given, neighbour in ((1, seen.flow, scene.next_frame), (-1, seen.flow_backward, scene.previous_frame)):
        if given is None:
            continue
        target = neighbour[seen.frame[rays]]
        pixels, depth = cameras.project(points + seen_motion(out, step), target.clamp(min=0))
        valid = given[1][rays] & (target >= 0) & (depth > 1e-3) & solid
        induced = torch.where(valid[:, None], pixels / size - seen.pixel[rays], 0.0)
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
    if w.flow_cycle > 0:
        result["flow_cycle"] = w.flow_cycle * L.cycle_loss(flow.points, forward_and_back(scene, out, config), weight)
    return result


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
    distances = out.samples.distances
    if seen.inverse_depth is None:
        if seen.disparity is not None and w.depth > 0:
            wanted = seen.disparity if not static_only else torch.where(seen.static, seen.disparity, torch.nan)
            inverse = seen.z_ratio / out.distance.clamp(min=L.EPS)
            result["depth"] = w.depth * L.relative_depth_loss(inverse, wanted, seen.frame)
        return result
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
    if w.depth_guided_blend > 0 and out.dynamic is not None:
        rays = out.mover_rays
        result["depth_guided_blend"] = w.depth_guided_blend * L.depth_guided_blend_loss(
            out.dynamic.blend, distances[rays], given[rays], moving[rays]
        )
    return result


def given_distance(seen: Observed) -> tuple[Tensor, Float[Tensor, "R"]]:
    """Whether the aligned disparity says where a ray ends, and at which distance along it (1 where it does not)."""
    assert seen.inverse_depth is not None
    known = seen.inverse_depth.isfinite() & (seen.inverse_depth > 0)
    return known, seen.z_ratio / torch.where(known, seen.inverse_depth, 1.0)


def on_background(scene: Scene, rgb: Float[Tensor, "R 3"], weights: Float[Tensor, "R S"]) -> Float[Tensor, "R 3"]:
    """Composited colours in front of the scene's background, as its images are."""
    return rgb + (1 - weights.sum(-1, keepdim=True)) * rgb.new_tensor(scene.background_color)


def random_rays(mask: Tensor, count: int) -> Int[Tensor, "Q"]:
    """`count` random rays, those of the mask first; a fixed number, so that nothing waits for the device."""
    order = torch.rand(mask.shape, device=mask.device) + mask
    return order.topk(min(count, mask.shape[0])).indices


def as_color(image: Tensor) -> Tensor:
    """Colours in [0, 1] of stored images, which are 8-bit where the data set keeps them so."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def observe(
    batch: dict[str, Tensor],
    rows: Int[Tensor, "R"] | None,
    z_ratio: Float[Tensor, "R 1"],
    first_frame: int,
    device: torch.device,
) -> Observed:
    """What a batch of the datamanager says about its rays (or some of its rows).

    Args:
        batch: The datamanager's batch.
        rows: The rows that belong to one scene; None for all.
        z_ratio: Distance along the ray per camera-z depth.
        first_frame: Index of the scene's first frame in the data set.
        device: Where the model is.
    """

    def get(name: str) -> Tensor | None:
        values = batch.get(name)
        if values is None:
            return None
        values = values if rows is None else values[rows.to(values.device)]
        return values.to(device, non_blocking=True)

    size = get("image_size")
    assert size is not None

    def column(name: str) -> Tensor | None:
        values = get(name)
        return None if values is None else values[:, 0]

    def flow(name: str) -> tuple[Tensor, Tensor] | None:
        values, mask = get(name), column(f"{name}_mask")
        if values is None or mask is None:
            return None
        return values.float() / size, mask.bool()

    indices, image = get("indices"), get("image")
    assert indices is not None and image is not None
    return Observed(
        image=as_color(image[:, :3]),
        pixel=(indices[:, [2, 1]] + PIXEL_CENTER) / size,
        aspect=size[:, 1] / size[:, 0],
        frame=indices[:, 0] - first_frame,
        z_ratio=z_ratio.reshape(-1).to(device),
        labels=column("labels"),
        motion=column("motion_mask"),
        flow=flow("flow_forward"),
        flow_backward=flow("flow_backward"),
        inverse_depth=column("inverse_depth"),
        disparity=column("disparity"),
    )
