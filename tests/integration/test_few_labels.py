"""Training with few labels: what is read, what is not, and the labels that `semflow complete` hands back."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import FRAMES, HEIGHT, WIDTH, dataset_of, manager_config, model_of, parameters, tiny_config, train

from semflow_nerfstudio import completion
from semflow_nerfstudio.cli import main
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.label_propagation import without_edges
from semflow_nerfstudio.data.labels import read_label_map
from semflow_nerfstudio.data.modalities import decode_labels
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.training.label_transport import LabelTransportConfig

LABELS = "SegmentationClass_train"


def run_with(scene: Path, out: Path, labelled: str, method: str = "auto", steps: int = 6):
    """A tiny run of the scene's own class; movers carry labels from the third step of the dynamic stage."""
    data = DynamicSceneDataParserConfig(data=scene, labelled_frames=labelled)
    config = tiny_config(data, out, steps, label_transport=LabelTransportConfig(start_after=1))
    manager_config(config).label_propagation = method  # type: ignore[assignment]
    return train(config)


def same(one, other) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def partial_run(scene: Path, tmp_path_factory: pytest.TempPathFactory):
    """Two of four frames labelled."""
    return run_with(scene, tmp_path_factory.mktemp("partial"), "0,3")


def test_labels_of_unlabelled_frames_are_never_read(scene: Path, partial_run, tmp_path: Path) -> None:
    """Without their files the run is the same to the last bit."""
    bare = Path(shutil.copytree(scene, tmp_path / scene.name))
    for frame in (1, 2):
        (bare / LABELS / f"{frame:03d}.png").unlink()
    without = run_with(bare, tmp_path / "out", "0,3")
    assert same(parameters(partial_run), parameters(without))


def test_carried_labels_are_learned_from(scene: Path, partial_run, tmp_path: Path) -> None:
    assert not same(parameters(partial_run), parameters(run_with(scene, tmp_path, "0,3", "none")))


def test_carried_labels_are_in_the_batches(partial_run) -> None:
    dataset = dataset_of(partial_run, "train")
    own, carried = (dataset.get_data(frame) for frame in (0, 1))
    assert (own["carried_labels"] == IGNORE_LABEL).all() and (own["labels"] != IGNORE_LABEL).all()
    assert (carried["labels"] == IGNORE_LABEL).all()
    known = carried["carried_labels"][..., 0].numpy() != IGNORE_LABEL
    truth = decode_labels(Path(dataset.image_filenames[1]).parents[1] / LABELS / "001.png", dataset.classes[0])
    inside = without_edges(truth) != IGNORE_LABEL
    assert inside.sum() > 100 and known[inside].mean() > 0.4  # edges are wide in an image of 40 pixels
    assert (truth == carried["carried_labels"][..., 0].numpy())[known].mean() > 0.98
    assert set(model_of(partial_run).objective.carry_labels.sources) == set(model_of(partial_run).scenes)


def test_with_all_labels_nothing_changes(scene: Path, tmp_path: Path) -> None:
    runs = [run_with(scene, tmp_path / method, "all", method) for method in ("auto", "none")]
    assert same(*(parameters(run) for run in runs))
    assert (
        "carried_labels" not in dataset_of(runs[0], "train").get_data(0)
        and not model_of(runs[0]).objective.carry_labels.sources
    )


def test_scribbles_train(scene: Path, tmp_path: Path) -> None:
    """1 % of the pixels are labelled, and three tenths of the rays are drawn from them."""
    run = run_with(scene, tmp_path, "scribbles-1")
    shown = [dataset_of(run, "train").get_data(frame)["labels"] for frame in range(FRAMES)]
    assert all(int((labels != IGNORE_LABEL).sum()) == round(0.01 * WIDTH * HEIGHT) for labels in shown)
    torch.manual_seed(0)
    batches = [run.pipeline.datamanager.next_train(step)[1]["labels"] for step in range(10)]
    share = torch.cat([labels != IGNORE_LABEL for labels in batches]).float().mean()
    assert 0.22 < share < 0.4
    assert len(dataset_of(run)) == FRAMES * FRAMES - FRAMES, "all times are evaluated"


def write_clicks(scene: Path, folder: Path, clicks: int) -> Path:
    """The scene with label files four times the images' size, in which single pixels are opaque and all else is not."""
    shutil.copytree(scene, folder)
    for number, file in enumerate(sorted((folder / LABELS).iterdir())):
        large = np.asarray(Image.open(file).convert("RGB")).repeat(4, axis=0).repeat(4, axis=1)
        opaque = np.zeros(large.shape[:2], np.uint8)
        for k in range(clicks):
            opaque[4 * (3 * k + number) + 1, 4 * (5 * k + 2) + 2] = 255
        Image.fromarray(np.dstack([large, opaque])).save(file)
    return folder


def test_clicks_train(scene: Path, tmp_path: Path) -> None:
    """Of files larger than the images, every click is a labelled pixel of the training, and labels spread from them."""
    run = run_with(write_clicks(scene, tmp_path / "clicks", 3), tmp_path / "runs", "all")
    truth = dataset_of(run_with(scene, tmp_path / "dense", "all", steps=2), "train")
    for frame in range(FRAMES):
        data, dense = dataset_of(run, "train").get_data(frame), truth.get_data(frame)["labels"][..., 0]
        labels = data["labels"][..., 0]
        places = [(3 * k + frame, 5 * k + 2) for k in range(3)]
        assert [tuple(place) for place in (labels != IGNORE_LABEL).nonzero().tolist()] == places
        assert all(labels[place] == dense[place] for place in places)
        assert (data["carried_labels"] != IGNORE_LABEL).any()


def test_labels_that_say_nothing_are_told(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_with(write_clicks(scene, tmp_path / "none", 0), tmp_path / "runs", "all", steps=2)
    assert f"none of its {FRAMES} label images names a class" in " ".join(capsys.readouterr().out.split())


# ---------------------------------------------------------------- semflow complete


def test_labels_of_another_run_are_gone_before_new_ones_come(tmp_path: Path) -> None:
    """Or a call that was interrupted and goes on without --overwrite would keep them."""
    out = tmp_path / "out"
    completion._claim(out, {"run": "one"}, ["labels/000.png"], overwrite=False)
    image, own = out / "labels" / "000.png", out / "labels" / "mine.png"
    image.parent.mkdir()
    image.touch()
    own.touch()
    with pytest.raises(ValueError, match="--overwrite"):
        completion._claim(out, {"run": "other"}, [], overwrite=False)
    completion._claim(out, {"run": "one"}, ["labels/000.png"], overwrite=True)
    assert image.is_file()
    completion._claim(out, {"run": "other"}, ["labels/001.png"], overwrite=True)
    assert not image.exists() and own.is_file(), "what it did not write is never deleted"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_alone(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something that `semflow complete` did not write"):
        completion._claim(tmp_path, {"run": "one"}, [], overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_scene_s_own_folder_is_refused(
    scene: Path, partial_run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in scene.rglob("*")}
    with pytest.raises(SystemExit):
        semflow(monkeypatch, "complete", partial_run.config.get_base_dir(), scene, "--overwrite")
    assert "is the scene's own folder" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in scene.rglob("*")} == before


def test_labels_from_outside_the_scene_are_not_written_outside(tmp_path: Path) -> None:
    """Label files named "../annotations/000.png" get a place of their own below the output folder."""
    data = tmp_path / "scene"
    for name in ("scene/images/000.png", "scene/images/001.png", "annotations/000.png", "scene/mine/001.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(tmp_path / name)
    labels = [data / "../annotations/000.png", data / "images/../mine/001.png"]
    dataset: Any = SimpleNamespace(
        frames=[SimpleNamespace(labels=path) for path in labels],
        image_filenames=[data / "images/000.png", data / "images/001.png"],
    )
    names = [file.name.as_posix() for file in completion.label_files(dataset, range(2), data, "labels")]
    assert names == ["mine/000.png", "mine/001.png"]


def semflow(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["semflow", *map(str, arguments)])
    main.entrypoint()


def test_completed_labels_load_as_labels(
    scene: Path, partial_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Every frame at the size its labels came in, given labels kept, confidence beside them; made once."""
    out, run = tmp_path / "out", partial_run.config.get_base_dir()
    semflow(monkeypatch, "complete", run, out)
    files = sorted((out / LABELS).iterdir())
    assert [path.name for path in files] == [f"{k:03d}.png" for k in range(FRAMES)]
    classes = read_label_map(out / "labelmap.txt", out / "foreground_object.txt")
    original = read_label_map(scene / "labelmap.txt", scene / "foreground_object.txt")
    assert classes.names == original.names and (classes.foreground == original.foreground).all()
    for frame, path in enumerate(files):
        ids = decode_labels(path, classes)
        confidence = np.asarray(Image.open(out / "confidence" / path.name))
        assert ids.shape == confidence.shape == (HEIGHT, WIDTH) and (ids != IGNORE_LABEL).all()
        if frame in (0, 3):
            np.testing.assert_array_equal(ids, decode_labels(scene / LABELS / path.name, original))
            assert (confidence == 255).all()
        else:
            assert confidence.mean() < 255

    # As labels of the scene itself they train: all frames are labelled now.
    copy = Path(shutil.copytree(scene, tmp_path / "again"))
    shutil.copytree(out / LABELS, copy / LABELS, dirs_exist_ok=True)
    again = run_with(copy, tmp_path / "runs", "all", steps=1)
    np.testing.assert_array_equal(
        dataset_of(again, "train").get_data(1)["labels"][..., 0].numpy(), decode_labels(files[1], classes)
    )

    # An interrupted call goes on where it was; another run's labels are not mixed in.
    before = {path: path.stat().st_mtime_ns for path in files}
    files[2].unlink()
    semflow(monkeypatch, "complete", run, out)
    after = {path: path.stat().st_mtime_ns for path in files}
    assert [path for path in files if before[path] != after[path]] == [files[2]]
    with pytest.raises(SystemExit):
        semflow(monkeypatch, "complete", run, out, "--no-keep-given")
    assert "--overwrite" in capsys.readouterr().err
    semflow(monkeypatch, "complete", run, out, "--no-keep-given", "--overwrite")
    assert np.asarray(Image.open(out / "confidence" / "000.png")).mean() < 255
