"""Frame encoders: images -> feature maps (paper section 3.3), behind one small interface."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class FrameEncoder(Protocol):
    """Images (F, 3, H, W) in [-1, 1] -> feature maps (F, `width`, ceil(H / `stride`), ceil(W / `stride`)).

    The centre of cell (i, j) lies at pixel ((j + .5) W / W', (i + .5) H / H').
    """

    width: int
    stride: int
    trainable: bool

    def __call__(self, images: Float[Tensor, "F 3 H W"]) -> Float[Tensor, "F C h w"]: ...


class ConvEncoder(nn.Module):
    """A small convolutional encoder that is trained along with the scenes: nothing to download."""

    trainable = True

    def __init__(self, width: int = 32, hidden: int = 16, stride: int = 2) -> None:
        super().__init__()
        self.width, self.stride = width, stride
        self.layers = nn.Sequential(
            nn.Conv2d(3, hidden, stride + 2, stride=stride, padding=1),  # centred on cells, as the interface says
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, width, 3, padding=1),
        )

    def forward(self, images: Float[Tensor, "F 3 H W"]) -> Float[Tensor, "F C h w"]:
        height, width = images.shape[-2:]
        size = (-(-height // self.stride) * self.stride, -(-width // self.stride) * self.stride)
        if size != (height, width):
            images = nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return self.layers(images)
