"""What both dataparsers hand out and print in the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import Semantics
from nerfstudio.utils.rich_utils import CONSOLE

from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.data.records import FrameRecord


def say(sentence: str) -> None:
    """Print to nerfstudio's console, brackets in paths unharmed."""
    CONSOLE.print(sentence, markup=False, highlight=False, soft_wrap=True)


def make_semantics(classes: ClassTable, records: Sequence[FrameRecord]) -> Semantics:
    """nerfstudio's description of the classes; its file names are given where every frame has a label file."""
    files = [record.labels for record in records if record.labels is not None]
    return Semantics(
        filenames=files if len(files) == len(records) else [],
        classes=list(classes.names),
        colors=torch.from_numpy(classes.colors.astype(np.float32) / 255),
        mask_classes=[],
    )


def report_modalities(scene: str, records: Sequence[FrameRecord], flows: int) -> None:
    """Say which files training frames lack; `flows` is how many forward and backward flows there could be."""
    have = Counter(
        name for record in records for name, value in vars(record).items() if name != "scene" and value is not None
    )
    counts = {
        "labels": (have["labels"], len(records)),
        "optical flow": (have["flow_forward"] + have["flow_backward"], flows),
        "motion masks": (have["motion_mask"], len(records)),
        "disparity or depth": (have["disparity"] + have["depth"], len(records)),
    }
    lacking = [
        f"no {name}" if count == 0 else f"{name} on {count} of {total}"
        for name, (count, total) in counts.items()
        if count < total
    ]
    if lacking:
        say(f"{scene} has {', '.join(lacking)} for its training frames.")
