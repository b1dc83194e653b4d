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


OFF = {
    "labels": "semantics",
    "optical flow": "the losses of optical flow",
    "motion masks": "given motion masks (they are derived where there is flow)",
    "disparity or depth": "the losses of depth",
}
"""What training goes without where a scene has none of something."""


def report_modalities(scene: str, records: Sequence[FrameRecord], flows: int) -> None:
    """Say which files training frames lack, and what that switches off.

    Args:
        scene: Its name, for people.
        records: Of its training frames.
        flows: How many forward and backward flows there could be.
    """
    have = Counter(
        name for record in records for name, value in vars(record).items() if name != "scene" and value is not None
    )
    geometry = sum(record.disparity is not None or record.depth is not None for record in records)
    counts = {
        "labels": (have["labels"], len(records)),
        "optical flow": (have["flow_forward"] + have["flow_backward"], flows),
        "motion masks": (have["motion_mask"], len(records)),
        "disparity or depth": (geometry, len(records)),
    }
    lacking = [
        f"no {name}" if count == 0 else f"{name} on {count} of {total}"
        for name, (count, total) in counts.items()
        if count < total
    ]
    off = [OFF[name] for name, (count, _) in counts.items() if count == 0]
    if lacking:
        said = f"{scene} has {', '.join(lacking)} for its training frames"
        say(f"{said}; off: {', '.join(off)}." if off else f"{said}; the rest is learned without them.")
