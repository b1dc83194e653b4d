"""The benchmark of training and rendering, on very little: what it times, what it changes meanwhile, what it writes."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.engine.trainer import Trainer

from semflow_nerfstudio.benchmarking import encodings, rendering, speed
from semflow_nerfstudio.benchmarking.options import SpeedOptions
from semflow_nerfstudio.benchmarking.stages import REST, StageTimer
from semflow_nerfstudio.benchmarking.workbench import (
    final_samples,
    lite_trainer,
    model_of,
    plain_and_dense,
    rays_per_batch,
    step,
)
from semflow_nerfstudio.cli.report import finite
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene

TINY = SpeedOptions(
    rays=128,
    samples=8,
    steps=2,
    repeats=2,
    dense_rays=64,
    render_rays=256,
    error_rays=128,
    points=200,
    configurations=("8x15",),
    size="48x27",
    frames=4,
)


@contextmanager
def silent(title: str) -> Any:
    yield lambda done, total: None


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = SceneOptions(frames=4, size="48x27", rig_cameras=2)
    return make_scene(tmp_path_factory.mktemp("made") / "scene", options)


@pytest.fixture(scope="module")
def trainer(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return lite_trainer(scene, tmp_path_factory.mktemp("runs"), rays=128, samples=8)


def test_stages_do_not_count_what_they_call() -> None:
    timer = StageTimer()
    inner = timer.around("inner", time.sleep)
    with timer.stage("outer"):
        time.sleep(0.02)
        inner(0.1)
        inner(0.1)
    assert timer.seconds["inner"] >= 0.2
    assert 0.02 <= timer.seconds["outer"] < 0.2


def test_everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "CONFIGURATIONS", {"8x15": (2, 8, 32)})
    monkeypatch.setattr(speed, "frame_memory", lambda checkpoint, scene: {"checkpoint": checkpoint.is_file()})
    result = speed.measure(TINY, silent)
    figures = [name for name in speed.MAIN_FIGURES if name != "hash_ratio_16x19"]
    assert all(result[name] > 0 for name in figures)
    assert result["ratios"]["dense_to_ours"] == pytest.approx(
        result["dense_ms_per_ray"] / result["train_ms_per_ray"], abs=0.01
    )
    expected = {"sampling", "static field", "dynamic field", "flow and trajectories", "semantics", "compositing"}
    expected |= {"losses", "backward", "optimizer", "drawing rays", REST}
    assert set(result["stages"]) == expected and sum(result["stages"].values()) == pytest.approx(1, abs=0.01)
    assert all(share > 0 for share in result["stages"].values())
    assert len(result["train_steps_ms"]) == 2 and result["operators"][0]["share"] > 0
    assert result["frame_memory"] == {"checkpoint": True}
    assert result["machine"]["torch"] == torch.__version__
    key = speed.key_of(TINY, result["machine"])
    assert key.fingerprint != speed.key_of(SpeedOptions(), result["machine"]).fingerprint
    assert finite(result)["options"]["rays"] == 128


def test_semantics_on_more_samples_are_closer_to_those_on_all(trainer: Trainer) -> None:
    rays = rendering.held_out_rays(trainer, 128)
    assert 64 <= len(rays) <= 256 and rays.times is not None
    rows = rendering.sample_errors(trainer, rays)
    assert [row["samples"] for row in rows] == ["1", "2", "4", "6", "8", "4 static, 6 moving"]
    errors = [row["logit_error_mean"] for row in rows]
    assert errors[0] > errors[3] and errors[4] == 0, "a ray has eight samples here"
    assert all(0 <= row["labels_changed"] <= 1 and row["logit_error_max"] >= row["logit_error_mean"] for row in rows)


def test_rays_between_frames_are_between_frames(trainer: Trainer) -> None:
    model = model_of(trainer)
    timeline = model.scene(next(iter(model.scenes))).timeline
    for between in (False, True):
        times = rendering.held_out_rays(trainer, 64, between).times
        assert times is not None
        fraction = timeline.index(times[:, 0]) % 1
        torch.testing.assert_close(fraction, torch.full_like(fraction, 0.5 if between else 0.0))


def test_settings_are_put_back(trainer: Trainer) -> None:
    model = model_of(trainer)
    scene = model.scene(next(iter(model.scenes)))
    sampler: Any = trainer.pipeline.datamanager.train_pixel_sampler  # type: ignore[union-attr]
    before = (model.config.render, model.config.mover_ray_share, scene.static_field.grid.backend)
    with plain_and_dense(trainer, 8), rays_per_batch(trainer, 64), final_samples(trainer, 6):
        assert model.config.render.static_samples == 8 and scene.static_field.grid.backend == "torch"
        rays, _ = trainer.pipeline.datamanager.next_train(0)
        assert len(rays) == 64
        trainer.pipeline.train()
        model.set_step(1000)
        out = model.get_outputs(rays)["parts"][0].rendered
        assert out.samples.starts.shape == (64, 6) and out.flow.picked.shape == (64, 6)
    assert (model.config.render, model.config.mover_ray_share, scene.static_field.grid.backend) == before
    assert sampler.num_rays_per_batch == 128
    assert step(trainer, 1000) > 0


def test_one_image_is_rendered_for_its_memory(
    trainer: Trainer, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "model.pt"
    torch.save(trainer.pipeline.state_dict(), checkpoint)
    rendering.render_one_image(checkpoint, scene, 20, 12)
    assert int(capsys.readouterr().out.split()[-1]) > 1e8


def test_memory_of_a_large_image_by_a_straight_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> Any:
        width, height = map(int, command[-2:])
        return SimpleNamespace(stdout=f"words\n{10**9 + 1000 * width * height}\n")

    monkeypatch.setattr(subprocess, "run", run)
    result = rendering.frame_memory(Path("model.pt"), Path("scene"))
    assert result["full_hd_gb_extrapolated"] == pytest.approx(1 + 1e-6 * 1920 * 1080, abs=0.01)
    assert result["peak_mb"] == [1130, 1518]


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="--dense-rays must be at least 1"):
        SpeedOptions(dense_rays=0).check()
