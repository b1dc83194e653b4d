"""Frozen, pretrained frame encoders (`flow/frame_encoders.py` has the interface). Nothing is ever downloaded."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.vision_transformer import VisionTransformer

PretrainedName = Literal["resnet18", "resnet50", "r3d_18", "dinov2"]
DINOV2_FILE = "dinov2_vits14_pretrain.pth"
"""Default checkpoint; others of the family (vitb14, vitl14) by their path."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, EOFError, pickle.UnpicklingError)
KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


def default_weights(name: str) -> Path:
    """Where torch's hub cache keeps an encoder's checkpoint."""
    if name == "dinov2":
        file = DINOV2_FILE
    else:
        from torchvision import models

        weights = {
            "resnet18": models.ResNet18_Weights,
            "resnet50": models.ResNet50_Weights,
            "r3d_18": models.video.R3D_18_Weights,
        }[name]
        file = Path(urlparse(weights.DEFAULT.url).path).name
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def load_encoder(name: str, weights: Path) -> FrozenEncoder:
    """A frozen encoder with the weights of a checkpoint file.

    Raises:
        SceneDataError: the file cannot be read or belongs to another network.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # Networks are made with random weights first: training goes on as if they had not been, cached features or not.
        with torch.random.fork_rng(devices=[]):
            return _with_weights(name, state)
    except _UNREADABLE as error:
        raise SceneDataError(
            f"{weights} holds no weights of {name} ({type(error).__name__}): give another file with "
            "--pipeline.datamanager.frame-features.weights."
        ) from error


def _with_weights(name: str, state: dict[str, Tensor]) -> FrozenEncoder:
    if name == "dinov2":
        return PatchEncoder(VisionTransformer.from_state(state))
    from torchvision import models

    if name == "r3d_18":
        video = models.video.r3d_18(weights=None)
        video.load_state_dict(state)
        return VideoEncoder(video)
    image = models.resnet18(weights=None) if name == "resnet18" else models.resnet50(weights=None)
    image.load_state_dict(state)
    return ImageEncoder(image)


class FrozenEncoder(nn.Module):
    """A pretrained network that never changes: no gradients, BatchNorm with its trained statistics.

    Images (F, 3, H, W) in [-1, 1], all frames of a clip in the order of time -> (F, `width`, h, w) with
    h = ceil(H / `stride`), w = ceil(W / `stride`); the centre of cell (i, j) lies at pixel ((j + .5) W / w,
    (i + .5) H / h), as `FrameEncoder` says.
    """

    trainable = False
    clip, margin = 1, 0
    """Frames whose features are computed at once, and frames around them that they may see."""
    width: int
    stride: int
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, statistics: tuple[Sequence[float], Sequence[float]]) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(statistics[0])[:, None, None])
        self.register_buffer("std", torch.tensor(statistics[1])[:, None, None])

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode: statistics of a batch would tie its frames together."""
        return super().train(False)

    def normalized(self, images: Float[Tensor, "F 3 H W"]) -> Float[Tensor, "F 3 H W"]:
        """Images as the network was trained on."""
        return ((images + 1) / 2 - self.mean) / self.std

    def forward(self, images: Float[Tensor, "F 3 H W"]) -> Float[Tensor, "F C h w"]:
        return torch.cat([self.piece(images[seen], own) for _, seen, own in self.pieces(len(images))])

    def pieces(self, count: int) -> Iterator[tuple[slice, slice, slice]]:
        """A clip of `count` frames in pieces that memory has room for.

        Yields:
            The piece's frames; the frames that are needed for it; which of these the piece's own are.
        """
        for first in range(0, count, self.clip):
            last = min(first + self.clip, count)
            start, end = max(0, first - self.margin), min(last + self.margin, count)
            yield slice(first, last), slice(start, end), slice(first - start, last - start)

    @torch.no_grad()
    def piece(self, images: Float[Tensor, "f 3 H W"], own: slice) -> Float[Tensor, "n C h w"]:
        """Feature maps of one of the `pieces`, given the frames that are needed for it."""
        height, width = images.shape[-2:]
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        return self.features(self.normalized(images), rows, columns)[own]

    def features(self, images: Float[Tensor, "F 3 H W"], rows: int, columns: int) -> Float[Tensor, "F C rows columns"]:
        """Feature maps of the given size, of normalised images."""
        raise NotImplementedError


class ImageEncoder(FrozenEncoder):
    """The first three stages of a ResNet, each frame on its own."""

    stride = 4

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, IMAGENET)
        self.width = sum(_channels(network.get_submodule(f"layer{k}")) for k in (1, 2, 3))

    def features(self, images: Float[Tensor, "F 3 H W"], rows: int, columns: int) -> Float[Tensor, "F C rows columns"]:
        height, width = images.shape[-2:]
        x = images
        for name in ("conv1", "bn1", "relu", "maxpool"):
            x = self.network.get_submodule(name)(x)
        maps = []
        for k, stride in ((1, 4), (2, 8), (3, 16)):
            x = self.network.get_submodule(f"layer{k}")(x)
            maps.append(resample(x, stride, height, width, rows, columns))
        return torch.cat(maps, dim=1)


class VideoEncoder(FrozenEncoder):
    """The first three stages of a 3-D ResNet, over a few frames of one camera at a time.

    Pieces start at a multiple of the strides in time, so that they do not differ in how frames are grouped.
    """

    stride = 4
    clip, margin = 16, 4

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, KINETICS)
        self.width = sum(_channels(network.get_submodule(f"layer{k}")) for k in (1, 2, 3))

    def features(self, images: Float[Tensor, "F 3 H W"], rows: int, columns: int) -> Float[Tensor, "F C rows columns"]:
        height, width = images.shape[-2:]
        x = self.network.get_submodule("stem")(images.transpose(0, 1)[None])
        maps = []
        for k, stride, step in ((1, 2, 1), (2, 4, 2), (3, 8, 4)):
            x = self.network.get_submodule(f"layer{k}")(x)
            by_time = x[0].transpose(0, 1)
            maps.append(resample(at_frames(by_time, step, len(images)), stride, height, width, rows, columns))
        return torch.cat(maps, dim=1)


class PatchEncoder(FrozenEncoder):
    """A vision transformer of the DINOv2 family on enlarged frames, so that patches are half as large."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__(network, IMAGENET)
        self.width, self.patch = network.dim, network.patch
        self.stride = max(1, network.patch // 2)

    def features(self, images: Float[Tensor, "F 3 H W"], rows: int, columns: int) -> Float[Tensor, "F C rows columns"]:
        size = (rows * self.patch, columns * self.patch)
        return self.network(nn.functional.interpolate(images, size=size, mode="bicubic", align_corners=False))


def resample(
    maps: Float[Tensor, "F C h w"], stride: int, height: int, width: int, rows: int, columns: int
) -> Float[Tensor, "F C rows columns"]:
    """Maps of strided convolutions, bilinearly at the centres of the cells of a rows x columns grid over the image.

    A convolution of odd size with padding to match looks at pixel (row stride, column stride): the centre of its first
    cell lies at that pixel's centre, .5, and not in the middle of `stride` pixels.
    """
    h, w = maps.shape[-2:]
    y = ((torch.arange(rows, device=maps.device) + 0.5) * (height / rows) - 0.5) / stride
    x = ((torch.arange(columns, device=maps.device) + 0.5) * (width / columns) - 0.5) / stride
    y, x = 2 * y / max(h - 1, 1) - 1, 2 * x / max(w - 1, 1) - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(len(maps), -1, -1, -1)
    return nn.functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=True)


def at_frames(maps: Float[Tensor, "t C h w"], step: int, frames: int) -> Float[Tensor, "frames C h w"]:
    """Maps of every `step`-th frame, linearly at every frame; the last ones as they are beyond their end."""
    index = (torch.arange(frames, device=maps.device) / step).clamp(max=len(maps) - 1)
    lower = index.long()
    share = (index - lower)[:, None, None, None]
    return torch.lerp(maps[lower], maps[(lower + 1).clamp(max=len(maps) - 1)], share)


def _channels(stage: nn.Module) -> int:
    """Output channels of a ResNet stage: those of its last normalisation."""
    norms = [m for m in stage.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    return norms[-1].num_features
