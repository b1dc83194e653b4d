"""Triton kernels of the hash grid (imported by `triton_backend` alone).

A program takes a block of points; in look-up and table gradient also one level, points running fastest, so that the
programs at work share a level that stays in the L2 cache. Corners without weight are masked: times on a vertex cost no
memory traffic for their second slice. 32-bit integer products overflow as the hash wants them to.
"""

# pyright: reportGeneralTypeIssues=false
# (which takes a compiled function for one that does not return)
from __future__ import annotations

import triton
import triton.language as tl

from semflow_nerfstudio.encodings.grid_layout import SNAP as _SNAP

SNAP = tl.constexpr(_SNAP)


@triton.jit
def _axis(points, resolutions, multipliers, index, inside, level, axis: tl.constexpr, D: tl.constexpr):
    """Resolution and multiplier of one axis; fraction and first term of the address of each point."""
    resolution = tl.load(resolutions + level * D + axis)
    multiplier = tl.load(multipliers + level * D + axis)
    position = tl.load(points + index * D + axis, mask=inside, other=0.0) * resolution
    if axis == 3:
        vertex = tl.floor(position + 0.5)
        position = tl.where(tl.abs(position - vertex) <= SNAP * resolution, vertex, position)
    # written so that NaN, too, becomes a cell inside the table
    cell = tl.where(position > 0, tl.floor(position), 0.0)
    cell = tl.where(cell < resolution, cell, resolution - 1)
    return resolution, multiplier, position - cell, cell.to(tl.int32) * multiplier


@triton.jit
def _cells(points, resolutions, multipliers, index, inside, level, D: tl.constexpr):
    """`_axis` of four axes; those that the grid lacks repeat the first and are not used."""
    rx, mx, fx, tx = _axis(points, resolutions, multipliers, index, inside, level, 0, D)
    ry, my, fy, ty = _axis(points, resolutions, multipliers, index, inside, level, 1, D)
    rz, mz, fz, tz = rx, mx, fx, tx
    rt, mt, ft, tt = rx, mx, fx, tx
    if D >= 3:
        rz, mz, fz, tz = _axis(points, resolutions, multipliers, index, inside, level, 2, D)
    if D == 4:
        rt, mt, ft, tt = _axis(points, resolutions, multipliers, index, inside, level, 3, D)
    return rx, ry, rz, rt, mx, my, mz, mt, fx, fy, fz, ft, tx, ty, tz, tt


@triton.jit
def _side(fraction, bit: tl.constexpr):
    """Weight of the near (0) or far (1) side of a cell."""
    if bit == 1:
        return fraction
    else:
        return 1 - fraction


@triton.jit
def _row(corner: tl.constexpr, D: tl.constexpr, mask, mx, my, mz, mt, tx, ty, tz, tt):
    """Row, inside the level, of a corner of each point's cell."""
    x_term = tx + (corner & 1) * mx
    y_term = ty + ((corner >> 1) & 1) * my
    hashed = x_term ^ y_term
    summed = x_term + y_term
    if D >= 3:
        z_term = tz + ((corner >> 2) & 1) * mz
        hashed = hashed ^ z_term
        summed = summed + z_term
    if D == 4:
        t_term = tt + ((corner >> 3) & 1) * mt
        hashed = hashed ^ t_term
        summed = summed + t_term
    return tl.where(mask > 0, hashed & mask, summed)


@triton.jit
def _weight(corner: tl.constexpr, D: tl.constexpr, fx, fy, fz, ft):
    """Weight of a corner of each point's cell."""
    weight = _side(fx, corner & 1) * _side(fy, (corner >> 1) & 1)
    if D >= 3:
        weight = weight * _side(fz, (corner >> 2) & 1)
    if D == 4:
        weight = weight * _side(ft, (corner >> 3) & 1)
    return weight


@triton.jit
def look_up(
    points, table, resolutions, multipliers, masks, offsets, out, n,
    D: tl.constexpr, F: tl.constexpr, L: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (N, L * F) from points (N, D) and table (rows, F); grid (blocks of points, levels)."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    level = tl.program_id(1)
    inside = index < n
    f = tl.arange(0, F)[None, :]
    _rx, _ry, _rz, _rt, mx, my, mz, mt, fx, fy, fz, ft, tx, ty, tz, tt = _cells(
        points, resolutions, multipliers, index, inside, level, D
    )
    mask, offset = tl.load(masks + level), tl.load(offsets + level)
    value = tl.zeros((BLOCK, F), tl.float32)
    for corner in tl.static_range(2**D):
        weight = _weight(corner, D, fx, fy, fz, ft)
        row = offset + _row(corner, D, mask, mx, my, mz, mt, tx, ty, tz, tt)
        used = (inside & (weight != 0))[:, None]
        feature = tl.load(table + row[:, None] * F + f, mask=used, other=0.0).to(tl.float32)
        value += weight[:, None] * feature
    tl.store(out + index[:, None] * (L * F) + level * F + f, value.to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit
def table_gradient(
    points, resolutions, multipliers, masks, offsets, grad_out, grad_table, n,
    D: tl.constexpr, F: tl.constexpr, L: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Added to grad_table (rows, F) in float32 from grad_out (N, L * F); grid (blocks of points, levels)."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    level = tl.program_id(1)
    inside = index < n
    f = tl.arange(0, F)[None, :]
    _rx, _ry, _rz, _rt, mx, my, mz, mt, fx, fy, fz, ft, tx, ty, tz, tt = _cells(
        points, resolutions, multipliers, index, inside, level, D
    )
    mask, offset = tl.load(masks + level), tl.load(offsets + level)
    grad = tl.load(grad_out + index[:, None] * (L * F) + level * F + f, mask=inside[:, None], other=0.0).to(tl.float32)
    for corner in tl.static_range(2**D):
        weight = _weight(corner, D, fx, fy, fz, ft)
        row = offset + _row(corner, D, mask, mx, my, mz, mt, tx, ty, tz, tt)
        used = (inside & (weight != 0))[:, None] & (f < F)
        tl.atomic_add(grad_table + row[:, None] * F + f, weight[:, None] * grad, mask=used, sem="relaxed")


@triton.jit
def point_gradient(
    points, table, resolutions, multipliers, masks, offsets, grad_out, grad_points, n,
    D: tl.constexpr, F: tl.constexpr, L: tl.constexpr, TIME: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """grad_points (N, D) from grad_out (N, L * F), all levels in one program; TIME: whether the last of four axes needs
    it (otherwise 0 is written). Grid (blocks of points)."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < n
    f = tl.arange(0, F)[None, :]
    x_slope = tl.zeros((BLOCK,), tl.float32)
    y_slope = tl.zeros((BLOCK,), tl.float32)
    z_slope = tl.zeros((BLOCK,), tl.float32)
    t_slope = tl.zeros((BLOCK,), tl.float32)
    for level in range(L):
        rx, ry, rz, rt, mx, my, mz, mt, fx, fy, fz, ft, tx, ty, tz, tt = _cells(
            points, resolutions, multipliers, index, inside, level, D
        )
        mask, offset = tl.load(masks + level), tl.load(offsets + level)
        at = grad_out + index[:, None] * (L * F) + level * F + f
        grad = tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
        for corner in tl.static_range(2**D):
            row = offset + _row(corner, D, mask, mx, my, mz, mt, tx, ty, tz, tt)
            used = inside
            if D == 4 and not TIME:
                used = used & (_side(ft, corner >> 3) != 0)
            feature = tl.load(table + row[:, None] * F + f, mask=used[:, None], other=0.0).to(tl.float32)
            product = tl.sum(grad * feature, axis=1)
            # the derivative of a side's weight by its own axis is -1 (near) or 1 (far)
            x_weight = _side(fx, corner & 1)
            y_weight = _side(fy, (corner >> 1) & 1)
            rest = product
            if D == 4:
                t_weight = _side(ft, corner >> 3)
                if TIME:
                    t_slope += (
                        rt * (2 * (corner >> 3) - 1) * product * x_weight * y_weight * _side(fz, (corner >> 2) & 1)
                    )
                rest = rest * t_weight
            if D >= 3:
                z_slope += rz * (2 * ((corner >> 2) & 1) - 1) * rest * x_weight * y_weight
                rest = rest * _side(fz, (corner >> 2) & 1)
            x_slope += rx * (2 * (corner & 1) - 1) * rest * y_weight
            y_slope += ry * (2 * ((corner >> 1) & 1) - 1) * rest * x_weight
    tl.store(grad_points + index * D, x_slope, mask=inside)
    tl.store(grad_points + index * D + 1, y_slope, mask=inside)
    if D >= 3:
        tl.store(grad_points + index * D + 2, z_slope, mask=inside)
    if D == 4:
        tl.store(grad_points + index * D + 3, t_slope, mask=inside)
