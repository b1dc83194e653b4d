"""Feature maps of a clip's frames over training: all of them for short clips, few at a time for long ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from semflow_nerfstudio.flow.frame_bank import FrameBank

CHUNK = 16
"""Frames of a long clip that are encoded at once where no gradient is wanted."""

Encode = Callable[[FrameBank, Int[Tensor, "n"] | None], Float[Tensor, "n h w C"]]
"""(bank, frames) -> feature maps of these frames, of all for None."""


@dataclass
class PartlyFresh:
    """Maps of all frames as they were when last encoded, and of some of them as they are now, with gradient."""

    kept: Float[Tensor, "F h w C"]
    """In half precision: a long clip's maps are most of what it needs."""
    fresh: Float[Tensor, "n h w C"]
    slot: Int[Tensor, "F"]
    """Where a frame is in `fresh`; -1 where it is not."""


Maps = Float[Tensor, "F h w C"] | PartlyFresh
"""Feature maps, channels last."""


class FeatureCache:
    """The maps of one scene's frames.

    Training encodes `most` frames at a time, those that the step's rays read most, and takes the others from memory.
    So a step costs the same whatever the number of frames, and clips of up to `most` frames are encoded as a whole.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: Tensor | None = None
        self._version: tuple[int, ...] | None = None

    def update(
        self, encode: Encode, bank: FrameBank, times: Float[Tensor, "R 1"], offsets: Iterable[int], pooled: Tensor
    ) -> Maps:
        """Fresh maps with gradient, of all frames or of those that these rays read.

        Args:
            encode: Encodes frames of the bank.
            bank: The frames.
            times: Of the rays, in [0, 1].
            offsets: Frame times that a ray reads, counted from its own.
            pooled: Frames that all rays read.
        """
        if len(bank.images) <= self.most:
            maps = encode(bank, None)
            self._kept, self._version = maps.detach(), None
            return maps
        if self._kept is None:
            self._kept = encode_all(encode, bank)
        frames = most_read(bank, times, offsets, pooled, self.most)
        fresh = encode(bank, frames)
        self._kept.index_copy_(0, frames, fresh.detach().to(self._kept.dtype))
        self._version = None
        slot = torch.full((len(bank.images),), -1, device=frames.device)
        return PartlyFresh(self._kept, fresh, slot.index_copy(0, frames, torch.arange(self.most, device=frames.device)))

    def kept(self, encode: Encode, bank: FrameBank, version: tuple[int, ...] | None) -> Maps:
        """Maps without gradient: with a version, those of that version of the encoder, else the ones at hand."""
        if self._kept is None or (version is not None and self._version != version):
            with torch.no_grad():
                short = len(bank.images) <= self.most
                self._kept, self._version = encode(bank, None) if short else encode_all(encode, bank), version
        return self._kept


@torch.no_grad()
def encode_all(encode: Encode, bank: FrameBank) -> Float[Tensor, "F h w C"]:
    """Maps of all frames in half precision, some at a time: an encoder's inner layers need much memory."""
    frames = torch.arange(len(bank.images), device=bank.images.device)
    maps: Tensor | None = None
    for part in frames.split(CHUNK):
        made = encode(bank, part)
        if maps is None:
            maps = made.new_empty(len(frames), *made.shape[1:], dtype=torch.float16)
        maps[part[0] : part[-1] + 1] = made
    assert maps is not None
    return maps


def most_read(
    bank: FrameBank, times: Float[Tensor, "R 1"], offsets: Iterable[int], pooled: Int[Tensor, "p"], count: int
) -> Int[Tensor, "n"]:
    """The `count` frames that most rays read, ties at random; a fixed number, so that nothing waits for the device."""
    timeline = bank.timeline
    at = timeline.index(times[:, 0]).round().long()
    readers = torch.zeros(len(timeline), device=times.device)
    for offset in offsets:
        there = at + offset
        exists = (there >= 0) & (there < len(timeline))
        readers = readers.index_add(0, there.clamp(0, len(timeline) - 1), exists.to(readers))
    per_frame = readers[timeline.index(bank.frame_times).round().long()]
    per_frame = per_frame.index_add(0, pooled, torch.full_like(pooled, len(times), dtype=per_frame.dtype))
    return (per_frame + torch.rand_like(per_frame)).topk(count).indices
