"""Rows, keys and tables of `semflow bench tasks`, from made-up results."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from semflow_nerfstudio.benchmarking.task_rows import chosen_rows, rows
from semflow_nerfstudio.benchmarking.task_scoring import protocol_views
from semflow_nerfstudio.benchmarking.task_tables import TABLES, adaptation_table, few_labels_table, two_scenes_table
from semflow_nerfstudio.benchmarking.task_targets import target_table
from semflow_nerfstudio.benchmarking.tasks import Plan, built_in_folder
from semflow_nerfstudio.data.protocols import NAMED_PROTOCOLS


def plan(row, **changes) -> Plan:
    settings = {"scene": Path("a/Alley"), "seed": 0, "sources": (Path("s/One"), Path("s/Two")), "steps": 10}
    settings |= {"source_steps": 10, "scale": 1, "views": None, "out": Path("out")}
    settings["partner"] = Path("b/Bridge")
    return Plan(row, **(settings | changes))


def test_rows_have_names_and_settings_of_their_own() -> None:
    every = rows()
    assert len({row.name for row in every}) == len(every) == len({plan(row).key.fingerprint for row in every})
    for spec in NAMED_PROTOCOLS:
        assert {spec, f"{spec}-no-flow-features", f"{spec}-no-propagation"} <= {row.name for row in every}
    for spec in ("completion-25", "tracking-25"):
        assert {f"{spec}-no-consistency", f"{spec}-long-window"} <= {row.name for row in every}
    (first, *_) = every
    assert plan(first).key.fingerprint != plan(first, scale=2).key.fingerprint
    assert plan(first).key.fingerprint == plan(first, sources=(), partner=None).key.fingerprint, "they do not matter"


def test_built_in_scenes_of_another_size_are_other_runs() -> None:
    full, adapted = (next(row for row in rows() if row.name == name) for name in ("full", "adaptation-100"))
    one, other = (built_in_folder(Path("out")) / size / "target" for size in ("240x135", "96x54"))
    assert plan(full, scene=one).key.fingerprint == plan(full, scene=Path("anywhere/target")).key.fingerprint
    assert plan(full, scene=other).key.fingerprint != plan(full, scene=one).key.fingerprint
    assert plan(adapted, sources=(other,)).key.fingerprint != plan(adapted, sources=(one,)).key.fingerprint
    assert plan(full, sources=(other,)).key.fingerprint == plan(full, sources=(one,)).key.fingerprint


def test_only_the_built_in_scenes_that_a_row_uses_are_needed() -> None:
    full, adapted = (next(row for row in rows() if row.name == name) for name in ("full", "adaptation-100"))
    target, source = (built_in_folder(Path("out")) / "96x54" / name for name in ("target", "source_a"))
    assert plan(full, scene=target, sources=(source,)).built_in == {target}
    assert plan(adapted, scene=target, sources=(source,)).built_in == {target, source}
    assert plan(full, sources=(source,)).built_in == set()


def test_two_scenes_share_a_run_whichever_is_scored() -> None:
    (row,) = chosen_rows(["two-scenes"])
    one, other = plan(row), plan(row, scene=Path("b/Bridge"), partner=Path("a/Alley"))
    assert one.key.fingerprint != other.key.fingerprint and one.key.scene == "Alley" and other.key.scene == "Bridge"
    assert one.config().get_base_dir() == other.config().get_base_dir() != plan(row, seed=1).config().get_base_dir()
    assert one.config().get_base_dir() != plan(row, scene=Path("c/Alley")).config().get_base_dir()
    alone, model = plan(rows()[0]).config().pipeline.model, one.config().pipeline.model
    assert model.static_steps == alone.static_steps  # type: ignore[attr-defined]
    assert [Path(scene).name for scene in parser_of(one).scenes] == ["Alley", "Bridge"]


def parser_of(plan: Plan):
    return plan.config().pipeline.datamanager.dataparser  # type: ignore[attr-defined]


def test_rows_configure_what_they_say() -> None:
    for row in rows():
        config, parser = plan(row).config(), parser_of(plan(row))
        assert parser.data == Path("a" if row.together else "a/Alley") and parser.labelled_frames == row.labels
        before = 0 if row.fields_too else 20 if row.together else 10
        assert config.max_num_iterations == before + (row.adapt or 0)
        model: Any = config.pipeline.model
        static = min(250, config.max_num_iterations // 4) if row.fields_too else 250
        assert model.static_steps == static
        assert model.render.flow_features == ("no-flow-features" not in row.name)


def test_rows_are_chosen_by_name() -> None:
    assert {row.name for row in chosen_rows(["tracking-50"])} == {
        "tracking-50",
        "tracking-50-no-flow-features",
        "tracking-50-no-propagation",
    }
    assert [row.name for row in chosen_rows(["=tracking-50", "=full"])] == ["full", "tracking-50"]
    with pytest.raises(ValueError, match="--only =tracking"):
        chosen_rows(["=tracking"])
    with pytest.raises(ValueError, match="--only trakcing"):
        chosen_rows(["trakcing"])


def test_protocols_are_scored_on_the_same_views_whatever_was_trained_on() -> None:
    """A run that evaluates all times, and one that evaluates the unlabelled ones, show the same views of a protocol."""
    clip = SimpleNamespace(scenes=[SimpleNamespace(distinct_times=np.arange(4) / 3) for _ in range(2)])

    def views(*frames: tuple[int, int]) -> SimpleNamespace:
        """A data set of views of (scene, time)."""
        times = torch.tensor([[time / 3] for _, time in frames])
        return SimpleNamespace(
            frames=[SimpleNamespace(scene=s) for s, _ in frames], cameras=SimpleNamespace(times=times)
        )

    every = [(scene, time) for scene in (0, 1) for time in range(4) for _ in range(5)]
    late = [view for view in every if view[1] >= 2]
    for count in (None, 3, 100):
        of_all = protocol_views(views(*every), clip, 1, "tracking-50", count)
        of_late = protocol_views(views(*late), clip, 1, "tracking-50", count)
        assert [every[k] for k in of_all] == [late[k] for k in of_late] and len(of_all) == min(count or 100, 10)
        assert {every[k] for k in of_all} == {(1, 2), (1, 3)}
        copies = [[k % 5 for k in chosen] for chosen in (of_all, of_late)]
        assert copies[0] == copies[1]
    assert protocol_views(views(*every), clip, 0, "all", None) == list(range(20))
    assert protocol_views(views((0, 0)), clip, 0, "tracking-50", 3) == []


def record(
    row: str, protocol: str, seed: int = 0, moving: float = 0.5, settings: dict | None = None, **methods
) -> dict:
    return {
        "configuration": row,
        "scene": "Alley",
        "seed": seed,
        "measured": "2030-01-02",
        "overrides": {"scale": 2, "steps": 10, "views": None} | (settings or {}),
        "scores": {protocol: {method: {"miou": v, "miou_moving": moving, "J": None} for method, v in methods.items()}},
    }


FROM = {"sources": ["One", "Two"], "source_steps": 20}


def test_tables_hold_means_over_seeds_beside_baselines() -> None:
    records = [
        record("completion-25", "completion-25", 0, model=0.8, flow_2d=0.5),
        record("completion-25", "completion-25", 1, model=0.9, flow_2d=0.7),
        record("full", "completion-25", 0, model=0.95),
        record("full", "tracking-25", 1, model=0.94),
        record("adaptation-100", "all", 0, settings=FROM, model=0.6, copy=0.2),
        record("adaptation-100-scratch", "all", 0, settings=FROM, model=0.4),
        record("adaptation-100-nothing", "all", 0, model=0.35),
        record("adaptation-0", "all", 0, settings=FROM, model=0.3),
    ]
    lines = few_labels_table(records).splitlines()[2:]
    assert [line.split(" | ")[1:5] for line in lines] == [
        ["completion-25", "this model", "2", "0.850"],
        ["completion-25", "without carried labels", "-", "not measured"],
        ["completion-25", "without, but with trajectories through the whole clip", "-", "not measured"],
        ["completion-25", "without flow features", "-", "not measured"],
        ["completion-25", "without consistency", "-", "not measured"],
        ["completion-25", "labels along 2-D flow, model's depth", "2", "0.600"],
        ["completion-25", "nearest labelled frame, model's depth", "-", "not measured"],
        ["completion-25", "all labels, on the same views", "1", "0.950"],
    ]
    assert all(line.count("|") == lines[0].count("|") for line in lines) and "| - |" in lines[0]
    adapted = adaptation_table(records).splitlines()[2:]
    steps = ["-", "0", *(["100"] * 3), *(["500"] * 3), *(["2000"] * 3)]
    assert [line.split(" | ")[1] for line in adapted] == steps
    assert all(line.startswith("| Alley 1/2, 10 steps, from One and Two, 20 steps |") for line in adapted)
    assert "0.600" in adapted[2] and "0.400" in adapted[3] and "0.350" in adapted[4]
    assert all("not measured" in line for line in adapted[5:])
    assert all(line.count("|") == adapted[0].count("|") for line in adapted)


def test_figures_that_cannot_be_compared_are_kept_apart() -> None:
    """Other sizes, steps and views are other lines; of runs made twice the later one counts."""
    again = record("completion-25", "completion-25", model=0.9) | {"measured": "2030-01-03"}
    settings = {"scale": 0.2, "steps": 0.3, "views": 0.4}
    other = [record("completion-25", "completion-25", model=v, settings={k: 4}) for k, v in settings.items()]
    lines = few_labels_table([again, record("completion-25", "completion-25", model=0.1), *other]).splitlines()[2:]
    shown = [line.split(" | ") for line in lines]
    assert {(line[0], line[4]) for line in shown if line[2] == "this model"} == {
        ("| Alley 1/2, 10 steps", "0.900"),
        ("| Alley 1/4, 10 steps", "0.200"),
        ("| Alley 1/2, 4 steps", "0.300"),
        ("| Alley 1/2, 10 steps, 4 views", "0.400"),
    }


def test_two_scenes_stand_beside_one_alone() -> None:
    both = {"together": ["Alley", "Bridge"]}
    records = [record("full", "all", model=0.9), record("two-scenes", "all", settings=both, model=0.88)]
    lines = two_scenes_table(records).splitlines()[2:]
    assert [line.split(" | ")[1:5] for line in lines] == [
        ["it alone", "-", "1", "0.900"],
        ["two scenes", "Bridge", "1", "0.880"],
    ]


def test_adaptations_from_different_trainings_are_kept_apart() -> None:
    other = FROM | {"source_steps": 30}
    records = [record("adaptation-100-nothing", "all", model=0.3)]
    records.append(record("adaptation-0", "all", settings=FROM, model=0.4))
    records.append(record("adaptation-100", "all", settings=other, model=0.5))
    lines = [line.strip("| ").split(" | ") for line in adaptation_table(records).splitlines()[2:]]
    found = {(line[0].split(", ")[-1], line[1], line[2], line[4]) for line in lines if line[4] != "not measured"}
    shared, nothing = "shared networks of two other scenes", "nothing trained, nor are fields"
    assert found == {
        ("20 steps", "0", shared, "0.400"),
        ("20 steps", "100", nothing, "0.300"),
        ("30 steps", "100", shared, "0.500"),
        ("30 steps", "100", nothing, "0.300"),
    }


def test_objects_have_figures_of_their_own() -> None:
    one, two = (record("completion-25", "completion-25", seed, model=0.8) for seed in (0, 1))
    one["scores"]["completion-25"]["model"] |= {"J_ball": 0.5, "F_ball": 0.7, "J_cat": None, "F_cat": None}
    two["scores"]["completion-25"]["model"] |= {"J_ball": 0.6, "F_ball": 0.9, "J_cat": 0.25, "F_cat": 0.5}
    line = few_labels_table([one, two]).splitlines()[2]
    assert line.endswith("| ball 0.55 / 0.80, cat 0.25 / 0.50 |")


def test_targets_say_what_is_met() -> None:
    records = [
        record("full", "tracking-25", 0, moving=0.8, model=0.9),
        record("tracking-25", "tracking-25", 0, moving=0.4, model=0.79),
        record("full", "all", 1, moving=0.5, model=0.9),
        record("two-scenes", "all", moving=0.49, settings={"together": ["Alley", "Bridge"]}, model=0.88),
        record("two-scenes", "all", moving=0.5, settings={"together": ["Alley", "Court"]}, model=0.9),
        record("adaptation-0", "all", settings=FROM, model=0.3),
    ]
    built_in = [
        record("adaptation-0", "all", settings=FROM, model=0.3),
        record("adaptation-100", "all", settings=FROM, model=0.5, copy=0.2),
        record("adaptation-100-scratch", "all", settings=FROM, model=0.46),
        record("adaptation-100-nothing", "all", model=0.42),
        record("adaptation-500", "all", settings=FROM, model=0.57),
        record("adaptation-2000", "all", settings=FROM, model=0.6),
    ]
    records += [entry | {"scene": "target"} for entry in built_in]
    records[1]["scores"]["tracking-25"]["flow_2d"] = {"miou_moving": 0.2}
    lines = [line.strip("| ").split(" | ")[1:] for line in target_table(records).splitlines()[2:]]
    assert ["completion-75", "mIoU below all labels", "not measured", "at most 0.02", "-"] in lines
    assert [line for line in lines if "not measured" not in line] == [
        ["tracking-25", "mIoU below all labels", "0.110", "at most 0.12", "yes"],
        ["tracking-25", "share of all labels' moving mIoU", "0.500", "at least 0.55", "no"],
        ["tracking-25", "moving mIoU above labels along 2-D flow", "0.200", "at least 0.15", "yes"],
        ["two-scenes with Bridge", "mIoU below all labels", "0.020", "at most 0.01", "no"],
        ["two-scenes with Bridge", "share of all labels' moving mIoU", "0.980", "at least 0.97", "yes"],
        ["two-scenes with Court", "mIoU below all labels", "0.000", "at most 0.01", "yes"],
        ["two-scenes with Court", "share of all labels' moving mIoU", "1.000", "at least 0.97", "yes"],
        ["adaptation-0", "mIoU above copied labels", "0.100", "above 0", "yes"],
        ["adaptation-100", "mIoU above untrained networks on trained fields", "0.040", "at least 0.05", "no"],
        ["adaptation-100", "mIoU above training anew", "0.080", "at least 0.05", "yes"],
        ["adaptation-500", "share of the mIoU after 2000", "0.950", "at least 0.95", "yes"],
    ]


def test_tables_without_results_are_heads() -> None:
    for make in TABLES.values():
        assert len(make([]).splitlines()) == 2
