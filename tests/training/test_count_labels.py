"""Which labels the calibration and the class prior learn from."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.scene_objective import count_labels
from semflow_nerfstudio.training.calibration import Calibration
from semflow_nerfstudio.training.class_prior import ClassPrior

LOGITS = torch.tensor([[2.0, 0.0], [0.5, 0.0], [0.0, 3.0], [1.0, 0.0]])
LABELS = torch.tensor([0, 1, 1, 0], dtype=torch.uint8)


def counted(static_stage: bool = False, **seen: Any) -> tuple[float, list[float]]:
    """The temperature's inverse and the classes' counts after one batch."""
    scene: Any = SimpleNamespace(among_own=lambda logits: logits)
    shared: Any = SimpleNamespace(calibration=Calibration(), class_prior=ClassPrior(2))
    part: Any = SimpleNamespace(rendered=SimpleNamespace(logits=LOGITS))
    known = {"labels": LABELS, "motion": None, "label_weight": None} | seen
    stage: Any = SimpleNamespace(static=static_stage)
    count_labels(scene, shared, part, SimpleNamespace(**known), stage)  # type: ignore[arg-type]
    return shared.calibration.inverse_temperature.item(), shared.class_prior.counts.tolist()


def calibrated(rows: list[int]) -> float:
    alone = Calibration()
    alone.update(LOGITS, torch.where(torch.isin(torch.arange(4), torch.tensor(rows)), LABELS, IGNORE_LABEL))
    return alone.inverse_temperature.item()


def test_only_what_is_taught_with_full_weight_counts() -> None:
    carried = torch.tensor([1.0, 0.5, 1.0, 0.0])
    assert counted()[0] == calibrated([0, 1, 2, 3])
    assert counted(label_weight=carried) == (pytest.approx(calibrated([0, 2])), [1, 1])
    motion, static = torch.tensor([1, 0, 0, 0]), torch.tensor([False, True, True, True])
    assert counted(static_stage=True, motion=motion, static=static)[1] == [1, 2]
    assert counted(static_stage=False, motion=motion, static=static)[1] == [2, 2]
