"""Learning-rate schedules whose state holds Python floats only, so that plain `torch.load` reads checkpoints."""

from __future__ import annotations

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
    max_steps: int = 1500
    """Step at which the final rate is reached."""


class WarmupDecay(Scheduler):
    """Schedule of `WarmupDecayConfig`."""

    config: WarmupDecayConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        """The schedule as torch knows it; `lr_init` is already in the optimizer."""
        config = self.config

        def factor(step: int) -> float:
            if step < config.warmup_steps:
                return (step + 1) / (config.warmup_steps + 1)
            progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
            return float(config.final_ratio ** min(1.0, progress))

        return LambdaLR(optimizer, lr_lambda=factor)
