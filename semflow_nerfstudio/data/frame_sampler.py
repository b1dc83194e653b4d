"""Draws training pixels from a few frames at a time, more of them where something moves or few labels are.

Scenes get equal shares of the rays, however many frames each has.

Rays that come in groups from few frames allow statistics per frame (depth normalisation) and keep the frames whose
features have to be looked up few.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from torch import Tensor

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


@dataclass
class SemFlowPixelSamplerConfig(SavedConfig, PixelSamplerConfig):
    """Configuration of `SemFlowPixelSampler`."""

    _target: type = field(default_factory=lambda: SemFlowPixelSampler)
    """Target class to instantiate."""
    frames_per_batch: int | None = 8
    """From how many frames one batch is drawn; None for all of them."""
    min_rays_per_frame: int = 64
    """Fewer frames than `frames_per_batch` are used where a frame would get fewer rays than this."""
    dynamic_fraction: float = 0.0
    """Share of a frame's rays that are drawn from its moving pixels; the others are drawn uniformly."""
    labelled_fraction: float = 0.3
    """Share of a frame's rays that are drawn from its labelled pixels where few of them are labelled (scribbles)."""
    few_labels: float = 0.15
    """Frames with a smaller share of labelled pixels have few."""


@dataclass
class PixelPool:
    """Pixels of N frames that satisfy a condition, as flat indices (row * width + column) grouped by frame."""

    pixels: Int[Tensor, "P"]
    start: Int[Tensor, "N"]
    count: Int[Tensor, "N"]

    @classmethod
    def of(cls, masks: list[Bool[Tensor, "H W"]]) -> PixelPool:
        """Collect the true pixels of one mask per frame; the masks may differ in size."""
        pixels = [mask.flatten().nonzero()[:, 0].to(torch.int32).cpu() for mask in masks]
        count = torch.tensor([len(frame) for frame in pixels])
        return cls(pixels=torch.cat(pixels), start=count.cumsum(0) - count, count=count)

    def draw(self, frame: Int[Tensor, "R"]) -> Int[Tensor, "R"]:
        """One random pixel of each given frame; every frame must have one."""
        offset = (torch.rand(frame.shape, dtype=torch.float64) * self.count[frame]).long()
        return self.pixels[self.start[frame] + offset].long()


class SemFlowPixelSampler(PixelSampler):
    """Samples groups of rays from `frames_per_batch` random frames.

    Pixels outside nerfstudio's `mask` are never drawn (unless `ignore_mask`). Panoramic and fisheye cameras, whose
    pixels are not equally likely, keep nerfstudio's own sampling.
    """

    config: SemFlowPixelSamplerConfig

    def __init__(self, config: SemFlowPixelSamplerConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self._pooled_images: Any = None
        self._sizes = torch.zeros((0, 2), dtype=torch.int64)
        self._valid: PixelPool | None = None
        self._moving: PixelPool | None = None
        self._labelled: PixelPool | None = None
        self._scene_of_image = torch.zeros(0, dtype=torch.int64)
        self.scene_of_frame: Int[Tensor, "F"] | None = None
        """Scene of every frame of the dataset, set by the datamanager; None: all of one."""

    def sample(self, image_batch: dict[str, Any]) -> dict[str, Any]:
        """Draw one batch.

        Args:
            image_batch: collated frames: each key is an (N, H, W, k) tensor, or a list of N (H, W, k) tensors where
                frames differ in size; `image_idx` (N,) holds their indices in the dataset.

        Returns:
            Every key at the R drawn pixels, (R, k), rays of one frame beside each other, and `indices` (R, 3):
            frame in the dataset, row, column.
        """
        if self.config.is_equirectangular or self.config.fisheye_crop_radius is not None:
            return super().sample(image_batch)
        images = image_batch["image"]
        if self._pooled_images is not images:
            self._collect_pools(image_batch)
            self._pooled_images = images
        frame = self._draw_frames(len(images))
        pixel = self._draw_pixels(frame)
        width = self._sizes[frame, 1]
        row, column = pixel // width, pixel % width
        batch = {
            key: _gather(value, frame, row, column)
            for key, value in image_batch.items()
            if key != "image_idx" and value is not None
        }
        batch["indices"] = torch.stack([image_batch["image_idx"].cpu()[frame], row, column], dim=-1)
        if self.config.keep_full_image:
            batch["full_image"] = images
        return batch

    def _collect_pools(self, image_batch: dict[str, Any]) -> None:
        self._sizes = torch.tensor([image.shape[:2] for image in image_batch["image"]])
        frames = image_batch["image_idx"].cpu()
        self._scene_of_image = torch.zeros_like(frames) if self.scene_of_frame is None else self.scene_of_frame[frames]
        mask = None if self.config.ignore_mask else image_batch.get("mask")
        motion = image_batch.get("motion_mask")
        self._valid = None if mask is None else PixelPool.of([frame[..., 0].bool() for frame in mask])
        if self._valid is not None and not self._valid.pixels.numel():
            raise SceneDataError("the masks of the data set leave no pixel to train on: set some pixels to non-zero.")
        self._moving = None
        if self.config.dynamic_fraction > 0 and motion is not None:
            moving = [frame[..., 0] == 1 for frame in motion]
            if mask is not None:
                moving = [frame & valid[..., 0].bool() for frame, valid in zip(moving, mask, strict=True)]
            self._moving = PixelPool.of(moving)

        self._labelled = self._sparse_labels(image_batch)

    def _sparse_labels(self, image_batch: dict[str, Any]) -> PixelPool | None:
        """The labelled pixels of frames with few of them; None where no frame is such."""
        labels, mask = image_batch.get("labels"), None if self.config.ignore_mask else image_batch.get("mask")
        if labels is None or self.config.labelled_fraction <= 0:
            return None
        labelled = [frame[..., 0] != IGNORE_LABEL for frame in labels]
        if mask is not None:
            labelled = [frame & valid[..., 0].bool() for frame, valid in zip(labelled, mask, strict=True)]
        few = [bool(frame.any()) and float(frame.float().mean()) < self.config.few_labels for frame in labelled]
        if not any(few):
            return None
        return PixelPool.of([frame & sparse for frame, sparse in zip(labelled, few, strict=True)])

    def _draw_frames(self, num_frames: int) -> Int[Tensor, "R"]:
        """Frame of each ray: equal numbers of rays for every scene and, in it, for every chosen frame, up to one."""
        rays = self.num_rays_per_batch
        usable = torch.arange(num_frames) if self._valid is None else self._valid.count.nonzero()[:, 0]
        chosen = self.config.frames_per_batch or num_frames
        chosen = min(chosen, len(usable), max(rays // self.config.min_rays_per_frame, 1))
        scene = self._scene_of_image[usable]
        present = scene.unique()
        if len(present) > 1:
            present = present[torch.randperm(len(present))[:chosen]]  # in random order, so that remainders go round
        drawn = []
        for index, ray_share in enumerate(_shares(rays, len(present))):
            frames = usable[scene == present[index]]
            frames = frames[torch.randperm(len(frames))[: _shares(chosen, len(present))[index]]]
            drawn.append(frames[torch.arange(ray_share) * len(frames) // ray_share])
        return torch.cat(drawn)

    def _draw_pixels(self, frame: Int[Tensor, "R"]) -> Int[Tensor, "R"]:
        if self._valid is None:
            area = self._sizes.prod(-1)[frame]
            pixel = (torch.rand(frame.shape, dtype=torch.float64) * area).long()
        else:
            pixel = self._valid.draw(frame)
        if self._moving is not None:
            dynamic = (torch.rand(frame.shape) < self.config.dynamic_fraction) & (self._moving.count[frame] > 0)
            pixel[dynamic] = self._moving.draw(frame[dynamic])
        if self._labelled is not None:
            chosen = (torch.rand(frame.shape) < self.config.labelled_fraction) & (self._labelled.count[frame] > 0)
            pixel[chosen] = self._labelled.draw(frame[chosen])
        return pixel


def _shares(total: int, parts: int) -> list[int]:
    """`total` in equal shares, up to one."""
    return [(part + 1) * total // parts - part * total // parts for part in range(parts)]


def _gather(
    values: Tensor | list[Tensor], frame: Int[Tensor, "R"], row: Int[Tensor, "R"], column: Int[Tensor, "R"]
) -> Tensor:
    if isinstance(values, Tensor):
        return values[frame.to(values.device), row.to(values.device), column.to(values.device)]
    frames, counts = frame.unique_consecutive(return_counts=True)
    groups = zip(frames.tolist(), row.split(counts.tolist()), column.split(counts.tolist()), strict=True)
    return torch.cat([values[i][rows, columns] for i, rows, columns in groups])
