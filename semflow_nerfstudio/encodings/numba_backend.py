"""Hash grid look-ups compiled for the CPU: tasks of whole levels or chunks of points on a pool of threads of our own.

A pool and nogil kernels instead of numba's `prange`: its default threading layer aborts the process when two threads
call it (training and the viewer do), and its OpenMP layer does not survive a fork. Gradients of the table need no
atomics, as a level belongs to one task, and are the same for any number of threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from semflow_nerfstudio.encodings.grid_layout import GridLayout

MIN_CHUNK = 2048
"""Points of a task, at least: a level's rows should be read often enough to be worth loading into the cache."""


def unsupported(layout: GridLayout, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot do it, or None."""
    if device.type != "cpu":
        return "numba kernels run on the CPU alone"
    if dtype != torch.float32:
        return "numba kernels compute in float32"
    try:
        import semflow_nerfstudio.encodings.numba_kernels  # noqa: F401
    except ImportError as error:
        return f"numba cannot be imported ({error})"
    return None


def encode(x: Float[Tensor, "N D"], table: Float[Tensor, "E F"], layout: GridLayout) -> Float[Tensor, "N LF"]:
    """As `torch_backend.encode`, differentiable once."""
    return _Encode.apply(x, table, layout)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
        points = _pad(x)
        out = torch.empty(len(x), layout.output_dim)
        kernel = _kernels(layout).forward
        common = (points.numpy(), _flat(table), *_constants(layout), 0, layout.num_levels)
        _run([partial(kernel, *common, start, stop, out.numpy()) for start, stop in _chunks(len(x))])
        ctx.save_for_backward(points, table)
        ctx.layout, ctx.num_points = layout, len(x)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        points, table = ctx.saved_tensors
        layout, n = ctx.layout, ctx.num_points
        kernels = _kernels(layout)
        common = (points.numpy(), _flat(table), *_constants(layout))
        grads = grad_out.contiguous().numpy()
        tasks: list[Callable[[], None]] = []
        grad_points = grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.empty_like(table, memory_format=torch.contiguous_format)
            flat = _flat(grad_table)
            for level in reversed(range(layout.num_levels)):  # fine levels take longest and come first
                tasks.append(partial(kernels.table_gradient, *common, level, level + 1, 0, n, grads, flat))
        if ctx.needs_input_grad[0]:
            padded = torch.zeros_like(points)
            for start, stop in _chunks(n):
                part = (*common, 0, layout.num_levels, start, stop)
                tasks.append(partial(kernels.point_gradient, *part, grads, layout.time_gradient, padded.numpy()))
            grad_points = padded[:, :n].t()
        _run(tasks)
        return grad_points, grad_table, None


def _pad(x: Float[Tensor, "N D"]) -> Float[Tensor, "D P"]:
    """Points as columns, padded with zeros to whole blocks."""
    from semflow_nerfstudio.encodings.numba_kernels import BLOCK

    padded = torch.zeros(x.shape[1], -(-len(x) // BLOCK) * BLOCK)
    padded[:, : len(x)] = x.detach().t()
    return padded


def _flat(table: Float[Tensor, "E F"]) -> np.ndarray:
    return table.detach().view(-1).numpy()


def _chunks(n: int) -> list[tuple[int, int]]:
    """First and last + 1 points of tasks of whole blocks: some for each thread, as cores may be shared."""
    chunk = max(MIN_CHUNK, -(-n // (4 * torch.get_num_threads() * MIN_CHUNK)) * MIN_CHUNK)
    return [(start, min(start + chunk, n)) for start in range(0, n, chunk)]


def _kernels(layout: GridLayout) -> Any:
    from semflow_nerfstudio.encodings.numba_kernels import compile_kernels

    return compile_kernels(layout.input_dim, layout.features)


@lru_cache(maxsize=64)
def _constants(layout: GridLayout) -> tuple[np.ndarray, ...]:
    """Resolutions, multipliers, masks and offsets in the types that the kernels take."""
    return (
        np.array(layout.resolutions, np.float32),
        np.array(layout.multipliers, np.uint32),
        np.array(layout.masks, np.uint32),
        np.array(layout.offsets, np.int64),
    )


_pools: dict[int, ThreadPoolExecutor] = {}
# threads do not survive a fork: a child starts its own
os.register_at_fork(after_in_child=_pools.clear)


def _run(tasks: list[Callable[[], None]]) -> None:
    """Run tasks on the calling thread and, where torch may use more, on helpers; whoever is free takes the next one."""
    queue = deque(tasks)

    def drain() -> None:
        while True:
            try:
                task = queue.popleft()
            except IndexError:
                return
            task()

    helpers = min(torch.get_num_threads(), len(tasks)) - 1
    if helpers < 1:
        return drain()
    if helpers not in _pools:
        _pools[helpers] = ThreadPoolExecutor(helpers, thread_name_prefix="hash-grid")
    futures = [_pools[helpers].submit(drain) for _ in range(helpers)]
    drain()
    for future in futures:
        if not future.cancel():  # a helper that never got a core is not waited for
            future.result()
