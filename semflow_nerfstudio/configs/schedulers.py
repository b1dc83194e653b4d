"""Learning-rate schedules whose state holds Python floats only, so that plain `torch.load` reads checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from semflow_nerfstudio.saved_config import SavedConfig


@dataclass
class WarmupDecayConfig(SavedConfig, SchedulerConfig):
    """Linear warm-up, then exponential decay to a fraction of the initial rate."""

    _target: type = field(default_factory=lambda: WarmupDecay)
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    final_ratio: float = 0.05
    """Rate at `max_steps` relative to the initial one."""
    max_steps: int | None = None
    """Step at which the final rate is reached; None: the last one of the training (`follow_length`)."""


class WarmupDecay(Scheduler):
    """Schedule of `WarmupDecayConfig`."""

    config: WarmupDecayConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        """The schedule as torch knows it; `lr_init` is already in the optimizer."""
        return LambdaLR(optimizer, lr_lambda=rate_factor(self.config, self.config.max_steps or UNTOLD_STEPS))


UNTOLD_STEPS = 2000
"""Length of a training whose length nobody has told yet."""


def rate_factor(
    config: WarmupDecayConfig, max_steps: int, start: int = 0, boost: float = 1.0
) -> Callable[[int], float]:
    """Step -> learning rate as a share of the initial one.

    A plain function, not an object: torch would save an object's settings with the checkpoint, and a training that goes
    on for longer would keep the old ones.

    Args:
        config: Warm-up and final share.
        max_steps: Step at which the final share is reached.
        start: Step from which the schedule runs; before, the rate is that of its first step.
        boost: What all rates are multiplied by.
    """

    def factor(step: int) -> float:
        done = max(0, step - start)
        if done < config.warmup_steps:
            return boost * (done + 1) / (config.warmup_steps + 1)
        progress = (done - config.warmup_steps) / max(1, max_steps - start - config.warmup_steps)
        return boost * float(config.final_ratio ** min(1.0, progress))

    factor.config = config  # type: ignore[attr-defined]
    return factor


def follow_length(scheduler: LRScheduler, max_steps: int, start: int = 0, boost: float = 1.0) -> None:
    """Tell a schedule that names no last step of its own how long the training is, from which step it runs, and how
    much faster than by itself."""
    factors = getattr(scheduler, "lr_lambdas", [])
    for i, factor in enumerate(factors):
        config = getattr(factor, "config", None)
        if isinstance(config, WarmupDecayConfig) and config.max_steps is None:
            factors[i] = rate_factor(config, max_steps, start, boost)
