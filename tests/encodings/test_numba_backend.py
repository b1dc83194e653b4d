"""The compiled CPU backend against the reference, and its threads."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from agreement import CASES, assert_agrees, fill_all_but_slice, make_grids, make_points
from torch import Tensor

from semflow_nerfstudio.encodings.hash_grid import HashGrid

kernels = pytest.importorskip("semflow_nerfstudio.encodings.numba_kernels", reason="numba cannot be imported here")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_agrees_with_reference(case: tuple) -> None:
    grid, reference = make_grids("numba", case)
    assert_agrees(grid, reference, make_points(case[0], 1000))


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129])
def test_any_number_of_points(n: int) -> None:
    grid, _ = make_grids("numba", CASES["3-D"])
    points = torch.rand(n, 3, requires_grad=True)
    values = grid(points)
    assert values.shape == (n, grid.output_dim)
    values.sum().backward()
    assert grid.table.grad is not None and points.grad is not None and points.grad.shape == points.shape
    if n:
        assert_agrees(*make_grids("numba", CASES["3-D"]), points.detach())
    else:
        assert not grid.table.grad.any()


def test_batch_dimensions_and_strides() -> None:
    grid, reference = make_grids("numba", CASES["4-D"])
    points = torch.rand(4, 6, 5, 9).permute(1, 2, 3, 0)[:, ::2]
    values = grid(points)
    assert values.shape == (6, 3, 9, grid.output_dim)
    torch.testing.assert_close(values.double(), reference(points.double()), rtol=0, atol=1e-5)


def test_gradient_of_an_expanded_output() -> None:
    """sum() hands back a gradient of stride 0."""
    grid, reference = make_grids("numba", CASES["3-D"])
    points = torch.rand(300, 3)
    grid(points).sum().backward()
    reference(points.double()).sum().backward()
    assert grid.table.grad is not None and reference.table.grad is not None
    torch.testing.assert_close(grid.table.grad.double(), reference.table.grad, rtol=1e-5, atol=1e-5)


def test_every_level_hands_out_its_whole_gradient() -> None:
    """A cell's weights sum to 1, so a level's table gradient sums to that of its output."""
    grid, _ = make_grids("numba", CASES["4-D, frames"])
    values = grid(make_points(4, 3000))
    weights = torch.randn(values.shape)
    values.backward(weights)
    assert grid.table.grad is not None
    per_level = weights.double().sum(dim=0).view(grid.layout.num_levels, -1)
    for level, expected in enumerate(per_level):
        rows = slice(grid.layout.offsets[level], grid.layout.offsets[level + 1])
        torch.testing.assert_close(grid.table.grad[rows].double().sum(dim=0), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("last_frame", [1, 11, 49, 97, 300])
def test_frame_times_read_one_time_slice(last_frame: int) -> None:
    """However k / (T - 1) and its way back are rounded, the other frames' vertices (NaN here) are not read."""
    case = (4, 2, 14, (1, 1, 1, last_frame), (2, 2, 2, last_frame))
    for frame in range(0, last_frame + 1, max(last_frame // 8, 1)):
        grid, _ = make_grids("numba", case, levels=2, time_gradient=False)
        fill_all_but_slice(grid, frame)
        points = torch.rand(200, 4)
        points[:, 3] = torch.linspace(0, 1, last_frame + 1)[frame]
        points[:100, 3] = frame / last_frame
        points.requires_grad_()
        values = grid(points)
        assert values.isfinite().all()
        values.sum().backward()
        assert points.grad is not None and points.grad.isfinite().all()


def test_times_mixed_in_a_block() -> None:
    """A block with times at the last frame, at others and in between, and one with the last frame alone."""
    case = CASES["4-D, frames"]
    points = make_points(4, 384)
    points[128:256, 3] = 1
    points[256:300, 3] = 1
    assert_agrees(*make_grids("numba", case), points)


def test_time_gradient_can_be_left_out() -> None:
    case = CASES["4-D, frames"]
    assert_agrees(*make_grids("numba", case, time_gradient=False), make_points(4, 500))
    grid, _ = make_grids("numba", case, time_gradient=False)
    points = torch.rand(50, 4, requires_grad=True)
    grid(points).sum().backward()
    assert points.grad is not None
    assert not points.grad[:, 3].any() and points.grad[:, :3].all()


def test_gradients_only_where_asked() -> None:
    grid, _ = make_grids("numba", CASES["3-D"])
    grid.table.requires_grad_(False)
    points = torch.rand(40, 3, requires_grad=True)
    grid(points).sum().backward()
    assert grid.table.grad is None and points.grad is not None and points.grad.any()
    assert not grid(points.detach()).requires_grad


def test_not_a_number_stays_one() -> None:
    grid, _ = make_grids("numba", CASES["4-D"])
    points = torch.rand(10, 4)
    points[3, 0], points[4, 3] = float("nan"), float("nan")
    values = grid(points)
    assert values[3:5].isnan().all()
    assert values[torch.tensor([0, 1, 2, 5, 6, 7, 8, 9])].isfinite().all()


def test_autocast_leaves_it_alone() -> None:
    grid, reference = make_grids("numba", CASES["3-D"])
    points = torch.rand(100, 3)
    with torch.autocast("cpu", torch.bfloat16):
        values = grid(points)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), reference(points.double()), rtol=0, atol=1e-5)


def _gradients(grid: HashGrid, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    points = points.clone().requires_grad_()
    values = grid(points)
    table, inputs = torch.autograd.grad(values.square().sum(), (grid.table, points))
    return values.detach(), table, inputs


def test_same_bits_with_any_number_of_threads(threads: None) -> None:
    grid, _ = make_grids("numba", CASES["3-D"])
    points = torch.rand(10_000, 3)
    torch.set_num_threads(1)
    alone = _gradients(grid, points)
    for count in (2, 3, 2):
        torch.set_num_threads(count)
        for one, other in zip(alone, _gradients(grid, points), strict=True):
            assert torch.equal(one, other)


def test_two_threads_may_call_at_once(threads: None) -> None:
    """Training and the viewer do."""
    torch.set_num_threads(2)
    grid, _ = make_grids("numba", CASES["3-D"])
    points = torch.rand(8192, 3)
    expected = _gradients(grid, points)
    wrong: list[int] = []

    def call() -> None:
        for attempt in range(10):
            results = _gradients(grid, points)
            if not all(torch.equal(a, b) for a, b in zip(expected, results, strict=True)):
                wrong.append(attempt)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
    assert not any(caller.is_alive() for caller in callers) and not wrong


def test_a_forked_child_has_threads_of_its_own(threads: None) -> None:
    torch.set_num_threads(2)
    grid, _ = make_grids("numba", CASES["3-D"])
    points = torch.rand(3000, 3)  # so few that PyTorch starts no OpenMP threads in the child: they hang after a fork
    with torch.no_grad():
        expected = grid(points)
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(grid(points), expected) else 1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_kernels_compile_without_a_folder_to_cache_in() -> None:
    numba = pytest.importorskip("numba")
    namespace: dict = {}
    exec("def increment(x):\n    return x + 1", namespace)  # a function of no file: numba cannot cache it
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(namespace["increment"])
    assert kernels._compile(numba.int64(numba.int64), namespace["increment"])(1) == 2


def test_warming_up_fills_the_cache(tmp_path: Path) -> None:
    """Kernels compiled by another process are found, not compiled again."""
    command = [sys.executable, "-c", WARM]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DEBUG_CACHE": "1"}

    def said() -> str:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    first, second = said(), said()
    assert "data saved to" in first
    assert "data loaded from" in second and "data saved to" not in second


WARM = "from semflow_nerfstudio.encodings.warm_up import warm_up; warm_up(((2, 1),))"
