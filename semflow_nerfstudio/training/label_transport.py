"""Labels carried along the model's own trajectories: unlabelled movers learn what labelled frames show of them.

A ray of an unlabelled pixel that shows a mover has a surface point. The flow field takes that point to the nearest
labelled times, the cameras of those frames project it, and what is labelled there is the ray's label, the less certain
the longer the way, the less the flow back returns to the point, and the less that pixel can show the point at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.flow.timeline import Timeline
from semflow_nerfstudio.flow.trajectories import Velocity, integrate
from semflow_nerfstudio.rendered import Rendered
from semflow_nerfstudio.rendering.compositing import composite
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.training.objective import MIN_ACCUMULATION
from semflow_nerfstudio.training.observed import Observed

REFERENCE_WIDTH = 480.0
"""Disagreement of the flow there and back is in pixels of an image this wide."""


@dataclass(frozen=True)
class LabelTransportConfig(SavedConfig):
    """How far labels are carried along the model's trajectories."""

    start_after: int = 150
    """Steps after the static stage in which the flow is learned before it carries labels."""
    reach: int = 16
    """Labelled times farther away than this many frames are out of reach."""
    decay: float = 0.97
    """Confidence left after every frame."""
    cycle_scale: float = 4.0
    """Pixels (of a 480-wide image) between a point and where the flow there and back takes it, at which confidence
    falls to 1/e."""
    depth_tolerance: float = 0.1
    """A labelled pixel whose known depth differs from the point's by a larger share shows something else."""


DEFAULT_TRANSPORT = LabelTransportConfig()
"""A plain default, which runs saved before there was this setting have as well."""


@dataclass
class LabelSources:
    """The L labelled frames of a scene."""

    labels: UInt8[Tensor, "L H W"]
    """255 unlabelled."""
    cameras: FrameCameras
    """Of the L frames, at the labels' size."""
    times: Float[Tensor, "L"]
    wanted: Bool[Tensor, "N"]
    """Frames of the scene whose unlabelled pixels want labels; in the others they were left out on purpose."""
    moving: Bool[Tensor, "L H W"] | None = None
    """Where something may move; None where that is not known."""
    inverse_depth: Float[Tensor, "L H W"] | None = None
    """Per scene unit of camera z, NaN unknown; None where no frame has any."""
    _by_time: tuple[Int[Tensor, "T"], Int[Tensor, "V T"]] | None = None

    def by_time(self, timeline: Timeline) -> tuple[Int[Tensor, "T"], Int[Tensor, "V T"]]:
        """`frames_by_time` on the clip's timeline, found once."""
        if self._by_time is None:
            self._by_time = frames_by_time(timeline.index(self.times).round().long())
        return self._by_time

    def to(self, device: torch.device) -> LabelSources:
        """The same on another device; itself on its own."""
        if self.labels.device == device:
            return self
        return LabelSources(
            self.labels.to(device),
            self.cameras.to(device),
            self.times.to(device),
            self.wanted.to(device),
            None if self.moving is None else self.moving.to(device),
            None if self.inverse_depth is None else self.inverse_depth.to(device),
        )


class LabelTransport:
    """Carries labels in the scenes that have labelled frames to carry them from."""

    def __init__(self, config: LabelTransportConfig, sources: Mapping[str, LabelSources] | None) -> None:
        self.config, self.sources = config, dict(sources or {})

    def __call__(self, scene: Scene, out: Rendered, seen: Observed, step: int) -> Observed:
        """What is known about a scene's rays, with labels of others: from the `start_after`th step of the dynamic stage
        on, and more and more believed for as many steps again."""
        late, sources = step - self.config.start_after, self.sources.get(scene.name)
        if sources is None or late < 0:
            return seen
        self.sources[scene.name] = sources = sources.to(scene.device)
        strength = min(1.0, (late + 1) / max(1, self.config.start_after))
        return with_transported_labels(scene, out, seen, sources, self.config, strength)


def with_transported_labels(
    scene: Scene, out: Rendered, seen: Observed, sources: LabelSources, config: LabelTransportConfig, strength: float
) -> Observed:
    """Labels that labelled frames show along the trajectories of moving rays, where those are surer than the rays' own.

    Labels of the rays' own frames are left as they are. `strength` in [0, 1] scales the confidence.
    """
    flow = out.flow
    if flow is None or seen.labels is None or strength <= 0:
        return seen
    weight = torch.ones_like(seen.z_ratio) if seen.label_weight is None else seen.label_weight
    weight = torch.where(seen.labels == IGNORE_LABEL, 0.0, weight)
    open_rays = seen.moving & (weight < 1) & sources.wanted[seen.frame]
    rows = rows_where(open_rays[flow.rays])
    share = flow.weights.detach()[rows]
    points = composite(share / share.sum(-1, keepdim=True).clamp(min=1e-6), flow.points.detach()[rows])
    solid = share.sum(-1) > MIN_ACCUMULATION
    rays = flow.rays[rows]
    times = out.samples.times[rays, 0]
    labels, sure = transport_labels(scene.velocity, scene.timeline, sources, points, times, config)
    sure = sure * solid * strength
    surer = open_rays[rays] & (sure > weight[rays])
    return replace(
        seen,
        labels=seen.labels.index_copy(0, rays, torch.where(surer, labels, seen.labels[rays])),
        label_weight=weight.index_copy(0, rays, torch.where(surer, sure, weight[rays])),
    )


def counting_waits(device: torch.device) -> bool:
    """Whether asking how many or how far would make the host wait for the device."""
    return device.type != "cpu"


def rows_where(mask: Bool[Tensor, "Q"]) -> Int[Tensor, "P"]:
    """At least the rows of a mask: those alone where they can be counted for nothing, else all."""
    return torch.arange(len(mask), device=mask.device) if counting_waits(mask.device) else mask.nonzero()[:, 0]


@torch.no_grad()
def transport_labels(
    velocity: Velocity,
    timeline: Timeline,
    sources: LabelSources,
    points: Float[Tensor, "Q 3"],
    times: Float[Tensor, "Q"],
    config: LabelTransportConfig,
) -> tuple[UInt8[Tensor, "Q"], Float[Tensor, "Q"]]:
    """Labels of points at frame times, and their confidence in [0, 1].

    Args:
        velocity: The flow field.
        timeline: All times of the clip.
        sources: The labelled frames.
        points: Surface points of movers.
        times: The frame times at which they are there.
        config: How far labels go.

    Returns:
        The surest of what other cameras' labels of the same time and the nearest labelled times before and after say
        (255 where none says anything); where they disagree, only the difference of their confidences is left.
    """
    here = timeline.index(times).round().long()
    labelled, frames_at = sources.by_time(timeline)
    labels, confidence = torch.full_like(here, IGNORE_LABEL), torch.zeros_like(points[:, 0])
    for side in (0, -1, 1):
        slot = torch.searchsorted(labelled, here, right=side > 0) - (1 if side < 0 else 0)
        exists = (slot >= 0) & (slot < len(labelled))
        if side == 0:
            exists &= labelled[slot.clamp(max=len(labelled) - 1)] == here
        slot = slot.clamp(0, len(labelled) - 1)
        there = torch.where(exists, labelled[slot], here)
        distance = (there - here).abs()
        exists &= distance <= config.reach
        there = torch.where(exists, there, here)
        moved = chain(velocity, timeline, points, here, there, config.reach)
        back = chain(velocity, timeline, moved, there, here, config.reach)
        best = torch.full_like(here, IGNORE_LABEL), torch.zeros_like(points[:, 0])
        for rows in frames_at[:, slot]:
            label, weight = read_label(sources, rows.clamp(min=0), moved, (back - points).norm(dim=-1), config)
            weight = torch.where(exists & (rows >= 0), weight * config.decay**distance, 0.0)
            surer = weight > best[1]
            best = torch.where(surer, label, best[0]), torch.where(surer, weight, best[1])
        labels, confidence = combine((labels, confidence), best)
    return labels.to(torch.uint8), confidence


def frames_by_time(index: Int[Tensor, "L"]) -> tuple[Int[Tensor, "T"], Int[Tensor, "V T"]]:
    """The distinct ones of the labelled frames' times, sorted, and the frames of each, padded with -1."""
    labelled, slot, count = index.unique(return_inverse=True, return_counts=True)
    order = slot.argsort(stable=True)
    place = torch.arange(len(index), device=index.device) - (count.cumsum(0) - count)[slot[order]]
    frames = torch.full((int(count.max()), len(labelled)), -1, device=index.device)
    frames[place, slot[order]] = order
    return labelled, frames


def combine(
    one: tuple[Int[Tensor, "Q"], Float[Tensor, "Q"]], other: tuple[Int[Tensor, "Q"], Float[Tensor, "Q"]]
) -> tuple[Int[Tensor, "Q"], Float[Tensor, "Q"]]:
    """Two answers as one: agreeing ones confirm each other, of two that differ the surer one is believed less."""
    (first, sure), (second, other_sure) = one, other
    agreed = 1 - (1 - sure) * (1 - other_sure)
    return (
        torch.where(sure >= other_sure, first, second),
        torch.where(first == second, agreed, (sure - other_sure).abs()),
    )


def chain(
    velocity: Velocity,
    timeline: Timeline,
    points: Float[Tensor, "Q 3"],
    start: Int[Tensor, "Q"],
    end: Int[Tensor, "Q"],
    most: int,
) -> Float[Tensor, "Q 3"]:
    """Points taken along the flow from frame time `start` to frame time `end` (indices), one frame at a time; none goes
    farther than `most`."""
    step, distance = (end - start).sign(), (end - start).abs()
    for k in range(most):
        rows = rows_where(distance > k)
        if len(rows) == 0:
            break
        # A point that has arrived stays: its time does not go on.
        now = start[rows] + distance[rows].clamp(max=k) * step[rows]
        then = start[rows] + distance[rows].clamp(max=k + 1) * step[rows]
        times, gaps = timeline.times[now], timeline.times[then] - timeline.times[now]
        moved = integrate(velocity, points[rows], times[:, None], gaps[:, None], timeline.tau)
        points = points.index_copy(0, rows, moved)
    return points


def read_label(
    sources: LabelSources,
    rows: Int[Tensor, "Q"],
    points: Float[Tensor, "Q 3"],
    cycle_error: Float[Tensor, "Q"],
    config: LabelTransportConfig,
) -> tuple[Int[Tensor, "Q"], Float[Tensor, "Q"]]:
    """What labelled frames, one for each point, show of points at their time, and how far to believe that it is the
    points that they show."""
    cameras = sources.cameras
    pixels, depth = cameras.project(points, rows)
    seen = cameras.visible(pixels, depth)
    column = pixels[:, 0].nan_to_num().long().clamp(0, cameras.width - 1)
    line = pixels[:, 1].nan_to_num().long().clamp(0, cameras.height - 1)
    label = sources.labels[rows, line, column].long()
    seen = seen & (label != IGNORE_LABEL)
    if sources.moving is not None:
        seen = seen & sources.moving[rows, line, column]
    if sources.inverse_depth is not None:
        ratio = sources.inverse_depth[rows, line, column] * depth
        seen = seen & ~((ratio - 1).abs() > config.depth_tolerance)  # an unknown depth contradicts nothing
    pixel_error = cycle_error * cameras.intrinsics[rows, 0] / depth.clamp(min=1e-6) * REFERENCE_WIDTH / cameras.width
    return label, seen * torch.exp(-((pixel_error / config.cycle_scale) ** 2))
