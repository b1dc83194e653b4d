"""The benchmark of longer clips, on very short ones."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semflow_nerfstudio.benchmarking import memory, scale
from semflow_nerfstudio.benchmarking.options import ScaleOptions
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene

TINY = ScaleOptions(frames=(3, 5), size="48x27", rays=64, steps=2, rounds=2)


@contextmanager
def silent(title: str) -> Any:
    yield lambda done, total: None


def test_first_frames_are_a_scene_of_their_own(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", SceneOptions(frames=5, size="48x27", rig_cameras=2))
    clip = scale.first_frames(scene, tmp_path / "clip", 3)
    assert sorted(path.name for path in (clip / "images").iterdir()) == ["000.png", "001.png", "002.png"]
    assert sorted(path.name for path in (clip / "multiview_GT").iterdir()) == ["00000001", "00000002", "00000003"]
    names = {path.name for path in (clip / "flow").iterdir()}
    assert names == {"000_fwd.npz", "001_fwd.npz", "001_bwd.npz", "002_bwd.npz"}
    assert np.load(clip / "poses_bounds.npy").shape == (3, 17) and (clip / "labelmap.txt").is_file()


def test_every_clip_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(scene: Path, options: ScaleOptions) -> dict[str, float]:
        return scale.train_on(scene, options.rays, options.steps, options.seed)

    monkeypatch.setattr(scale, "in_own_process", here)
    result = scale.measure(TINY, silent)
    assert [row["frames"] for row in result["rows"]] == [3, 5]
    assert all(row["ms_per_step"] > 0 and row["peak_mb"] >= row["resident_mb"] > 100 for row in result["rows"])
    for clip, row in enumerate(result["rows"]):
        runs = [rows[clip] for rows in result["rounds"]]
        assert len(runs) == 2 and row["ms_per_step"] == min(run["ms_per_step"] for run in runs)
        assert row["peak_mb"] == max(run["peak_mb"] for run in runs)
    assert result["summary"]["time_ratio"] > 0 and result["options"]["rays"] == 64
    assert scale.key_of(TINY, result["machine"]).file_name.startswith("lite_built-in_seed0_")


def test_growth() -> None:
    rows = [
        {"frames": n, "ms_per_step": 100.0 + n, "cpu_ms_per_step": 50.0, "resident_mb": 500.0 + 3 * n, "peak_mb": 900.0}
        for n in (10, 20)
    ]
    summary = scale.summarize(rows)
    assert summary["time_ratio"] == pytest.approx(120 / 110, abs=1e-3) and summary["cpu_time_ratio"] == 1
    assert summary["resident_mb_per_frame"] == 3 and summary["resident_gb_of_300_frames"] == 1.4
    assert summary["peak_mb_per_frame"] == 0 and summary["peak_gb_of_300_frames"] == 0.9


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system does not tell a process its own peak")
def test_the_peak_is_the_process_own() -> None:
    """What the process that started it once held does not count."""
    held = np.ones(40_000_000)  # 320 MB
    assert memory.peak_bytes() > held.nbytes
    code = "from semflow_nerfstudio.benchmarking.memory import peak_bytes; print(peak_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1e6 < int(child.stdout) < held.nbytes


def test_a_process_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="training on 12 frames failed"):
        scale.in_own_process(tmp_path / "12", TINY)


@pytest.mark.parametrize("wrong", [{"frames": (12,)}, {"frames": (24, 12)}, {"steps": 3}, {"rays": 0}, {"rounds": 0}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ScaleOptions(**wrong).check()
