"""From surfaces to volumes: which voxels of a field's density belong to which object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from semflow_nerfstudio.editing.components import Voxels
from semflow_nerfstudio.editing.instances import STEPS_PER_VOXEL, IdGrid

OPACITY = 0.01
"""A voxel is solid if it stops this much light."""
MARGIN = 6
"""Cells around all that objects can reach, for the margins of `membership`."""
REACH = 0.75
"""Density belongs to an object within this share of its middle extent from its surface."""


@dataclass
class Solids:
    """Objects of one kind as voxels."""

    grid: IdGrid
    labels: list[int]
    volumes: Int[ndarray, "I T"]
    """Voxels of each object at each time."""
    centers: Float[ndarray, "I T 3"]
    bounds: Float[ndarray, "I T 2 3"]


def fill(
    seeds: list[tuple[Voxels, Int[ndarray, "S 4"]]],
    labels: list[int],
    origin: ndarray,
    size: float,
    cells: int,
    opacity: Callable[[Tensor, int], Tensor],
    device: torch.device,
) -> Solids:
    """Surfaces -> volumes: every voxel that stops light belongs to the nearest surface within its object's reach.

    `cells` is how many voxels all times together may have: reaches shrink until they do.
    `seeds` are, per time, the surface voxels and further ones (coordinates and object) that density may gather around
    but that are not solid by themselves: the surfaces of the neighbouring times, carried here.
    """
    reach = _reaches([surface for surface, _ in seeds], len(labels))
    count, times = len(labels), len(seeds)
    low, shape = _lattice([surface for surface, _ in seeds], reach)
    while np.prod(shape, dtype=float) * times > cells and reach.max() > 2:
        reach = np.where(reach > 2, np.maximum(2, 0.8 * reach), reach)
        low, shape = _lattice([surface for surface, _ in seeds], reach)
    origin = origin + low * size
    nearest, distance = np.empty((times, *shape), dtype=np.int16), np.empty((times, *shape), dtype=np.uint8)
    volumes = np.zeros((count, times), dtype=np.int64)
    middles, bounds = np.full((count, times, 3), np.nan), np.full((count, times, 2, 3), np.nan)
    for k, (surface, hints) in enumerate(seeds):
        ids = np.full(shape, -1, dtype=np.int16)
        hints = hints - np.append(low, 0)
        hints = hints[((hints[:, :3] >= 0) & (hints[:, :3] < shape)).all(axis=1) & (hints[:, 3] >= 0)]
        ids[tuple(hints[:, :3].T)] = hints[:, 3]
        own = surface.object >= 0
        solid = np.zeros(shape, dtype=bool)
        ids[tuple((surface.index[own] - low).T)] = surface.object[own]
        solid[tuple((surface.index[own] - low).T)] = True
        if (ids < 0).all():
            nearest[k], distance[k] = -1, 255
            continue
        far, at = _nearest(ids >= 0)
        ids = ids[tuple(at)]
        candidates = np.argwhere(far <= reach[ids])
        dense = _stops_light(origin + (candidates + 0.5) * size, k, opacity, device)
        solid[tuple(candidates[dense].T)] = True
        for number in range(count):
            inside = np.argwhere(solid & (ids == number))
            if len(inside):
                volumes[number, k] = len(inside)
                middles[number, k] = origin + (inside.mean(axis=0) + 0.5) * size
                bounds[number, k] = origin + np.stack([inside.min(axis=0), inside.max(axis=0) + 1]) * size
        if not solid.any():
            nearest[k], distance[k] = -1, 255
            continue
        far, at = _nearest(solid)
        nearest[k] = ids[tuple(at)]
        distance[k] = np.minimum(np.ceil(far * STEPS_PER_VOXEL), 255)
    grid = IdGrid(torch.from_numpy(origin).float(), size, torch.from_numpy(nearest), torch.from_numpy(distance))
    return Solids(grid, labels, volumes, middles, bounds)


def _lattice(surfaces: list[Voxels], reach: Float[ndarray, "I+1"]) -> tuple[Int[ndarray, "3"], tuple[int, int, int]]:
    """First cell and size of a lattice that holds all objects, as far as they can reach, and a margin."""
    lows, highs = [], []
    for surface in surfaces:
        own = surface.object >= 0
        pad = (np.ceil(reach[surface.object[own]]).astype(int) + MARGIN)[:, None]
        if own.any():
            lows.append((surface.index[own] - pad).min(axis=0))
            highs.append((surface.index[own] + pad).max(axis=0) + 1)
    low = np.min(lows, axis=0)
    width, depth, height = (np.max(highs, axis=0) - low).tolist()
    return low, (width, depth, height)


def _nearest(cells: Bool[ndarray, "X Y Z"]) -> tuple[Float[ndarray, "X Y Z"], Int[ndarray, "3 X Y Z"]]:
    """For every voxel the distance, in voxels, to the nearest of some cells, and that cell's coordinates."""
    result = distance_transform_edt(~cells, return_indices=True)
    assert isinstance(result, tuple)
    return result[0], result[1]


def _reaches(surfaces: list[Voxels], count: int) -> Float[ndarray, "I+1"]:
    """How many voxels behind its surface an object can go on. The last is for no object.

    Of a ball whose near half is seen the farthest point lies .71 diameters from that half's rim.
    """
    reach = np.full(count + 1, 2.0)
    reach[-1] = -1.0
    for number in range(count):
        extents = [np.ptp(s.index[s.object == number], axis=0) + 1 for s in surfaces if (s.object == number).any()]
        reach[number] = max(2.0, REACH * float(np.sort(np.median(extents, axis=0))[1]))
    return reach


def _stops_light(
    points: ndarray, k: int, opacity: Callable[[Tensor, int], Tensor], device: torch.device
) -> Bool[ndarray, "P"]:
    parts = [
        (opacity(torch.from_numpy(points[start : start + 2**18]).float().to(device), k) > OPACITY).cpu().numpy()
        for start in range(0, len(points), 2**18)
    ]
    return np.concatenate([np.zeros(0, dtype=bool), *parts])
