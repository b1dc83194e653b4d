"""Silhouettes: where a mover is along a ray must land on its own class in the frames before and after."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semflow_nerfstudio.rendered import Rendered
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.training.losses import silhouette_loss
from semflow_nerfstudio.training.observed import Observed


class Silhouettes:
    """Label images of the training frames, for the scenes that were given some."""

    def __init__(self, labels: Mapping[str, UInt8[Tensor, "N H W"]] | None) -> None:
        """`labels` by scene: one image a frame, 255 where nothing is labelled."""
        self.labels = dict(labels or {})

    def loss(self, scene: Scene, out: Rendered, seen: Observed, step: int) -> Float[Tensor, ""] | None:
        """The loss of moving, labelled rays for the frames `step` (+1 or -1) away; None where there is nothing to say.

        With several cameras a time the first one's frame is asked.
        """
        flow = out.flow
        if scene.name not in self.labels or flow is None or seen.labels is None:
            return None
        labels = self.labels[scene.name] = self.labels[scene.name].to(scene.device)
        bank, column = scene.bank, flow.window.center + step
        frame = bank.views[flow.window.index[:, column], 0][:, None].expand(flow.points.shape[:2])
        cameras = bank.cameras.scaled_to(labels.shape[2], labels.shape[1])
        pixels, depth = cameras.project(flow.trajectories[:, :, column].detach(), frame)
        u, v = (pixels[..., axis].long().clamp(0, size - 1) for axis, size in ((0, cameras.width), (1, cameras.height)))
        there = torch.where(cameras.visible(pixels, depth), labels[frame, v, u], IGNORE_LABEL)
        live = seen.moving[flow.rays] & flow.exists(step)
        return silhouette_loss(flow.weights, seen.labels[flow.rays], there, live)
