"""Connected components of labelled points, in space and along their motion. numpy and scipy only.

A frame's points are gathered into the voxels of one lattice. Voxels of one label that lie close to each other are a
fragment; fragments whose voxels, carried by their motion, land on each other at a later frame are one object. Where an
object falls apart for a few frames (something thin in front of it) it stays one; where two objects of a label touch
for a few frames they stay two, because what counts is the number of fragments at most of the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

LINK_RADIUS = 4.0
"""Voxels of a fragment are at most this many voxels from the next one: towards the rim of what is round, neighbouring
pixels lie that far apart in depth."""
LANDING_RADIUS = 2.0
"""A carried voxel lands on a fragment if that is at most this many voxels away."""
OVERLAP = 0.3
"""Share of the smaller of two fragments that must land on the other one for both to be one object."""
FRAME_GAP = 3
"""An object may be hidden for one frame less than this."""
SIGNIFICANT = 0.2
"""Fragments smaller than this share of an object's largest one at a frame do not count when it is split."""

SATELLITE_RADIUS = 8.0
"""Objects within this many voxels of a much larger one of their label, at most frames, are a part of it: thin limbs
break off at the resolution of the frames."""

Advect = Callable[[Float[ndarray, "P 3"], int, int], Float[ndarray, "P 3"]]
"""(points at a frame, that frame, a neighbouring frame) -> where they are there."""


@dataclass
class Voxels:
    """Occupied voxels of one frame."""

    index: Int[ndarray, "V 3"]
    """Lattice coordinates."""
    label: Int[ndarray, "V"]
    """The label that most of its points have."""
    object: Int[ndarray, "V"]
    """Object that each belongs to, -1 for none."""

    def __len__(self) -> int:
        return len(self.index)


def voxelise(
    points: Float[ndarray, "P 3"], labels: Int[ndarray, "P"], origin: Float[ndarray, "3"], size: float, least: int = 1
) -> Voxels:
    """Gather points into voxels of edge `size`; those with fewer than `least` points are left out."""
    index = np.floor((points - origin) / size).astype(np.int64)
    rows, counts = np.unique(np.column_stack([index, labels]), axis=0, return_counts=True)
    # By voxel, then by falling count: the first row of every voxel has its majority label.
    order = np.lexsort((-counts, rows[:, 2], rows[:, 1], rows[:, 0]))
    rows, counts = rows[order], counts[order]
    starts = np.ones(len(rows), dtype=bool)
    starts[1:] = (rows[1:, :3] != rows[:-1, :3]).any(axis=1)
    first = np.flatnonzero(starts)
    kept = first[np.add.reduceat(counts, first) >= least] if len(first) else first
    return Voxels(rows[kept, :3], rows[kept, 3], np.full(len(kept), -1))


def fragments(voxels: Voxels, radius: float = LINK_RADIUS) -> tuple[int, Int[ndarray, "V"]]:
    """Components of voxels of one label that are at most `radius` voxels apart: (their number, each voxel's)."""
    pairs = KDTree(voxels.index).query_pairs(radius + 1e-6, output_type="ndarray") if len(voxels) else np.empty((0, 2))
    pairs = pairs.astype(np.int64)
    return _join(len(voxels), pairs[voxels.label[pairs[:, 0]] == voxels.label[pairs[:, 1]]])


def moving_objects(frames: list[Voxels], origin: Float[ndarray, "3"], size: float, advect: Advect) -> list[Voxels]:
    """Fill in the `object` of the voxels of every frame: numbers from 0 that stay with an object over time."""
    counts, members = zip(*(fragments(frame) for frame in frames), strict=True)
    first = np.concatenate([[0], np.cumsum(counts)])
    links = []
    for k, frame in enumerate(frames):
        unlinked = np.ones(counts[k], dtype=bool)
        carried = centers(frame, origin, size)
        for j in range(k + 1, min(k + FRAME_GAP + 1, len(frames))):
            if not unlinked.any():
                break
            carried = advect(carried, j - 1, j)
            pairs = _overlaps(carried, frame.label, members[k], frames[j], members[j], origin, size)
            pairs = pairs[unlinked[pairs[:, 0]]]
            links.append(pairs + np.array([first[k], first[j]]))
            unlinked[pairs[:, 0]] = False
    _, group = _join(int(first[-1]), np.concatenate([np.empty((0, 2), dtype=np.int64), *links]))
    taken = 0
    for number in range(group.max(initial=-1) + 1):
        parts = [np.where(group[first[k] + members[k]] == number, members[k], -1) for k in range(len(frames))]
        many = _number_of_objects(parts)
        split = _split(frames, parts, many, origin, size, advect) if many > 1 else [np.minimum(p, 0) for p in parts]
        for frame, part in zip(frames, split, strict=True):
            frame.object[part >= 0] = taken + part[part >= 0]
        taken += many
    return frames


def absorb_satellites(frames: list[Voxels]) -> None:
    """Give objects that stay close to a much larger one of their label to it."""
    count = 1 + max((int(frame.object.max(initial=-1)) for frame in frames), default=-1)
    volume = sum((np.bincount(f.object[f.object >= 0], minlength=count) for f in frames), np.zeros(count))
    label = np.full(count, -1)
    for frame in frames:
        label[frame.object[frame.object >= 0]] = frame.label[frame.object >= 0]
    owner = np.arange(count)
    for small in np.argsort(volume):
        larger = np.flatnonzero((label == label[small]) & (SIGNIFICANT * volume > volume[small]))
        apart = [(_distance(frames, int(small), int(large)), int(large)) for large in larger]
        closest = min(apart, default=(np.inf, -1))
        if closest[0] <= SATELLITE_RADIUS:
            owner[small] = closest[1]
    for _ in range(count):  # a satellite's satellite; owners are larger, so chains end
        owner = owner[owner]
    for frame in frames:
        own = frame.object >= 0
        frame.object[own] = owner[frame.object[own]]


def _distance(frames: list[Voxels], first: int, second: int) -> float:
    """Gap between two objects in voxels: the median over the frames at which the first one is there."""
    gaps = []
    for frame in frames:
        a, b = frame.index[frame.object == first], frame.index[frame.object == second]
        if len(a):
            gaps.append(KDTree(b).query(a)[0].min() if len(b) else np.inf)
    return float(np.median(gaps)) if gaps else np.inf


def centers(voxels: Voxels, origin: Float[ndarray, "3"], size: float) -> Float[ndarray, "V 3"]:
    """Middles of the voxels."""
    return origin + (voxels.index + 0.5) * size


def _join(count: int, pairs: Int[ndarray, "E 2"]) -> tuple[int, Int[ndarray, "N"]]:
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    number, member = connected_components(graph, directed=False)
    return number, member.astype(np.int64)


def _overlaps(
    carried: ndarray,
    label: ndarray,
    member: ndarray,
    target: Voxels,
    target_member: ndarray,
    origin: ndarray,
    size: float,
) -> Int[ndarray, "E 2"]:
    """Pairs of fragments that lie on each other once the first ones are carried to the second ones' frame."""
    if not len(carried) or not len(target):
        return np.empty((0, 2), dtype=np.int64)
    distance, found = KDTree(centers(target, origin, size)).query(carried, distance_upper_bound=LANDING_RADIUS * size)
    hit, nearest = np.isfinite(distance), np.asarray(found)
    hit[hit] &= label[hit] == target.label[nearest[hit]]
    pairs, shared = np.unique(np.column_stack([member[hit], target_member[nearest[hit]]]), axis=0, return_counts=True)
    smaller = np.minimum(np.bincount(member)[pairs[:, 0]], np.bincount(target_member)[pairs[:, 1]])
    return pairs[shared >= OVERLAP * smaller]


def _significant(part: Int[ndarray, "V"]) -> list[int]:
    """The fragments of a group at a frame that are not small beside its largest, the largest first."""
    sizes = np.bincount(part[part >= 0])
    order = np.argsort(-sizes)
    return [int(f) for f in order if sizes[f] > 0 and sizes[f] >= SIGNIFICANT * sizes[order[0]]]


def _number_of_objects(parts: list[ndarray]) -> int:
    """How many fragments a group has at most of the frames at which it is seen at all."""
    counts = [len(_significant(part)) for part in parts if (part >= 0).any()]
    return int(np.median(counts))


def _split(
    frames: list[Voxels], parts: list[ndarray], many: int, origin: ndarray, size: float, advect: Advect
) -> list[Int[ndarray, "V"]]:
    """Tell `many` objects apart that touch at some frames: from a frame where they do not, along the motion."""
    apart = [k for k, part in enumerate(parts) if len(_significant(part)) == many]

    def smallest(k: int) -> int:
        return int(np.sum(parts[k] == _significant(parts[k])[-1]))

    seed = max(apart, key=smallest) if apart else -1
    if seed < 0:  # an even median of odd counts: nothing to start from
        return [np.minimum(part, 0) for part in parts]
    own: list[ndarray] = [np.full(len(part), -1) for part in parts]
    chosen = _significant(parts[seed])
    inside = parts[seed] >= 0
    at = centers(frames[seed], origin, size)
    core = np.isin(parts[seed], chosen)
    _, nearest = KDTree(at[core]).query(at[inside])
    own[seed][inside] = np.searchsorted(np.sort(chosen), parts[seed][core][nearest])
    for step in (1, -1):
        carried, ids = at[inside], own[seed][inside]
        k = seed
        while 0 <= k + step < len(frames):
            carried = advect(carried, k, k + step)
            k += step
            rows = parts[k] >= 0
            if not rows.any():
                continue
            here = centers(frames[k], origin, size)[rows]
            own[k][rows] = ids[KDTree(carried).query(here)[1]]
            carried, ids = here, own[k][rows]
    return own
