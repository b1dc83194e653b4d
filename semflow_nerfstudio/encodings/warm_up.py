"""Compile the CPU's hash grid kernels into numba's cache: `python -m semflow_nerfstudio.encodings.warm_up`."""

from __future__ import annotations

import torch

from semflow_nerfstudio.encodings.hash_grid import HashGrid

LITE = ((3, 4), (4, 4), (4, 2), (3, 2))
"""What `semantic-flow-lite` has."""


def warm_up(sizes: tuple[tuple[int, int], ...]) -> None:
    """Run grids of these (dimensions, features a level) forward and backward once.

    Kernels are compiled anew for each of these pairs, whatever else a grid's size is. Points of 4-D grids get a
    gradient, too: flows move them.
    """
    for dimensions, features in sizes:
        grid = HashGrid(dimensions, 2, features, 8, (4,) * dimensions, (8,) * dimensions, time_gradient=False)
        points = torch.rand(8, dimensions, requires_grad=dimensions == 4)
        grid(points).sum().backward()


if __name__ == "__main__":
    warm_up(LITE)
