"""Exact optical flow and point tracks of the procedural scene, from the rigid motion of every part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from semflow_nerfstudio.data.procedural.render import RenderedView, trace
from semflow_nerfstudio.data.procedural.rig import RigCamera
from semflow_nerfstudio.data.procedural.scene import ProceduralScene

DEPTH_TOLERANCE = 1e-6
"""Relative: a point is hidden where something is nearer by more than this share of its depth (rounding only)."""


def world_points(view: RenderedView, camera: RigCamera) -> Float[ndarray, "H W 3"]:
    """World positions of what is seen at the pixel centres."""
    directions = camera.directions(camera.pixel_grid())
    return camera.origin + directions.reshape(*view.depth.shape, 3) * view.depth[..., None]


def attach(points: Float[ndarray, "N 3"], part_id: Int[ndarray, "N"], poses: ndarray) -> Float[ndarray, "N 3"]:
    """World points in the frames of the parts they belong to."""
    pose = poses[part_id]
    return np.einsum("nij,ni->nj", pose[:, :, :3], points - pose[:, :, 3])


def carry(local: Float[ndarray, "N 3"], part_id: Int[ndarray, "N"], poses: ndarray) -> Float[ndarray, "N 3"]:
    """World points from the frames of the parts they belong to: the inverse of `attach`."""
    pose = poses[part_id]
    return np.einsum("nij,nj->ni", pose[:, :, :3], local) + pose[:, :, 3]


def visibility(
    scene: ProceduralScene, camera: RigCamera, pixels: Float[ndarray, "N 2"], depth: Float[ndarray, "N"], poses: ndarray
) -> Bool[ndarray, "N"]:
    """Which projected points lie in the image with nothing in front of them."""
    visible = camera.in_view(pixels, depth)
    index = np.flatnonzero(visible)
    nearest, _ = trace(scene, camera, pixels[index], poses)
    visible[index] = nearest >= depth[index] * (1 - DEPTH_TOLERANCE)
    return visible


def optical_flow(
    scene: ProceduralScene,
    view: RenderedView,
    camera: RigCamera,
    time: float,
    target_camera: RigCamera,
    target_time: float,
) -> tuple[Float[ndarray, "H W 2"], Bool[ndarray, "H W"]]:
    """Where each pixel's surface point lands in another camera at another time.

    Returns:
        Flow (u right, v down) in pixels, float64: where the point lands minus where it is; and the mask of points that
        are in view and not hidden there. The flow holds where the mask does not, too, but for points behind the camera.
    """
    part_id = view.part_id.ravel()
    local = attach(world_points(view, camera).reshape(-1, 3), part_id, scene.poses(time))
    poses = scene.poses(target_time)
    pixels, depth = target_camera.project(carry(local, part_id, poses))
    visible = visibility(scene, target_camera, pixels, depth, poses)
    flow = pixels - camera.pixel_grid()
    return flow.reshape(*view.depth.shape, 2), visible.reshape(view.depth.shape)


@dataclass(frozen=True)
class Tracks:
    """Points on surfaces, followed through the clip."""

    points: Float[ndarray, "P N 2"]
    """Pixels (u, v) in each training frame."""
    visible: Bool[ndarray, "P N"]
    positions: Float[ndarray, "P N 3"]
    """World units."""
    query_frame: Int[ndarray, "P"]
    """Training frame in which the point was picked, at a pixel centre."""
    instance: ndarray
    """(P,) instance ids."""
    rig_points: Float[ndarray, "P N K 2"]
    """Pixels (u, v) in every rig camera at every time."""
    rig_visible: Bool[ndarray, "P N K"]


def point_tracks(
    scene: ProceduralScene, views: list[RenderedView], cameras: list[RigCamera], count: int, rng: np.random.Generator
) -> Tracks:
    """Exact tracks of `count` points picked in the training frames, half of them on movers where there are any.

    `views` and `cameras` are those of the training frames, one per time.
    """
    frame = np.arange(count) % len(views)
    points, part_id, instance = np.empty((count, 3)), np.empty(count, dtype=np.int64), np.empty(count, dtype=np.uint8)
    poses = [scene.poses(float(time)) for time in range(len(views))]
    for time, (view, camera) in enumerate(zip(views, cameras, strict=True)):
        rows = np.flatnonzero(frame == time)
        moving, static = np.flatnonzero(view.moving), np.flatnonzero(~view.moving)
        on_movers = min(len(rows) // 2, len(moving))
        picked = np.concatenate(
            [rng.choice(moving, on_movers, replace=False), rng.choice(static, len(rows) - on_movers, replace=False)]
        )
        world = world_points(view, camera).reshape(-1, 3)[picked]
        part_id[rows] = view.part_id.ravel()[picked]
        instance[rows] = view.instance.ravel()[picked]
        points[rows] = attach(world, part_id[rows], poses[time])
    rig = scene.cameras
    positions = np.stack([carry(points, part_id, pose) for pose in poses], axis=1)
    rig_points = np.empty((count, len(views), len(rig), 2))
    rig_visible = np.empty((count, len(views), len(rig)), dtype=bool)
    for time, pose in enumerate(poses):
        for k, camera in enumerate(rig):
            rig_points[:, time, k], depth = camera.project(positions[:, time])
            rig_visible[:, time, k] = visibility(scene, camera, rig_points[:, time, k], depth, pose)
    times = np.arange(len(views))
    own = times % len(rig)
    return Tracks(
        rig_points[:, times, own], rig_visible[:, times, own], positions, frame, instance, rig_points, rig_visible
    )
