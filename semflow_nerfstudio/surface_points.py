"""What a camera of a trained model sees, as labelled 3-D points: one a pixel."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semflow_nerfstudio.renderer import FlowPass, Rendered
from semflow_nerfstudio.rendering.compositing import composite
from semflow_nerfstudio.rendering.edited import EditedSamples
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

    from semflow_nerfstudio.model import SemanticFlowModel

SURFACE_DEPTH = 0.03
"""What lies within this share of the distance from a ray's median belongs to the surface that the ray hits."""


@dataclass
class SurfacePoints:
    """Points of P rays, in scene units."""

    points: Float[Tensor, "P 3"]
    """Where the ray meets what it mostly sees: the static field's surface or the movers'."""
    rgb: Float[Tensor, "P 3"]
    """As rendered, without background, in [0, 1]."""
    label: Int[Tensor, "P"]
    """Class id; 255 where the run has no classes."""
    moving: Bool[Tensor, "P"]
    """Whether what is seen belongs to the dynamic field."""
    velocity: Float[Tensor, "P 3"]
    """Scene units per tau (frame to frame); zero where nothing moves."""
    concentration: Float[Tensor, "P"]
    """Share of the ray's light that stops at the surface: small at silhouettes and in empty space."""
    probability: Float[Tensor, "P"]
    """Probability of the label; 1 where the run has no classes."""

    accumulation: Float[Tensor, "P"]
    """Light that anything stops."""
    source: Float[Tensor, "P 3"]
    """Where the fields were read for the point: elsewhere than `points` in an edited scene, as instances are."""
    source_time: Float[Tensor, "P"]
    """And when."""

    @property
    def confidence(self) -> Float[Tensor, "P"]:
        """Concentration times probability, in [0, 1]."""
        return self.concentration * self.probability

    def __len__(self) -> int:
        return self.points.shape[0]

    def pick(self, rows: Tensor) -> SurfacePoints:
        """Some of the points, by index or mask."""
        return SurfacePoints(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def cat(parts: list[SurfacePoints]) -> SurfacePoints:
        """Points of several views, one after the other."""
        return SurfacePoints(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(SurfacePoints)})


@torch.no_grad()
def surface_points(model: SemanticFlowModel, camera: Cameras) -> SurfacePoints:
    """Points of all pixels of one camera (shape (1,)), row by row, on the CPU."""
    was_training = model.training
    model.eval()
    try:
        rays = camera.to(model.device).generate_rays(camera_indices=0, keep_shape=True).flatten()
        chunk = model.config.eval_num_rays_per_chunk
        parts = []
        for start in range(0, len(rays), chunk):
            batch = rays[start : start + chunk]
            ((name, rows, these),) = list(model.by_scene(batch))  # a camera belongs to one scene
            rendered = model.render_scene(name, rows, these).rendered
            parts.append(points_of_rays(rendered, model.scene(name)))
    finally:
        model.train(was_training)
    return SurfacePoints.cat(parts)


def bank_camera(model: SemanticFlowModel, scene: str, frame: int, rays: int | None = None) -> Cameras:
    """The camera of a scene's training frame at its own time, shape (1,), made smaller where it has more than `rays`.

    It comes from the checkpoint, at the size of the frames that are kept there, and needs no data set.
    """
    from nerfstudio.cameras.cameras import Cameras, CameraType

    bank = model.scene(scene).bank
    cameras = bank.cameras
    ratio = min(1.0, ((rays or 0) / (cameras.width * cameras.height)) ** 0.5) if rays else 1.0
    if ratio < 1:
        cameras = cameras.scaled_to(max(1, int(cameras.width * ratio)), max(1, int(cameras.height * ratio)))
    fx, fy, cx, cy = cameras.intrinsics[frame : frame + 1].cpu().unbind(-1)
    return Cameras(
        camera_to_worlds=cameras.camera_to_worlds[frame : frame + 1].cpu(),
        fx=fx[:, None],
        fy=fy[:, None],
        cx=cx[:, None],
        cy=cy[:, None],
        width=cameras.width,
        height=cameras.height,
        distortion_params=None if cameras.distortion is None else cameras.distortion[frame : frame + 1].cpu(),
        camera_type=CameraType.PERSPECTIVE,
        times=bank.frame_times[frame : frame + 1, None].cpu(),
        metadata={"scene": torch.tensor([[list(model.scenes).index(scene)]])},
    )


def points_of_rays(out: Rendered, scene: Scene) -> SurfacePoints:
    """One point for each of the rays."""
    moving = out.dynamicness > 0.5 * out.accumulation
    layer = torch.where(moving[:, None], out.weights.dynamic, out.weights.static)
    through = layer.cumsum(-1)
    median = (through >= through[:, -1:] / 2).int().argmax(-1, keepdim=True)
    distances = out.samples.distances
    middle = distances.gather(1, median)
    near = layer * ((distances - middle).abs() <= SURFACE_DEPTH * middle)
    stopped = near.sum(-1)
    points = composite(near, out.samples.positions) / stopped[:, None].clamp(min=1e-8)
    rays, device = len(points), points.device
    if out.logits is None:
        probability, label = torch.ones(rays, device=device), torch.full((rays,), IGNORE_LABEL, device=device)
    else:
        probability, label = out.logits.softmax(-1).max(-1)
    velocity = torch.zeros_like(points)
    if out.flow is not None:
        velocity = mover_velocity(out.flow, scene, rays)
        velocity[~moving] = 0
    rgb = (out.rgb / out.accumulation[:, None].clamp(min=1e-6)).clamp(0, 1)
    share = near / stopped[:, None].clamp(min=1e-8)
    times = out.samples.times.expand_as(share)
    if isinstance(out.samples, EditedSamples) and out.samples.read_times is not None:
        times = out.samples.read_times
    sources = composite(share, out.samples.sources)
    # A mean of times would not be one: samples of one ray can come from different ones.
    source_time = times.gather(1, near.argmax(-1, keepdim=True))[:, 0]
    columns = (points, rgb, label, moving, velocity, stopped, probability, out.accumulation, sources, source_time)
    return SurfacePoints(*(column.cpu() for column in columns))


def mover_velocity(flow: FlowPass, scene: Scene, rays: int) -> Float[Tensor, "R 3"]:
    """Mean velocity of the movers' part of each of the rays, towards the next frame time; from the last one at the end.

    A ray of an edited scene can have several rows, one for each sample's time.
    """
    center = flow.window.center
    window_times = scene.bank.timeline.time(flow.window.index.to(flow.times))
    velocity = torch.zeros_like(flow.points)
    for step in (-1, 1):
        column = center + step
        if 0 <= column < flow.trajectories.shape[2]:
            steps = (window_times[:, column : column + 1] - flow.times) / scene.timeline.tau
            exists = flow.exists(step)[:, None, None]
            velocity = torch.where(exists, flow.displacement(step) / steps[..., None], velocity)
    total = flow.points.new_zeros(rays, 3).index_add(0, flow.rays, composite(flow.weights, velocity))
    weight = flow.points.new_zeros(rays, 1).index_add(0, flow.rays, flow.weights.sum(-1, keepdim=True))
    return total / weight.clamp(min=1e-8)
