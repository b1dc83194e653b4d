"""Holds a data set's frames in memory for sampling pixels from them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from jaxtyping import UInt8
from rich.progress import track
from torch import Tensor

from semflow_nerfstudio.data.dataset import SemFlowDataset

_READERS = 2


class FrameCache:
    """Endless iterator over batches of whole frames, as nerfstudio's `CacheDataloader`.

    Other than that one it fills one preallocated tensor per key (nothing is ever held twice), keeps images in 8 bits
    and reads nothing before the first batch is asked for.

    Args:
        dataset: the frames.
        num_frames: how many random frames a batch has; -1 for all, in order.
        num_repeats: after how many batches other frames are read; -1 for never.
        device: where keys outside `cpu_keys` are kept.
        cpu_keys: keys that stay in host memory.
        unused: keys that are not kept at all.
    """

    def __init__(
        self,
        dataset: SemFlowDataset,
        num_frames: int = -1,
        num_repeats: int = -1,
        device: torch.device | str = "cpu",
        cpu_keys: Sequence[str] = (),
        unused: Sequence[str] = (),
    ) -> None:
        self.dataset = dataset
        self.num_frames = len(dataset) if num_frames == -1 else min(num_frames, len(dataset))
        self.num_repeats = num_repeats
        self.device = device
        self.cpu_keys, self.unused = frozenset(cpu_keys), frozenset(unused)
        self._batch: dict[str, Any] | None = None
        self._served = 0

    def preload(self) -> None:
        """Read the first batch now."""
        if self._batch is None:
            self._batch = self._load()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield self.batch()

    def batch(self) -> dict[str, Any]:
        """The present batch: keys with (N, H, W, k) tensors, lists of (H, W, k) where frames differ in size, and
        `image_idx` (N,)."""
        exhausted = self.num_repeats != -1 and self._served >= max(self.num_repeats, 1)
        if self._batch is None or (exhausted and self.num_frames < len(self.dataset)):
            self._batch = None  # freed before its successor is read
            self._served = 0
            self.preload()
        self._served += 1
        assert self._batch is not None
        return self._batch

    def all_images(self) -> UInt8[Tensor, "N H W 3"] | None:
        """Images of all frames of the data set, where they have been read already and are in host memory."""
        images = None if self._batch is None else self._batch["image"]
        whole = self.num_frames == len(self.dataset) and not self.dataset.mask_color
        return images if whole and isinstance(images, Tensor) and images.device.type == "cpu" else None

    def _load(self) -> dict[str, Any]:
        indices = sorted(random.sample(range(len(self.dataset)), self.num_frames))
        same_size = len({self.dataset.size(index) for index in indices}) == 1
        batch: dict[str, Any] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            items = pool.map(partial(self.dataset.get_data, image_type="uint8"), indices)
            for slot, item in enumerate(track(items, "Reading frames", total=len(indices), transient=True)):
                for key, value in item.items():
                    if isinstance(value, Tensor) and key not in self.unused:
                        self._store(batch, key, slot, value, same_size)
        batch["image_idx"] = torch.tensor(indices)
        return batch

    def _store(self, batch: dict[str, Any], key: str, slot: int, value: Tensor, same_size: bool) -> None:
        device = "cpu" if key in self.cpu_keys else self.device
        if not same_size:
            batch.setdefault(key, []).append(value.to(device))
            return
        if key not in batch:
            batch[key] = torch.empty((self.num_frames, *value.shape), dtype=value.dtype, device=device)
        batch[key][slot] = value
