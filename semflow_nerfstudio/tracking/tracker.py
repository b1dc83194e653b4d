"""Follows points through a trained run: lifted to the rendered surface, carried along the flow, seen in any view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.scene_assembly import frame_cameras
from semflow_nerfstudio.scene_frames import SceneFrames
from semflow_nerfstudio.tracking.points import Queries, Tracks
from semflow_nerfstudio.tracking.trace import RayProfile, follow, from_world, to_world

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Run


@dataclass(frozen=True)
class TrackOptions:
    """How points are followed."""

    substeps: int = 1
    """Integration steps of the flow from one frame time to the next."""
    hidden_margin: float = 0.02
    """A point is hidden by what is nearer by more than this share of its distance."""


@dataclass(frozen=True)
class Views:
    """V views: cameras of training frames (by index in their scene) at times of the clip (by index)."""

    cameras: Int[Tensor, "V"]
    times: Int[Tensor, "V"]


class Tracker:
    """Points of one scene of a run. Positions are in scene units unless said otherwise."""

    def __init__(self, run: Run, scene: str | None = None, options: TrackOptions | None = None) -> None:
        """Raises ValueError for a scene that the run does not have."""
        model = run.model
        self.name = scene or model.shown_scene
        if self.name not in model.scenes:
            raise ValueError(f"the run has no scene '{self.name}': its scenes are {', '.join(model.scenes)}")
        self.run, self.options = run, options or TrackOptions()
        self.scene = model.scene(self.name)
        dataset: Any = run.pipeline.datamanager.train_dataset
        self.frames: SceneFrames = dataset.metadata["scene_frames"][self.name]
        first = model.first_frame[self.name]
        last = first + len(self.frames.times)
        self.nerf_cameras: Cameras = dataset.cameras[first:last].to(model.device)
        self.cameras: FrameCameras = frame_cameras(dataset, first, last).to(model.device)
        self.frame_times = self.frames.times.to(model.device)
        self.times = self.scene.timeline.times
        self.frame_index = self.scene.timeline.index(self.frame_times).round().long()
        """Index into `times` of every training frame."""
        run.pipeline.eval()

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of the training frames."""
        return self.cameras.width, self.cameras.height

    def frame_views(self) -> Views:
        """Every training frame's camera at its own time."""
        return Views(torch.arange(len(self.frame_index), device=self.times.device), self.frame_index)

    def camera_views(self, frame: int) -> Views:
        """The camera of a training frame at all times."""
        times = torch.arange(len(self.times), device=self.times.device)
        return Views(torch.full_like(times, frame), times)

    @torch.no_grad()
    def cast(self, cameras: Int[Tensor, "R"], times: Float[Tensor, "R"], pixels: Float[Tensor, "R 2"]) -> RayProfile:
        """What rays through pixels (u, v) of training frames' cameras meet at times in [0, 1], edits left out."""
        model, parts = self.run.model, []
        chunk = model.config.eval_num_rays_per_chunk
        with model.unedited():
            for rows in torch.arange(len(cameras), device=cameras.device).split(chunk):
                rays = self.nerf_cameras.generate_rays(cameras[rows, None], coords=pixels[rows].flip(-1))
                rays.times = times[rows, None]
                parts.append(model.render_scene(self.name, None, rays).rendered)

        def joined(values: list[Tensor]) -> Tensor:
            return torch.cat(values)

        return RayProfile(
            origins=joined([p.samples.origins for p in parts]),
            directions=joined([p.samples.directions for p in parts]),
            starts=joined([p.samples.starts for p in parts]),
            ends=joined([p.samples.ends for p in parts]),
            static=joined([p.weights.static for p in parts]),
            dynamic=joined([p.weights.dynamic for p in parts]),
        )

    def lift(
        self, frames: Int[Tensor, "N"], pixels: Float[Tensor, "N 2"]
    ) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, "N"]]:
        """The surface points seen at pixels of training frames, and whether they move."""
        profile = self.cast(frames, self.frame_times[frames], pixels)
        return profile.at(profile.surface()), profile.shows_mover

    @torch.no_grad()
    def follow(
        self, points: Float[Tensor, "N 3"], times: Float[Tensor, "N"], moving: Bool[Tensor, "N"]
    ) -> Float[Tensor, "N T 3"]:
        """Where points that are known at times in [0, 1] are at all times of the clip."""
        # Pulling points back to the rendered surface after every frame was tried: it moves them along the line of sight
        # alone, which leaves their pixels as they are, and costs more visibility than it mends.
        velocity, tau = self.scene.velocity, self.scene.timeline.tau
        return follow(velocity, points, times, self.times, tau, moving, self.options.substeps)

    @torch.no_grad()
    def look(
        self, positions: Float[Tensor, "N T 3"], views: Views
    ) -> tuple[Float[Tensor, "N V 2"], Bool[Tensor, "N V"]]:
        """Pixels of followed points in views (NaN behind the camera), and whether they are seen there."""
        points = positions[:, views.times]
        cameras = views.cameras.expand(points.shape[:2])
        pixels, depth = self.cameras.project(points, cameras)
        visible = self.cameras.visible(pixels, depth)
        times = self.times[views.times].expand(points.shape[:2])
        rows = visible.nonzero(as_tuple=True)
        profile = self.cast(cameras[rows], times[rows], pixels[rows])
        distance = (points[rows] - profile.origins).norm(dim=-1)
        visible[rows] = profile.light_stopped(distance * (1 - self.options.hidden_margin)) < 0.5
        return torch.where(depth[..., None] > 0, pixels, torch.nan), visible

    def to_world(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Scene units to world units."""
        return to_world(points, self.frames.world_transform.to(points), self.frames.world_scale)

    def from_world(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """World units to scene units."""
        return from_world(points, self.frames.world_transform.to(points), self.frames.world_scale)


def track_points(
    run: Run,
    queries: Queries,
    camera: int | None = None,
    scene: str | None = None,
    options: TrackOptions | None = None,
) -> Tracks:
    """Follow points through the whole clip.

    Args:
        run: A trained run.
        queries: Pixels of training frames.
        camera: Look with the camera of this training frame at all times; None: with every training frame.
        scene: Name of the scene; None: the default one.
        options: How.

    Raises:
        ValueError: a query or camera that does not exist.
    """
    tracker = Tracker(run, scene, options)
    count = len(tracker.frame_index)
    queries.check(count, *tracker.image_size)
    if camera is not None and not 0 <= camera < count:
        raise ValueError(f"there is no training frame {camera} whose camera could look: use 0 to {count - 1}")
    device = tracker.times.device
    frames = torch.from_numpy(np.asarray(queries.frames, np.int64)).to(device)
    points, moving = tracker.lift(frames, torch.from_numpy(np.asarray(queries.pixels, np.float32)).to(device))
    positions = tracker.follow(points, tracker.frame_times[frames], moving)
    views = tracker.frame_views() if camera is None else tracker.camera_views(camera)
    pixels, visible = tracker.look(positions, views)
    return Tracks(
        query_frames=np.asarray(queries.frames, np.int64),
        query_pixels=np.asarray(queries.pixels, np.float32),
        times=tracker.times.cpu().numpy(),
        positions=tracker.to_world(positions).cpu().numpy(),
        moving=moving.cpu().numpy(),
        view_cameras=views.cameras.cpu().numpy(),
        view_times=views.times.cpu().numpy(),
        pixels=pixels.cpu().numpy(),
        visible=visible.cpu().numpy(),
        image_size=tracker.image_size,
    )
