"""Runs with a frozen frame encoder, and what their checkpoints need later: neither weights nor cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_runs import model_of, render, scene_of, set_up, tiny_config, train
from torchvision import models

from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.frame_features import FrameFeaturesConfig
from semflow_nerfstudio.runs import load_run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(models.resnet18(weights=None).state_dict(), path)
    return path


def features(config, weights: Path, cache: Path):
    config.pipeline.datamanager.frame_features = FrameFeaturesConfig("resnet18", weights, pca_dim=6, cache=cache)
    return config


def test_frozen_features_train_and_render_without_the_weights(scene: Path, weights: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(weights.read_bytes())
    trainer = train(features(tiny_config(scene, tmp_path / "run"), own, tmp_path / "cache"))
    bank, shared = scene_of(trainer).bank, model_of(trainer).shared
    assert shared is not None and shared.encoder is None
    assert bank.features is not None and bank.features.dtype == torch.float16 and bank.features.shape[-1] == 6
    assert not any("encoder" in name for name, _ in model_of(trainer).named_parameters())
    before = render(trainer)
    own.unlink()
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    after = render(load_run(trainer.base_dir))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_scenes_and_adaptations_share_the_compression(scenes: Path, weights: Path, tmp_path: Path) -> None:
    """It is fitted to all scenes of a run, kept with the networks, and makes the features of new scenes."""
    parser = DynamicSceneDataParserConfig(data=scenes, scenes=("A", "B"))
    trainer = train(features(tiny_config(parser, tmp_path / "two"), weights, tmp_path / "cache"))
    shared = model_of(trainer).shared
    assert shared is not None and shared.basis.known and shared.basis.axes.shape == (448, 6)
    own = features(tiny_config(scenes / "B", tmp_path / "one"), weights, tmp_path / "cache")
    source = {"adapt_from": trainer.base_dir, "adapt_field_steps": 1}
    adapting = features(tiny_config(scenes / "B", tmp_path / "new", **source), weights, tmp_path)
    alone, adapted = set_up(own), train(adapting)
    taken = model_of(adapted).shared
    assert taken is not None and taken.basis.key() == shared.basis.key()
    maps = [scene.bank.features for scene in (model_of(trainer).scene("B"), scene_of(adapted), scene_of(alone))]
    assert maps[0] is not None and maps[1] is not None and maps[2] is not None
    assert torch.equal(maps[0], maps[1]) and not torch.equal(maps[1], maps[2])
    loaded = model_of(load_run(adapted.base_dir)).shared
    assert loaded is not None and loaded.basis.key() == shared.basis.key()


def test_checkpoints_of_before_scenes_shared_it(scene: Path, weights: Path, tmp_path: Path, capsys) -> None:
    trainer = train(features(tiny_config(scene, tmp_path / "run"), weights, tmp_path / "cache"))
    before = render(trainer)
    (file,) = (trainer.base_dir / "nerfstudio_models").glob("*.ckpt")
    content = torch.load(file, weights_only=True)
    old = {key: value for key, value in content["pipeline"].items() if ".basis." not in key}
    assert len(old) == len(content["pipeline"]) - 3
    torch.save(content | {"pipeline": old}, file)
    run = load_run(trainer.base_dir)
    after = render(run)
    assert all(torch.equal(before[name], after[name]) for name in before)
    shared = model_of(run).shared
    assert shared is not None and not shared.basis.known
    source = {"adapt_from": trainer.base_dir, "adapt_field_steps": 1}
    adapting = features(tiny_config(scene, tmp_path / "new", **source), weights, tmp_path / "cache")
    taken = model_of(set_up(adapting)).shared
    assert taken is not None and taken.basis.known and "train it again" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_had_no_weights_stays_what_it_is(scene: Path, weights: Path, tmp_path: Path, capsys) -> None:
    """The small encoder took over in training; weights that turn up later change nothing."""
    own = tmp_path / "own.pth"
    trainer = train(features(tiny_config(scene, tmp_path / "run"), own, tmp_path / "cache"))
    assert "small trainable frame encoder is used" in capsys.readouterr().out
    assert scene_of(trainer).bank.features is None
    before = render(trainer)
    own.write_bytes(weights.read_bytes())
    run = load_run(trainer.base_dir)
    assert scene_of(run).bank.features is None
    after = render(run)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_checkpoints_of_before_there_was_calibration(scene: Path, tmp_path: Path) -> None:
    trainer = train(tiny_config(scene, tmp_path))
    shared = model_of(trainer).shared
    assert shared is not None and shared.calibration.inverse_temperature != 1
    (file,) = (trainer.base_dir / "nerfstudio_models").glob("*.ckpt")
    content = torch.load(file, weights_only=True)
    key = next(key for key in content["pipeline"] if key.endswith("calibration.inverse_temperature"))
    del content["pipeline"][key]
    torch.save(content, file)
    loaded = model_of(load_run(trainer.base_dir)).shared
    assert loaded is not None and loaded.calibration.inverse_temperature == 1
