"""Deliberate damage to training data, seeded, to measure how much a method depends on their quality."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import gaussian_filter

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.records import FrameRecord
from semflow_nerfstudio.data.resize import resize_nearest
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

Modality = Literal["flow", "disparity", "depth", "motion_mask", "labels"]
SMOOTH_SHARE = 0.05
"""Size of the blobs of smooth flow errors, as a share of the image width."""
LABEL_BLOCKS = 30
"""Wrong labels come in squares, so many of which lie side by side over the image's width."""
CONSISTENT = 1.5
"""Pixels of a 480-wide image by which DIS flow forward and back may miss its start."""


@dataclass(frozen=True)
class CorruptionConfig(SavedConfig):
    """Damage done to the training data; nothing by default."""

    seed: int = 0
    """Seed of all that is random."""
    drop: tuple[Modality, ...] = ()
    """Modalities that are taken away from all frames."""
    flow_source: Literal["given", "dis"] = "given"
    """dis: where there is flow, OpenCV's DIS flow of the same two images in its place."""
    flow_noise: float = 0.0
    """Error added to the flow: its standard deviation as a share of the frame's root mean square flow (0.1: 10 %)."""
    flow_noise_kind: Literal["sudden", "smooth"] = "sudden"
    """sudden: every pixel errs on its own. smooth: errors are blobs of a twentieth of the image's width."""
    flow_masks: bool = True
    """Off: all flow counts as valid, occluded or not."""
    wrong_labels: float = 0.0
    """Share of the labelled area that gets the label of another class of the same frame, in squares of a thirtieth of
    the image's width."""
    label_scale: float = 1.0
    """Resolution of the label images relative to the others (0.25: a quarter)."""

    def check(self) -> None:
        """Raise SceneDataError where a value makes no sense."""
        if self.flow_noise < 0 or not 0 <= self.wrong_labels <= 1 or not 0 < self.label_scale <= 1:
            raise SceneDataError(
                "corruption: flow-noise is 0 or more, wrong-labels from 0 to 1, label-scale above 0 and at most 1, but "
                f"they are {self.flow_noise:g}, {self.wrong_labels:g} and {self.label_scale:g}."
            )

    @property
    def nothing(self) -> bool:
        """Whether the data stay as they are."""
        return self == CorruptionConfig(seed=self.seed)

    def keep(self, record: FrameRecord) -> FrameRecord:
        """The record without the modalities that are dropped."""
        dropped = set(self.drop)
        names = {"flow_forward", "flow_backward"} if "flow" in dropped else set()
        names |= dropped - {"flow"}
        return replace(record, **{name: None for name in names})

    def flow(
        self,
        frame: int,
        forward: bool,
        flow: Float[np.ndarray, "H W 2"],
        valid: Bool[np.ndarray, "H W"],
    ) -> tuple[Float[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]:
        """A frame's flow with noise and masks as asked for; the same for every call with the same frame."""
        if self.flow_noise > 0 and valid.any():
            rng = np.random.default_rng([self.seed, 1, frame, int(forward)])
            noise = rng.standard_normal(flow.shape)
            if self.flow_noise_kind == "smooth":
                size = SMOOTH_SHARE * flow.shape[1]
                noise = gaussian_filter(noise, (size, size, 0))
                noise /= max(float(noise.std()), 1e-12)
            length = float(np.sqrt((flow[valid] ** 2).sum(-1).mean()))
            # each of two components has half of the squared error
            flow = flow + self.flow_noise * length / np.sqrt(2) * noise
        return flow.astype(np.float32), valid if self.flow_masks else np.ones_like(valid)

    def labels(self, frame: int, labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        """A frame's labels, coarser and partly wrong as asked for; unlabelled pixels stay unlabelled."""
        height, width = labels.shape
        if self.label_scale < 1:
            small = max(1, round(width * self.label_scale)), max(1, round(height * self.label_scale))
            labels = resize_nearest(resize_nearest(labels, *small), width, height)
        classes = np.unique(labels[labels != IGNORE_LABEL])
        if self.wrong_labels == 0 or len(classes) < 2:
            return labels
        rng = np.random.default_rng([self.seed, 2, frame])
        side = max(1, round(width / LABEL_BLOCKS))
        rows, columns = -(-height // side), -(-width // side)
        block = np.arange(height)[:, None] // side * columns + np.arange(width)[None] // side
        known = labels != IGNORE_LABEL
        area = np.bincount(block[known], minlength=rows * columns)
        order = rng.permutation(rows * columns)
        total = np.cumsum(area[order])
        # the number of squares whose area comes nearest to the share
        wrong = np.zeros(rows * columns, bool)
        wrong[order[: int(np.abs(total - self.wrong_labels * total[-1]).argmin()) + 1]] = True
        # another class: 1 to C - 1 places further in the list of the frame's classes
        shift = rng.integers(1, len(classes), rows * columns)
        place = np.searchsorted(classes, np.where(known, labels, classes[0]))
        other = classes[(place + shift[block]) % len(classes)]
        return np.where(known & wrong[block], other, labels).astype(np.uint8)


def dis_flow(
    here: UInt8[np.ndarray, "H W 3"], there: UInt8[np.ndarray, "H W 3"]
) -> tuple[Float[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]:
    """OpenCV's DIS flow between two images, in pixels, and where forward and back agree.

    Raises:
        SceneDataError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise SceneDataError("corruption.flow-source is dis, which needs OpenCV: pip install opencv-python.") from error
    grey = [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (here, there)]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    forward, back = method.calc(grey[0], grey[1], None), method.calc(grey[1], grey[0], None)
    height, width = grey[0].shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    end_columns, end_rows = columns + forward[..., 0], rows + forward[..., 1]
    outside = (1e4, 1e4, 1e4, 1e4)  # never consistent
    returned = cv2.remap(back, end_columns, end_rows, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, outside)
    miss = np.linalg.norm(forward + returned, axis=-1)
    return forward, miss < max(CONSISTENT * width / 480, 0.5)
