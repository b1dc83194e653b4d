"""What a figure was measured on."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).resolve().parents[1]


def describe(device: torch.device) -> dict[str, Any]:
    """Device, processor, versions and commit."""
    machine: dict[str, Any] = {
        "device": device.type,
        "cpu": processor_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": package_commit(),
    }
    for package in ("nerfstudio", "numba", "triton", "tinycudann"):
        try:
            machine[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            machine[package] = "not installed"
    if device.type != "cpu":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def processor_name() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def commit(package: Path = PACKAGE) -> str:
    """The last commit that changed the package's code; outside a checkout its version.

    What lies beside the package (documents, tests, results) does not count. Changes that are not committed yet are
    shown by a trailing "+".
    """
    last = _git(package, "log", "-1", "--format=%h", "--", ".")
    if not last:
        try:
            return metadata.version("semflow-nerfstudio")
        except metadata.PackageNotFoundError:
            return "unknown"
    return last + ("+" if _git(package, "status", "--porcelain", "--", ".") else "")


@functools.cache
def package_commit() -> str:
    """The package's commit when the measurement began, whatever is committed meanwhile."""
    return commit()


def _git(folder: Path, *arguments: str) -> str:
    try:
        command = ["git", "-C", str(folder), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
