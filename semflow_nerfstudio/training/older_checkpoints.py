"""What checkpoints of before lack, and what they say of the networks that wrote them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semflow_nerfstudio.flow.feature_basis import FeatureBasis

ALWAYS_SHARED = "shared.static_network.layers.0.weight"
"""A tensor that all shared networks have."""
State = dict[str, Tensor]
"""A model's or a pipeline's state."""


def has_shared(saved: State) -> bool:
    """Whether a state has shared networks."""
    return any(key.endswith(ALWAYS_SHARED) for key in saved)


def saved_features(saved: State, scenes: Sequence[str]) -> dict[str, Tensor | None]:
    """The frozen features of the scenes' frames; None where the encoder was trained along, or nothing was labelled."""
    prefix = _prefix(saved)
    return {name: saved.get(f"{prefix}scenes.{name}.bank.features") for name in scenes}


def complete_state(saved: State, scenes: Sequence[str], num_classes: int) -> None:
    """Put in what older checkpoints lack.

    Those of before there was calibration have a temperature of one, those of before labels were counted have counted
    none, those of before scenes had one basis of frozen features have none, in those of before scenes had classes of
    their own all classes are theirs.

    Args:
        saved: What was saved, which is completed.
        scenes: The scenes of the model that it is loaded into.
        num_classes: Of that model.
    """
    prefix = _prefix(saved)
    for name in scenes:
        saved.setdefault(f"{prefix}scenes.{name}.own_classes", torch.ones(num_classes, dtype=torch.bool))
    if not has_shared(saved):
        return
    saved.setdefault(f"{prefix}shared.calibration.inverse_temperature", torch.ones(()))
    saved.setdefault(f"{prefix}shared.class_prior.counts", torch.zeros(num_classes))
    if saved_features(saved, scenes)[scenes[0]] is not None:
        for name, empty in FeatureBasis().state_dict().items():
            saved.setdefault(f"{prefix}shared.basis.{name}", empty)


def _prefix(saved: State) -> str:
    """What the model's keys begin with in a pipeline's state, in its own nothing."""
    return next((key.split("scenes.")[0] for key in saved if "scenes." in key), "")
