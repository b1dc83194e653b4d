"""Choice of a hash grid backend: a module with two functions, `unsupported` and `encode`, as in `torch_backend`."""

from __future__ import annotations

import warnings
from functools import cache, lru_cache
from importlib import import_module
from types import ModuleType
from typing import Literal

import torch

from semflow_nerfstudio.encodings.grid_layout import GridLayout

BackendName = Literal["auto", "torch", "numba", "triton", "tcnn"]

_FASTEST = {"cpu": "numba", "cuda": "triton"}


@lru_cache(maxsize=256)
def choose_backend(name: BackendName, layout: GridLayout, device: torch.device, dtype: torch.dtype) -> ModuleType:
    """The backend of that name for a table on `device`; "auto": the fastest one, or torch and a warning that says why.

    Raises:
        RuntimeError: if the named backend cannot be used.
    """
    wanted = _FASTEST.get(device.type, "torch") if name == "auto" else name
    try:
        backend = _load(wanted)
        reason = backend.unsupported(layout, device, dtype)
    except ImportError as error:
        reason = f"its module cannot be imported ({error})"
    else:
        if reason is None:
            return backend
    if name != "auto":
        raise RuntimeError(f'the hash grid backend "{name}" cannot be used: {reason}; take "auto"')
    _warn_once(f"Hash grids run on plain torch, which is much slower than {wanted}: {reason}.")
    return _load("torch")


@cache
def _warn_once(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)


def _load(name: str) -> ModuleType:
    return import_module(f"semflow_nerfstudio.encodings.{name}_backend")
