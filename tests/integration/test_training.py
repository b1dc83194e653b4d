"""nerfstudio's trainer: evaluation on the way, schedule, resuming, repeatability, and that everything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nerfstudio.engine.trainer import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import (
    STATIC_STEPS,
    STEPS,
    TrainedRun,
    forget_writers,
    model_of,
    parameters,
    set_up,
    tiny_config,
    train,
    without,
)
from torch import Tensor

from semflow_nerfstudio.runs import seed_everything


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and not changed(one, other)


# ---------------------------------------------------------------- ns-train


def test_training_evaluates_on_its_way(tiny_run: TrainedRun) -> None:
    events = EventAccumulator(str(tiny_run.folder), size_guidance={"images": 0})
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert {"Train Loss", "Train Metrics Dict/psnr", "Eval Loss", "Eval Metrics Dict/psnr"} <= set(scalars)
    assert {"Eval Images Metrics/psnr", "Eval Images Metrics/miou"} <= set(scalars)
    everything = "Eval Images Metrics Dict (all images)"
    assert {f"{everything}/{name}" for name in ("psnr", "ssim", "miou", "miou_dataset", "fps")} <= set(scalars)
    assert [event.step for event in events.Scalars("Eval Loss")] == [2, 4]
    assert [event.step for event in events.Scalars("Eval Images Metrics/psnr")] == [3]
    assert [event.step for event in events.Scalars(f"{everything}/miou_dataset")] == [4]
    assert {"Eval Images/img", "Eval Images/depth", "Eval Images/semantics"} <= set(events.Tags()["images"])
    losses = [event.value for event in events.Scalars("Train Loss")]
    assert len(losses) >= 3 and all(torch.tensor(losses).isfinite())


def test_the_checkpoint_needs_no_trust(tiny_run: TrainedRun) -> None:
    """`torch.load` with its defaults of torch 2.6 and newer runs no code from the file."""
    assert tiny_run.checkpoint.name == f"step-{STEPS - 1:09d}.ckpt"
    saved = torch.load(tiny_run.checkpoint)
    assert saved["step"] == STEPS - 1 and saved["pipeline"] and saved["optimizers"] and saved["schedulers"]
    trusted = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        assert torch.load(tiny_run.checkpoint)["step"] == STEPS - 1
    finally:
        torch.serialization.add_safe_globals(trusted)


def test_evaluation_without_anything_to_score_does_not_stop_training(scene: Path, tmp_path: Path) -> None:
    config = tiny_config(without(scene, tmp_path / "scene", "multiview_GT_semantic"), tmp_path / "runs", steps=4)
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 2
    assert train(config).step == 3


# ---------------------------------------------------------------- parameters


def test_every_parameter_is_in_one_group_with_an_optimizer(scene: Path, tmp_path: Path) -> None:
    trainer = set_up(tiny_config(scene, tmp_path))
    groups = trainer.pipeline.get_param_groups()
    grouped = [id(parameter) for parameters in groups.values() for parameter in parameters]
    trainable = {id(p): name for name, p in trainer.pipeline.named_parameters() if p.requires_grad and p.numel()}
    assert len(grouped) == len(set(grouped)), "a parameter is in two groups"
    assert set(grouped) == set(trainable), {name for key, name in trainable.items() if key not in grouped}
    assert set(groups) == set(trainer.optimizers.optimizers) <= set(trainer.config.optimizers)
    assert set(groups) == {"fields", "flow", "proposals", "semantics", "semantic_grid"}


def test_every_parameter_is_trained(scene: Path, tmp_path: Path) -> None:
    """None is forgotten by the losses: an attention that never learns would go unnoticed."""
    history: list[dict[str, Tensor]] = []
    trainer = train(
        tiny_config(scene, tmp_path, steps=6, static_steps=0),
        lambda trainer, _: history.append(parameters(trainer)),
    )
    assert set(history[0]) - changed(history[0], parameters(trainer)) == set()


# ---------------------------------------------------------------- the schedule


def test_static_stage_trains_what_does_not_move(scene: Path, tmp_path: Path) -> None:
    history: list[dict[str, Tensor]] = []
    stages: list[bool] = []

    def look(trainer: Trainer, step: int) -> None:
        history.append(parameters(trainer))
        stages.append(model_of(trainer).static_stage)

    trainer = train(tiny_config(scene, tmp_path, steps=STATIC_STEPS + 2), look)
    assert stages == [True] * STATIC_STEPS + [False] * 2
    first = changed(history[0], history[STATIC_STEPS])
    assert not [name for name in first if "dynamic_field" in name or "flow" in name or "attention" in name]
    assert all(any(part in name for name in first) for part in ("static_field", "proposal_fields", "static_network"))
    second = changed(history[STATIC_STEPS], parameters(trainer))
    for part in ("dynamic_field", "flow_field", "flow_residual", "attention", "flow_network", "static_field"):
        assert any(part in name for name in second), part


@pytest.mark.parametrize(("steps", "time", "said"), [(3, True, True), (4, True, False), (3, False, False)])
def test_a_training_that_ends_in_its_static_stage_says_so(
    steps: int, time: bool, said: bool, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert STATIC_STEPS == 3
    set_up(tiny_config(scene, tmp_path, steps, time=time))
    forget_writers()
    words = " ".join(capsys.readouterr().out.split())
    assert ("Nothing that moves will be learned: the training ends after 3 steps" in words) == said


def test_without_motion_masks_the_static_stage_learns_from_all_rays(scene: Path, tmp_path: Path) -> None:
    trainer = set_up(tiny_config(without(scene, tmp_path / "scene", "motion_masks", "flow"), tmp_path / "runs"))
    assert model_of(trainer).training and model_of(trainer).static_stage
    _, losses, _ = trainer.pipeline.get_train_loss_dict(0)
    assert losses["color"].item() > 0


# ---------------------------------------------------------------- repeating and resuming


def test_same_seed_same_result(scene: Path, tmp_path: Path) -> None:
    runs = [train(tiny_config(scene, tmp_path / str(k))) for k in range(2)]
    assert same(parameters(runs[0]), parameters(runs[1]))
    config = tiny_config(scene, tmp_path / "other")
    config.machine.seed += 1
    assert changed(parameters(runs[0]), parameters(train(config)))


@pytest.mark.parametrize("stop", [2, 4])
def test_resuming_goes_on_where_it_stopped(stop: int, scene: Path, tmp_path: Path) -> None:
    """Stopped in the static stage or after it, a run ends with the parameters of one that was never stopped."""
    steps = 6
    seen: list[tuple[int, bool, bool]] = []

    def same_batches(trainer: Trainer, step: int) -> None:
        seed_everything(step)
        model = model_of(trainer)
        seen.append((step, model.step == step, model.static_stage))

    whole = train(tiny_config(scene, tmp_path / "whole", steps), same_batches)
    expected, seen[:] = list(seen), []
    first = train(tiny_config(scene, tmp_path / "first", stop), same_batches)
    config = tiny_config(scene, tmp_path / "second", steps - stop)
    config.optimizers = whole.config.optimizers
    config.load_dir = first.checkpoint_dir
    resumed = set_up(config)
    assert same(parameters(resumed), parameters(first))
    assert model_of(resumed).step == stop - 1
    forget_writers()
    second = train(config, same_batches)
    assert seen == expected and [step for step, _, _ in seen] == list(range(steps))
    assert all(at_step for _, at_step, _ in seen) and expected[2][2] and not expected[4][2]
    assert same(parameters(second), parameters(whole))
