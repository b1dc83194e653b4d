"""What rays of one scene or of several return: batches that mix scenes, and what pictures are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from semflow_nerfstudio.rendered import Rendered, seen_motion, seen_points, seen_source
from semflow_nerfstudio.sampling.proposal import Proposed


@dataclass
class SceneOutputs:
    """The rays of a batch that belong to one scene."""

    name: str
    rows: Int[Tensor, "R"] | None
    """Their rows in the batch; None for all of it."""
    rays: RayBundle
    rendered: Rendered
    proposed: Proposed


def rays_by_scene(
    rays: RayBundle, names: Sequence[str], default: str
) -> Iterator[tuple[str, Int[Tensor, "R"] | None, RayBundle]]:
    """Split rays by the scene index that their cameras carry; rays without one are the default scene's.

    Yields:
        Scene, its rows in the bundle (None: all), its rays.
    """
    index = rays.metadata.get("scene") if rays.metadata else None
    if len(names) == 1 or not isinstance(index, Tensor):
        yield default, None, rays
        return
    for i, name in enumerate(names):
        rows = (index.reshape(-1) == i).nonzero()[:, 0]
        if len(rows):
            yield name, rows, rays[rows]


def join_dicts(parts: list[tuple[Int[Tensor, "R"] | None, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Rows of several scenes back in the order of the batch."""
    if parts[0][0] is None:
        return parts[0][1]
    order = torch.cat([rows for rows, _ in parts if rows is not None]).argsort()
    return {name: torch.cat([values[name] for _, values in parts])[order] for name in parts[0][1]}


def displayed_rays(out: Rendered, background: Float[Tensor, "R 3"]) -> dict[str, Float[Tensor, "R C"]]:
    """What a rendered batch shows, one row a ray, in front of a background colour; lengths are in scene units."""
    outputs = {
        "rgb": out.rgb + (1 - out.accumulation[:, None]) * background,
        "accumulation": out.accumulation[:, None],
        "depth": out.distance[:, None],
        "static_rgb": out.static_rgb + (1 - out.static_weights.sum(-1, keepdim=True)) * background,
        "dynamic_rgb": out.dynamic_share_rgb + (1 - out.dynamicness[:, None]) * background,
        "dynamicness": out.dynamicness[:, None],
    }
    outputs["here"] = outputs["there"] = seen_points(out)
    outputs["source"], outputs["source_time"] = seen_source(out)
    if out.flow is not None:
        outputs["there"] = outputs["here"].index_add(0, out.flow.rays, seen_motion(out, 1))
    return {name: value.clamp(0, 1) if name.endswith("rgb") else value for name, value in outputs.items()}
