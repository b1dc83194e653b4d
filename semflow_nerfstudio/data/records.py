"""What the dataparsers tell the dataset about every frame and every scene: plain values and paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from torch import nn

from semflow_nerfstudio.data.labels import ClassTable


def scene_key(name: str) -> str:
    """A scene's name as an identifier that can be a key of an nn.ModuleDict."""
    key = re.sub(r"\W", "_", name, flags=re.ASCII)
    return key if key.isidentifier() and not hasattr(nn.ModuleDict, key) else f"scene_{key}"


@dataclass
class FrameRecord:
    """Files of one frame beside its image; None where there is none."""

    scene: int = 0
    """Index into the list of scenes."""
    labels: Path | None = None
    scribbles: float | None = None
    """Share of the labelled pixels that may be used, as simulated scribbles; None: all."""
    flow_forward: Path | None = None
    """Optical flow to this camera's frame at the next time of the clip."""
    flow_backward: Path | None = None
    """Optical flow to this camera's frame at the previous time of the clip."""
    motion_mask: Path | None = None
    disparity: Path | None = None
    """Relative inverse depth, of unknown scale and shift."""
    depth: Path | None = None
    """Camera z."""
    mask: Path | None = None
    """Which pixels count at all (nerfstudio's `mask_path`)."""


@dataclass
class SceneRecord:
    """One scene in a dataset. N counts its frames in this dataset (one split), T its times over all splits."""

    name: str
    """Made by `scene_key`."""
    classes: ClassTable | None
    """The table that its label files are written in, None where there is none. Batches hold the ids of the whole data
    set's table, which may be larger (`SemFlowDataset.table`)."""
    distinct_times: Float32[np.ndarray, "T"]
    """Sorted, in [0, 1], of all splits before anything is held out."""
    next_frame: Int64[np.ndarray, "N"]
    """Index among the *training* frames of where a frame's forward flow leads, -1 where that is none of them."""
    previous_frame: Int64[np.ndarray, "N"]
    """Likewise for backward flow."""
    camera: Int64[np.ndarray, "N"] | None = None
    """Number of the camera that took a frame, which frames of one time differ in; None: not known, or one camera."""
    near: float | None = None
    """Distance along the ray, in scene units, in front of which no camera sees anything."""
    far: float | None = None
    """Distance along the ray, in scene units, behind which no camera sees anything."""
    bounded: bool | None = None
    """Whether all that the cameras see between near and far lies in the scene box; None: not known."""
    box: Float32[np.ndarray, "2 3"] | None = None
    """Corners of its scene box in scene units; None: the data set's."""
    transform: Float32[np.ndarray, "3 4"] | None = None
    """World to its unscaled scene frame; None: the data set's."""
    scale: float | None = None
    """Its scene units per world unit; None: the data set's."""
    depth_unit: float | None = None
    """World units per unit of its depth files; None: the data set's."""
    frame_range: tuple[int, int] = (0, 0)
    """First and one past the last index of its frames in the dataset."""
