"""Rows, keys and tables of `semflow bench tasks`, from made-up results."""

from __future__ import annotations

from pathlib import Path

import pytest

from semflow_nerfstudio.benchmarking.task_rows import chosen_rows, rows
from semflow_nerfstudio.benchmarking.task_tables import TABLES, adaptation_table, few_labels_table
from semflow_nerfstudio.benchmarking.tasks import Plan
from semflow_nerfstudio.data.protocols import NAMED_PROTOCOLS


def plan(row, **changes) -> Plan:
    settings = {"scene": Path("a/Alley"), "seed": 0, "sources": (Path("s/One"), Path("s/Two")), "steps": 10}
    settings |= {"source_steps": 10, "scale": 1, "views": None, "out": Path("out")}
    return Plan(row, **(settings | changes))


def test_rows_have_names_and_settings_of_their_own() -> None:
    every = rows()
    assert len({row.name for row in every}) == len(every) == len({plan(row).key.fingerprint for row in every})
    for spec in NAMED_PROTOCOLS:
        assert {spec, f"{spec}-no-flow-features", f"{spec}-no-propagation"} <= {row.name for row in every}
    (first, *_) = every
    assert plan(first).key.fingerprint != plan(first, scale=2).key.fingerprint
    assert plan(first).key.fingerprint == plan(first, sources=()).key.fingerprint, "sources matter to adaptations only"


def test_rows_configure_what_they_say() -> None:
    for row in rows():
        config = plan(row).config()
        parser = config.pipeline.datamanager.dataparser  # type: ignore[attr-defined]
        assert parser.data == Path("a/Alley") and parser.labelled_frames == row.labels
        assert config.max_num_iterations == 10 + (row.adapt or 0)
        model = config.pipeline.model
        assert model.render.flow_features == ("no-flow-features" not in row.name)  # type: ignore[attr-defined]


def test_rows_are_chosen_by_name() -> None:
    assert {row.name for row in chosen_rows(["tracking-50"])} == {
        "tracking-50",
        "tracking-50-no-flow-features",
        "tracking-50-no-propagation",
    }
    with pytest.raises(ValueError, match="--only trakcing"):
        chosen_rows(["trakcing"])


def record(row: str, protocol: str, seed: int = 0, **methods: float) -> dict:
    return {
        "configuration": row,
        "scene": "Alley",
        "seed": seed,
        "scores": {protocol: {method: {"miou": miou, "J": None} for method, miou in methods.items()}},
    }


def test_tables_hold_means_over_seeds_beside_baselines() -> None:
    records = [
        record("completion-25", "completion-25", 0, model=0.8, flow_2d=0.5),
        record("completion-25", "completion-25", 1, model=0.9, flow_2d=0.7),
        record("full", "completion-25", 0, model=0.95),
        record("full", "tracking-25", 0, model=0.94),
        record("adaptation-100", "all", 0, model=0.6, copy=0.2),
        record("adaptation-100-scratch", "all", 0, model=0.4),
        record("adaptation-0", "all", 0, model=0.3),
    ]
    lines = few_labels_table(records).splitlines()[2:]
    assert [line.split(" | ")[1:5] for line in lines] == [
        ["completion-25", "this model", "2", "0.850"],
        ["completion-25", "labels along 2-D flow, model's depth", "2", "0.600"],
        ["completion-25", "all labels, on the same views", "1", "0.950"],
    ]
    assert all(line.count("|") == lines[0].count("|") for line in lines) and "| - |" in lines[0]
    adapted = adaptation_table(records).splitlines()[2:]
    assert [line.split(" | ")[1] for line in adapted] == ["-", "0", "100", "100"]
    assert "0.600" in adapted[2] and "0.400" in adapted[3]


def test_tables_without_results_are_heads() -> None:
    for make in TABLES.values():
        assert len(make([]).splitlines()) == 2
