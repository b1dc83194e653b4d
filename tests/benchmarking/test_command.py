"""`semflow bench`: arguments, the record that it leaves, what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tyro

from semflow_nerfstudio.benchmarking import scale, speed
from semflow_nerfstudio.cli.main import Command

MACHINE = {"device": "cpu", "cpu": "Some CPU", "threads": 2, "commit": "abc1234"}


def run(arguments: str) -> None:
    command: Any = tyro.cli(tyro.conf.OmitSubcommandPrefixes[Command], args=arguments.split())  # type: ignore[valid-type]
    command.main()


@pytest.mark.parametrize(
    ("name", "module", "arguments", "result"),
    [
        ("speed", speed, "--rays 64 --configurations 8x15", {"train_ms_per_ray": 1.25}),
        ("scale", scale, "--frames 3 5 --rays 64", {"summary": {"time_ratio": 1.25}}),
    ],
)
def test_record(
    name: str,
    module: Any,
    arguments: str,
    result: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: list[Any] = []

    def measure(options: Any, show: Any) -> dict[str, Any]:
        given.append(options)
        with show("Measuring") as update:
            update(1, 2)
        return {"machine": MACHINE, **result}

    monkeypatch.setattr(module, "measure", measure)
    run(f"bench {name} {arguments} --out {tmp_path}")
    assert given[0].rays == 64
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    assert record["benchmark"] == name and record["commit"] == "abc1234" and record["overrides"]["rays"] == 64
    assert record["machine"] == MACHINE and path.name.endswith("_abc1234.json")
    printed = capsys.readouterr().out
    assert "1.250" in printed and path.name in printed.replace("\n", "")


def test_impossible_options_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="even number"):
        run("bench scale --steps 3")
