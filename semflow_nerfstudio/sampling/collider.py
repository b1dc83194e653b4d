"""Where sampling starts and ends along rays, per scene."""

from __future__ import annotations

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from semflow_nerfstudio.scene import Scene

NEAR_PLANE = 0.05
"""Scene units before which nothing is sampled where a scene does not say."""
NEAREST = 0.1
"""The nearest that a free camera's space begins, as a share of the training cameras' near."""
FAR_PLANE = 1000.0
"""Scene units at which an unbounded scene ends."""


def set_near_far(rays: RayBundle, scene: Scene) -> RayBundle:
    """Set `nears` and `fars` (R, 1) in scene units; those that a crop has set already are cut to the scene's."""
    if scene.near is not None and scene.far is not None:
        near = torch.full_like(rays.origins[..., :1], scene.near)
        far = torch.full_like(rays.origins[..., :1], scene.far)
        if not scene.training:
            near, far = as_nearest_camera(rays, scene, near, far)
    elif scene.bounded:
        near, far = intersect_box(rays.origins, rays.directions, scene.space.aabb)
    else:
        near = torch.full_like(rays.origins[..., :1], NEAR_PLANE)
        far = torch.full_like(rays.origins[..., :1], FAR_PLANE)
    if rays.nears is not None and rays.fars is not None:
        enter, leave = torch.maximum(near, rays.nears), torch.minimum(far, rays.fars)
        # No space is left to rays that miss the crop, so that they show the background, at the far end.
        missed = leave <= enter
        near, far = torch.where(missed, far, enter), torch.where(missed, far, leave)
    rays.nears, rays.fars = near, far
    return rays


def as_nearest_camera(
    rays: RayBundle, scene: Scene, near: Float[Tensor, "R 1"], far: Float[Tensor, "R 1"]
) -> tuple[Float[Tensor, "R 1"], Float[Tensor, "R 1"]]:
    """Near and far (R, 1) of a free camera: the space that the nearest training camera sees between its own.

    A camera that has moved forward by s along a ray has all that s nearer; without this, stepping back would cut the
    background off and stepping forward would make things in front vanish. Rays that look against that camera's view
    get the sum of both spaces.
    """
    cameras = scene.bank.camera_to_worlds
    places = cameras[:, :, 3]
    nearest = torch.cdist(rays.origins.reshape(-1, 3), places).argmin(-1)
    ahead = ((rays.origins.reshape(-1, 3) - places[nearest]) * rays.directions.reshape(-1, 3)).sum(-1)
    along = (rays.directions.reshape(-1, 3) * -cameras[nearest, :, 2]).sum(-1) > 0
    ahead, along = ahead.reshape(near.shape), along.reshape(near.shape)
    near = torch.where(along, near - ahead, near - ahead.abs()).clamp(min=NEAREST * near)
    return near, torch.maximum(torch.where(along, far - ahead, far + ahead.abs()), near * (1 + 1e-3))


def intersect_box(
    origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"], aabb: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, "R 1"], Float[Tensor, "R 1"]]:
    """Distances at which rays enter and leave a box; rays that miss it get a sliver of space in front of them."""
    near, far = box_interval(origins, directions, aabb)
    near = near.clamp(min=NEAR_PLANE)
    return near, torch.maximum(far, near + 1e-3)


def box_interval(
    origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"], aabb: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, "R 1"], Float[Tensor, "R 1"]]:
    """Where lines are in a box, from the first to the second; the second is smaller where they miss it."""
    inverse = 1 / torch.where(directions.abs() < 1e-9, 1e-9, directions)
    first, second = (aabb[0] - origins) * inverse, (aabb[1] - origins) * inverse
    return torch.minimum(first, second).amax(-1, keepdim=True), torch.maximum(first, second).amin(-1, keepdim=True)
