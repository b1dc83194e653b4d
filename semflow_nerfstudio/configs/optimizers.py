"""Optimizers."""

from __future__ import annotations

from dataclasses import dataclass

from nerfstudio.engine.optimizers import AdamOptimizerConfig

from semflow_nerfstudio.saved_config import SavedConfig


@dataclass
class FusedAdamConfig(SavedConfig, AdamOptimizerConfig):
    """Adam in one pass over parameters and moments: on a CPU, several times faster on hash tables."""

    fused: bool = True
    """Use torch's fused kernel."""
