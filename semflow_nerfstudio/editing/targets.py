"""Which points of a scene belong to which targets of its edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semflow_nerfstudio.editing.scene_state import parse_target

MOVING_MARGIN = 0.1
"""Scene units around a mover within which the dynamic field still belongs to it: its blurred edge, its loose bits. The
static field is not touched, and of several movers the nearest one counts, so this can be generous."""
STATIC_MARGIN = 0.03
"""Scene units around a static instance within which the static field belongs to it."""
PRECEDENCE = {"static": 0, "moving": 0, "class": 1, "instance": 2}
"""What is more particular comes later."""

Kind = Literal["moving", "static"]


class Objects(Protocol):
    """What edits need to know of a scene's instances (`editing/instances.py`)."""

    @property
    def ids(self) -> Sequence[int]: ...
    def label(self, number: int) -> int: ...
    def is_moving(self, number: int) -> bool: ...
    def is_present(self, number: int, time: float) -> bool: ...
    def center(self, number: int, time: float) -> Float[Tensor, "3"]: ...
    def bounds(self, number: int, time: float) -> Float[Tensor, "2 3"]: ...
    def membership(
        self, points: Float[Tensor, "N 3"], times: Float[Tensor, "N"], margin: float = 0.0, kind: Kind | None = None
    ) -> Int[Tensor, "N"]: ...
    def hidden_by(self, points: Float[Tensor, "N 3"], times: Float[Tensor, "N"], margin: float) -> Int[Tensor, "N"]: ...


@dataclass(frozen=True)
class Target:
    """A target, resolved for a scene."""

    name: str
    precedence: int
    moving: frozenset[int] | None
    """Ids of the movers in it; None: all of the dynamic field."""
    static: frozenset[int] | None
    """Ids of the static instances in it; None: all of the static field."""

    def contains(self, other: Target) -> bool:
        """Whether all of the other target belongs to this one."""

        def within(inner: frozenset[int] | None, outer: frozenset[int] | None) -> bool:
            return outer is None or (inner is not None and inner <= outer)

        return within(other.moving, self.moving) and within(other.static, self.static)


@dataclass(frozen=True)
class Share:
    """For N points, whether the static and the dynamic field there are meant."""

    static: Bool[Tensor, "N"]
    dynamic: Bool[Tensor, "N"]

    def __and__(self, other: Share) -> Share:
        return Share(self.static & other.static, self.dynamic & other.dynamic)

    def __or__(self, other: Share) -> Share:
        return Share(self.static | other.static, self.dynamic | other.dynamic)

    def __invert__(self) -> Share:
        return Share(~self.static, ~self.dynamic)

    @property
    def any(self) -> Bool[Tensor, "N"]:
        return self.static | self.dynamic

    @property
    def all(self) -> Bool[Tensor, "N"]:
        return self.static & self.dynamic


@dataclass(frozen=True)
class Owners:
    """The instances that N points belong to; -1: none."""

    static: Int[Tensor, "N"]
    moving: Int[Tensor, "N"]
    hidden_by: Int[Tensor, "N"]
    """For points of no mover: the one that hides them from the frames."""

    def taken_away(self, target: Target) -> Share:
        """What goes where a target is taken away: it, and what the dynamic field shows where it hid that from all."""
        share = self.share(target)
        return Share(share.static, share.dynamic | (is_in(self.hidden_by, target.moving) & (self.hidden_by >= 0)))

    def share(self, target: Target) -> Share:
        """Where points belong to a target.

        What the dynamic field shows of a static instance, away from all movers, goes with the instance.
        """
        static, dynamic = is_in(self.static, target.static), is_in(self.moving, target.moving)
        if target.static:
            dynamic = dynamic | (static & (self.moving < 0))
        return Share(static, dynamic)


def is_in(ids: Int[Tensor, "N"], chosen: frozenset[int] | None) -> Bool[Tensor, "N"]:
    """Whether ids are among the chosen ones; None: all are chosen, and what belongs to none, too."""
    result = torch.full_like(ids, chosen is None, dtype=torch.bool)
    for number in chosen or ():
        result |= ids == number
    return result


def needs_instances(target: str) -> bool:
    """Whether a target can only be found by the scene's instances."""
    return parse_target(target)[0] in ("class", "instance")


def resolve(target: str, objects: Objects | None, class_names: Sequence[str]) -> Target:
    """A target's instances in a scene.

    Raises:
        ValueError: it needs instances and there are none, or names a class or an instance that is not there.
    """
    kind, name = parse_target(target)
    none: frozenset[int] = frozenset()
    if kind in ("moving", "static"):
        everything = (None, none) if kind == "moving" else (none, None)
        return Target(target, PRECEDENCE[kind], *everything)
    if objects is None:
        raise ValueError(f"the instances of this scene are not known, so '{target}' cannot be found in it")
    if kind == "class" and name not in class_names:
        raise ValueError(f"there is no class '{name}'; the run has {', '.join(class_names) or 'none'}")
    if kind == "instance" and int(name) not in objects.ids:
        known = ", ".join(str(i) for i in objects.ids) or "none"
        raise ValueError(f"there is no instance {name}; the scene has {known}")
    if kind == "class":
        label = list(class_names).index(name)
        ids = [number for number in objects.ids if objects.label(number) == label]
    else:
        ids = [int(name)]
    moving = frozenset(number for number in ids if objects.is_moving(number))
    return Target(target, PRECEDENCE[kind], moving, frozenset(ids) - moving)


def bounds_of(
    target: Target, objects: Objects | None, time: float, everything: Float[Tensor, "2 3"]
) -> Float[Tensor, "2 3"] | None:
    """Box of a target at a time, with its margin; None where it is not there. `everything`: the scene's own box."""
    if target.static is None:
        return everything
    if target.moving is None and objects is None:
        return everything
    assert objects is not None
    movers = [i for i in objects.ids if objects.is_moving(i)] if target.moving is None else target.moving
    boxes = [objects.bounds(i, time).to(everything) for i in movers if objects.is_present(i, time)]
    margins = [MOVING_MARGIN] * len(boxes)
    for number in target.static:
        boxes.append(objects.bounds(number, time).to(everything))
        margins.append(STATIC_MARGIN)
    if not boxes:
        return None
    low = torch.stack([box[0] - margin for box, margin in zip(boxes, margins, strict=True)]).amin(0)
    high = torch.stack([box[1] + margin for box, margin in zip(boxes, margins, strict=True)]).amax(0)
    return torch.stack([low, high])


def center_of(target: Target, objects: Objects | None, time: float, box: Float[Tensor, "2 3"]) -> Float[Tensor, "3"]:
    """What a target is turned and scaled about at a time: the middle of its only instance, or else of its box."""
    ids = (target.moving or frozenset()) | (target.static or frozenset())
    if target.moving is not None and target.static is not None and len(ids) == 1 and objects is not None:
        return objects.center(next(iter(ids)), time).to(box)
    return box.mean(0)
