"""Hash grid look-ups on CUDA by Triton kernels: fast without anything to compile or install beyond PyTorch.

Under autocast the table is read in half precision, gradients are always summed in single precision, with atomics.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from semflow_nerfstudio.encodings.grid_layout import GridLayout

BLOCK = 128
"""Points a program."""


def unsupported(layout: GridLayout, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot do it, or None."""
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "triton kernels need a CUDA device"
    if dtype != torch.float32:
        return "triton kernels take a table in float32"
    if layout.features & (layout.features - 1):
        return "triton kernels take a power of two of features per level"
    try:
        import semflow_nerfstudio.encodings.triton_kernels  # noqa: F401
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    return None


def encode(x: Float[Tensor, "N D"], table: Float[Tensor, "E F"], layout: GridLayout) -> Float[Tensor, "N LF"]:
    """As `torch_backend.encode`, differentiable once; of the autocast's type under autocast."""
    half = _autocast_dtype(x.device.type)
    return _Encode.apply(x, table, layout, half)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, layout: GridLayout, half: torch.dtype | None) -> Tensor:
        from semflow_nerfstudio.encodings import triton_kernels

        points = x.contiguous()
        # float16 whatever the autocast: features are small, and it has the finer steps
        entries = table.contiguous() if half is None else table.to(torch.float16)
        out = torch.empty(len(x), layout.output_dim, dtype=half or torch.float32, device=x.device)
        if len(x):
            grid = (-(-len(x) // BLOCK), layout.num_levels)
            with _on(x.device):
                triton_kernels.look_up[grid](
                    points, entries, *_constants(layout, x.device), out, len(x), **_sizes(layout)
                )
        ctx.save_for_backward(points, entries)
        ctx.layout = layout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        from semflow_nerfstudio.encodings import triton_kernels

        points, entries = ctx.saved_tensors
        layout, n, device = ctx.layout, len(points), points.device
        constants, grads = _constants(layout, device), grad_out.contiguous()
        blocks = -(-n // BLOCK)
        grad_points = torch.zeros_like(points) if ctx.needs_input_grad[0] else None
        grad_table = torch.zeros_like(entries, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        with _on(device):
            if grad_table is not None and n:
                triton_kernels.table_gradient[(blocks, layout.num_levels)](
                    points, *constants, grads, grad_table, n, **_sizes(layout)
                )
            if grad_points is not None and n:
                triton_kernels.point_gradient[(blocks,)](
                    points, entries, *constants, grads, grad_points, n, TIME=layout.time_gradient, **_sizes(layout)
                )
        return grad_points, grad_table, None, None


def _sizes(layout: GridLayout) -> dict[str, Any]:
    return {"D": layout.input_dim, "F": layout.features, "L": layout.num_levels, "BLOCK": BLOCK}


@lru_cache(maxsize=64)
def _constants(layout: GridLayout, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Resolutions (L, D) as float32; multipliers (L, D), masks (L) and offsets (L) as int32 of the same bits."""
    signed = [[m - 2**32 if m >= 2**31 else m for m in level] for level in layout.multipliers]
    return (
        torch.tensor(layout.resolutions, dtype=torch.float32, device=device),
        torch.tensor(signed, dtype=torch.int32, device=device),
        torch.tensor(layout.masks, dtype=torch.int32, device=device),
        torch.tensor(layout.offsets[:-1], dtype=torch.int32, device=device),
    )


def _on(device: torch.device) -> torch.cuda.device:
    """Triton launches on the current device; -1 leaves it as it is (under the interpreter there is none)."""
    return torch.cuda.device(device if device.type == "cuda" else -1)


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    if hasattr(torch, "get_autocast_dtype"):  # PyTorch 2.4 and later
        return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
