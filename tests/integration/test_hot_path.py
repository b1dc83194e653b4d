"""A training step never waits for its device, and is the same in half precision but for rounding."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.engine.trainer import Trainer
from tiny_runs import STATIC_STEPS, forget_writers, model_of, set_up, tiny_config, without
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.runs import seed_everything
from semflow_nerfstudio.training import label_transport
from semflow_nerfstudio.training.label_transport import LabelTransportConfig

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "is_nonzero", "equal", "lift_fresh")
"""Operators after which the host needs a value, or a size, from the device; the last one sends numbers there."""


class Waits(TorchDispatchMode):
    """Notes the operators that make the host wait for a CUDA device, or would, and who asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITS or by_mask:
            own = [frame for frame in traceback.extract_stack() if "nerfstudio" in frame.filename]
            self.seen.append(f"{name} {Path(own[-1].filename).name}:{own[-1].lineno}" if own else name)
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[list[str]]:
    mode = Waits()
    with mode:
        yield mode.seen


def start(scene: Path, out: Path, step: int, **model: Any) -> Trainer:
    trainer = set_up(tiny_config(scene, out, **model))
    forget_writers()
    model_of(trainer).set_step(step)
    return trainer


def test_what_waits_is_seen() -> None:
    values = torch.rand(4)
    with waits() as seen:
        float(values.sum())
        values[values > 0.5]
        values.nonzero()
        torch.tensor([1.0])
        values[torch.arange(2)] + 1
    assert [what.split()[0] for what in seen] == ["_local_scalar_dense", "index", "nonzero", "lift_fresh"]


@pytest.mark.parametrize("step", [0, STATIC_STEPS + 1], ids=["static", "dynamic"])
@pytest.mark.parametrize("lacking", ["", "flow"], ids=["aligned", "relative"])
def test_a_step_does_not_wait(step: int, lacking: str, scene: Path, tmp_path: Path) -> None:
    """Rendering, losses, backward and optimizers. (Drawing the batch is the host's, and comes before.)

    Without flow disparity is not aligned, and its loss works with medians over the rays of each frame.
    """
    data = without(scene, tmp_path / "scene", lacking) if lacking else scene
    # In the encoder's steps and between them; more frames than it encodes at once.
    trainer = start(data, tmp_path / "runs", step, encoder_frames=2)
    manager: Any = trainer.pipeline.datamanager
    drawn = iter([manager.next_train(step) for _ in range(3)])
    manager.next_train = lambda step: next(drawn)
    trainer.train_iteration(step)  # what is computed once, such as a clip's first feature maps
    for later in (step + 1, step + 2):
        model_of(trainer).set_step(later)
        with waits() as seen:
            trainer.train_iteration(later)
        assert seen == []


def test_a_step_with_few_labels_does_not_wait(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that the model's trajectories carry are found without counting, as on a GPU."""
    monkeypatch.setattr(label_transport, "counting_waits", lambda device: True)
    config = tiny_config(DynamicSceneDataParserConfig(data=scene, labelled_frames="0,3"), tmp_path)
    config.pipeline.model.label_transport = LabelTransportConfig(start_after=0)  # type: ignore[attr-defined]
    trainer = set_up(config)
    forget_writers()
    manager: Any = trainer.pipeline.datamanager
    drawn = iter([manager.next_train(0) for _ in range(3)])
    manager.next_train = lambda step: next(drawn)
    step = STATIC_STEPS + 1
    for later, known in ((step, False), (step + 1, True), (step + 2, True)):
        model_of(trainer).set_step(later)
        with waits() as seen:
            trainer.train_iteration(later)
        assert not known or seen == []
    assert model_of(trainer).objective.carry_labels.sources


def test_rays_are_drawn_on_the_host(scene: Path, tmp_path: Path) -> None:
    """Nothing is asked of the device that they are for: one without values, on which every question fails."""
    trainer = start(scene, tmp_path / "runs", 0)
    manager: Any = trainer.pipeline.datamanager
    rays, batch = manager.next_train(0)
    manager.device = torch.device("meta")
    manager.to("meta")
    away, away_batch = manager.next_train(0)
    assert {batch[key].device.type for key in batch} == {"cpu"} and rays.origins.device.type == "cpu"
    assert {away_batch[key].device.type for key in away_batch} == {"meta"}
    assert away.origins.shape == rays.origins.shape
    for name in ("origins", "directions", "times", "camera_indices"):
        assert getattr(away, name).device.type == "meta", name
    assert {value.device.type for value in away.metadata.values()} == {"meta"}


def test_bfloat16_is_close(scene: Path, tmp_path: Path) -> None:
    """The same step with networks in bfloat16: outputs in single precision, gradients everywhere, losses alike."""
    trainer = start(scene, tmp_path, STATIC_STEPS + 1)
    model = model_of(trainer)
    rays, batch = trainer.pipeline.datamanager.next_train(0)
    results: dict[bool | None, dict[str, Tensor]] = {}
    for choice in (False, True, None):
        model.config.bfloat16 = choice
        trainer.optimizers.zero_grad_all()
        seed_everything(5)
        results[choice] = model(rays, batch)["losses"]
        torch.stack(list(results[choice].values())).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name
    full, half = results[False], results[True]
    for name, loss in full.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(loss.item(), rel=0.05, abs=2e-3), name
        assert results[None][name].item() == loss.item(), "on a CPU single precision is the default"
    assert any(half[name].item() != loss.item() for name, loss in full.items())
