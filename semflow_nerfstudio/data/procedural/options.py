"""What can be chosen about the procedural scene."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from semflow_nerfstudio.data.checks import SceneDataError


@dataclass(frozen=True)
class SceneOptions:
    """Options of the built-in procedural scene."""

    frames: int = 12
    """Training frames of the clip, one per time."""
    size: str = "240x135"
    """Width x height of all images in pixels."""
    rig_cameras: int = 12
    """Cameras on the rig. Frame k is what camera k mod rig_cameras saw at time k; every camera sees every time as a
    test view. The layout takes the rig's poses from the frames, so there are never more cameras than frames."""
    seed: int = 0
    """Varies textures, colours, placement, paths and, slightly, the rig."""
    speed: float = 1.0
    """Multiplies the motion of all movers."""
    lighting: Literal["constant", "changing"] = "constant"
    """`changing`: the sun goes down during the clip."""
    disparity: Literal["relative", "exact"] = "relative"
    """`relative`: inverse depth with a scale and a shift per frame, as a network gives it. `exact`: 1 / depth."""
    disparity_noise: float = 0.0
    """Standard deviation of a smooth relative error of the inverse depth in disp/ (0.05 is a good network's)."""
    flow_noise: float = 0.0
    """Standard deviation, in pixels, of the error of the flow in flow/ (0.3 is a good network's). gt_flow/ is exact."""
    synchronised: int = 0
    """Also write a transforms.json for `semflow-data` in which this many cameras see every time at once; the rest of
    the rig is for evaluation."""
    leave_out: Annotated[str, tyro.conf.arg(aliases=("--without",))] = ""
    """Name of an object that is left out, for editing tests, such as person, ball or crate_2. Nothing else changes.
    `multiview_removed/` then says where in the test views it would be."""

    def check(self) -> None:
        """Raise SceneDataError where a value makes no sense."""
        for name, least in (("frames", 2), ("rig_cameras", 1), ("seed", 0), ("synchronised", 0)):
            if getattr(self, name) < least:
                raise SceneDataError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        for name in ("speed", "disparity_noise", "flow_noise"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SceneDataError(f"{name} must be finite and not negative, not {getattr(self, name)}.")
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.size) or min(self.width, self.height) < 16:
            raise SceneDataError(
                f"size must be WIDTHxHEIGHT with at least 16 pixels each, such as 240x135, not {self.size}."
            )
        if self.synchronised and self.synchronised >= self.cameras:
            raise SceneDataError(
                f"synchronised must be less than the number of cameras, {self.cameras}, so that some are left for "
                f"evaluation, not {self.synchronised}."
            )
        if self.lighting not in ("constant", "changing"):
            raise SceneDataError(f"lighting must be constant or changing, not {self.lighting}.")
        if self.disparity not in ("relative", "exact"):
            raise SceneDataError(f"disparity must be relative or exact, not {self.disparity}.")

    @property
    def width(self) -> int:
        """Width of the images in pixels."""
        return int(self.size.split("x")[0])

    @property
    def height(self) -> int:
        """Height of the images in pixels."""
        return int(self.size.split("x")[1])

    @property
    def cameras(self) -> int:
        """Cameras there really are: no more than frames."""
        return min(self.rig_cameras, self.frames)
