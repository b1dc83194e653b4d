"""Selecting what is seen: a click or a rectangle at a time -> targets, with label, probability, place and motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from semflow_nerfstudio.editing.scene_state import class_target, instance_target
from semflow_nerfstudio.viewer.compat import Click, Rectangle
from semflow_nerfstudio.visuals.display import Membership

if TYPE_CHECKING:
    from semflow_nerfstudio.model import SemanticFlowModel
    from semflow_nerfstudio.viewer.browser import Browser
    from semflow_nerfstudio.viewer.compat import Page

Level = Literal["instance", "class", "moving or static"]
"""What a click selects."""
MARKER = "selection"
NOTHING = "Nothing is there."
MIN_SHARE = 0.1
"""Share of a rectangle from which on something in it is selected."""


@dataclass(frozen=True)
class Picked:
    """What one ray sees. Lengths are scene units."""

    position: tuple[float, float, float]
    motion: tuple[float, float, float]
    """To the next frame time."""
    time: float
    moving: bool
    label: str | None
    """Most probable class; None in a run without classes."""
    probability: float
    """Of that class."""
    instance: int
    """-1: none is known there."""

    def target(self, level: Level) -> str:
        """What is selected at a level; where there is no instance its class, and without classes what moves or not."""
        if level == "instance" and self.instance >= 0:
            return instance_target(self.instance)
        if level != "moving or static" and self.label is not None:
            return class_target(self.label)
        return "moving" if self.moving else "static"

    def describe(self) -> str:
        """A few lines of markdown."""
        x, y, z = self.position
        lines = [] if self.label is None else [f"**{self.label}**, probability {self.probability:.2f}"]
        if self.instance >= 0:
            lines.append(f"instance {self.instance}")
        lines.append(f"at ({x:.3f}, {y:.3f}, {z:.3f}), time {self.time:.3f}")
        speed = float(np.linalg.norm(self.motion))
        u, v, w = self.motion
        lines.append(
            f"moves ({u:.3f}, {v:.3f}, {w:.3f}) a frame, {speed:.3f} units" if self.moving else "does not move"
        )
        return "  \n".join(lines)


@dataclass(frozen=True)
class Selection:
    """What is selected."""

    targets: tuple[str, ...] = ()
    picked: Picked | None = None
    """Where it was clicked."""
    note: str = ""
    """What else there is to say: markdown."""

    def describe(self) -> str:
        """What the panel says."""
        if not self.targets:
            return self.note or "Nothing is selected."
        lines = [f"Selected: `{'`, `'.join(self.targets)}`"]
        if self.picked is not None:
            lines.append(self.picked.describe())
        return "  \n".join([*lines, self.note] if self.note else lines)


@torch.no_grad()
def probe(
    model: SemanticFlowModel, origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"], time: float
) -> dict[str, Tensor]:
    """What rays see at a time, one row each: the model's ray outputs. Leaves the model in the mode it was in."""
    rays = RayBundle(
        origins=origins.to(model.device).float(),
        directions=directions.to(model.device).float(),
        pixel_area=torch.zeros_like(origins[:, :1]).to(model.device),
        times=torch.full_like(origins[:, :1], time).to(model.device).float(),
    )
    training = model.training
    model.eval()
    try:
        return model(rays)
    finally:
        model.train(training)


def pick(model: SemanticFlowModel, click: Click, time: float, membership: Membership | None = None) -> Picked | None:
    """What a click hits at a time; None where it hits nothing."""
    origin, direction = (
        torch.from_numpy(np.asarray(v, dtype=np.float32))[None] for v in (click.origin, click.direction)
    )
    seen = probe(model, origin, direction, time)
    if float(seen["accumulation"]) <= 0.5:
        return None
    here, label, probability, instance = seen["here"], None, 1.0, -1
    if "logits" in seen:
        probabilities = seen["logits"][0].softmax(-1)
        index = int(probabilities.argmax())
        label, probability = model.class_names[index], float(probabilities[index])
    moving = seen["dynamicness"][:, 0] > seen["accumulation"][:, 0] / 2
    if membership is not None:
        instance = int(membership(seen["source"], seen["source_time"][:, 0], moving))
    return Picked(
        position=_vector(here[0]),
        motion=_vector(seen["there"][0] - here[0]),
        time=time,
        moving=bool(moving),
        label=label,
        probability=probability,
        instance=instance,
    )


def pick_rectangle(
    model: SemanticFlowModel, rectangle: Rectangle, time: float, level: Level, membership: Membership | None = None
) -> dict[str, float]:
    """Targets that fill at least a tenth of a rectangle, and the share of it that each fills, largest first."""
    camera = rectangle.camera.to(model.device)
    rays = camera.generate_rays(camera_indices=0, keep_shape=True)
    rays = rays[_within(camera, rectangle)].flatten()
    seen = probe(model, rays.origins, rays.directions, time)
    solid = seen["accumulation"][:, 0] > 0.5
    moving = seen["dynamicness"][:, 0] > seen["accumulation"][:, 0] / 2
    labels = seen["logits"].argmax(-1).tolist() if "logits" in seen else [None] * len(solid)
    instances = [-1] * len(solid)
    if membership is not None:
        instances = membership(seen["source"], seen["source_time"][:, 0], moving).tolist()
    shares: dict[str, float] = {}
    for filled, moves, label, instance in zip(solid.tolist(), moving.tolist(), labels, instances, strict=True):
        if filled:
            name = None if label is None else model.class_names[label]
            target = Picked((0, 0, 0), (0, 0, 0), time, moves, name, 1.0, instance).target(level)
            shares[target] = shares.get(target, 0.0) + 1 / len(solid)
    return {t: s for t, s in sorted(shares.items(), key=lambda item: -item[1]) if s >= MIN_SHARE}


def _within(camera: Cameras, rectangle: Rectangle) -> tuple[slice, slice]:
    """Rows and columns of a rectangle, at least one of each."""
    size = int(camera.height.flatten()[0]), int(camera.width.flatten()[0])
    slices: list[slice] = []
    for length, low, high in zip(size, rectangle.low[::-1], rectangle.high[::-1], strict=True):
        first = min(max(int(low * length), 0), length - 1)
        slices.append(slice(first, max(first + 1, min(round(high * length), length))))
    return slices[0], slices[1]


def _vector(values: Tensor) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


POINTERS: dict[str, Any] = {"off": "off", "click": "click", "rectangle": "rect-select"}


class SelectionPanel:
    """Pointer, level, what is selected, and how it is shown."""

    def __init__(self, page: Page, browser: Browser) -> None:
        self.page, self.browser = page, browser
        self._marked: Picked | None = None
        self.level: Level = "instance" if browser.class_names else "moving or static"
        with page.folder("Select"):
            self.pointer = page.dropdown(
                "Select with", tuple(POINTERS), "off", self.listen, "click: on an object; rectangle: drag over several"
            )
            page.dropdown(
                "Level",
                get_args(Level),
                self.level,
                lambda name: self.set_level(cast(Level, name)),
                "What a click selects",
            )
            self.named = page.dropdown("Selected", self._options(), "nothing", self.choose, "Select by name")
            page.checkbox("Highlight", True, lambda on: browser.update(highlighting=on), "Tint and outline it")
            page.button("Find instances", browser.find_instances, "Single objects; kept beside the run")
            page.button("Clear selection", lambda: browser.select(Selection()))
            self.info = page.markdown("")
        browser.on_change.append(self.show)
        browser.on_time.append(lambda _: self.mark())
        self.show()

    def _options(self) -> Sequence[str]:
        targets = [class_target(name) for name in self.browser.class_names]
        targets += [instance_target(number) for number in self.browser.instance_ids]
        # A selection of several targets is an option, too, while it lasts.
        options = ["nothing", "moving", "static", *targets]
        return options if self._current() in options else [*options, self._current()]

    def _current(self) -> str:
        return ", ".join(self.browser.selection.targets) or "nothing"

    def show(self) -> None:
        """Bring the widgets up to date."""
        selection = self.browser.selection
        self.named.show_options(self._options(), self._current())
        self.info.show(selection.describe())
        self.mark()

    def mark(self) -> None:
        """Mark where it was clicked, while that time is shown."""
        picked = self.browser.selection.picked
        if picked is not None and abs(picked.time - self.page.time) > 1e-4:
            picked = None
        if picked == self._marked:
            return
        self._marked = picked
        if picked is None:
            self.page.remove(MARKER)
            return
        text = picked.label or ("moving" if picked.moving else "static")
        self.page.show_marker(MARKER, np.array(picked.position), text, self.browser.marker_size, (255, 217, 26))

    def listen(self, kind: str) -> None:
        """Start or stop listening to the pointer."""
        self.page.listen(POINTERS[kind], self.pointed, lambda: self.pointer.show("off"))

    def set_level(self, level: Level) -> None:
        """Select the same thing at another level."""
        self.level = level
        picked = self.browser.selection.picked
        if picked is not None:
            self.browser.select(self._at_level(picked))

    def choose(self, target: str) -> None:
        """Select by name."""
        if target != self._current():
            self.browser.select(Selection() if target == "nothing" else Selection((target,)))

    def pointed(self, where: Click | Rectangle) -> None:
        """Something was clicked, or a rectangle drawn."""
        time, membership = self.page.time, self.browser.membership
        with self.page.lock():
            self.browser.apply()
            if isinstance(where, Click):
                picked = pick(self.browser.model, where, time, membership)
                selection = Selection(note=NOTHING) if picked is None else self._at_level(picked)
            else:
                shares = pick_rectangle(self.browser.model, where, time, self.level, membership)
                filled = ", ".join(f"{target} {100 * share:.0f} %" for target, share in shares.items())
                selection = Selection(tuple(shares), note=f"It fills of the rectangle: {filled}" if shares else NOTHING)
        self.browser.select(selection)

    def _at_level(self, picked: Picked) -> Selection:
        target, note = picked.target(self.level), ""
        if self.level == "instance" and picked.instance < 0:
            known = "no instance is known here" if self.browser.instance_ids else "instances have not been found yet"
            note = f"*{known}: the class is selected*" if picked.label is not None else ""
        return Selection((target,), picked, note)
