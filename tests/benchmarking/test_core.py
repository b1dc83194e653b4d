"""The benchmarks that need torch and jaxtyping alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from semflow_nerfstudio.benchmarking import core

ABSENT = ("nerfstudio", "numba", "numpy", "PIL", "rich", "scipy", "tinycudann", "torchvision", "tyro", "viser")
RUN = f"""
import runpy, sys
sys.modules |= dict.fromkeys({ABSENT!r})  # importing them fails
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run_bare(tmp_path: Path, module: str, options: str) -> dict:
    """A benchmark's result where nothing else is installed."""
    out = tmp_path / "result.json"
    command = [sys.executable, "-W", "ignore", "-c", RUN, f"semflow_nerfstudio.benchmarking.{module}"]
    run = subprocess.run(
        [*command, *options.split(), "--output", str(out)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(out.read_text())


def test_core_without_anything_else(tmp_path: Path) -> None:
    result = run_bare(tmp_path, "core", "--rays 32 --samples 8 --repeats 1")
    assert result["backend"] == "torch" and result["render_ms_per_ray"] > 0
    assert set(result["rows"]) == {"static_field", "dynamic_field", "flow", "training_pass", "rendering"}


def test_encodings_without_anything_else(tmp_path: Path) -> None:
    result = run_bare(tmp_path, "encodings", "--points 64 --repeats 1 --configurations 8x15")
    rows = {(row["encoding"], row["dimensions"]): row for row in result["rows"]}
    assert rows["torch", 3]["forward_ms"] > 0 and result["hash_ratio_8x15"] == "not measured"
    for name in ("nerfstudio torch", "numba", "tcnn"):
        assert rows[name, 3]["milliseconds"] == "not measured" and rows[name, 3]["why"], name


def test_every_parameter_is_reached() -> None:
    """What is timed is the whole method: every network of the scene takes part in the training pass."""
    bench = core.Workbench(torch.device("cpu"), rays=64, samples=12, frames=3, size=(24, 16))
    bench.training_pass().backward()
    idle = {
        name
        for module in (bench.scene, bench.shared)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.grad is None and parameter.numel() and "proposal_fields" not in name
    }
    assert not idle


def test_values_that_are_no_numbers_are_an_error() -> None:
    bench = core.Workbench(torch.device("cpu"), rays=4, samples=4, frames=2, size=(8, 6))
    with torch.no_grad():
        next(bench.scene.static_field.parameters()).fill_(float("nan"))
    with pytest.raises(RuntimeError, match="static_field gives nan"):
        bench.milliseconds(bench.static_field, False, 1)
