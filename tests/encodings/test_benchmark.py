"""The benchmark of the encodings, on very little."""

import pytest
import torch

from semflow_nerfstudio.benchmarking import encodings as benchmark

pytest.importorskip("nerfstudio")
pytest.importorskip("numba")


def test_rows_and_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "CONFIGURATIONS", {"8x15": (2, 8, 32)})
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    told: list[tuple[int, int]] = []
    result = benchmark.measure(torch.device("cpu"), 200, 2, ["8x15"], progress=lambda *done: told.append(done))
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
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_dimensions_can_be_chosen() -> None:
    result = benchmark.measure(torch.device("cpu"), 50, 1, ["8x15"], dimensions=[3])
    assert {row["dimensions"] for row in result["rows"]} == {3}
