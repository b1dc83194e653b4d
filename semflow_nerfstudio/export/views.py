"""What is exported from where, and in which coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.editing.instances import Instances
from semflow_nerfstudio.export.options import Units
from semflow_nerfstudio.surface_points import SurfacePoints, surface_points
from semflow_nerfstudio.visuals.camera_path import from_camera_path_json
from semflow_nerfstudio.visuals.display import instance_membership
from semflow_nerfstudio.visuals.trajectories import RenderView, at_times, from_cameras, nearest_frame, to_cameras

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Run


@dataclass(frozen=True)
class Units3D:
    """From scene units to what is written: x -> R^T (x / scale - t), the inverse of the data parser's."""

    transform: Float[ndarray, "3 4"]
    scale: float

    @staticmethod
    def of(run: Run, scene: str, units: Units) -> Units3D:
        """The data set's own units ("world"), or scene units as they are."""
        if units == "scene":
            return Units3D(np.eye(4)[:3], 1.0)
        dataset: Any = run.pipeline.datamanager.train_dataset
        frames = dataset.metadata["scene_frames"][scene]
        return Units3D(frames.world_transform.double().numpy(), float(frames.world_scale))

    def points(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Positions."""
        return (np.asarray(points, np.float64) / self.scale - self.transform[:, 3]) @ self.transform[:, :3]

    def vectors(self, vectors: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Directions with a length."""
        return np.asarray(vectors, np.float64) / self.scale @ self.transform[:, :3]

    def pose(self, camera_to_world: Float[Tensor, "3 4"]) -> Float[ndarray, "4 4"]:
        """OpenGL camera-to-world matrices."""
        pose = camera_to_world.double().cpu().numpy()
        rotation = self.transform[:, :3].T @ pose[:, :3]
        result = np.eye(4)
        result[:3] = np.column_stack([rotation, self.points(pose[None, :, 3])[0]])
        return result


@dataclass(frozen=True)
class ExportView:
    """One picture to be exported."""

    name: str
    view: RenderView


def export_views(
    run: Run, scene: str, times: Sequence[float] | None = None, camera_path: Path | None = None, scale: float = 1.0
) -> list[ExportView]:
    """The views of an export.

    Args:
        run: A trained run.
        scene: Which scene.
        times: In [0, 1]: each is seen by the training camera nearest to it in time; None: all training frames as they
            are (their own cameras and times), or the path's own times.
        camera_path: Camera-path JSON of the viewer's Render tab, in place of the training cameras.
        scale: Size of the pictures relative to the training frames.

    Raises:
        ValueError: a time outside the clip, or a scale that makes no picture.
    """
    if not 0 < scale < float("inf"):
        raise ValueError(f"the scale is {scale}: use a number above 0, such as 0.5")
    if times is not None and not times:
        raise ValueError("no time is named: give some from 0 to 1, or leave times out for all training frames")
    if times is not None and not all(0 <= time <= 1 for time in times):
        raise ValueError(f"the times are {', '.join(f'{t:g}' for t in times)}: the clip runs from 0 to 1")
    if camera_path is not None:
        views = from_camera_path_json(camera_path).views
        if times is not None:
            views = [at_times(views[nearest_frame([v.time for v in views], t)], [t])[0] for t in times]
    else:
        views = from_cameras(run.frames_of(scene))
        if times is not None:
            own = [v.time for v in views]
            views = [at_times(views[nearest_frame(own, t)], [t])[0] for t in times]
    views = [v.scaled_to(*(max(1, round(side * scale)) for side in (v.width, v.height))) for v in views]
    return [ExportView(f"{index:05d}", view) for index, view in enumerate(views)]


@dataclass
class Seen:
    """What a view shows, pixel by pixel (P = H W, row by row)."""

    view: RenderView
    points: SurfacePoints
    instance: Int[ndarray, "P"]
    """Instance ids, -1 for none."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.view.height, self.view.width

    def depth(self) -> Float[ndarray, "H W"]:
        """Camera z in scene units; NaN where less than half of the light is stopped."""
        pose = self.view.camera_to_world.double()
        depth = -((self.points.points.double() - pose[:, 3]) @ pose[:, 2])
        return torch.where(self.points.concentration >= 0.5, depth, torch.nan).view(self.shape).numpy()

    def flow_to(self, other: RenderView, tau: float) -> Float[ndarray, "H W 2"]:
        """Optical flow in pixels to another view at its own time; NaN where nothing is seen or it ends behind it."""
        here = self.points.points.double()
        there = here + self.points.velocity.double() * (other.time - self.view.time) / tau
        pixels, depth = _pinhole(other).project(there, torch.zeros(len(there), dtype=torch.long))
        start, _ = _pinhole(self.view).project(here, torch.zeros(len(here), dtype=torch.long))
        known = (depth > 0) & (self.points.concentration >= 0.5)
        flow = torch.where(known[:, None], pixels - start, torch.nan)
        return flow.view(*self.shape, 2).numpy()


def see(run: Run, scene: str, view: RenderView, instances: Instances) -> Seen:
    """Render a view, edits included."""
    camera = to_cameras([view], scene=list(run.model.scenes).index(scene))
    points = surface_points(run.model, camera)
    return Seen(view, points, instance_of(points, instances))


def instance_of(points: SurfacePoints, instances: Instances) -> Int[ndarray, "P"]:
    """Instances that surface points belong to, as highlights and edits count them."""
    membership = instance_membership(instances)
    return membership(points.source, points.source_time, points.moving).cpu().numpy()


def _pinhole(view: RenderView) -> FrameCameras:
    intrinsics = torch.tensor([[view.fx, view.fy, view.cx, view.cy]], dtype=torch.float64)
    return FrameCameras(view.camera_to_world.double()[None], intrinsics, view.width, view.height)
