"""`semflow bench tasks` on tiny scenes: baselines beside the model, adaptation, and nothing measured twice."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import FRAMES, HEIGHT, WIDTH, TrainedRun, forget_writers, shrink, tiny_model, without

from semflow_nerfstudio.benchmarking import tasks
from semflow_nerfstudio.benchmarking.records import read_record
from semflow_nerfstudio.cli import main
from semflow_nerfstudio.configs.methods import lite
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.evaluation.carried_labels import LabelCarrying
from semflow_nerfstudio.runs import load_run


def tiny(steps: int):
    config = lite(steps)
    config.pipeline.model = tiny_model(static_steps=1)
    shrink(config)
    return config


@pytest.fixture(autouse=True)
def _tiny_training(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "lite", tiny)
    yield
    forget_writers()


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    words = [w for a in arguments for w in ([str(a)] if isinstance(a, Path) else str(a).split())]
    monkeypatch.setattr(sys, "argv", ["semflow", "bench", "tasks", *words])
    main.entrypoint()


def test_completion_beside_its_baselines(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One JSON a run with model and baselines on the unlabelled times; a second call finds it."""
    options = f"--only completion-50 --steps 3 --views 4 --results {tmp_path}/results --out {tmp_path}/out --scenes"
    bench(monkeypatch, options, scene)
    files = {json.loads(p.read_text())["configuration"]: p for p in (tmp_path / "results").glob("*.json")}
    assert set(files) == {"completion-50", "completion-50-no-flow-features", "completion-50-no-propagation"}
    content = json.loads(files["completion-50"].read_text())
    scores = content["scores"]["completion-50"]
    assert set(scores) == {"model", "flow_2d", "warped", "copy"} and content["seed"] == 0
    for method in scores.values():
        assert method["views"] == 4 and 0 <= method["miou"] <= 1 and 0 <= method["total_accuracy"] <= 1
    written = {path: path.stat().st_mtime_ns for path in files.values()}
    capsys.readouterr()
    bench(monkeypatch, "--list", options, scene)
    assert capsys.readouterr().out.count("measured") == 3
    bench(monkeypatch, options, scene)
    assert written == {path: path.stat().st_mtime_ns for path in files.values()}


def test_adaptation(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From two other scenes, from untrained networks with the same steps, and with untrained fields and no steps but
    those with labels."""
    options = SceneOptions(frames=FRAMES, size=f"{WIDTH}x{HEIGHT}", rig_cameras=FRAMES)
    sources = [make_scene(tmp_path / name, options) for name in ("one", "two")]
    command = f"--only adaptation-100 --steps 2 --views 2 --results {tmp_path}/results --out {tmp_path}/out --sources"
    steps: dict[str, tuple[int, bool]] = {}
    monkeypatch.setattr(tasks.Plan, "config", shorter(tasks.Plan.config, steps))
    bench(monkeypatch, command, *sources, "--scenes", scene)
    found = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")]
    row = "adaptation-100"
    assert steps == {row: (102, True), f"{row}-scratch": (102, True), f"{row}-nothing": (100, False)}
    assert {record["configuration"] for record in found} == set(steps)
    assert all(record["scores"]["all"]["model"]["views"] == 2 for record in found)
    assert len(list((tmp_path / "out").rglob("done"))) == 2


def test_zero_shot_is_scored_though_its_training_reads_no_label(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of the evaluation's views are read after training; those of the training frames never."""
    target = without(scene, tmp_path / "target", "SegmentationClass_train")
    command = f"--only adaptation-0 --steps 2 --views 2 --results {tmp_path}/results --out {tmp_path}/out --sources"
    bench(monkeypatch, command, scene, "--scenes", target)
    (content,) = (json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json"))
    (scores,) = content["scores"]["all"].items()
    assert scores[0] == "model" and scores[1]["views"] == 2 and 0 <= scores[1]["miou"] <= 1


def test_two_scenes_in_one_model(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One training, in which each scene is scored on its own views, of its own size and length."""
    options = f"--only two-scenes --steps 2 --views 3 --results {tmp_path}/results --out {tmp_path}/out --scenes"
    bench(monkeypatch, options, scenes / "A", scenes / "B")
    found = {content["scene"]: content for content in map(read_record, (tmp_path / "results").glob("*.json"))}
    assert set(found) == {"A", "B"} and len(list((tmp_path / "out").rglob("done"))) == 1
    assert len({content["train_seconds"] for content in found.values()}) == 1
    for content in found.values():
        model, copy = (content["scores"]["all"][method] for method in ("model", "copy"))
        assert model["views"] == copy["views"] == 3 and 0 <= model["miou"] <= 1


def shorter(config, seen):
    """The plan's configuration with one step in place of a hundred with labels; `seen` says what it was."""

    def wrapped(plan):
        result = config(plan)
        model = result.pipeline.model
        seen[plan.row.name] = result.max_num_iterations, model.adapt_label_steps is not None
        result.max_num_iterations = plan.steps + 1
        if model.adapt_label_steps is not None:
            model.adapt_label_steps = 1
        return result

    return wrapped


def test_labels_are_taken_to_other_views(tiny_run: TrainedRun) -> None:
    """At its own camera and time a frame keeps its labels, whatever the way they come."""
    run = load_run(tiny_run.folder)
    carrying = LabelCarrying(run)
    cameras = run.frames
    own = carrying.labels[1]
    assert own is not None
    depth = run.render(cameras[1:2])["depth"]
    for labels in (carrying.carried(cameras[1:2], depth), carrying.warped(cameras[1:2], depth)):
        np.testing.assert_array_equal(labels, own)
    moved = carrying.carried(cameras[2:3], run.render(cameras[2:3])["depth"])
    assert moved.shape == own.shape and set(np.unique(moved)) <= set(np.unique(np.stack(carrying.complete)))


def test_labels_follow_depth_into_another_camera(tiny_run: TrainedRun) -> None:
    """With a wall at a known depth, labels move by the parallax between the cameras."""
    run = load_run(tiny_run.folder)
    carrying = LabelCarrying(run)
    first, second = run.frames[0:1], run.frames[1:2]
    second.times = first.times
    height, width = int(first.height), int(first.width)
    rays = second.generate_rays(0)
    depth = 3.0 * rays.metadata["directions_norm"]
    carrying._depth[0] = torch.full((height, width), torch.nan)  # set below: the same plane seen by camera 0
    points = rays.origins + rays.directions * depth
    frame = torch.zeros(points.shape[:2], dtype=torch.long)
    pixels, z = carrying.cameras.project(points, frame)
    inside = carrying.cameras.visible(pixels, z)
    line, column = pixels[..., 1].long().clamp(0, height - 1), pixels[..., 0].long().clamp(0, width - 1)
    carrying._depth[0][line[inside], column[inside]] = z[inside]
    taken = torch.from_numpy(carrying.carried(second, depth))
    source = torch.from_numpy(carrying.complete[0])
    seen = inside & ((z / carrying._depth[0][line, column] - 1).abs() < 0.04)
    assert seen.float().mean() > 0.5 and (line[seen] != torch.arange(height)[:, None].expand(height, width)[seen]).any()
    assert torch.equal(taken[seen], source[line[seen], column[seen]])


def test_scenes_whose_classes_contradict_are_not_measured_together(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The reason names both class tables; everything else is measured."""
    other = Path(shutil.copytree(scene, tmp_path / "other"))
    table = other / "labelmap.txt"
    table.write_text(table.read_text().replace("person:216,", "person:215,"))
    options = (
        f"--only two-scenes full-no --steps 1 --views 1 --results {tmp_path}/results --out {tmp_path}/out --scenes"
    )
    bench(monkeypatch, options, scene, "--sources", other)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"two-scenes on scene, seed 0: not measured: {table} and {scene / 'labelmap.txt'} give class" in printed
    (found,) = map(read_record, (tmp_path / "results").glob("*.json"))
    assert found["configuration"] == "full-no-flow-features"


@pytest.mark.parametrize("listed", [True, False])
def test_scenes_are_looked_at_before_anything_is_trained(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, listed: bool
) -> None:
    """Whatever rows are chosen, a mistyped path and two scenes of one name are one sentence."""
    monkeypatch.setattr(tasks, "measure", lambda *_: pytest.fail("nothing may be trained"))
    twin = Path(shutil.copytree(scene, tmp_path / "twin" / scene.name))
    other = Path(shutil.copytree(scene, tmp_path / "other"))
    options = f"--only =full {'--list' if listed else ''} --results {tmp_path}/results --out {tmp_path}/out --scenes"
    for arguments, words in (
        ((scene, tmp_path / "nowhere"), f"{tmp_path}/nowhere is no scene, .*with --scenes"),
        ((scene, "--sources", tmp_path / "nowhere"), f"{tmp_path}/nowhere is no scene, .*with --sources"),
        ((scene, twin), f"{scene} and {twin} have one name, .*: rename"),
        ((scene, "--sources", other, twin), f"{scene} and {twin} have one name, .*: rename"),
        ((scene, other, scene), f"{scene} is given twice: name every scene once"),
    ):
        with pytest.raises(SystemExit):
            bench(monkeypatch, options, *arguments)
        error = capsys.readouterr().err.strip()
        assert re.search(words, error) and "\n" not in error, error
    assert not (tmp_path / "out").exists()


def test_rows_without_a_view_to_score_are_not_measured(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Without test views frame 3 is held out, which completion labels and tracking does not; labels are needed too."""
    bare = without(scene, tmp_path / "bare", "multiview_GT*")
    blind = without(scene, tmp_path / "blind", "multiview_GT_semantic")
    names = ("completion-50", "tracking-50", "full", "adaptation-0")
    options = f"--results {tmp_path}/results --out {tmp_path}/out --only"
    bench(monkeypatch, options, *(f"={name}" for name in names), "--list --scenes", bare, blind, scene)
    lines = capsys.readouterr().out.splitlines()
    told = {line.split(", seed")[0]: line.split(": ", 1)[1] for line in lines if ", seed" in line}
    reason = "not measured: {} has no held-out view with labels that {} could be scored on: add multiview_GT and"
    for name in names:
        assert told[f"{name} on blind"].startswith(reason.format(blind, name)) and told[f"{name} on scene"] == "to do"
        if name != "completion-50":
            assert told[f"{name} on bare"] == "to do"
    assert told["completion-50 on bare"].startswith(reason.format(bare, "completion-50"))
    bench(monkeypatch, options, "=completion-50 --scenes", bare)
    assert reason.format(bare, "completion-50") in capsys.readouterr().out
    assert not (tmp_path / "results").exists() and not (tmp_path / "out").exists()
