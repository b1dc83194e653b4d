"""Ray tracing of the procedural scene: exact depth and identity at pixel centres, anti-aliased colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from semflow_nerfstudio.data.procedural.geometry import dot, first_hit
from semflow_nerfstudio.data.procedural.rig import RigCamera
from semflow_nerfstudio.data.procedural.scene import ProceduralScene
from semflow_nerfstudio.data.procedural.textures import GAMMA

EDGE_OFFSETS = np.array([(-1, -3), (3, -1), (1, 3), (-3, 1)]) / 8
"""Further colour samples, in pixels from the centre, at the borders of parts; elsewhere texture filtering is enough.
A rotated grid: no two share a row or column, so that upright and level edges get four steps."""
EDGE_SPACING = 0.5
SHARPNESS = 0.8
"""Texture filter's side in samples; a little below 1 keeps detail crisp."""
GROUND_SHADE, GROUND_REACH = 0.35, 0.22
"""Near the ground less of the sky is seen: the share lost, and its fall-off height in world units."""


@dataclass(frozen=True)
class RenderedView:
    """What a camera sees at a time. Everything but the colour is that of the pixel centre, without anti-aliasing."""

    color: UInt8[ndarray, "H W 3"]
    depth: Float[ndarray, "H W"]
    """Camera z in world units, float64."""
    label: UInt8[ndarray, "H W"]
    """Class ids."""
    instance: UInt8[ndarray, "H W"]
    """Class * 10 + number."""
    object_id: Int[ndarray, "H W"]
    """Index into `scene.objects`."""
    part_id: Int[ndarray, "H W"]
    """Index into `scene.parts`: the rigid body that the pixel belongs to."""
    moving: ndarray
    """Bool (H, W): the pixel shows something that moves during the clip."""


def _screen_boxes(
    camera: RigCamera, centers: Float[ndarray, "P 3"], radii: Float[ndarray, "P"]
) -> Float[ndarray, "P 4"]:
    """Bounds (u0, v0, u1, v1) of the images of balls: nothing behind the camera, everything where it is in a ball."""
    local = (centers - camera.origin) @ camera.camera_to_world[:, :3]
    depth = -local[:, 2]
    boxes = np.empty((len(centers), 4))
    for axis, (offset, middle) in enumerate(((local[:, 0], camera.width / 2), (-local[:, 1], camera.height / 2))):
        spread = np.arcsin(np.minimum(radii / np.hypot(offset, depth), 1.0))
        angle = np.arctan2(offset, depth)
        low, high = angle - spread, angle + spread
        # Beyond a right angle the tangent would wrap around.
        boxes[:, axis] = np.where(low > -1.57, middle + camera.focal * np.tan(low), -np.inf)
        boxes[:, axis + 2] = np.where(high < 1.57, middle + camera.focal * np.tan(high), np.inf)
    boxes[~(depth > radii)] = (-np.inf, -np.inf, np.inf, np.inf)
    boxes[depth + radii < 0] = (np.inf, np.inf, -np.inf, -np.inf)
    return boxes


def _inside(pixels: Float[ndarray, "N 2"], box: Float[ndarray, "4"]) -> Int[ndarray, "M"]:
    """Indices of the pixels in a box."""
    u, v = pixels[:, 0], pixels[:, 1]
    return np.flatnonzero((u >= box[0]) & (v >= box[1]) & (u <= box[2]) & (v <= box[3]))


def trace(
    scene: ProceduralScene, camera: RigCamera, pixels: Float[ndarray, "N 2"], poses: Float[ndarray, "P 3 4"]
) -> tuple[Float[ndarray, "N"], Int[ndarray, "N"]]:
    """Camera z and part index of what is seen at pixels (u, v), with the parts at the given poses."""
    directions = camera.directions(pixels)
    depth = np.full(len(pixels), np.inf)
    part_id = np.zeros(len(pixels), dtype=np.int64)
    boxes = _screen_boxes(camera, poses[:, :, 3], scene.part_radius)
    origins = np.einsum("pij,pi->pj", poses[:, :, :3], camera.origin - poses[:, :, 3])
    everywhere = np.arange(len(pixels))
    for members in scene.object_parts:
        candidates, rays, near = everywhere, directions, pixels
        if len(members) > 1:
            # Two steps, object then part, because most objects of many parts fill a small share of the image.
            candidates = _inside(pixels, np.concatenate([boxes[members, :2].min(0), boxes[members, 2:].max(0)]))
            rays, near = directions[candidates], pixels[candidates]
        for index in members:
            shape, chosen, local = scene.parts[index].shape, candidates, rays
            if np.isfinite(shape.radius):
                within = _inside(near, boxes[index])
                if not len(within):
                    continue
                chosen, local = candidates[within], rays[within]
            found = first_hit(shape, origins[index], local @ poses[index, :, :3])
            nearer = np.flatnonzero(found < depth[chosen])
            depth[chosen[nearer]] = found[nearer]
            part_id[chosen[nearer]] = index
    return depth, part_id


def shade(
    scene: ProceduralScene,
    camera: RigCamera,
    pixels: Float[ndarray, "N 2"],
    depth: Float[ndarray, "N"],
    part_id: Int[ndarray, "N"],
    time: float,
    poses: Float[ndarray, "P 3 4"],
    pixel_size: float,
) -> Float[ndarray, "N 3"]:
    """Linear colours of surface points; `pixel_size` is the spacing of the samples in pixels."""
    directions = camera.directions(pixels)
    points = camera.origin + directions * depth[:, None]
    uv, normals = np.empty((len(pixels), 2)), np.empty((len(pixels), 3))
    sun_share, sky_share = np.ones(len(pixels)), np.empty(len(pixels))
    order = np.argsort(part_id, kind="stable")
    present, starts = np.unique(part_id[order], return_index=True)
    for index, group in zip(present, np.split(order, starts[1:]), strict=True):
        part, pose = scene.parts[index], poses[index]
        local = (points[group] - pose[:, 3]) @ pose[:, :3]
        normals[group] = part.shape.normals(local) @ pose[:, :3].T
        uv[group] = part.shape.coordinates(local) * part.repeat
        if index in scene.light_maps:
            sun_share[group], sky_share[group] = scene.light_maps[index].lookup(local)
        else:
            sky_share[group] = 1 - GROUND_SHADE * np.exp(-np.maximum(points[group, 2], 0) / GROUND_REACH)
    facing = np.abs(dot(normals, directions)) / np.sqrt(dot(directions, directions))
    # A slanted surface is stretched along one axis only: the mean side of its footprint grows with the root.
    side = depth / camera.focal * pixel_size * SHARPNESS / np.sqrt(np.maximum(facing, 0.05))
    albedo = scene.atlas.lookup(scene.part_texture[part_id], uv, side / scene.part_unit[part_id])
    sun_color, sky_color = scene.daylight.colors(time)
    sun = np.maximum(normals @ scene.daylight.sun_direction, 0.0) * sun_share
    sky = (0.7 + 0.3 * normals[:, 2]) * sky_share
    return albedo * (sun[:, None] * sun_color + sky[:, None] * sky_color)


def _at_borders(part_id: Int[ndarray, "H W"]) -> ndarray:
    """Bool (H, W): pixels with a neighbour of another part."""
    border = np.zeros(part_id.shape, dtype=bool)
    down, right = part_id[1:] != part_id[:-1], part_id[:, 1:] != part_id[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border


def render_view(scene: ProceduralScene, camera: RigCamera, time: float, color: bool = True) -> RenderedView:
    """What a camera sees at a time (a frame number, fractions allowed); without `color` that stays black."""
    shape = (camera.height, camera.width)
    poses = scene.poses(time)
    pixels = camera.pixel_grid()
    depth, part_id = trace(scene, camera, pixels, poses)
    image = np.zeros((*shape, 3), dtype=np.uint8)
    if color:
        colors = shade(scene, camera, pixels, depth, part_id, time, poses, 1.0)
        border = np.flatnonzero(_at_borders(part_id.reshape(shape)))
        if len(border):
            samples = (pixels[border, None] + EDGE_OFFSETS).reshape(-1, 2)
            sample_depth, sample_part = trace(scene, camera, samples, poses)
            shaded = shade(scene, camera, samples, sample_depth, sample_part, time, poses, EDGE_SPACING)
            around = np.minimum(shaded, 1.0).reshape(len(border), len(EDGE_OFFSETS), 3)
            colors[border] = (np.minimum(colors[border], 1.0) + around.sum(1)) / (1 + len(EDGE_OFFSETS))
        image = np.round(np.clip(colors, 0, 1) ** (1 / GAMMA) * 255).astype(np.uint8).reshape(*shape, 3)
    part_id = part_id.reshape(shape)
    object_id = scene.part_object[part_id]
    labels = np.array([thing.class_id for thing in scene.objects], dtype=np.uint8)
    instances = np.array([thing.instance_id for thing in scene.objects], dtype=np.uint8)
    moves = np.array([thing.moves and scene.options.speed > 0 for thing in scene.objects])
    return RenderedView(
        image, depth.reshape(shape), labels[object_id], instances[object_id], object_id, part_id, moves[object_id]
    )
