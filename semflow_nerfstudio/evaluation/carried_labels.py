"""What labels are worth without learned semantics: taken to other views and times with a trained model's geometry.

* carried: labels carried from frame to frame along the given 2-D optical flow, then taken from the frame of the view's
  time to the view with the model's depth;
* warped: the nearest labelled frame, taken to the view with the model's depth as if nothing moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semflow_nerfstudio.data.label_propagation import CarriedLabels, carry_labels, fill_holes
from semflow_nerfstudio.data.scene_assembly import frame_cameras
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Run

DEPTH_TOLERANCE = 0.05
"""A frame's pixel shows a point whose depth differs by at most this share from what the model renders there."""


class LabelCarrying:
    """The two baselines of one scene's run; label images are (H, W) uint8 at the size of training."""

    def __init__(self, run: Run, first: int = 0, count: int | None = None) -> None:
        """Of the training frames `first` to `first + count - 1`, all by default.

        Raises:
            ValueError: none of them has labels.
        """
        self.run = run
        self.dataset: Any = run.pipeline.datamanager.train_dataset
        last = len(self.dataset) if count is None else first + count
        self.frames = range(first, last)
        self.cameras = frame_cameras(self.dataset, first, last)
        self.times = self.dataset.cameras.times[first:last, 0]
        self.labels: list[np.ndarray | None] = [self._own(frame) for frame in self.frames]
        if all(own is None for own in self.labels):
            raise ValueError("no training frame has labels to carry to other views")
        self.complete = self._complete()
        self._depth: dict[int, Tensor] = {}

    def _own(self, frame: int) -> np.ndarray | None:
        if self.dataset.frames[frame].labels is None:
            return None
        return self.dataset.label_image(frame)

    def _complete(self) -> list[np.ndarray]:
        """Every frame's own labels and what the flow brings; holes get the nearest pixel's. Frames that nothing reaches
        get those of the nearest frame in time that has some."""
        record = self.dataset.scenes[self.dataset.frames[self.frames[0]].scene]
        first = self.frames[0]

        def flow(frame: int, forward: bool):
            return self.dataset.read_flow(first + frame, forward)

        carried: list[CarriedLabels] = carry_labels(self.labels, record.next_frame, record.previous_frame, flow)
        merged = [
            frame.labels if own is None else np.where(own != IGNORE_LABEL, own, frame.labels)
            for own, frame in zip(self.labels, carried, strict=True)
        ]
        known = [k for k, labels in enumerate(merged) if (labels != IGNORE_LABEL).any()]
        return [fill_holes(merged[k if k in known else self._nearest(known, k)]) for k in range(len(merged))]

    def _nearest(self, candidates: list[int], frame: int) -> int:
        return min(candidates, key=lambda k: abs(float(self.times[k] - self.times[frame])))

    def carried(self, camera: Cameras, depth: Float[Tensor, "H W 1"]) -> UInt8[np.ndarray, "H W"]:
        """Labels along the 2-D flow, from the frame of the camera's time.

        Args:
            camera: The view, shape (1,).
            depth: The model's distance along its rays, scene units.
        """
        return self._take(self._frame_at(camera, list(range(len(self.frames)))), self.complete, camera, depth)

    def warped(self, camera: Cameras, depth: Float[Tensor, "H W 1"]) -> UInt8[np.ndarray, "H W"]:
        """Labels of the labelled frame that is nearest in time, where nothing moves."""
        labelled = [k for k, own in enumerate(self.labels) if own is not None]
        filled = [np.zeros(0) if own is None else fill_holes(own) for own in self.labels]
        return self._take(self._frame_at(camera, labelled), filled, camera, depth)

    def _frame_at(self, camera: Cameras, candidates: list[int]) -> int:
        assert camera.times is not None
        time = float(camera.times.reshape(-1)[0])
        return min(candidates, key=lambda k: abs(float(self.times[k]) - time))

    def _take(
        self, frame: int, labels: list[np.ndarray], camera: Cameras, depth: Float[Tensor, "H W 1"]
    ) -> UInt8[np.ndarray, "H W"]:
        """A frame's labels at the pixels of a view; what the frame does not see gets the nearest pixel's label."""
        rays = camera.to("cpu").generate_rays(0)
        points = rays.origins + rays.directions * depth.cpu()
        which = torch.full(points.shape[:2], frame)
        pixels, z = self.cameras.project(points, which)
        seen = self.cameras.visible(pixels, z)
        column = pixels[..., 0].nan_to_num().long().clamp(0, self.cameras.width - 1)
        line = pixels[..., 1].nan_to_num().long().clamp(0, self.cameras.height - 1)
        rendered = self._frame_depth(frame)[line, column]
        seen &= (z / rendered.clamp(min=1e-6) - 1).abs() < DEPTH_TOLERANCE
        taken = labels[frame][line.numpy(), column.numpy()]
        return fill_holes(np.where(seen.numpy(), taken, IGNORE_LABEL).astype(np.uint8))

    def _frame_depth(self, frame: int) -> Float[Tensor, "H W"]:
        """Camera z that the model renders for a training frame."""
        if frame not in self._depth:
            camera = self.dataset.cameras[self.frames[frame] : self.frames[frame] + 1]
            distance = self.run.render(camera)["depth"][..., 0]
            ratio = camera.to("cpu").generate_rays(0).metadata["directions_norm"][..., 0]
            self._depth[frame] = distance / ratio
        return self._depth[frame]
