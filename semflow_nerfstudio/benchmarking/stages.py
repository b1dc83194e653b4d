"""Where the time of a training step goes: timers around its stages, each without what it calls of others."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from nerfstudio.engine.trainer import Trainer

from semflow_nerfstudio import renderer
from semflow_nerfstudio.model import SemanticFlowModel
from semflow_nerfstudio.training import objective

REST = "rest"
"""What no stage accounts for."""


class StageTimer:
    """Seconds of nested stages: while an inner stage runs, the outer one's clock stands still."""

    def __init__(self, synchronize: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronize = synchronize
        self._stack: list[str] = []
        self._since = 0.0

    def _switch(self) -> None:
        self._synchronize()
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Account what runs inside to a stage."""
        self._switch()
        self._stack.append(name)
        try:
            yield
        finally:
            self._switch()
            self._stack.pop()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, accounted to a stage."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return timed


def stages_of(trainer: Trainer) -> list[tuple[Any, str, str]]:
    """(object, attribute, stage) of everything that a training step calls and that is timed."""
    model, manager = trainer.pipeline.model, trainer.pipeline.datamanager
    assert isinstance(model, SemanticFlowModel)
    calls: list[tuple[Any, str, str]] = [
        (manager, "next_train", "drawing rays"),
        (renderer, "trace", "flow and trajectories"),
        (objective, "integrate", "flow and trajectories"),
        (renderer, "static_semantics", "semantics"),
        (renderer, "flow_semantics", "semantics"),
        (model, "feature_maps", "semantics"),
        (model, "render_scene", "compositing"),
        (model, "get_loss_dict", "losses"),
        (model, "get_metrics_dict", "losses"),
        (torch.Tensor, "backward", "backward"),
    ]
    for sampler in model.samplers.values():
        calls.append((sampler, "forward", "sampling"))
    for name in model.scenes:
        scene = model.scene(name)
        calls += [(scene, "static", "static field"), (scene, "dynamic", "dynamic field")]
    optimizers = trainer.optimizers
    calls += [
        (optimizers, name, "optimizer")
        for name in ("zero_grad_some", "optimizer_scaler_step_some", "scheduler_step_all")
    ]
    return calls


@contextmanager
def timed_stages(trainer: Trainer, synchronize: Callable[[], None] = lambda: None) -> Iterator[StageTimer]:
    """Time the stages of the training steps that run inside."""
    timer = StageTimer(synchronize)
    with ExitStack() as stack:
        for owner, attribute, stage in stages_of(trainer):
            replacement = timer.around(stage, getattr(owner, attribute))
            stack.enter_context(patch.object(owner, attribute, replacement))
        with timer.stage(REST):
            yield timer


def slowest_operators(run: Callable[[], object], count: int = 12) -> list[dict[str, Any]]:
    """The operators that take most of the host's time, with their share of all."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    averages = sorted(profile.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in averages)
    return [
        {"operator": event.key, "share": round(event.self_cpu_time_total / total, 4), "calls": event.count}
        for event in averages[:count]
    ]
