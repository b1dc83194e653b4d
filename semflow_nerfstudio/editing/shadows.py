"""What movers hide from the frames: nobody saw what the dynamic field shows there, and it goes with the mover.

A training frame sees a mover's near side. Behind it, as seen from the frames of that time, the dynamic field was
taught nothing at that time, and may hold anything, most often more of the mover's own colours. As long as the mover is
where it was, it hides most of that; where it is taken away, that has to go as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from scipy.ndimage import grey_dilation, grey_erosion
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras


@dataclass(frozen=True)
class Shadows:
    """The movers that V views show: those of the frames at their own times."""

    cameras: FrameCameras
    """Of the V views, scene units."""
    ids: Int[Tensor, "V H W"]
    """The mover in each pixel or beside it; -1: none."""
    distance: Float[Tensor, "V H W"]
    """From the camera to it, scene units."""
    views: Int[Tensor, "T C"]
    """The views at each frame time; -1: no more."""

    @staticmethod
    def of(
        cameras: FrameCameras, ids: Int[Tensor, "V H W"], distance: Float[Tensor, "V H W"], views: Int[Tensor, "T C"]
    ) -> Shadows:
        """From the movers in the pixels themselves: their edges are a pixel wider, for light is mixed there."""
        size = (1, 3, 3)
        far = torch.where(ids >= 0, distance, torch.inf)
        wide = torch.from_numpy(grey_dilation(ids.numpy(), size=size))
        near = torch.from_numpy(grey_erosion(far.numpy(), size=size))
        return Shadows(
            cameras,
            torch.where(ids >= 0, ids, wide).short(),
            torch.where(ids >= 0, distance, near).float(),
            views.short(),
        )

    def lookup(self, points: Float[Tensor, "N 3"], frames: Int[Tensor, "N"], margin: float) -> Int[Tensor, "N"]:
        """Ids of the movers that hide points from all views of frame times that look at them; -1: seen, or none looks.

        Args:
            points: Scene units.
            frames: Indices of frame times.
            margin: Points less than this behind a mover's surface are not hidden by it but are its own.
        """
        result = torch.full_like(frames, -1)
        seen = torch.zeros_like(frames, dtype=torch.bool)
        for column in self.views.T.long():
            view = column[frames]
            there = (view >= 0).nonzero()[:, 0]
            view, place = view[there], points[there]
            pixels, depth = self.cameras.project(place, view)
            within = self.cameras.visible(pixels, depth)
            u = pixels[:, 0].clamp(0, self.cameras.width - 1).long()
            v = pixels[:, 1].clamp(0, self.cameras.height - 1).long()
            away = (place - self.cameras.camera_to_worlds[view, :, 3]).norm(dim=-1)
            hidden = within & (away > self.distance[view, v, u] + margin) & (self.ids[view, v, u] >= 0)
            seen[there] |= within & ~hidden
            result[there] = torch.where(hidden & (result[there] < 0), self.ids[view, v, u].long(), result[there])
        return result.masked_fill(seen, -1)

    def to(self, device: torch.device) -> Shadows:
        """The same on another device."""
        return replace(
            self,
            cameras=self.cameras.to(device),
            ids=self.ids.to(device),
            distance=self.distance.to(device),
            views=self.views.to(device),
        )
