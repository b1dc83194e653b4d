"""The reference: a hash grid look-up in plain torch operations, for any device and precision, differentiable twice."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from semflow_nerfstudio.encodings.grid_layout import SNAP, GridLayout


def unsupported(layout: GridLayout, device: torch.device, dtype: torch.dtype) -> str | None:
    """Nothing is unsupported."""
    return None


def encode(x: Float[Tensor, "N D"], table: Float[Tensor, "E F"], layout: GridLayout) -> Float[Tensor, "N LF"]:
    """Multi-linear interpolation of every level's vertices at x in [0, 1], levels side by side."""
    resolution, multiplier, offset = _constants(layout, table.device)
    if layout.input_dim == 4 and not layout.time_gradient:
        x = torch.cat((x[:, :3], x[:, 3:].detach()), dim=1)
    position = x[:, None, :] * resolution.to(x.dtype)
    if layout.input_dim == 4:
        position = _snap_times(position, resolution)
    # the last cell includes its far vertex, so that x = 1 needs no vertex beyond it
    cell = torch.minimum(position.detach().floor().long().clamp_min(0), resolution - 1)
    rows = _address(cell * multiplier, multiplier, layout) + offset
    # a half-precision table is read, and its gradient summed, in the points' precision
    corners = table.to(x.dtype).index_select(0, rows.flatten()).view(*rows.shape, layout.features)
    fraction = (position - cell)[..., None]
    for axis in reversed(range(layout.input_dim)):
        near, far = corners.chunk(2)
        corners = torch.lerp(near, far, fraction[:, :, axis])
    return corners[0].flatten(start_dim=1)


def _address(near: Int[Tensor, "N L D"], multiplier: Int[Tensor, "L D"], layout: GridLayout) -> Int[Tensor, "C N L"]:
    """Addresses inside their levels of the 2**D corners of cells whose near corner has these terms.

    Bit d of a corner's number says near or far on axis d.
    """
    dense = layout.masks.count(0)  # the coarse levels
    address = torch.zeros_like(near[None, :, :, 0])
    for axis in range(layout.input_dim):
        terms = torch.stack((near[..., axis], near[..., axis] + multiplier[:, axis]))[:, None]
        summed = terms[..., :dense] + address[..., :dense]
        hashed = terms[..., dense:] ^ address[..., dense:]
        address = torch.cat((summed, hashed), dim=-1).flatten(end_dim=1)
    return torch.cat((address[..., :dense], address[..., dense:] & max(layout.masks)), dim=-1)


def _snap_times(position: Float[Tensor, "N L D"], resolution: Tensor) -> Float[Tensor, "N L D"]:
    """Move times within rounding of a vertex onto it; their derivative stays 1."""
    time = position[..., -1:].detach()
    to_vertex = time.round() - time
    near = to_vertex.abs() <= SNAP * resolution[:, -1:]
    shift = torch.where(near, to_vertex, torch.zeros_like(to_vertex))
    return position + torch.nn.functional.pad(shift, (position.shape[-1] - 1, 0))


@lru_cache(maxsize=64)
def _constants(layout: GridLayout, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Resolutions (L, D), multipliers (L, D) and offsets (L) as int64 tensors."""
    values = (layout.resolutions, layout.multipliers, layout.offsets[:-1])
    resolution, multiplier, offset = (torch.tensor(v, dtype=torch.int64, device=device) for v in values)
    return resolution, multiplier, offset
