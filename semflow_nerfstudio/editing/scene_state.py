"""What is edited in a scene, as plain values: shown at render time, reversible, saved as `scene_state.json`.

Targets are strings: "class:NAME", "instance:ID", "moving" (all that moves) and "static" (all that does not). Lengths
are scene units, times in [0, 1], colours RGB in [0, 1]. Every function returns a new state; `History` remembers them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

Vector = tuple[float, float, float]
Rgb = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
"""(w, x, y, z)."""

NO_TURN: Quaternion = (1.0, 0.0, 0.0, 0.0)
ORIGIN: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Copy:
    """The object once more, elsewhere or at another time."""

    offset: Vector = ORIGIN
    """From where the (moved) object is, in scene units."""
    time_offset: float = 0.0
    """At time t the copy is what the object was at t - time_offset; outside [0, 1] the clip's end stands still."""


@dataclass(frozen=True)
class ObjectEdit:
    """What is done to one target."""

    hidden: bool = False
    """Whether it is taken away, copies included; what lies behind shows."""
    opacity: float = 1.0
    """How much of it is left in the picture: 1 all, 0 nothing."""
    color: Rgb | None = None
    """Colour that it is tinted with, its light and shade kept; None: its own."""
    color_strength: float = 0.7
    """From 0, its own colour, to 1, the tint alone."""
    translation: Vector = ORIGIN
    """How far it is moved."""
    rotation: Quaternion = NO_TURN
    """How it is turned about its centre at the time."""
    scale: float = 1.0
    """How it is scaled about its centre at the time."""
    copies: tuple[Copy, ...] = ()
    """Further copies of it."""

    @property
    def placed(self) -> bool:
        """Whether it stands elsewhere, otherwise or larger than it was."""
        return self.translation != ORIGIN or self.scale != 1 or any(abs(v) > 1e-9 for v in self.rotation[1:])


@dataclass(frozen=True)
class SceneState:
    """All edits of one scene. Equal states look equal; the default changes nothing."""

    objects: Mapping[str, ObjectEdit] = field(default_factory=dict)
    """Edits by target. What belongs to several targets is hidden if one of them is; colour and place come from the most
    particular one: instance, class, then moving or static."""
    isolate: tuple[str, ...] = ()
    """Where not empty, everything that belongs to none of these targets is hidden."""
    background: Rgb | None = None
    """Colour in place of everything that is not kept: what is isolated, or else what moves, is kept."""
    class_colors: Mapping[str, Rgb] = field(default_factory=dict)
    """Colours of classes in semantic pictures and legends in place of the data set's."""
    hidden_classes: tuple[str, ...] = ()
    """Classes that semantic pictures leave uncoloured; the scene itself stays as it is."""
    scene: str | None = None
    """Name of the scene that is edited; None: the run's default scene."""

    @property
    def empty(self) -> bool:
        """Whether pictures are exactly those of the unedited scene."""
        return replace(self, scene=None) == SceneState()

    @property
    def edits_scene(self) -> bool:
        """Whether rays must be rendered otherwise than without it; class colours alone need no other rays."""
        return bool(self.objects or self.isolate or self.background is not None)

    @property
    def kept(self) -> tuple[str, ...]:
        """Targets outside which everything is hidden; none: nothing is."""
        return self.isolate or (("moving",) if self.background is not None else ())

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target that is named, each once."""
        return tuple(dict.fromkeys([*self.objects, *self.isolate]))

    def edit(self, target: str) -> ObjectEdit:
        """What is done to a target."""
        return self.objects.get(target, ObjectEdit())


# ---------------------------------------------------------------------- targets


def class_target(name: str) -> str:
    """The target of a class."""
    return f"class:{name}"


def instance_target(number: int) -> str:
    """The target of an instance."""
    return f"instance:{number}"


def parse_target(target: str) -> tuple[str, str]:
    """("class", NAME), ("instance", ID), ("moving", "") or ("static", "").

    Raises:
        ValueError: it is no target.
    """
    kind, _, name = target.partition(":")
    valid = target in ("moving", "static") or (kind == "class" and name) or (kind == "instance" and name.isdecimal())
    if not valid:
        raise ValueError(
            f"'{target}' is no target: use class:NAME, instance:ID, moving or static, such as class:person"
        )
    return kind, name


# ---------------------------------------------------------------------- edits, each a new state


def with_edit(state: SceneState, target: str, edit: ObjectEdit) -> SceneState:
    """Replace all that is done to a target; an edit that does nothing is dropped.

    Raises:
        ValueError: no such target can be, or a number is out of range.
    """
    parse_target(target)
    check_edit(edit)
    objects = {**state.objects, target: edit}
    if edit == ObjectEdit():
        del objects[target]
    return replace(state, objects=objects)


def hide(state: SceneState, target: str, hidden: bool = True) -> SceneState:
    """Take a target out of the scene, or put it back."""
    return with_edit(state, target, replace(state.edit(target), hidden=hidden))


def ghost(state: SceneState, target: str, opacity: float) -> SceneState:
    """Show a target at an opacity from 0 to 1."""
    return with_edit(state, target, replace(state.edit(target), opacity=float(opacity)))


def recolor(state: SceneState, target: str, color: Rgb | None, strength: float = 0.7) -> SceneState:
    """Tint a target; None gives it its own colour back."""
    strength = ObjectEdit().color_strength if color is None else float(strength)
    return with_edit(state, target, replace(state.edit(target), color=color, color_strength=strength))


def place(
    state: SceneState,
    target: str,
    translation: Vector | None = None,
    rotation: Quaternion | None = None,
    scale: float | None = None,
) -> SceneState:
    """Set where a target stands; what is left out stays as it is."""
    old = state.edit(target)
    edit = replace(
        old,
        translation=old.translation if translation is None else _floats(translation),
        rotation=old.rotation if rotation is None else normalized(rotation),
        scale=old.scale if scale is None else float(scale),
    )
    return with_edit(state, target, edit)


def duplicate(state: SceneState, target: str, offset: Vector = ORIGIN, time_offset: float = 0.0) -> SceneState:
    """Add a copy of a target."""
    old = state.edit(target)
    copy = Copy(_floats(offset), float(time_offset))
    return with_edit(state, target, replace(old, copies=(*old.copies, copy)))


def without_copies(state: SceneState, target: str) -> SceneState:
    """Drop a target's copies."""
    return with_edit(state, target, replace(state.edit(target), copies=()))


def restore(state: SceneState, target: str) -> SceneState:
    """Drop all that is done to a target."""
    return with_edit(state, target, ObjectEdit())


def isolate(state: SceneState, targets: Iterable[str]) -> SceneState:
    """Show these targets alone; none: everything."""
    chosen = tuple(dict.fromkeys(targets))
    for target in chosen:
        parse_target(target)
    return replace(state, isolate=chosen)


def with_background(state: SceneState, color: Rgb | None) -> SceneState:
    """Put a colour in place of all that is not kept; None: the scene's own background."""
    if color is not None:
        check_color(color, "background")
    return replace(state, background=color)


def with_class_color(state: SceneState, name: str, color: Rgb | None) -> SceneState:
    """Give a class another colour; None: the data set's."""
    colors = {key: value for key, value in state.class_colors.items() if key != name}
    if color is not None:
        check_color(color, f"the colour of class {name}")
        colors[name] = color
    return replace(state, class_colors=colors)


def with_class_visible(state: SceneState, name: str, visible: bool) -> SceneState:
    """Colour a class in semantic pictures or leave it uncoloured."""
    others = tuple(other for other in state.hidden_classes if other != name)
    return replace(state, hidden_classes=others if visible else (*others, name))


# ---------------------------------------------------------------------- rotations


def normalized(quaternion: Iterable[float]) -> Quaternion:
    """The unit quaternion of a rotation.

    Raises:
        ValueError: it has no direction.
    """
    w, x, y, z = (float(v) for v in quaternion)
    length = math.sqrt(w * w + x * x + y * y + z * z)
    if not (math.isfinite(length) and length > 1e-9):
        raise ValueError("a rotation is a quaternion (w, x, y, z) other than zero, of finite numbers")
    return (w / length, x / length, y / length, z / length)


def from_euler(degrees: Iterable[float]) -> Quaternion:
    """The rotation about x, then y, then z (fixed axes), in degrees."""
    halves = [math.radians(float(angle)) / 2 for angle in degrees]
    (cx, cy, cz), (sx, sy, sz) = (tuple(f(h) for h in halves) for f in (math.cos, math.sin))
    return normalized(
        (
            cx * cy * cz + sx * sy * sz,
            sx * cy * cz - cx * sy * sz,
            cx * sy * cz + sx * cy * sz,
            cx * cy * sz - sx * sy * cz,
        )
    )


def rotation_matrix(quaternion: Quaternion) -> tuple[Vector, Vector, Vector]:
    """Rows of the rotation matrix of a unit quaternion."""
    w, x, y, z = quaternion
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )


# ---------------------------------------------------------------------- checks


def check_color(color: Rgb, what: str) -> None:
    """Raise ValueError where a colour is not three numbers from 0 to 1."""
    if len(color) != 3 or not all(0 <= value <= 1 for value in color):
        raise ValueError(f"{what} is {color}, but a colour is three numbers from 0 to 1, such as [1, 0.5, 0]")


def check_edit(edit: ObjectEdit) -> None:
    """Raise ValueError where a number is not finite or out of range."""
    for item in (edit, *edit.copies):
        for entry in fields(item):
            value = getattr(item, entry.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(n) for n in numbers if isinstance(n, int | float)):
                raise ValueError(f"{entry.name} is {value}, but it must be of finite numbers")
    if not edit.scale > 0:
        raise ValueError(f"scale is {edit.scale:g}, but it must be above 0")
    if abs(math.hypot(*edit.rotation) - 1) > 1e-6:
        raise ValueError(f"rotation is {edit.rotation}, but it must be a quaternion (w, x, y, z) of length 1")
    for name in ("opacity", "color_strength"):
        if not 0 <= getattr(edit, name) <= 1:
            raise ValueError(f"{name} is {getattr(edit, name):g}, but it must be from 0 to 1")
    for copy in edit.copies:
        if not -1 <= copy.time_offset <= 1:
            raise ValueError(f"time_offset is {copy.time_offset:g}, but it must be from -1 to 1, the clip's length")
    if edit.color is not None:
        check_color(edit.color, "color")


def check_known(
    state: SceneState, class_names: Collection[str], instances: Collection[int] | None, scenes: Collection[str]
) -> None:
    """Check a state against a run.

    Args:
        state: What to check.
        class_names: The run's classes.
        instances: Its instances; None: not known, so not checked.
        scenes: Its scenes.

    Raises:
        ValueError: it names a scene, a class or an instance that is not there; the message names those that are.
    """
    if state.scene is not None and state.scene not in scenes:
        raise ValueError(f"there is no scene '{state.scene}'; the run has {', '.join(scenes)}")
    named = [*state.class_colors, *state.hidden_classes]
    for target in state.targets:
        kind, name = parse_target(target)
        if kind == "class":
            named.append(name)
        elif kind == "instance" and instances is not None and int(name) not in instances:
            known = ", ".join(str(i) for i in sorted(instances)) or "none"
            raise ValueError(f"there is no instance {name}; the scene has {known}")
    for name in named:
        if name not in class_names:
            raise ValueError(f"there is no class '{name}'; the run has {', '.join(class_names) or 'none'}")


def _floats(values: Iterable[float]) -> Vector:
    x, y, z = (float(v) for v in values)
    return (x, y, z)


class History:
    """States one after the other: undo, redo, reset."""

    def __init__(self, state: SceneState | None = None, limit: int = 200) -> None:
        """Start from a state; at most `limit` steps can be undone."""
        self.state = state or SceneState()
        """The state now."""
        self._limit = limit
        self._past: list[SceneState] = []
        self._future: list[SceneState] = []

    def apply(self, state: SceneState) -> SceneState:
        """Go on to a new state; what was undone can no longer be redone. A state that changes nothing is no step."""
        if state != self.state:
            self._past = [*self._past, self.state][-self._limit :]
            self._future = []
            self.state = state
        return self.state

    def undo(self) -> SceneState:
        """Go back one step, if there is one."""
        if self._past:
            self._future.append(self.state)
            self.state = self._past.pop()
        return self.state

    def redo(self) -> SceneState:
        """Take an undone step again, if there is one."""
        if self._future:
            self._past.append(self.state)
            self.state = self._future.pop()
        return self.state

    def reset(self) -> SceneState:
        """Drop all edits, as a step that can be undone."""
        return self.apply(SceneState(scene=self.state.scene))

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)
