"""Optimizers."""

from __future__ import annotations

from dataclasses import dataclass

from nerfstudio.engine.optimizers import AdamOptimizerConfig


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam in one pass over parameters and moments: on a CPU, several times faster on hash tables."""

    fused: bool = True
    """Use torch's fused kernel."""
