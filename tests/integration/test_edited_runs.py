"""Edits of a trained run: shown in pictures, unseen by scores, checkpoints and training."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.scripts import render as ns_render
from PIL import Image
from tiny_runs import HEIGHT, WIDTH, TrainedRun, dataset_of, model_of, set_up, tiny_config
from viewer_session import watched

from semflow_nerfstudio.cli import main
from semflow_nerfstudio.editing.scene_state import (
    SceneState,
    ghost,
    hide,
    isolate,
    place,
    recolor,
    with_background,
    with_class_color,
    with_class_visible,
)
from semflow_nerfstudio.editing.scene_state_file import save_scene_state, to_json
from semflow_nerfstudio.runs import Run, evaluate, load_run
from semflow_nerfstudio.selection import Selection, clear_selection, read_selection, write_selection
from semflow_nerfstudio.visuals.camera_path import CropBox

NOTHING = SceneState()


@pytest.fixture(scope="module")
def run(tiny_run: TrainedRun) -> Run:
    return load_run(tiny_run.folder)


@pytest.fixture(autouse=True)
def unedited(run: Run):
    yield
    run.model.set_scene_state(NOTHING)


def semflow(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["semflow", *map(str, arguments)])
        main.entrypoint()


def camera_of(run: Run, index: int = 0) -> Cameras:
    return dataset_of(run).cameras[index : index + 1]


def test_an_empty_state_shows_exactly_what_no_state_does(run: Run) -> None:
    before = run.render(camera_of(run))
    run.model.set_scene_state(recolor(NOTHING, "moving", (1.0, 0.0, 0.0)))
    edited = run.render(camera_of(run))
    run.model.set_scene_state(NOTHING)
    after = run.render(camera_of(run))
    assert set(before) == set(after) == set(edited)
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
        assert value.shape == edited[name].shape, name
    assert not torch.equal(before["rgb"], edited["rgb"])


def test_the_movers_go_and_a_background_comes(run: Run) -> None:
    run.model.set_scene_state(hide(NOTHING, "moving"))
    assert float(run.render(camera_of(run))["dynamicness"].max()) == 0
    run.model.set_scene_state(with_background(isolate(NOTHING, ["static"]), (0.0, 1.0, 0.0)))
    shown = run.render(camera_of(run))
    run.model.set_scene_state(with_background(hide(hide(NOTHING, "moving"), "static"), (0.0, 1.0, 0.0)))
    nothing = run.render(camera_of(run))
    assert float(nothing["accumulation"].max()) == 0 and (nothing["label"] == 255).all()
    assert torch.equal(nothing["rgb"], torch.tensor([0.0, 1.0, 0.0]).expand_as(nothing["rgb"]))
    assert float(nothing["semantics"].max()) == 0 and float(shown["accumulation"].max()) > 0


def test_scores_do_not_see_edits(run: Run) -> None:
    before = evaluate(run, [0])
    run.model.set_scene_state(hide(place(NOTHING, "moving", (0.0, 0.0, 0.3)), "static"))
    edited = run.model.scene_state
    after = evaluate(run, [0])
    assert {k: v for k, v in before.items() if "second" not in k} == pytest.approx(
        {k: v for k, v in after.items() if "second" not in k}, nan_ok=True, abs=0, rel=0
    )
    assert run.model.scene_state == edited
    pipeline, loader = run.pipeline, run.pipeline.datamanager.fixed_indices_eval_dataloader  # type: ignore[attr-defined]
    scores = [pipeline.get_average_image_metrics(loader, "eval", 0)["psnr"]]
    run.model.set_scene_state(NOTHING)
    scores.append(pipeline.get_average_image_metrics(loader, "eval", 0)["psnr"])
    run.pipeline.eval()
    assert scores[0] == scores[1]


def test_training_and_checkpoints_do_not_see_edits(scene: Path, tmp_path: Path) -> None:
    losses = []
    for state in (NOTHING, hide(NOTHING, "moving")):
        trainer = set_up(tiny_config(scene, tmp_path / str(len(losses)), steps=4))
        keys = set(trainer.pipeline.state_dict())
        model_of(trainer).set_scene_state(state)
        for step in range(4):
            model_of(trainer).set_step(step)
            torch.manual_seed(step)
            _, loss_dict, _ = trainer.pipeline.get_train_loss_dict(step)
        losses.append({name: float(loss) for name, loss in loss_dict.items()})
        assert set(trainer.pipeline.state_dict()) == keys
        _, batch_losses, _ = trainer.pipeline.get_eval_loss_dict(0)
        assert float(batch_losses["color"]) > 0 and model_of(trainer).scene_state == state
    assert losses[0] == losses[1]


def test_class_colours_and_visibility(run: Run) -> None:
    plain = run.render(camera_of(run))
    label = plain["label"][..., 0].long()
    first = int(label.flatten().mode().values)
    name = run.model.class_names[first]
    run.model.set_scene_state(with_class_color(NOTHING, name, (0.1, 0.9, 0.4)))
    recolored = run.render(camera_of(run))
    assert torch.equal(recolored["rgb"], plain["rgb"]) and torch.equal(recolored["label"], plain["label"])
    there = label == first
    assert torch.allclose(recolored["semantics"][there], torch.tensor([0.1, 0.9, 0.4]))
    assert torch.equal(recolored["semantics"][~there], plain["semantics"][~there])
    run.model.set_scene_state(with_class_visible(NOTHING, name, False))
    uncolored = run.render(camera_of(run))
    assert float(uncolored["semantics"][there].max()) == 0
    assert torch.equal(uncolored["semantics_overlay"][there], plain["rgb"][there])


def test_crops_show_their_background_around_them(run: Run) -> None:
    crop = CropBox((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1e-3, 1e-3, 1e-3), (1.0, 0.0, 0.2))
    out = run.render(camera_of(run), crop)
    share = (out["rgb"] - torch.tensor([1.0, 0.0, 0.2])).abs().amax(-1) < 0.02
    assert float(share.float().mean()) > 0.95
    whole = run.render(camera_of(run), CropBox((0.0,) * 3, (0.0,) * 3, (50.0,) * 3, (1.0, 0.0, 0.2)))
    plain = run.render(camera_of(run))
    for name in ("accumulation", "depth", "label"):  # colours differ where the crop's background shines through
        assert torch.equal(whole[name], plain[name]), name
    run.model.set_scene_state(ghost(NOTHING, "moving", 0.5))
    box = OrientedBox.from_params((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1e-3, 1e-3, 1e-3))
    cropped = run.model.get_outputs_for_camera(camera_of(run), box)
    assert float((cropped["accumulation"] > 0.02).float().mean()) < 0.05


def test_states_that_the_run_cannot_show(run: Run) -> None:
    with pytest.raises(ValueError, match="no class 'car'; the run has floor, wall"):
        run.edit(hide(NOTHING, "class:car"))
    with pytest.raises(ValueError, match="no scene 'other'"):
        run.edit(SceneState(scene="other"))
    with pytest.raises(ValueError, match="instances of this scene are not known"):
        run.model.set_scene_state(hide(NOTHING, "class:person"))
    assert run.model.scene_state == NOTHING


def test_classes_and_instances_are_found_where_a_state_names_them(run: Run) -> None:
    run.edit(hide(recolor(NOTHING, "class:floor", (1.0, 0.0, 0.0)), "class:person"))
    out = run.render(camera_of(run))
    assert out["rgb"].shape == (HEIGHT // 2, WIDTH // 2, 3) and np.isfinite(out["rgb"].numpy()).all()
    with pytest.raises(ValueError, match="no instance 99"):
        run.edit(hide(NOTHING, "instance:99"))


def test_edits_that_were_selected_are_shown_when_the_run_is_loaded(tiny_run: TrainedRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    state = with_class_color(hide(NOTHING, "moving"), "floor", (0.0, 0.0, 1.0))
    save_scene_state(state, tmp_path / "state.json")
    write_selection(folder, None, tmp_path / "state.json")
    loaded = load_run(folder)
    assert loaded.model.scene_state == state
    assert float(loaded.render(camera_of(loaded))["dynamicness"].max()) == 0
    save_scene_state(hide(NOTHING, "class:car"), tmp_path / "state.json")
    chosen = write_selection(folder, None, tmp_path / "state.json")
    with pytest.raises(ValueError, match=f"{chosen.scene_state}: there is no class 'car'"):
        load_run(folder)
    clear_selection(folder)
    assert load_run(folder).model.scene_state == NOTHING


HIDING = recolor(hide(NOTHING, "moving"), "static", (1.0, 0.0, 0.0), 1.0)


@pytest.fixture
def hiding(tiny_run: TrainedRun, tmp_path: Path) -> Path:
    """A run for which `semflow select` has hidden what moves, and made the rest red."""
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))
    save_scene_state(HIDING, tmp_path / "state.json")
    semflow("select", folder, "--scene-state", tmp_path / "state.json")
    return folder


def test_the_viewer_starts_with_edits_that_were_selected(hiding: Path, tmp_path: Path) -> None:
    loaded = load_run(hiding)
    with watched(loaded, tmp_path) as session:
        session.client.wait(lambda: "- moving: hidden" in session.client.texts())
        session.settle()
        assert float(session.rendered[-1]["dynamicness"].max()) == 0
        session.client.press("Reset all edits")
        session.client.wait(lambda: "Nothing is edited." in session.client.texts())
        session.settle()
        assert float(session.rendered[-1]["dynamicness"].max()) > 0


def test_exports_show_edits_that_were_selected(hiding: Path, tiny_run: TrainedRun, tmp_path: Path) -> None:
    options = ("--what", "images", "--times", 0.5)
    semflow("export", hiding, tmp_path / "selected", *options)
    semflow("export", tiny_run.folder, tmp_path / "plain", *options)
    semflow("export", tiny_run.folder, tmp_path / "given", *options, "--scene-state", tmp_path / "state.json")
    pictures = {name: (tmp_path / name / "images/00000.png").read_bytes() for name in ("selected", "plain", "given")}
    assert pictures["selected"] == pictures["given"] != pictures["plain"]
    note = json.loads((tmp_path / "selected/export.json").read_text())
    assert note["scene_state"]["objects"] == to_json(HIDING)["objects"]
    semflow("select", hiding, "--clear")
    with pytest.raises(SystemExit):
        semflow("export", hiding, tmp_path / "selected", *options)  # would mix two states


def test_completed_labels_do_not_see_edits(hiding: Path, tiny_run: TrainedRun, tmp_path: Path) -> None:
    for name, folder in (("edited", hiding), ("plain", tiny_run.folder)):
        semflow("complete", folder, tmp_path / name, "--no-keep-given")
    files = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.png"))
    assert files
    for file in files:
        assert (tmp_path / "edited" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "this is no scene state"),
        ('{"version": 1, "objects": {"class:car": {"hidden": true}}}', "there is no class 'car'; the run has floor"),
        ('{"version": 1, "scene": "other"}', "there is no scene 'other'"),
        ('{"version": 1, "objects": {"person": {}}}', "'person' is no target"),
    ],
)
def test_select_refuses_what_could_not_be_shown(
    content: str, message: str, tiny_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(SystemExit):
        semflow("select", tiny_run.folder, "--scene-state", path)
    error = capsys.readouterr().err
    assert message in error and str(path) in error
    assert read_selection(tiny_run.folder) == Selection()


def test_ns_render_shows_edits_that_were_selected(hiding: Path, run: Run, tmp_path: Path) -> None:
    names = {"rendered_output_names": ["rgb"], "image_format": "png"}
    ns_render.DatasetRender(hiding / "config.yml", tmp_path / "out", split="train", **names).main()  # type: ignore[arg-type]
    file = min((tmp_path / "out/train/rgb").rglob("*.png"))
    shown = np.asarray(Image.open(file)).astype(int)
    camera = dataset_of(run, "train").cameras[:1]
    plain = run.render(camera)["rgb"].numpy()
    run.model.set_scene_state(HIDING)
    edited = run.render(camera)["rgb"].numpy()
    assert np.abs(shown - 255 * edited).max() < 2 < np.abs(shown - 255 * plain).max()
