"""The way of a ray: samples -> fields -> flow features -> attention -> semantics -> compositing -> outputs.

Only torch is needed, so that this runs (and is measured) where nerfstudio is not installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semflow_nerfstudio.fields.static_field import FieldOutputs
from semflow_nerfstudio.flow.feature_maps import Maps
from semflow_nerfstudio.flow.timeline import Timeline
from semflow_nerfstudio.flow.trajectories import Integrator, trace
from semflow_nerfstudio.rendered import FlowPass, Rendered
from semflow_nerfstudio.rendering.compositing import (
    BlendedWeights,
    blended_weights,
    composite,
    field_weights,
    mean_distance,
    opacities,
    paper_blended_weights,
)
from semflow_nerfstudio.rendering.edited import EditedSamples
from semflow_nerfstudio.rendering.samples import Samples, heaviest, pick, pick_weights
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.shared import SharedNetworks


@dataclass
class RenderConfig(SavedConfig):
    """How rays are rendered."""

    window: int = 3
    """Times of the window whose frames a flow reads (odd; the paper's K)."""
    window_stride: int = 1
    """Frames from one window time to the next; 0: as many as spread the window over the whole clip."""
    substeps: int = 1
    """Integration steps from one frame to the next."""
    integrator: Integrator = "midpoint"
    """How the flow field is integrated."""
    static_samples: int = 4
    """Samples of a ray, the heaviest of the static field, that get static semantics."""
    flow_samples: int = 6
    """Samples of a ray, the heaviest of the dynamic field, that get flows and their semantics."""
    min_dynamicness: float = 1e-3
    """Outside training, rays whose movers' share is below this get no flows."""
    min_semantic_weight: float = 1e-4
    """Outside training, samples that weigh less than this get no semantics: empty space, and what lies behind where
    the light is spent. From there to twice as much they fade in."""
    compositing: Literal["normalized", "paper"] = "normalized"
    """Blended weights that sum to one minus the transmittance, or the reference's, which can exceed one."""
    semantic_gradient: Literal["joint", "stopped"] = "joint"
    """Whether labels shape the fields: their densities, and the trunks that colour is made from too."""
    label_gradient: float = 1.0
    """With `joint`, the share of the labels' gradient that shapes the fields. It costs colour and geometry what it
    brings labels, which have a grid of their own (`scene.semantic_grid`) for what a share leaves out."""
    semantic_weights: Literal["density", "uniform"] = "density"
    """What logits are composited with: the densities' weights, or the same weight for all samples of a ray that get
    semantics (split between the fields by the blending weight alone); with all samples, nothing of the densities."""
    flow_features: bool = True
    """Semantics from flow features; off: from the fields' own trunk features alone."""
    token_visibility: int = 0
    """Samples of the (proposal) density between a flow's point and the camera of a frame that it is looked up in, which
    say how far it is visible there; what is hidden counts less in the attention. 0: off."""

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"render.window is {self.window}: use an odd number, the rays' own time in the middle")
        if min(self.window_stride, self.token_visibility) < 0 or self.substeps < 1:
            raise ValueError(
                "render.window_stride and render.token_visibility must be 0 or more and render.substeps at least 1"
            )

    def shaped_by_labels(self, values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """What the fields say, with as much of the labels' gradient as may shape them; the values are the same."""
        share = 0.0 if self.semantic_gradient == "stopped" else self.label_gradient
        if share == 1 or not values.requires_grad:
            return values
        kept = values.detach()
        return kept if share == 0 else kept + share * (values - kept)

    def stride(self, timeline: Timeline) -> int:
        """Frames between neighbours in the window."""
        return self.window_stride or timeline.stride_over_clip(self.window)

    def window_offsets(self, timeline: Timeline) -> list[int]:
        """The window's frame times, counted from the ray's own."""
        radius = self.window // 2
        return [self.stride(timeline) * k for k in range(-radius, radius + 1)]


def render_rays(
    scene: Scene,
    shared: SharedNetworks | None,
    samples: Samples,
    config: RenderConfig,
    maps: Maps | None = None,
    static_only: bool = False,
    mover_rays: Int[Tensor, "M"] | None = None,
    moving: Bool[Tensor, "R"] | None = None,
    shared_alone: bool = False,
    training: bool = False,
) -> Rendered:
    """Render rays through a scene.

    Args:
        scene: Its fields, times and frames.
        shared: The networks that read flows; None where nothing is labelled.
        samples: Where to sample; those of an edited scene (`EditedSamples`) say what it shows there.
        config: How.
        maps: Feature maps of the scene's frames.
        static_only: Leave the dynamic field out (the first stage of training).
        mover_rays: Evaluate the dynamic field on these rays only; None: on all.
        moving: Rays known to show something that moves: they teach the static field nothing, which otherwise grows
            ghosts of the movers and loses what they hide.
        shared_alone: Composite the shared networks' logits without the scene's residuals, too.
        training: The rays' times are exactly frame times, and all mover rays get flows.
    """
    edited = samples if isinstance(samples, EditedSamples) else None
    static = scene.static(samples) if edited is None else edited.static(scene)
    if moving is not None:
        static = static.stop_gradient(moving)
    static_alphas = opacities(static.density, samples.deltas)
    if edited is not None:
        static_alphas = edited.faded(static_alphas)
    static_weights = field_weights(static_alphas)
    if static_only:
        static_rgb = composite(static_weights, static.rgb)
        weights = BlendedWeights(static_weights, torch.zeros_like(static_weights), 1 - static_weights.sum(-1))
        out = Rendered(
            samples,
            static_rgb,
            weights,
            mean_distance(static_weights, samples.distances, harmonic=not scene.bounded),
            static_rgb,
            static_weights,
            torch.zeros_like(static_rgb),
        )
    else:
        out = add_movers(scene, samples, static, static_alphas, static_weights, mover_rays, config, training)
        out.flow = trace_flows(scene, out, config, training)
    if shared is None:
        return out
    out.static_logits, out.logits, out.shared_logits = static_semantics(
        scene, shared, out, static.trunk, maps, config, shared_alone, training
    )
    if out.flow is not None:
        out.flow.shared_logits, out.flow.logits = flow_semantics(scene, shared, out, maps, config, training)
        assert out.dynamic is not None
        blend = pick(out.dynamic.blend[out.flow.rows], out.flow.picked)
        weigh = semantic_weights(out.flow.weights, blend, config)
        out.logits = out.logits.index_add(0, out.flow.rays, composite(weigh, out.flow.logits))
        if out.shared_logits is not None:
            alone = composite(weigh.detach(), out.flow.shared_logits)
            out.shared_logits = out.shared_logits.index_add(0, out.flow.rays, alone)
    return out


def add_movers(
    scene: Scene,
    samples: Samples,
    static: FieldOutputs,
    static_alphas: Float[Tensor, "R S"],
    static_weights: Float[Tensor, "R S"],
    mover_rays: Int[Tensor, "M"] | None,
    config: RenderConfig,
    training: bool,
) -> Rendered:
    """Composite the dynamic field with the static one, on all rays or on some."""
    rays = slice(None) if mover_rays is None else mover_rays
    moving = samples if mover_rays is None else samples.rays(mover_rays)
    evaluate = scene.dynamic if training else scene.dynamic_between_frames
    if isinstance(samples, EditedSamples):
        dynamic = samples.dynamic(scene)
        alphas = samples.faded(opacities(dynamic.density, samples.deltas), dynamic.blend)
    else:
        dynamic = evaluate(moving.positions, moving.times, moving.sample_directions)
        alphas = opacities(dynamic.density, moving.deltas)
    blended = blended_weights if config.compositing == "normalized" else paper_blended_weights
    weights = blended(static_alphas[rays], alphas, dynamic.blend)
    share = composite(weights.dynamic, dynamic.rgb)
    if mover_rays is not None:
        weights = BlendedWeights(
            static_weights.index_copy(0, mover_rays, weights.static),
            torch.zeros_like(static_weights).index_copy(0, mover_rays, weights.dynamic),
            (1 - static_weights.sum(-1)).index_copy(0, mover_rays, weights.transmittance),
        )
        share = share.new_zeros(static_weights.shape[0], 3).index_copy(0, mover_rays, share)
    return Rendered(
        samples=samples,
        rgb=share + composite(weights.static, static.rgb),
        weights=weights,
        distance=mean_distance(weights.total, samples.distances, harmonic=not scene.bounded),
        static_rgb=composite(static_weights, static.rgb),
        static_weights=static_weights,
        dynamic_share_rgb=share,
        mover_rays=rays,
        dynamic=dynamic,
        dynamic_alphas=alphas,
    )


def trace_flows(scene: Scene, out: Rendered, config: RenderConfig, training: bool) -> FlowPass:
    """Samples -> trajectories: the heaviest dynamic samples of the rays that show motion, through the time window."""
    samples = out.samples
    everything = torch.arange(samples.starts.shape[0], device=samples.starts.device)[out.mover_rays]
    if training or config.semantic_weights == "uniform":
        rows, rays = slice(None), everything
    else:
        rows = (out.dynamicness[everything] > config.min_dynamicness).nonzero()[:, 0]
        rays = everything[rows]
    share = out.weights.dynamic[rays]
    picked = heaviest(share, config.flow_samples)
    weights, times, turn, drift = pick_weights(share, picked), samples.times[rays], None, None
    if isinstance(samples, EditedSamples):
        if samples.read_times is not None:
            # Each sample has a time of its own here, so each is a row of its own.
            numbers = rows if isinstance(rows, Tensor) else torch.arange(len(rays), device=rays.device)
            rows, rays = (v.repeat_interleave(picked.shape[1]) for v in (numbers, rays))
            picked, weights = picked.reshape(-1, 1), weights.reshape(-1, 1)
            times = samples.read_times[rays].gather(1, picked)
        if samples.turn is not None and samples.drift is not None:
            turn, drift = pick(samples.turn[rays], picked), pick(samples.drift[rays], picked)
    points = pick(samples.sources[rays], picked)
    timeline = scene.bank.timeline
    stride = config.stride(timeline)
    window = timeline.window(timeline.index(times[:, 0]), config.window, at_frames=training, stride=stride)
    trajectories = trace(
        scene.velocity,
        points,
        times,
        timeline.time(window.index.to(times)),
        window.center,
        scene.timeline.tau,
        window.at_frames,
        config.substeps,
        config.integrator,
        window.gaps,
    )
    return FlowPass(rays, rows, picked, points, times, window, trajectories, weights, turn=turn, drift=drift)


def static_semantics(
    scene: Scene,
    shared: SharedNetworks,
    out: Rendered,
    trunk: Float[Tensor, "R S G"],
    maps: Maps | None,
    config: RenderConfig,
    shared_alone: bool,
    training: bool,
) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R C"], Float[Tensor, "R C"] | None]:
    """Static points -> logits, composited with the static field's own weights and with its share of the full ones.

    The third, if asked for, are the second without the scene's residual. Their weights have no gradient: fields should
    not bend to what the residual mends.
    """
    picked = heaviest(out.weights.static, config.static_samples)
    static_share = None
    if out.dynamic is not None and config.semantic_weights == "uniform":
        static_share = torch.ones_like(out.static_weights)
        static_share[out.mover_rays] = 1 - out.dynamic.blend
        static_share = pick(static_share, picked)
    own = semantic_weights(pick(out.static_weights, picked), None, config)
    share = semantic_weights(pick_weights(out.weights.static, picked), static_share, config)
    points, kept = pick(out.samples.sources, picked), pick(trunk, picked)
    ramp = None if training else fade_in(torch.maximum(own, share), config)
    if ramp is not None:
        points, kept = points[ramp > 0], kept[ramp > 0]
    logits = torch.zeros(1, device=trunk.device)
    if maps is not None:
        logits = shared.static_logits(maps, scene.bank, points)
    alone = logits
    if scene.residual:
        logits = logits + scene.static_residual_logits(points, config.shaped_by_labels(kept))
    logits = spread(logits, ramp)
    still = composite(share.detach(), spread(alone, ramp)) if shared_alone else None
    return composite(own, logits), composite(share, logits), still


def fade_in(weights: Float[Tensor, "R k"], config: RenderConfig) -> Float[Tensor, "R k"]:
    """0 for samples too light for semantics, growing to 1 at twice their least weight, so that nothing jumps."""
    if config.min_semantic_weight <= 0 or config.semantic_weights == "uniform":
        return torch.ones_like(weights)
    return (weights / config.min_semantic_weight - 1).clamp(0, 1)


def spread(logits: Float[Tensor, "*batch C"], ramp: Float[Tensor, "R k"] | None) -> Float[Tensor, "R k C"]:
    """Logits of those of k samples of R rays whose ramp is not zero, faded; as they are where all were computed."""
    if ramp is None:
        return logits
    every = logits.new_zeros(*ramp.shape, logits.shape[-1]).masked_scatter(ramp[..., None] > 0, logits)
    return every * ramp[..., None]


def semantic_weights(
    weights: Float[Tensor, "R k"], share: Float[Tensor, "R k"] | None, config: RenderConfig
) -> Float[Tensor, "R k"]:
    """What the logits of k samples are composited with.

    Args:
        weights: Their weights by density.
        share: The field's share of each sample by the blending weight; None: all.
        config: Whether to use the densities' weights, and whether labels shape them.
    """
    if config.semantic_weights == "uniform":
        weights = (torch.ones_like(weights) if share is None else share) / weights.shape[-1]
    return config.shaped_by_labels(weights)


def flow_semantics(
    scene: Scene,
    shared: SharedNetworks,
    out: Rendered,
    maps: Maps | None,
    config: RenderConfig,
    training: bool,
) -> tuple[Float[Tensor, "Q k C"], Float[Tensor, "Q k C"]]:
    """Trajectories -> flow features -> attention -> logits of the flows, without and with the scene's residual."""
    flow, dynamic = out.flow, out.dynamic
    assert flow is not None and dynamic is not None and out.logits is not None
    window, trajectories, points = flow.window, flow.trajectories, flow.points
    times, trunk = flow.times, pick(dynamic.trunk[flow.rows], flow.picked)
    ramp = None if training else fade_in(flow.weights, config)
    if ramp is not None:
        heavy = ramp > 0
        rays = heavy.nonzero()[:, 0]
        window = window._replace(index=window.index[rays], weight=window.weight[rays], exists=window.exists[rays])
        trajectories, points, trunk = trajectories[heavy][:, None], points[heavy][:, None], trunk[heavy][:, None]
        times = times[rays]
    if maps is not None:
        seen = partial(scene.seen_from_frames, samples=config.token_visibility) if config.token_visibility else None
        logits = shared.flow_logits(maps, scene.bank, window, trajectories, points, times, scene.timeline.tau, seen)
    else:
        logits = out.logits.new_zeros(*points.shape[:-1], out.logits.shape[-1])
    if not scene.residual:
        every = spread(logits, ramp)
        return every, every
    own = scene.flow_residual(config.shaped_by_labels(trunk))
    return spread(logits, ramp), spread(logits + own, ramp)


@dataclass
class Advected:
    """The dynamic field of Q rays seen from a neighbouring time, along the flow."""

    rgb: Float[Tensor, "Q 3"]
    weights: Float[Tensor, "Q k"]
    blend: Float[Tensor, "Q k"]
    logits: Float[Tensor, "Q C"] | None


def render_advected(scene: Scene, out: Rendered, rows: Int[Tensor, "A"], step: int, config: RenderConfig) -> Advected:
    """C_d+- and S_d+-: the picked samples of some of the flow pass's rays moved one frame along the flow.

    The shared logits belong to the flow, which is the same; the field's residual is read at the new place and time.
    """
    flow, samples = out.flow, out.samples
    assert flow is not None
    column = flow.window.center + step
    positions = flow.trajectories[rows, :, column]
    times = scene.bank.timeline.time(flow.window.index[rows, column].to(positions))[:, None]
    rays = flow.rays[rows]
    dynamic = scene.dynamic(positions, times, samples.directions[rays][:, None].expand_as(positions))
    weights = field_weights(opacities(dynamic.density, pick(samples.deltas[rays], flow.picked[rows])))
    logits = None
    if flow.shared_logits is not None:
        per_flow = flow.shared_logits[rows]
        if scene.residual:
            per_flow = per_flow + scene.flow_residual(config.shaped_by_labels(dynamic.trunk))
        logits = composite(semantic_weights(weights, None, config), per_flow)
    return Advected(composite(weights, dynamic.rgb), weights, dynamic.blend, logits)
