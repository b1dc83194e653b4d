"""How pictures show classes: colours, which of them, how strongly, what is highlighted. Rendering is not touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semflow_nerfstudio.editing.scene_state import parse_target
from semflow_nerfstudio.editing.targets import MOVING_MARGIN, STATIC_MARGIN, Objects
from semflow_nerfstudio.visuals.colors import Rgb, overlay

HIGHLIGHT_COLOR: Rgb = (1.0, 0.85, 0.1)
_TINT = 0.35
_SEEN = 0.5
"""Accumulation from which on a pixel shows something."""

Membership = Callable[[Float[Tensor, "N 3"], Float[Tensor, "N"], Bool[Tensor, "N"]], Int[Tensor, "N"]]
"""(points in scene units, times in [0, 1], whether what is seen there moves) -> instance ids, -1 for none."""


def instance_membership(objects: Objects) -> Membership:
    """Which of a scene's instances points belong to: those of the field that is seen, and as edits count them."""

    def membership(
        points: Float[Tensor, "N 3"], times: Float[Tensor, "N"], moving: Bool[Tensor, "N"]
    ) -> Int[Tensor, "N"]:
        movers = objects.membership(points, times, MOVING_MARGIN, "moving")
        return torch.where(moving, movers, objects.membership(points, times, STATIC_MARGIN, "static"))

    return membership


@dataclass(frozen=True)
class Display:
    """How pictures show classes. A value: change it with `dataclasses.replace`."""

    opacity: float | None = None
    """Of the classes' colours in `semantics_overlay`; None: the model's own."""
    unlisted: frozenset[str] = frozenset()
    """Classes that are left uncoloured for now, besides those that the scene state leaves so."""
    probability_of: str | None = None
    """Class of the `class_probability` output; None: the first foreground class."""
    highlight: tuple[str, ...] = ()
    """What is tinted and outlined: "class:NAME", "instance:ID", "moving", "static"."""

    def check(self, names: Sequence[str]) -> None:
        """Check against a run's classes.

        Raises:
            ValueError: a target is none, a class is not there, or the opacity is no share.
        """
        named = [] if self.probability_of is None else [self.probability_of]
        for target in self.highlight:
            kind, name = parse_target(target)
            named += [name] if kind == "class" else []
        for name in named:
            class_index(name, names)
        if self.opacity is not None and not 0 <= self.opacity <= 1:
            raise ValueError(f"the overlay's opacity is {self.opacity:g}, but it must be from 0 to 1")

    def settings(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self) | {"unlisted": sorted(self.unlisted), "highlight": list(self.highlight)}

    def listed(self, names: Sequence[str], device: torch.device) -> Bool[Tensor, "C"]:
        """Which classes may be coloured."""
        return torch.tensor([name not in self.unlisted for name in names], dtype=torch.bool, device=device)

    def probability_class(self, names: Sequence[str], foreground: Sequence[bool]) -> int:
        """Id of the class that `class_probability` shows.

        Raises:
            ValueError: there is no such class.
        """
        if self.probability_of is None:
            return next((index for index, is_foreground in enumerate(foreground) if is_foreground), 0)
        return class_index(self.probability_of, names)


def matching(names: Sequence[str], query: str) -> list[str]:
    """Names that contain one of the parts of a query, which semicolons separate; an empty query matches all."""
    parts = [part.strip().casefold() for part in query.split(";") if part.strip()]
    return [name for name in names if not parts or any(part in name.casefold() for part in parts)]


def class_index(name: str, names: Sequence[str]) -> int:
    """Id of a class by its name. ValueError, which names those there are, if there is none."""
    if name not in names:
        raise ValueError(f"there is no class '{name}'; the classes are {', '.join(names) or 'none'}")
    return list(names).index(name)


def target_mask(
    rays: Mapping[str, Float[Tensor, "H W C"]],
    target: str,
    names: Sequence[str],
    membership: Membership | None = None,
) -> Bool[Tensor, "H W"]:
    """Pixels that show a target.

    Args:
        rays: The model's outputs of every ray: `accumulation`, `dynamicness`, `source` and `source_time` and, with
            classes, `logits`.
        target: "class:NAME", "instance:ID", "moving" or "static".
        names: Class names.
        membership: Which instance points belong to; without it no pixel shows an instance.

    Raises:
        ValueError: the target is none of these, or its class does not exist.
    """
    seen = rays["accumulation"][..., 0] > _SEEN
    moves = rays["dynamicness"][..., 0] > rays["accumulation"][..., 0] / 2
    if target in ("moving", "static"):
        return seen & (moves if target == "moving" else ~moves)
    kind, name = parse_target(target)
    if kind == "class":
        index = class_index(name, names)
        return seen & (rays["logits"].argmax(-1) == index)
    if membership is None:
        return torch.zeros_like(seen)
    ids = membership(rays["source"].reshape(-1, 3), rays["source_time"].reshape(-1), moves.reshape(-1))
    return seen & (ids == int(name)).reshape(seen.shape)


def highlighted(
    rgb: Float[Tensor, "H W 3"], mask: Bool[Tensor, "H W"], color: Rgb = HIGHLIGHT_COLOR
) -> Float[Tensor, "H W 3"]:
    """Tint what a mask covers, and outline it."""
    if not bool(mask.any()):
        return rgb
    tint = rgb.new_tensor(color)
    width = max(1, round(mask.shape[1] / 320))
    outside = F.max_pool2d((~mask)[None, None].to(rgb), 2 * width + 1, stride=1, padding=width)[0, 0] > 0
    tinted = overlay(rgb, tint.expand_as(rgb), _TINT, mask)
    return torch.where((mask & outside)[..., None], tint, tinted)
