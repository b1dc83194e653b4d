"""What a scene's video is, for the model: plain tensors made by the datamanager, read by `scene.py`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras

NEVER = -1e4
"""Logit of a class that is out of the question: no training label names it, or the scene cannot show it."""
IGNORE_LABEL = 255
"""Label id of pixels that are unlabelled or unknown. It is never a class."""


@dataclass
class SceneFrames:
    """The training frames of one scene, in the order of the dataset (sorted by time, then camera), in scene units."""

    name: str
    cameras: FrameCameras
    """Cameras of the N training frames at the size of `images`."""
    images: UInt8[Tensor, "N H W 3"]
    """The frames themselves: what the frame encoder sees."""
    times: Float[Tensor, "N"]
    """Times in [0, 1]."""
    distinct_times: Float[Tensor, "T"]
    """Sorted distinct times of *all* splits, before anything is held out."""
    next_frame: Int[Tensor, "N"]
    """Index of the training frame that a frame's forward optical flow leads to, -1 where there is none."""
    previous_frame: Int[Tensor, "N"]
    """Likewise for backward flow."""
    aabb: Float[Tensor, "2 3"]
    """Scene box in scene units."""
    bounded: bool
    """Whether everything the cameras see lies in `aabb`; otherwise space outside it is contracted."""
    near: float | None = None
    """Distance along the ray where sampling starts, in scene units; None: the box decides."""
    far: float | None = None
    class_names: tuple[str, ...] = ()
    class_colors: Float[Tensor, "C 3"] = field(default_factory=lambda: torch.zeros(0, 3))
    """RGB in [0, 1]."""
    foreground: Bool[Tensor, "C"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    """Classes that count as foreground in metrics and editing."""
    own_classes: Bool[Tensor, "C"] | None = None
    """Classes that this scene may show, where several scenes have different ones; None: all."""
    world_scale: float = 1.0
    """Scene units per world unit (nerfstudio's dataparser_scale)."""
    world_transform: Float[Tensor, "3 4"] = field(default_factory=lambda: torch.eye(4)[:3])
    """World to (unscaled) scene frame (nerfstudio's dataparser_transform)."""
    background_color: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Colour behind everything: white for data sets with alpha blended on white."""
    opaque: bool = True
    """Whether no image has transparency: something is seen at every pixel, and nothing shines through it."""
    features: Float[Tensor, "N h w C"] | None = None
    """float16 maps of a frozen frame encoder, whose cells tile the images; None where the encoder is trained along."""
    camera: Int[Tensor, "N"] | None = None
    """Number of the camera that took a frame; None: not known, or one camera."""
    has: frozenset[str] = frozenset()
    """Modalities present on at least one training frame: labels, flow, motion_mask, disparity, depth, and inverse_depth
    where depth or aligned disparity is in scene units."""

    @property
    def tau(self) -> float:
        """Median gap of the distinct times (the time step of the flow field); 1 for a static scene."""
        if self.distinct_times.numel() < 2:
            return 1.0
        return float(self.distinct_times.diff().median())

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
