"""Loading what was trained: the same renders, one clear error where a checkpoint does not belong."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from tiny_runs import (
    HEIGHT,
    OUTPUTS,
    WIDTH,
    TrainedRun,
    dataset_of,
    model_of,
    parameters,
    render,
    set_up,
    tiny_config,
    train,
    without,
)

from semflow_nerfstudio.runs import Run, load_run


def assert_same_renders(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def copy_with(run: TrainedRun, folder: Path, edit) -> Path:
    """A copy of a run whose configuration was edited; returns its folder."""
    config = yaml.load(run.config_file.read_text(), Loader=yaml.Loader)
    config.output_dir, config.experiment_name, config.timestamp = folder, "copy", "now"
    edit(config)
    config.save_config()
    shutil.copytree(run.folder / "nerfstudio_models", config.get_checkpoint_dir())
    return config.get_base_dir()


@pytest.fixture(scope="module")
def loaded(tiny_run: TrainedRun) -> Run:
    return load_run(tiny_run.folder)


def test_same_render_before_and_after(scene: Path, tmp_path: Path) -> None:
    trainer = train(tiny_config(scene, tmp_path, steps=5))
    run = load_run(trainer.base_dir)
    assert_same_renders(render(trainer, "train", 1), render(run, "train", 1))
    for index in (0, 7):
        assert_same_renders(render(trainer, "eval", index), render(run, "eval", index))
    assert not run.pipeline.training and not model_of(run).static_stage


def test_checkpoints_of_before_labels_were_counted(tiny_run: TrainedRun, tmp_path: Path) -> None:
    """They load, and no class is left out of what they say."""
    folder = copy_with(tiny_run, tmp_path, lambda config: None)
    (file,) = (folder / "nerfstudio_models").glob("*.ckpt")
    content = torch.load(file)
    del content["pipeline"]["_model.shared.class_prior.counts"]
    torch.save(content, file)
    shared = load_run(folder).model.shared
    assert shared is not None and not shared.class_prior.counts.any()


def test_a_run_without_labels_loads_after_its_scene_got_some(scene: Path, tmp_path: Path) -> None:
    names = ("SegmentationClass_train", "multiview_GT_semantic", "labelmap.txt")
    unlabelled = without(scene, tmp_path / "scene", *names)
    trainer = train(tiny_config(unlabelled, tmp_path / "runs", steps=2))
    before = render(trainer, "train", 1)
    for name in names:
        source = scene / name
        shutil.copytree(source, unlabelled / name) if source.is_dir() else shutil.copy(source, unlabelled / name)
    run = load_run(trainer.base_dir)
    assert model_of(run).class_names == () and model_of(run).shared is None
    assert torch.equal(render(run, "train", 1)["rgb"], before["rgb"])


def test_rendering_changes_nothing(loaded: Run) -> None:
    before = parameters(loaded)
    first = render(loaded)
    assert_same_renders(first, render(loaded))
    after = parameters(loaded)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_is_found_by_its_folder_its_config_or_a_folder_above(tiny_run: TrainedRun) -> None:
    for path in (tiny_run.config_file, tiny_run.folder, tiny_run.folder.parents[2]):
        assert load_run(path, "inference").config.get_base_dir() == tiny_run.folder


def test_inference_sees_the_frames_that_were_trained_on(tiny_run: TrainedRun, loaded: Run) -> None:
    """`ns-render camera-path` loads the data set at full size: the checkpoint's own frames count."""
    run = load_run(tiny_run.folder, "inference")
    full = dataset_of(run, "train").cameras
    assert (int(full.width[0]), int(full.height[0])) == (WIDTH, HEIGHT)
    cameras = dataset_of(loaded).cameras[:1]
    assert int(cameras.width[0]) == WIDTH // 2
    assert_same_renders(run.render(cameras), loaded.render(cameras))
    assert run.render(full[:1])["rgb"].shape == (HEIGHT, WIDTH, 3)


def test_another_number_of_training_steps_does_not_matter(tiny_run: TrainedRun, tmp_path: Path, loaded: Run) -> None:
    def edit(config) -> None:
        config.pipeline.model.static_steps = 10_000

    assert_same_renders(render(load_run(copy_with(tiny_run, tmp_path, edit))), render(loaded))


@pytest.mark.parametrize(
    ("part", "option", "value", "named"),
    [
        ("shared", "attention", "mean", "attention"),
        ("shared", "attention_layers", 2, "attention"),
        ("scene", "residual", False, "residual"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(
    tiny_run: TrainedRun, tmp_path: Path, part: str, option: str, value: object, named: str
) -> None:
    def edit(config) -> None:
        setattr(getattr(config.pipeline.model, part), option, value)

    with pytest.raises(ValueError, match=rf"belongs to another configuration: .*{named}.*; load it with") as error:
        load_run(copy_with(tiny_run, tmp_path, edit), "inference")
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_other_sizes_is_refused(tiny_run: TrainedRun, tmp_path: Path) -> None:
    def edit(config) -> None:
        config.pipeline.model.scene.static.hidden_dim += 1

    with pytest.raises(ValueError, match="static_field"):
        load_run(copy_with(tiny_run, tmp_path, edit), "inference")


def test_there_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "config.yml"):
        with pytest.raises(FileNotFoundError, match="there is no trained run here"):
            load_run(path)


def test_nothing_is_downloaded(scene: Path, tiny_run: TrainedRun, tmp_path: Path, monkeypatch) -> None:
    """Building the model, training and scoring work where there is no network."""

    def refuse(*_: object) -> None:
        raise OSError("the network is blocked")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(OSError, match="blocked"):
        socket.create_connection(("127.0.0.1", 9))
    trainer = train(tiny_config(scene, tmp_path, steps=2))
    assert set(model_of(trainer).scenes) == {"scene"}
    run = load_run(tiny_run.folder)
    outputs = render(run)
    assert set(outputs) >= OUTPUTS
    batch = dataset_of(run).get_data(0)
    assert "psnr" in run.model.get_image_metrics_and_images(outputs, batch)[0]


@pytest.mark.parametrize("name", ["semantic-flow", "semantic-flow-lite"])
def test_models_at_their_full_size_are_built(name: str, scene: Path, tmp_path: Path) -> None:
    tiny, config = tiny_config(scene, tmp_path / "tiny"), tiny_config(scene, tmp_path)
    config.pipeline.model = all_methods[name].pipeline.model
    sizes = [sum(p.numel() for p in model_of(set_up(c)).parameters()) for c in (tiny, config)]
    assert sizes[1] > 20 * sizes[0]
