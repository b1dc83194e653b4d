"""The benchmark of the encodings, on very little."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("nerfstudio")
pytest.importorskip("numba")


def test_rows_and_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "encodings.py"
    spec = importlib.util.spec_from_file_location("encodings_benchmark", path)
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, benchmark)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "CONFIGURATIONS", {"8x15": (2, 8, 32)})
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    result = benchmark.measure(torch.device("cpu"), 200, 2, ["8x15"])
    rows = {(row["encoding"], row["dimensions"], row["times"]): row for row in result["rows"]}
    baseline, fast = rows["nerfstudio torch", 3, ""], rows["numba", 3, ""]
    assert result["hash_ratio_8x15"] == fast["times_faster"] > 0
    assert fast["times_faster"] == pytest.approx(
        baseline["forward_backward_ms"] / fast["forward_backward_ms"], abs=0.01
    )
    assert rows["numba", 4, "frames"]["forward_ms"] >= rows["numba", 4, "frames"]["forward_ms_min"] > 0
    assert rows["triton", 3, ""]["milliseconds"] == "not measured"
    assert "CUDA" in rows["triton", 3, ""]["why"]
    assert result["machine"]["torch"] == torch.__version__ and result["points"] == 200
