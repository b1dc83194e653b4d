"""The video's frames as the flows see them: images, cameras and times of one scene."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.flow.timeline import Timeline
from semflow_nerfstudio.flow.view_choice import spread_views
from semflow_nerfstudio.scene_frames import SceneFrames


class FrameBank(nn.Module):
    """Frames of a scene, kept in the checkpoint so that rendering needs no data set.

    `views` lists, for every distinct time of the frames, the frames taken at that time (padded with -1). `features`
    (N, h, w, C), float16, are there where a frozen encoder has made them.
    """

    images: Tensor
    camera_to_worlds: Tensor
    intrinsics: Tensor
    distortion: Tensor
    frame_times: Tensor
    views: Tensor

    def __init__(self, frames: SceneFrames, max_width: int) -> None:
        """Keep the frames at their own size, or shrunk (by area) to `max_width`."""
        super().__init__()
        images, cameras = frames.images, frames.cameras
        ratio = min(1.0, max_width / cameras.width)
        width, height = max(1, round(cameras.width * ratio)), max(1, round(cameras.height * ratio))
        if (images.shape[1], images.shape[2]) != (height, width):
            # One by one: a clip's frames as float32 at full size can be gigabytes.
            images = torch.stack([_shrink(image, width, height) for image in images])
        cameras = cameras.scaled_to(width, height)
        # Not copied where they are kept at their own size: a long clip's frames are hundreds of megabytes.
        self.register_buffer("images", images.contiguous())
        self.register_buffer("camera_to_worlds", cameras.camera_to_worlds.clone())
        self.register_buffer("intrinsics", cameras.intrinsics.clone())
        distortion = torch.zeros(len(cameras), 0) if cameras.distortion is None else cameras.distortion.clone()
        self.register_buffer("distortion", distortion)
        self.register_buffer("frame_times", frames.times.clone().float())
        self.features: Tensor | None
        self.register_buffer("features", None if frames.features is None else frames.features.clone())
        distinct, member = torch.unique(self.frame_times, return_inverse=True)
        self.timeline = Timeline(distinct)
        self.register_buffer("views", _frames_by_time(member, distinct.numel()))
        self._spread: dict[tuple[int, int, torch.device], Tensor] = {}

    @property
    def cameras(self) -> FrameCameras:
        """The frames' cameras at the size of `images`."""
        distortion = self.distortion if self.distortion.shape[-1] else None
        height, width = self.images.shape[1:3]
        return FrameCameras(self.camera_to_worlds, self.intrinsics, width, height, distortion)

    def pixels(self, frames: Int[Tensor, "F"]) -> Float[Tensor, "F 3 H W"]:
        """Images in [-1, 1]: what an encoder takes."""
        return self.images[frames].permute(0, 3, 1, 2).float() / 127.5 - 1

    def evenly_spaced(self, count: int) -> Int[Tensor, "n"]:
        """Up to `count` frames, spread over the clip."""
        count = min(count, len(self.images))
        return torch.linspace(0, len(self.images) - 1, count, device=self.images.device).round().long()

    def spread(self, first: int, count: int) -> Int[Tensor, "n"]:
        """Up to `count` frames that together see most: `first` of them are spread over the clip, then come those whose
        views differ most from these. Found once."""
        key = (first, count, self.images.device)
        if key not in self._spread:
            found = spread_views(self.camera_to_worlds, self.evenly_spaced(first).tolist(), count)
            self._spread[key] = torch.tensor(found, device=self.images.device)
        return self._spread[key]

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # nerfstudio's render commands load the data set at another size than training did; the checkpoint's frames are
        # those that the networks know, so their shapes win. Images may be the data set's own, which stay as they are.
        self._spread.clear()
        for name, buffer in list(self._buffers.items()):
            saved = state_dict.get(prefix + name)
            if saved is not None and buffer is not None and (saved.shape != buffer.shape or name == "images"):
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _shrink(image: UInt8[Tensor, "H W 3"], width: int, height: int) -> UInt8[Tensor, "height width 3"]:
    channels_first = image.permute(2, 0, 1)[None].float()
    shrunk = nn.functional.interpolate(channels_first, size=(height, width), mode="area")[0]
    return shrunk.round().to(torch.uint8).permute(1, 2, 0)


def _frames_by_time(member: Int[Tensor, "N"], num_times: int) -> Int[Tensor, "T V"]:
    lists = [(member == k).nonzero()[:, 0] for k in range(num_times)]
    views = torch.full((num_times, max(len(v) for v in lists)), -1, dtype=torch.long)
    for k, frames in enumerate(lists):
        views[k, : len(frames)] = frames
    return views
