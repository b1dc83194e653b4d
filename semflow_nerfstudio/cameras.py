"""Pinhole cameras of the video's frames: the one home of the pixel, axis and projection conventions.

Camera axes are nerfstudio's (OpenGL: x right, y up, z backwards), pixels are (u right, v down) with the centre of
(row i, column j) at (j + .5, i + .5), depth is camera z (positive in front), never the distance along the ray.
Nothing but torch is imported, so that everything downstream runs without nerfstudio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PIXEL_CENTER = 0.5
"""Offset of a pixel's centre from its integer (column, row) index."""


@dataclass(frozen=True)
class FrameCameras:
    """Cameras of N frames, in scene units."""

    camera_to_worlds: Float[Tensor, "N 3 4"]
    """OpenGL camera-to-world matrices."""
    intrinsics: Float[Tensor, "N 4"]
    """fx, fy, cx, cy in pixels of a width x height image."""
    width: int
    height: int
    distortion: Float[Tensor, "N 6"] | None = None
    """OpenCV k1, k2, k3, k4, p1, p2 as nerfstudio orders them; None where no frame is distorted."""

    def __len__(self) -> int:
        return self.camera_to_worlds.shape[0]

    def to(self, device: torch.device | str) -> FrameCameras:
        """The same cameras on another device."""
        distortion = None if self.distortion is None else self.distortion.to(device)
        return replace(
            self,
            camera_to_worlds=self.camera_to_worlds.to(device),
            intrinsics=self.intrinsics.to(device),
            distortion=distortion,
        )

    def scaled_to(self, width: int, height: int) -> FrameCameras:
        """The same cameras for images of another size; both axes scale by their own exact ratio."""
        ratio = self.intrinsics.new_tensor([width / self.width, height / self.height]).repeat(2)
        return replace(self, intrinsics=self.intrinsics * ratio, width=width, height=height)

    def project(
        self, points: Float[Tensor, "*batch 3"], frame: Int[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
        """Project world points into the frames with the given indices.

        Returns:
            Pixels (u, v) and camera depth z. Points at or behind the camera have z <= 0 and meaningless pixels.
        """
        pose, intrinsics = self.camera_to_worlds[frame], self.intrinsics[frame]
        local = ((points - pose[..., 3])[..., None] * pose[..., :3]).sum(-2)
        depth = -local[..., 2]
        safe = depth.clamp(min=1e-6)
        normalized = torch.stack([local[..., 0], -local[..., 1]], dim=-1) / safe[..., None]
        if self.distortion is not None:
            # Far from the axis the polynomial folds points back into the image, or overflows: those stay undistorted.
            near = normalized.norm(dim=-1) <= 2 * self._corner_radius()[frame]
            bounded = torch.where(near[..., None], normalized, 0.0)
            regular = near & grows_outward(bounded, self.distortion[frame])
            normalized = torch.where(regular[..., None], distort(bounded, self.distortion[frame]), normalized)
        return normalized * intrinsics[..., :2] + intrinsics[..., 2:], depth

    def _corner_radius(self) -> Float[Tensor, "N"]:
        """Distance from the optical axis, in normalised image coordinates, of the farthest image corner."""
        fx, fy, cx, cy = self.intrinsics.unbind(-1)
        return torch.hypot(torch.maximum(cx, self.width - cx) / fx, torch.maximum(cy, self.height - cy) / fy)

    def visibility(
        self, pixels: Float[Tensor, "*batch 2"], depth: Float[Tensor, "*batch"], margin: float = 0.02
    ) -> Float[Tensor, "*batch"]:
        """1 for projections inside the image, fading to 0 at its border over `margin` image widths; 0 out of view.

        Unlike `visible` it does not jump while a point moves out of the image.
        """
        u, v = pixels.unbind(-1)  # sizes as Python numbers: as tensors they would have to be sent to the device
        inside = torch.minimum(torch.minimum(u, self.width - u), torch.minimum(v, self.height - v))
        inside = inside / (margin * self.width)
        return inside.clamp(0, 1) * (depth > 1e-6)

    def visible(self, pixels: Float[Tensor, "*batch 2"], depth: Float[Tensor, "*batch"], border: float = 0.0) -> Tensor:
        """Bool mask of projections in front of the camera and inside the image by at least `border` pixels."""
        u, v = pixels.unbind(-1)
        inside = (u >= border) & (u <= self.width - border) & (v >= border) & (v <= self.height - border)
        return inside & (depth > 1e-6)


def distort(points: Float[Tensor, "*batch 2"], parameters: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 2"]:
    """OpenCV's radial-tangential distortion of normalised image points (x right, y down).

    `parameters` are k1, k2, k3, k4, p1, p2 in nerfstudio's order; the radial polynomial is
    1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8.
    """
    k1, k2, k3, k4, p1, p2 = parameters.unbind(-1)
    x, y = points.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    return torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y),
        ],
        dim=-1,
    )


def grows_outward(points: Float[Tensor, "*batch 2"], parameters: Float[Tensor, "*batch 6"]) -> Bool[Tensor, "*batch"]:
    """Where the radial part of `distort` still moves points outward as they leave the axis, and so is invertible."""
    k1, k2, k3, k4, _, _ = parameters.unbind(-1)
    r2 = points.square().sum(-1)
    return 1 + r2 * (3 * k1 + r2 * (5 * k2 + r2 * (7 * k3 + r2 * 9 * k4))) > 0


def pixel_centers(width: int, height: int, device: torch.device | str = "cpu") -> Float[Tensor, "height width 2"]:
    """Pixel centres (u, v) of an image, row by row."""
    v, u = torch.meshgrid(
        torch.arange(height, device=device) + PIXEL_CENTER,
        torch.arange(width, device=device) + PIXEL_CENTER,
        indexing="ij",
    )
    return torch.stack([u, v], dim=-1)
