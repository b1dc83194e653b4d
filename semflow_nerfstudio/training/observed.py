"""What is known about training rays: the datamanager's batches as the losses read them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from semflow_nerfstudio.cameras import PIXEL_CENTER
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


@dataclass
class Observed:
    """What is known about R training rays; None where the data set has no such thing."""

    image: Float[Tensor, "R 3"]
    pixel: Float[Tensor, "R 2"]
    """Pixel centre (u, v) as a share of the image's width and height."""
    aspect: Float[Tensor, "R"]
    """Image height divided by width."""
    frame: Int[Tensor, "R"]
    """Index of the training frame in its scene."""
    z_ratio: Float[Tensor, "R"]
    """Distance along the ray per camera-z depth (nerfstudio's directions_norm)."""
    labels: UInt8[Tensor, "R"] | None = None
    label_weight: Float[Tensor, "R"] | None = None
    """How far to believe labels that came from other frames; None: all are the frames' own."""
    motion: UInt8[Tensor, "R"] | None = None
    """0 static, 1 moving, 255 unknown."""
    flow: tuple[Tensor, Tensor] | None = None
    """Forward flow (R, 2) as shares of the image's width and height, and its mask (R,)."""
    flow_backward: tuple[Tensor, Tensor] | None = None
    inverse_depth: Float[Tensor, "R"] | None = None
    """Aligned inverse camera-z depth, NaN unknown."""
    disparity: Float[Tensor, "R"] | None = None
    """Relative inverse depth, NaN unknown."""
    behind: Float[Tensor, "R 3"] | None = None
    """Colour of whatever light is left behind everything; None: the scene's background colour."""

    @property
    def moving(self) -> Tensor:
        """Rays known to show something that moves; all where nothing is known about motion."""
        if self.motion is None:
            return torch.ones_like(self.frame, dtype=torch.bool)
        return self.motion == 1

    @property
    def static(self) -> Tensor:
        """Rays known to show nothing that moves; none where nothing is known about motion."""
        if self.motion is None:
            return torch.zeros_like(self.frame, dtype=torch.bool)
        return self.motion == 0

    def believed(self, weight: Tensor) -> Tensor:
        """A weight (R,) of rays times how far their labels are to be believed."""
        return weight.float() if self.label_weight is None else weight * self.label_weight

    def without(self, rays: Bool[Tensor, "R"]) -> Observed:
        """The same, but nothing is known of the labels and depths of some rays."""

        def hide(values: Tensor | None, unknown: float) -> Tensor | None:
            return None if values is None else values.masked_fill(rays, unknown)

        return replace(
            self,
            labels=hide(self.labels, IGNORE_LABEL),
            inverse_depth=hide(self.inverse_depth, torch.nan),
            disparity=hide(self.disparity, torch.nan),
        )


def rays_with_motion(motion: UInt8[Tensor, "R"] | None, share: float) -> Int[Tensor, "M"] | None:
    """The share of rays that get the dynamic field in training: first those that show motion, then those that may.

    Args:
        motion: 0 static, 1 moving, 255 unknown; None where nothing says.
        share: Of all rays.

    Returns:
        Their rows; None for all rays.
    """
    if motion is None or share >= 1:
        return None
    order = torch.rand(len(motion), device=motion.device) + (motion != 0).float() + (motion == 1).float()
    return order.topk(max(1, int(share * len(motion)))).indices


def left_out(motion: UInt8[Tensor, "R"], mover_rays: Int[Tensor, "M"] | slice | None) -> Bool[Tensor, "R"]:
    """Rays that may show a mover but were rendered by the static field alone: there is nothing to learn from them.

    Args:
        motion: 0 static, 1 moving, 255 unknown.
        mover_rays: The rays that got the dynamic field; None or a slice: all.
    """
    may_move = motion != 0
    if not isinstance(mover_rays, Tensor):
        return torch.zeros_like(may_move)
    return may_move.index_fill(0, mover_rays, False)


def given_distance(seen: Observed) -> tuple[Tensor, Float[Tensor, "R"]]:
    """Whether the aligned disparity says where a ray ends, and at which distance along it (1 where it does not)."""
    assert seen.inverse_depth is not None
    known = seen.inverse_depth.isfinite() & (seen.inverse_depth > 0)
    return known, seen.z_ratio / torch.where(known, seen.inverse_depth, 1.0)


def as_color(image: Tensor) -> Tensor:
    """Colours in [0, 1] of stored images, which are 8-bit where the data set keeps them so."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def observe(
    batch: dict[str, Tensor],
    rows: Int[Tensor, "R"] | None,
    z_ratio: Float[Tensor, "R 1"],
    first_frame: int,
    device: torch.device,
) -> Observed:
    """What a batch of the datamanager says about its rays (or some of its rows).

    Args:
        batch: The datamanager's batch.
        rows: The rows that belong to one scene; None for all.
        z_ratio: Distance along the ray per camera-z depth.
        first_frame: Index of the scene's first frame in the data set.
        device: Where the model is.
    """

    def get(name: str) -> Tensor | None:
        values = batch.get(name)
        if values is None:
            return None
        values = values if rows is None else values[rows.to(values.device)]
        return values.to(device, non_blocking=True)

    size = get("image_size")
    assert size is not None

    def column(name: str) -> Tensor | None:
        values = get(name)
        return None if values is None else values[:, 0]

    def flow(name: str) -> tuple[Tensor, Tensor] | None:
        values, mask = get(name), column(f"{name}_mask")
        if values is None or mask is None:
            return None
        return values.float() / size, mask.bool()

    indices, image, inverse_depth = get("indices"), get("image"), column("inverse_depth")
    assert indices is not None and image is not None
    labels, carried, weight = column("labels"), column("carried_labels"), column("carried_confidence")
    if labels is not None and carried is not None and weight is not None:
        unlabelled = labels == IGNORE_LABEL
        labels, weight = torch.where(unlabelled, carried, labels), torch.where(unlabelled, weight.float(), 1.0)
    return Observed(
        image=as_color(image[:, :3]),
        pixel=(indices[:, 1:].flip(-1) + PIXEL_CENTER) / size,
        aspect=size[:, 1] / size[:, 0],
        frame=indices[:, 0] - first_frame,
        z_ratio=z_ratio.reshape(-1).to(device),
        labels=labels,
        label_weight=None if labels is None else weight,
        motion=column("motion_mask"),
        flow=flow("flow_forward"),
        flow_backward=flow("flow_backward"),
        inverse_depth=None if inverse_depth is None else inverse_depth.float(),
        disparity=column("disparity"),
    )
