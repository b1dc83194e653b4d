"""What nerfstudio 1.1.5 needs to run on CPUs and with torch 2.6 and newer. Imported by the method configs."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import torch
from torch import Tensor


def default_device() -> str:
    """The device that is there: nobody has to pass `--machine.device-type`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device is faster in bfloat16."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)  # older ones emulate it


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device. A GPU fetches them when it comes to it; the host does not wait for that."""
    if values.device.type == "cpu" and device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


SAMPLE_BYTES = 4_000
"""Memory that rendering a sample of a ray takes, with room to spare: `semantic-flow-lite` takes 1,800 bytes."""
MOST_RAYS = 1 << 17
"""Rays rendered at once where there is memory for them; more are no faster."""


def rays_at_once(device: torch.device, least: int, samples: int) -> int:
    """Rays of an image to render at once: `least`, on a GPU up to `MOST_RAYS` as far as half of its free memory goes.

    A GPU is idle for most of a small chunk's time.
    """
    if device.type != "cuda":
        return least
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept by torch, and free
    free = torch.cuda.mem_get_info(device)[0] + unused
    return max(least, min(MOST_RAYS, free // 2 // (SAMPLE_BYTES * samples)))


def allow_numpy_scalars_in_checkpoints() -> None:
    """Let `torch.load` read checkpoints whose schedulers hold numpy floats, as nerfstudio's own do."""
    # numpy 2 moved the module; its 1.26 has both names, of which only the old one is complete.
    name = "numpy._core.multiarray" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core.multiarray"
    scalar = importlib.import_module(name).scalar
    scalars = [scalar, np.dtype, type(np.dtype(np.float64))]
    torch.serialization.add_safe_globals(scalars)


def silence_upstream_warnings() -> None:
    """Hide warnings that newer torch versions raise about nerfstudio's own code, hundreds a run."""
    warnings.filterwarnings("ignore", message="Using a non-tuple sequence for multidimensional indexing")
    warnings.filterwarnings("ignore", message=".*torch.cuda.amp.*deprecated.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*GradScaler is enabled, but CUDA is not available.*")
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True to a scalar")
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step\\(\\)` before")
    warnings.filterwarnings("ignore", message="`torch.cuda.amp.custom_", category=FutureWarning)
