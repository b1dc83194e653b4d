"""What a hash grid computes, held against plain loops and known functions (the torch backend in double precision)."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from semflow_nerfstudio.encodings.grid_layout import PRIMES, make_layout
from semflow_nerfstudio.encodings.hash_grid import HashGrid


def double_grid(*arguments, **options) -> HashGrid:
    torch.manual_seed(0)
    return HashGrid(*arguments, backend="torch", init_scale=1.0, **options).double()


def look_up_by_loops(grid: HashGrid, point: list[float]) -> list[float]:
    """The definition, one corner at a time."""
    layout, table, values = grid.layout, grid.table.tolist(), []
    for level, resolution in enumerate(layout.resolutions):
        cell = [min(int(p * r), r - 1) for p, r in zip(point, resolution, strict=True)]
        fraction = [p * r - c for p, r, c in zip(point, resolution, cell, strict=True)]
        sums = [0.0] * layout.features
        size = layout.offsets[level + 1] - layout.offsets[level]
        for bits in itertools.product((0, 1), repeat=layout.input_dim):
            vertex = [c + b for c, b in zip(cell, bits, strict=True)]
            weight = math.prod(f if b else 1 - f for f, b in zip(fraction, bits, strict=True))
            if math.prod(r + 1 for r in resolution) <= size:
                row, stride = 0, 1
                for v, r in zip(vertex, resolution, strict=True):
                    row, stride = row + v * stride, stride * (r + 1)
            else:
                row = 0
                for v, prime in zip(vertex, PRIMES, strict=False):
                    row ^= v * prime % 2**32
                row %= size
            for f in range(layout.features):
                sums[f] += weight * table[layout.offsets[level] + row][f]
        values += sums
    return values


@pytest.mark.parametrize(
    ("dims", "base", "top"), [(2, 3, 40), (3, (2, 3, 4), (20, 9, 4)), (4, (3, 2, 2, 5), (9, 8, 7, 5)), (4, 1, 6)]
)
def test_agrees_with_loops(dims: int, base, top) -> None:
    grid = double_grid(dims, 4, 2, 8, base, top)
    assert grid.layout.masks[0] == 0 and grid.layout.masks[-1] == 255  # both kinds of level
    points = torch.rand(20, dims, dtype=torch.float64)
    points[0], points[1] = 0, 1
    expected = torch.tensor([look_up_by_loops(grid, point.tolist()) for point in points], dtype=torch.float64)
    torch.testing.assert_close(grid(points), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3, 4])
def test_dense_levels_reproduce_a_linear_function(dims: int) -> None:
    """Vertices lie at 0, 1/r, ..., 1: no shift by half a cell, no axes swapped."""
    grid = double_grid(dims, 1, 1, 14, (5, 3, 4, 6)[:dims], (5, 3, 4, 6)[:dims])
    slope = torch.tensor([2.0, -3.0, 0.5, 7.0], dtype=torch.float64)[:dims]
    axes = [torch.arange(r + 1, dtype=torch.float64) / r for r in grid.layout.resolutions[0]]
    vertices = torch.stack(torch.meshgrid(*reversed(axes), indexing="ij")[::-1], dim=-1).reshape(-1, dims)
    with torch.no_grad():
        grid.table[: len(vertices), 0] = vertices @ slope
    points = torch.rand(200, dims, dtype=torch.float64, requires_grad=True)
    values = grid(points)
    torch.testing.assert_close(values[:, 0], points @ slope)
    values.sum().backward()
    torch.testing.assert_close(points.grad, slope.expand(200, dims))


@pytest.mark.parametrize("dims", [2, 3, 4])
def test_gradients_agree_with_finite_differences(dims: int) -> None:
    grid = double_grid(dims, 2, 2, 5, 2, 4)
    # off the vertices, where the derivative jumps
    cells = torch.randint(0, 4, (6, dims))
    points = ((cells + 0.2 + 0.6 * torch.rand(6, dims, dtype=torch.float64)) / 4).requires_grad_()

    def encode(points: Tensor, table: Tensor) -> Tensor:
        return torch.func.functional_call(grid, {"table": table}, (points,))

    inputs = (points, grid.table.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(encode, inputs)
    assert torch.autograd.gradgradcheck(encode, inputs)


def test_outside_is_clamped_and_gets_no_gradient() -> None:
    grid = double_grid(3)
    outside = torch.tensor([[-0.5, 0.3, 1.7]], requires_grad=True)
    border = torch.tensor([[0.0, 0.3, 1.0]])
    values = grid(outside)
    torch.testing.assert_close(values, grid(border))
    values.square().sum().backward()
    assert outside.grad is not None
    assert outside.grad[0, 0] == 0 and outside.grad[0, 2] == 0 and outside.grad[0, 1] != 0


def test_levels_and_sizes() -> None:
    layout = make_layout(4, 5, 2, 12, (4, 4, 2, 11), (64, 32, 2, 11))
    assert layout.resolutions[0] == (4, 4, 2, 11) and layout.resolutions[-1] == (64, 32, 2, 11)
    assert layout.resolutions[2] == (16, round(4 * 8**0.5), 2, 11)
    assert layout.output_dim == 10
    for level, resolution in enumerate(layout.resolutions):
        vertices = math.prod(r + 1 for r in resolution)
        size = layout.offsets[level + 1] - layout.offsets[level]
        assert size == 4096 if layout.masks[level] else vertices <= size < vertices + 8
        assert (layout.masks[level] == 0) == (vertices <= 4096)
    grid = HashGrid(4, 5, 2, 12, (4, 4, 2, 11), (64, 32, 2, 11), init_scale=0.5)
    assert grid.table.shape == (layout.offsets[-1], 2)
    assert grid.table.abs().max() <= 0.5 and grid.table.std() > 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_dim": 5}, "2, 3 or 4 dimensions"),
        ({"num_levels": 0}, "at least one level"),
        ({"base_resolution": (16, 16)}, "one for each of 3 axes"),
        ({"base_resolution": (16, 16, 0)}, "at least 1"),
        ({"base_resolution": 32, "max_resolution": 16}, "exceeds"),
        ({"num_levels": 64, "log2_hashmap_size": 28, "max_resolution": 4096}, "smaller hashmap"),
    ],
)
def test_impossible_grids_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HashGrid(**{"input_dim": 3, **arguments})


def test_points_of_other_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="4 coordinates"):
        HashGrid(4)(torch.rand(5, 3))
