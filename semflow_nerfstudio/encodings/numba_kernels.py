"""Compiled CPU kernels of the hash grid (imported by `numba_backend` alone).

A kernel takes a range of levels and a range of points, block by block: first loops that the compiler turns into SIMD
code find rows and weights of all corners of a block's cells, then one gathers from the table or scatters into it. A 4-D
cell is two 3-D cells, one a time slice; where a slice has no weight (a time on a vertex) it is skipped.

Written for the compiler: numbers known before compilation are closure constants (helpers are not: a kernel that closes
over a compiled function is never found in numba's cache again); inner loops index whole arrays with their own counter,
because numba allows negative indices and only there can be seen to be none; values that the loop does not change are
local, because as far as the compiler knows two arrays may overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float32, int64, njit, uint32, void

from semflow_nerfstudio.encodings.grid_layout import SNAP

BLOCK = 128
"""Points a block: its scratch arrays stay in the L1 cache. Points are padded to whole blocks."""

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},  # without those under which NaN need not stay NaN
    "no_cfunc_wrapper": True,
}
_HELPER = {**_OPTIONS, "no_cpython_wrapper": True}  # called by kernels alone
_SNAP = np.float32(SNAP)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


class Kernels(NamedTuple):
    """Common arguments: points (D, padded N), table (rows * F), resolutions, multipliers (L, D), masks (L), offsets
    (L + 1), first and last + 1 level, first and last + 1 point; the first point begins a block."""

    forward: Callable
    """... out (N, L * F): written."""
    table_gradient: Callable
    """... grad_out (N, L * F), grad_table (rows * F): the levels' rows are set (by all points, so one call a level)."""
    point_gradient: Callable
    """... grad_out (N, L * F), whether the last axis needs it, grad_points (D, padded N): added to."""


@njit(**_HELPER)
def _find_cells(points, resolutions, multipliers, level, start, fractions, terms):
    """Fraction (D, B), and first term of the address (D, B), of each axis of a block."""
    for axis in range(points.shape[0]):
        resolution, multiplier = resolutions[level, axis], multipliers[level, axis]
        coordinates = points[axis, start : start + BLOCK]
        axis_fractions, axis_terms = fractions[axis], terms[axis]
        for i in range(BLOCK):
            position = coordinates[i] * resolution
            if axis == 3:
                vertex = np.floor(position + _HALF)
                if abs(position - vertex) <= _SNAP * resolution:
                    position = vertex
            # written so that NaN, too, becomes a cell inside the table
            inside = position if position > _ZERO else _ZERO
            cell = np.int32(inside if inside < resolution else resolution - _ONE)
            axis_fractions[i] = position - np.float32(cell)
            axis_terms[i] = np.uint32(cell) * multiplier


@njit(**_HELPER)
def _find_slice(times, time, slice_weights):
    """Weight of a time slice (0 or 1) for each point of a block; returns whether any is not zero."""
    total = _ZERO
    for i in range(BLOCK):
        slice_weights[i] = times[i] if time == 1 else _ONE - times[i]
        total += slice_weights[i]
    return total != _ZERO


@njit(**_HELPER)
def _find_corners(inner, fractions, terms, multipliers, mask, level, rows, weights):
    """Rows of the level and weights (corners, B) of a block, from those of corner 0 before the inner axes."""
    for axis in range(inner):
        multiplier = multipliers[level, axis]
        fraction, term = fractions[axis], terms[axis]
        for corner in range(1 << axis):
            low_weights, high_weights = weights[corner], weights[corner + (1 << axis)]
            low_rows, high_rows = rows[corner], rows[corner + (1 << axis)]
            for i in range(BLOCK):
                high_weights[i] = low_weights[i] * fraction[i]
                low_weights[i] = low_weights[i] * (_ONE - fraction[i])
            if mask > 0:
                for i in range(BLOCK):
                    high_rows[i] = (low_rows[i] ^ np.uint32(term[i] + multiplier)) & mask
                    low_rows[i] = (low_rows[i] ^ term[i]) & mask
            else:
                for i in range(BLOCK):
                    high_rows[i] = low_rows[i] + term[i] + multiplier
                    low_rows[i] = low_rows[i] + term[i]


@njit(**_HELPER)
def _add_slopes(inner, axis, fractions, products, slice_weights, resolution, slopes):
    """Add the derivative by an inner axis for a block: differences of the corners' products (corners, B) along it."""
    side_axis, depth_axis = (axis + 1) % inner, (axis + 2) % inner
    side, depth = fractions[side_axis], fractions[depth_axis]
    for pair in range(1 << (inner - 1)):
        low = ((pair & 1) << side_axis) | ((pair >> 1) << depth_axis)
        low_products, high_products = products[low], products[low | (1 << axis)]
        side_0, side_1 = np.float32(1 - (pair & 1)), np.float32(2 * (pair & 1) - 1)
        # in two dimensions there is no third axis to interpolate along
        depth_0 = np.float32(1 - (pair >> 1))
        depth_1 = np.float32(2 * (pair >> 1) - 1) if inner == 3 else _ZERO
        for i in range(BLOCK):
            weight = (side_0 + side_1 * side[i]) * (depth_0 + depth_1 * depth[i]) * slice_weights[i]
            slopes[i] += resolution * weight * (high_products[i] - low_products[i])


@njit(**_HELPER)
def _add_time_slopes(products, weights, scale, slopes):
    """Add one slice's share of the derivative by time for a block."""
    for corner in range(products.shape[0]):
        corner_products, corner_weights = products[corner], weights[corner]
        for i in range(BLOCK):
            slopes[i] += scale * corner_products[i] * corner_weights[i]


@cache
def compile_kernels(input_dim: int, features: int) -> Kernels:
    """Kernels for a number of dimensions and features; from numba's cache on disk where they were compiled before."""
    dims, sliced = input_dim, input_dim == 4
    inner = min(input_dim, 3)
    corners, slices = 2**inner, 2 if sliced else 1
    # features are taken in pairs, so that a corner's row and weight are loaded once for two
    paired = features // 2 * 2

    def forward(points, table, resolutions, multipliers, masks, offsets, level_0, level_1, start, stop, out):
        fractions, terms = np.empty((dims, BLOCK), np.float32), np.empty((dims, BLOCK), np.uint32)
        rows, weights = np.empty((corners, BLOCK), np.uint32), np.empty((corners, BLOCK), np.float32)
        slice_weights = np.ones(BLOCK, np.float32)
        for level in range(level_0, level_1):
            entries = table[offsets[level] * features : offsets[level + 1] * features]
            column = level * features
            for first in range(start, stop, BLOCK):
                values = out[first : min(first + BLOCK, stop)]
                _find_cells(points, resolutions, multipliers, level, first, fractions, terms)
                add = False  # the first slice with weight sets the values, another one adds to them
                for time in range(slices):
                    if sliced and not _find_slice(fractions[dims - 1], time, slice_weights):
                        continue
                    weights[0] = slice_weights
                    rows[0] = terms[dims - 1] + np.uint32(time) * multipliers[level, dims - 1] if sliced else 0
                    _find_corners(inner, fractions, terms, multipliers, masks[level], level, rows, weights)
                    for i in range(values.shape[0]):
                        if sliced and slice_weights[i] == 0:
                            if not add:
                                values[i, column : column + features] = 0
                            continue
                        for f in range(0, paired, 2):
                            value_0, value_1 = _ZERO, _ZERO
                            if add:
                                value_0, value_1 = values[i, column + f], values[i, column + f + 1]
                            for corner in range(corners):
                                weight, at = weights[corner, i], np.int64(rows[corner, i]) * features + f
                                value_0 += weight * entries[at]
                                value_1 += weight * entries[at + 1]
                            values[i, column + f], values[i, column + f + 1] = value_0, value_1
                        if paired < features:
                            value = values[i, column + paired] if add else _ZERO
                            for corner in range(corners):
                                at = np.int64(rows[corner, i]) * features + paired
                                value += weights[corner, i] * entries[at]
                            values[i, column + paired] = value
                    add = True

    def table_gradient(
        points, table, resolutions, multipliers, masks, offsets, level_0, level_1, start, stop, grad_out, grad_table
    ):
        fractions, terms = np.empty((dims, BLOCK), np.float32), np.empty((dims, BLOCK), np.uint32)
        rows, weights = np.empty((corners, BLOCK), np.uint32), np.empty((corners, BLOCK), np.float32)
        slice_weights = np.ones(BLOCK, np.float32)
        for level in range(level_0, level_1):
            entries = grad_table[offsets[level] * features : offsets[level + 1] * features]
            entries[:] = 0  # here, where the memory is about to be in the cache, and by all threads
            column = level * features
            for first in range(start, stop, BLOCK):
                grads = grad_out[first : min(first + BLOCK, stop)]
                _find_cells(points, resolutions, multipliers, level, first, fractions, terms)
                for time in range(slices):
                    if sliced and not _find_slice(fractions[dims - 1], time, slice_weights):
                        continue
                    weights[0] = slice_weights
                    rows[0] = terms[dims - 1] + np.uint32(time) * multipliers[level, dims - 1] if sliced else 0
                    _find_corners(inner, fractions, terms, multipliers, masks[level], level, rows, weights)
                    for i in range(grads.shape[0]):
                        if sliced and slice_weights[i] == 0:
                            continue
                        for f in range(0, paired, 2):
                            grad_0, grad_1 = grads[i, column + f], grads[i, column + f + 1]
                            for corner in range(corners):
                                weight, at = weights[corner, i], np.int64(rows[corner, i]) * features + f
                                entries[at] += weight * grad_0
                                entries[at + 1] += weight * grad_1
                        if paired < features:
                            grad = grads[i, column + paired]
                            for corner in range(corners):
                                at = np.int64(rows[corner, i]) * features + paired
                                entries[at] += weights[corner, i] * grad

    def point_gradient(
        points,
        table,
        resolutions,
        multipliers,
        masks,
        offsets,
        level_0,
        level_1,
        start,
        stop,
        grad_out,
        last,
        grad_points,
    ):
        fractions, terms = np.empty((dims, BLOCK), np.float32), np.empty((dims, BLOCK), np.uint32)
        rows, weights = np.empty((corners, BLOCK), np.uint32), np.empty((corners, BLOCK), np.float32)
        slice_weights = np.ones(BLOCK, np.float32)
        products = np.zeros((corners, BLOCK), np.float32)  # the loss's derivatives by the corners' weights
        for level in range(level_0, level_1):
            entries = table[offsets[level] * features : offsets[level + 1] * features]
            column = level * features
            for first in range(start, stop, BLOCK):
                grads = grad_out[first : min(first + BLOCK, stop)]
                _find_cells(points, resolutions, multipliers, level, first, fractions, terms)
                for time in range(slices):
                    if sliced and not _find_slice(fractions[dims - 1], time, slice_weights) and not last:
                        continue
                    weights[0] = 1
                    rows[0] = terms[dims - 1] + np.uint32(time) * multipliers[level, dims - 1] if sliced else 0
                    _find_corners(inner, fractions, terms, multipliers, masks[level], level, rows, weights)
                    for i in range(grads.shape[0]):
                        if sliced and slice_weights[i] == 0 and not last:
                            products[:, i] = 0
                            continue
                        for f in range(0, paired, 2):
                            grad_0, grad_1 = grads[i, column + f], grads[i, column + f + 1]
                            for corner in range(corners):
                                at = np.int64(rows[corner, i]) * features + f
                                product = grad_0 * entries[at] + grad_1 * entries[at + 1]
                                products[corner, i] = product if f == 0 else products[corner, i] + product
                        if paired < features:
                            grad = grads[i, column + paired]
                            for corner in range(corners):
                                product = grad * entries[np.int64(rows[corner, i]) * features + paired]
                                products[corner, i] = product if paired == 0 else products[corner, i] + product
                    for axis in range(inner):
                        slopes = grad_points[axis, first : first + BLOCK]
                        _add_slopes(inner, axis, fractions, products, slice_weights, resolutions[level, axis], slopes)
                    if sliced and last:
                        scale = resolutions[level, dims - 1] if time == 1 else -resolutions[level, dims - 1]
                        _add_time_slopes(products, weights, scale, grad_points[dims - 1, first : first + BLOCK])

    common = (float32[:, ::1], float32[::1], float32[:, ::1], uint32[:, ::1], uint32[::1], int64[::1])
    common += (int64, int64, int64, int64)
    return Kernels(
        _compile(void(*common, float32[:, ::1]), forward),
        _compile(void(*common, float32[:, ::1], float32[::1]), table_gradient),
        _compile(void(*common, float32[:, ::1], boolean, float32[:, ::1]), point_gradient),
    )


def _compile(signature: Any, kernel: Callable) -> Callable:
    try:
        return njit(signature, cache=True, **_OPTIONS)(kernel)
    except (RuntimeError, OSError):  # numba found no folder that it may cache in, or could not write there
        return njit(signature, **_OPTIONS)(kernel)
