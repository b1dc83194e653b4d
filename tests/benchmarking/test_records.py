"""Records of measurements: found by what was measured, never half-written, never mistaken for another run."""

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semflow_nerfstudio.benchmarking import machine
from semflow_nerfstudio.benchmarking.records import Records, RunKey, read_record, without_nan

KEY = RunKey("quality", "full", "Alley", seed=1, commit="abc1234", overrides={"model.render.window": 5, "steps": 100})


def test_a_record_is_found_again(tmp_path: Path) -> None:
    records = Records(tmp_path / "quality")
    assert records.find(KEY) is None and records.all() == []
    path = records.write(KEY, {"scores": {"psnr": 20.5, "miou": math.nan, "list": (1.0, math.inf)}})
    assert path.parent == tmp_path / "quality" and [p.name for p in path.parent.iterdir()] == [KEY.file_name]
    found = records.find(KEY)
    assert found is not None and found["scores"] == {"psnr": 20.5, "miou": None, "list": [1.0, None]}
    assert (found["configuration"], found["scene"], found["seed"]) == ("full", "Alley", 1)
    assert found["overrides"] == dict(KEY.overrides) and found["commit"] == "abc1234"
    assert records.all() == [found]


def test_rows_that_are_configured_alike_share_a_run(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(KEY, {})
    same = replace(KEY, configuration="window 5", overrides=dict(reversed(list(KEY.overrides.items()))))
    assert same.fingerprint == KEY.fingerprint and records.find(same) is not None


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, seed=0),
        replace(KEY, scene="Balloon"),
        replace(KEY, benchmark="tasks"),
        replace(KEY, overrides={**KEY.overrides, "steps": 101}),
        replace(KEY, commit="abc123"),
    ],
)
def test_other_runs_are_not_found(tmp_path: Path, other: RunKey) -> None:
    records = Records(tmp_path)
    records.write(KEY, {})
    assert records.find(other) is None


def test_records_of_other_commits_only_where_asked_for(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for day, name in ((2, "newer"), (1, "old")):
        records.write(replace(KEY, commit=name), {"measured": f"2030-01-0{day}T00:00:00+00:00"})
    assert records.find(KEY) is None
    found = records.find(KEY, any_commit=True)
    assert found is not None and found["commit"] == "newer"


def test_file_names_are_plain() -> None:
    name = replace(KEY, configuration="K = 5 / 7", scene="my scene").file_name
    assert name == f"K-5-7_my-scene_seed1_{replace(KEY, scene='my scene').fingerprint}_abc1234.json"


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": ', '{"a": 1}'])
def test_a_broken_record_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / KEY.file_name
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"{KEY.file_name}.*delete it"):
        Records(tmp_path).find(KEY)
    path.write_text(json.dumps({"measured": "now"}))
    assert read_record(path) == {"measured": "now"}


def test_without_nan() -> None:
    assert without_nan({1: (math.nan, {"a": [-math.inf, 2.0, "x"]})}) == {"1": [None, {"a": [None, 2.0, "x"]}]}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_the_packages_own(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    git(tmp_path, "init", "-q")
    (package / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "code")
    first = machine.commit(package)
    assert first == git(tmp_path, "rev-parse", "--short", "HEAD")
    (tmp_path / "README").write_text("words")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "words")
    assert machine.commit(package) == first
    (package / "a.py").write_text("2")
    assert machine.commit(package) == first + "+"


def test_outside_a_checkout_the_version_stands_for_the_commit(tmp_path: Path) -> None:
    assert machine.commit(tmp_path) not in ("", "+")


def test_machine() -> None:
    described = machine.describe(torch.device("cpu"))
    assert described["device"] == "cpu" and described["torch"] == torch.__version__ and "gpu" not in described
