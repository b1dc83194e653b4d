"""The CUDA backend against the reference: on a GPU where there is one, else through Triton's interpreter.

The interpreter must be switched on before triton is imported, so on the CPU this file runs itself in another process.
"""

import os
import subprocess
import sys

import pytest
import torch
from agreement import CASES, assert_agrees, fill_all_but_slice, make_grids, make_points

from semflow_nerfstudio.encodings.hash_grid import HashGrid

pytest.importorskip("triton", reason="triton is not installed")

ON_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if ON_GPU and not INTERPRETED else "cpu"
runs_here = pytest.mark.skipif(not (ON_GPU or INTERPRETED), reason="runs in the process of test_in_the_interpreter")


@pytest.mark.skipif(ON_GPU or INTERPRETED, reason="the tests below run directly")
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def make_small(case: tuple, **options) -> tuple[HashGrid, HashGrid]:
    """Two levels, one dense and one hashed where the case has both: the interpreter is slow."""
    grid, reference = make_grids("triton", case, levels=2, **options)
    return grid.to(DEVICE), reference


@runs_here
@pytest.mark.parametrize("name", ["2-D", "3-D", "4-D, frames", "4-D, dense frames"])
def test_agrees_with_reference(name: str) -> None:
    case = CASES[name]
    assert_agrees(*make_small(case), make_points(case[0], 150))


@runs_here
def test_time_gradient_can_be_left_out() -> None:
    assert_agrees(*make_small(CASES["4-D, frames"], time_gradient=False), make_points(4, 100))


@runs_here
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(dtype: torch.dtype) -> None:
    grid, reference = make_small(CASES["3-D"])
    with torch.autocast(DEVICE, dtype):
        assert grid(torch.rand(5, 3, device=DEVICE)).dtype == dtype
        # inputs are read in half precision, gradients arrive in it, sums are not made in it
        assert_agrees(grid, reference, make_points(3, 150), tolerance=2e-3 if dtype == torch.float16 else 1.6e-2)
    assert grid.table.grad is not None and grid.table.grad.dtype == torch.float32


@runs_here
def test_frame_times_read_one_time_slice() -> None:
    grid, _ = make_grids("triton", (4, 2, 14, (1, 1, 1, 49), (2, 2, 2, 49)), levels=2, time_gradient=False)
    for frame in (0, 23, 49):
        torch.nn.init.uniform_(grid.table)
        fill_all_but_slice(grid, frame)
        points = torch.rand(20, 4)
        points[:, 3] = torch.linspace(0, 1, 50)[frame]
        copy = grid.to(DEVICE)
        assert copy(points.to(DEVICE)).isfinite().all()
        grid = grid.cpu()


@runs_here
def test_no_points() -> None:
    grid, _ = make_small(CASES["3-D"])
    points = torch.rand(0, 3, device=DEVICE, requires_grad=True)
    grid(points).sum().backward()
    assert grid.table.grad is not None and not grid.table.grad.any()
    assert points.grad is not None and points.grad.shape == (0, 3)
