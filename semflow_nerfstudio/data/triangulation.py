"""Depth of static pixels from optical flow and known camera poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from semflow_nerfstudio.cameras import FrameCameras, distort

_UNDISTORT_STEPS = 20
_GAUSS_NEWTON_STEPS = 2
_MIN_DEPTH_RATIO = 1e-3


@dataclass
class Match:
    """Where P pixels of a frame are seen in another frame."""

    frame: int
    """Index of the other frame's camera."""
    pixels: Float[np.ndarray, "P 2"]
    """(u, v) in the other frame."""
    valid: Bool[np.ndarray, "P"]


@dataclass
class Triangulated:
    """Inverse camera depths of P pixels; meaningless where not `ok`."""

    inverse_depth: Float[np.ndarray, "P"]
    """1 / camera z, in the units of the poses."""
    information: Float[np.ndarray, "P"]
    """Squared pixels that the matches move per unit of inverse depth: flow variance / this = variance."""
    error: Float[np.ndarray, "P"]
    """Largest reprojection error over the matches, pixels along one axis."""
    ok: Bool[np.ndarray, "P"]
    """Seen in another frame, and in front of all cameras that see it."""


def camera_rays(cameras: FrameCameras, frame: int, pixels: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P 3"]:
    """World directions of pixels (u, v) with unit camera depth: origin + depth * direction is the seen point."""
    fx, fy, cx, cy = cameras.intrinsics[frame].double().tolist()
    points = (pixels - (cx, cy)) / (fx, fy)
    if cameras.distortion is not None:
        target = torch.from_numpy(points)
        parameters = cameras.distortion[frame].double().expand(len(points), 6)
        ideal = target.clone()
        for _ in range(_UNDISTORT_STEPS):
            ideal = ideal + target - distort(ideal, parameters)
        points = ideal.numpy()
    local = np.stack([points[:, 0], -points[:, 1], -np.ones(len(points))], axis=-1)
    return local @ cameras.camera_to_worlds[frame, :, :3].double().numpy().T


def camera_origin(cameras: FrameCameras, frame: int) -> Float[np.ndarray, "3"]:
    """World position of a frame's camera."""
    return cameras.camera_to_worlds[frame, :, 3].double().numpy()


def triangulate(
    cameras: FrameCameras, frame: int, pixels: Float[np.ndarray, "P 2"], matches: Sequence[Match]
) -> Triangulated:
    """Inverse depth of pixels (u, v) of `frame`, as if all of them were static.

    Linear least squares over all matches, refined to the smallest squared reprojection error. Inverse depth is nearly
    linear in the error of the flow, depth is not.
    """
    direction, origin = camera_rays(cameras, frame, pixels), camera_origin(cameras, frame)
    views = []
    for match in matches:
        # In units of the point's depth, the other camera sees it at `offset * inverse depth + ray`.
        to_camera = cameras.camera_to_worlds[match.frame, :, :3].double().numpy()
        offset = (origin - camera_origin(cameras, match.frame)) @ to_camera
        seen = camera_rays(cameras, match.frame, match.pixels) @ to_camera
        focal = cameras.intrinsics[match.frame, :2].double().numpy()
        views.append((offset, direction @ to_camera, seen[:, :2], focal, match.valid.astype(np.float64)))

    total, weight = np.zeros(len(pixels)), np.zeros(len(pixels))
    for offset, ray, seen, _, valid in views:
        slope = offset[:2] + seen * offset[2]
        total -= valid * (slope * (ray[:, :2] + seen * ray[:, 2:])).sum(-1)
        weight += valid * (slope**2).sum(-1)
    inverse_depth = total / np.maximum(weight, 1e-12)

    for step in range(_GAUSS_NEWTON_STEPS + 1):
        gradient, information = np.zeros(len(pixels)), np.zeros(len(pixels))
        error, front = np.zeros(len(pixels)), np.ones(len(pixels), bool)
        for offset, ray, seen, focal, valid in views:
            depth = -(ray[:, 2] + inverse_depth * offset[2])[:, None]
            front &= (depth[:, 0] > _MIN_DEPTH_RATIO) | (valid == 0)
            depth = np.where(depth > _MIN_DEPTH_RATIO, depth, 1.0)
            lateral = ray[:, :2] + inverse_depth[:, None] * offset[:2]
            residual = focal * (lateral / depth - seen) * valid[:, None]
            slope = focal * (offset[:2] * depth + lateral * offset[2]) / depth**2 * valid[:, None]
            gradient += (slope * residual).sum(-1)
            information += (slope**2).sum(-1)
            error = np.maximum(error, np.abs(residual).max(-1))
        if step < _GAUSS_NEWTON_STEPS:
            inverse_depth = inverse_depth - gradient / np.maximum(information, 1e-12)
    matched = np.any([match.valid for match in matches], axis=0) if matches else np.zeros(len(pixels), bool)
    ok = matched & front & (inverse_depth > 0) & (information > 0)
    return Triangulated(inverse_depth, information, error, ok)


class StaticPoints:
    """Points on the rays of P pixels of a frame, and where other frames see them."""

    def __init__(self, cameras: FrameCameras, frame: int, pixels: Float[np.ndarray, "P 2"]) -> None:
        self.cameras = cameras
        self.direction, self.origin = camera_rays(cameras, frame, pixels), camera_origin(cameras, frame)
        self._turned: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def seen_by(self, other: int, inverse_depth: Float[np.ndarray, "P"]) -> Float[np.ndarray, "P 2"]:
        """Pixels (u, v) at which another frame sees them at these inverse camera depths (0: infinitely far).

        Far outside of the image where they are behind that camera.
        """
        direction, offset = self._seen_from(other)
        depth = np.maximum(-direction[2] - inverse_depth * offset[2], _MIN_DEPTH_RATIO)
        places = np.stack([direction[axis] + inverse_depth * offset[axis] for axis in (0, 1)], axis=-1)
        places = places / depth[:, None] * (1, -1)
        if self.cameras.distortion is not None:
            parameters = self.cameras.distortion[other].double().expand(len(places), 6)
            places = distort(torch.from_numpy(places), parameters).numpy()
        intrinsics = self.cameras.intrinsics[other].double().numpy()
        return places * intrinsics[:2] + intrinsics[2:]

    def _seen_from(self, other: int) -> tuple[np.ndarray, np.ndarray]:
        """The rays' directions (3, P) and their origin (3,) in the axes of another frame's camera."""
        if other not in self._turned:
            to_camera = self.cameras.camera_to_worlds[other, :, :3].double().numpy()
            offset = (self.origin - camera_origin(self.cameras, other)) @ to_camera
            self._turned[other] = np.ascontiguousarray((self.direction @ to_camera).T), offset
        return self._turned[other]
