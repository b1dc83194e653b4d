"""Runs with a frozen frame encoder, and what their checkpoints need later: neither weights nor cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_runs import model_of, render, scene_of, tiny_config, train
from torchvision import models

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
