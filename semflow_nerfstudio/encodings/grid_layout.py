"""Where the vertices of a multi-resolution grid live in its table: what all backends agree on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PRIMES = (1, 2654435761, 805459861, 3674653429)
"""Hash multipliers per axis (Instant-NGP's); the first is 1 so that neighbours along x mostly share a cache line."""

SNAP = 2.0**-22
"""A time (last axis of a 4-D grid) closer than this to a vertex is on it: what rounding leaves of k / (T - 1)."""

_ALIGNMENT = 8  # entries; levels begin on a cache line


@dataclass(frozen=True)
class GridLayout:
    """Sizes and addresses of all levels.

    A vertex (v_0, v_1, ...) of level l is row `offsets[l] + address` of the table, where address is the sum of
    v_d * multipliers[l][d] in a dense level, and their xor (as 32-bit numbers) masked with `masks[l]` in a hashed one.
    """

    input_dim: int
    features: int
    resolutions: tuple[tuple[int, ...], ...]
    """Cells per level and axis. An axis of r cells has r + 1 vertices, at 0, 1/r, ..., 1."""
    multipliers: tuple[tuple[int, ...], ...]
    masks: tuple[int, ...]
    """Hashmap size - 1 in hashed levels, 0 in dense ones, which come first."""
    offsets: tuple[int, ...]
    """First row of each level, and the number of rows at the end."""
    time_gradient: bool = True
    """Whether the last of four input axes gets a gradient."""

    @property
    def num_levels(self) -> int:
        return len(self.resolutions)

    @property
    def output_dim(self) -> int:
        return self.num_levels * self.features


def make_layout(
    input_dim: int,
    num_levels: int,
    features: int,
    log2_hashmap_size: int,
    base_resolution: int | Sequence[int],
    max_resolution: int | Sequence[int],
    time_gradient: bool = True,
) -> GridLayout:
    """Resolutions grow geometrically from base to max, per axis; levels that fit into the hashmap are dense.

    Raises:
        ValueError: for sizes that make no grid.
    """
    if input_dim not in (2, 3, 4):
        raise ValueError(f"a hash grid has 2, 3 or 4 dimensions, not {input_dim}")
    if num_levels < 1 or features < 1 or not 1 <= log2_hashmap_size <= 28:
        raise ValueError("a hash grid needs at least one level, one feature, and a hashmap of 2 to 2**28 entries")
    base, top = _per_axis(base_resolution, input_dim), _per_axis(max_resolution, input_dim)
    if any(b > t for b, t in zip(base, top, strict=True)):
        raise ValueError(f"a hash grid's levels grow finer: base resolution {base} exceeds max resolution {top}")
    hashmap_size = 2**log2_hashmap_size
    resolutions, multipliers, masks, offsets = [], [], [], [0]
    for level in range(num_levels):
        progress = level / max(num_levels - 1, 1)
        resolution = tuple(round(b * (t / b) ** progress) for b, t in zip(base, top, strict=True))
        vertices = math.prod(r + 1 for r in resolution)
        dense = vertices <= hashmap_size
        strides = tuple(math.prod(r + 1 for r in resolution[:axis]) for axis in range(input_dim))
        resolutions.append(resolution)
        multipliers.append(strides if dense else PRIMES[:input_dim])
        masks.append(0 if dense else hashmap_size - 1)
        size = vertices if dense else hashmap_size
        offsets.append(offsets[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    if offsets[-1] * features >= 2**31:
        raise ValueError(
            "the hash grid's table would hold 2**31 numbers or more; take fewer levels or a smaller hashmap"
        )
    levels = (tuple(resolutions), tuple(multipliers), tuple(masks), tuple(offsets))
    return GridLayout(input_dim, features, *levels, time_gradient=time_gradient)


def _per_axis(resolution: int | Sequence[int], input_dim: int) -> tuple[int, ...]:
    per_axis = (resolution,) * input_dim if isinstance(resolution, int) else tuple(resolution)
    if len(per_axis) != input_dim or min(per_axis) < 1:
        raise ValueError(
            f"a resolution is one number or one for each of {input_dim} axes, all at least 1: {resolution}"
        )
    return per_axis
