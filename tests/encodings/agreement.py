"""How a backend is held against the torch backend in double precision; shared by the tests of all backends."""

from __future__ import annotations

import torch
from torch import Tensor

from semflow_nerfstudio.encodings.hash_grid import HashGrid

LAST_FRAME = 11
"""Resolution of the time axis in the cases below."""

CASES = {
    # dims, features, log2 of the hashmap size, base and max resolution
    "2-D": (2, 1, 8, 3, 40),
    "3-D": (3, 2, 9, 4, 40),
    "3-D, dense": (3, 2, 15, (2, 3, 4), (16, 1 + 2, 30)),
    "3-D, odd features": (3, 3, 9, 4, 40),
    "4-D": (4, 2, 9, 2, 12),
    "4-D, frames": (4, 2, 9, (2, 3, 4, LAST_FRAME), (40, 33, 20, LAST_FRAME)),
    "4-D, dense frames": (4, 4, 12, (1, 2, 3, LAST_FRAME), (4, 4, 4, LAST_FRAME)),
}


def make_points(dims: int, n: int) -> Tensor:
    """Points in and a little outside the unit cube (n, dims), not contiguous; a third of 4-D ones at frame times."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(dims, n, generator=generator).t() * 1.2 - 0.1
    points[0], points[1] = 0, 1
    if dims == 4:
        points[: n // 3, 3] = torch.randint(0, LAST_FRAME + 1, (n // 3,), generator=generator) / LAST_FRAME
    return points


def make_grids(backend, case: tuple, levels: int = 4, **options) -> tuple[HashGrid, HashGrid]:
    """A grid with the backend, and the reference: same table, in double precision on the CPU."""
    dims, features, log2_size, base, top = case
    torch.manual_seed(0)
    grid = HashGrid(dims, levels, features, log2_size, base, top, backend, init_scale=1.0, **options)
    reference = HashGrid(dims, levels, features, log2_size, base, top, "torch", **options)
    reference.load_state_dict(grid.state_dict())
    return grid, reference.double()


def assert_agrees(grid: HashGrid, reference: HashGrid, points: Tensor, tolerance: float = 1e-5) -> None:
    """Values, table gradients and input gradients agree to `tolerance` of the largest magnitude.

    Single-precision positions in a cell are good to resolution * 2**-24, 2.4e-6 for the resolutions above.
    """
    device = grid.table.device
    ours, theirs = points.to(device, copy=True).requires_grad_(), points.double().requires_grad_()
    values, expected = grid(ours), reference(theirs)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (values * weights.to(device, values.dtype)).sum().backward()
    (expected * weights).sum().backward()
    for mine, other in ((values, expected), (grid.table.grad, reference.table.grad), (ours.grad, theirs.grad)):
        assert mine is not None and other is not None and mine.shape == other.shape
        assert (mine.detach().cpu() - other.detach()).abs().max() <= tolerance * other.abs().max()


def fill_all_but_slice(grid: HashGrid, frame: int) -> None:
    """Make every vertex of a grid of dense levels NaN but those of one frame."""
    layout = grid.layout
    assert set(layout.masks) == {0}
    with torch.no_grad():
        keep = torch.zeros(len(grid.table), dtype=torch.bool)
        for offset, resolution in zip(layout.offsets, layout.resolutions, strict=False):
            vertices = (resolution[0] + 1) * (resolution[1] + 1) * (resolution[2] + 1)
            keep[offset + frame * vertices : offset + (frame + 1) * vertices] = True
        grid.table[~keep] = float("nan")
