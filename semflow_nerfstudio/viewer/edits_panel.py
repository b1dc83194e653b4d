"""Edits of what is selected: hide, isolate, ghost, tint, place, duplicate; background, undo, redo, files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from semflow_nerfstudio.editing.scene_state import (
    NO_TURN,
    ORIGIN,
    Quaternion,
    Rgb,
    SceneState,
    Vector,
    duplicate,
    from_euler,
    ghost,
    hide,
    isolate,
    place,
    recolor,
    restore,
    with_background,
    without_copies,
)
from semflow_nerfstudio.editing.scene_state_file import from_json, load_scene_state, save_scene_state
from semflow_nerfstudio.viewer.legend import from_bytes, to_bytes

if TYPE_CHECKING:
    from semflow_nerfstudio.viewer.browser import Browser
    from semflow_nerfstudio.viewer.compat import Page

FILE_NAME = "scene_state.json"
GIZMO = "gizmo"
_GREY = (128, 128, 128)


def describe(state: SceneState) -> str:
    """What is edited, a line of markdown each."""
    lines = []
    if state.isolate:
        lines.append(f"- only {', '.join(state.isolate)}")
    if state.background is not None:
        lines.append("- another background")
    for target, edit in state.objects.items():
        done = ["hidden"] if edit.hidden else []
        done += [f"{edit.opacity:.0%} opaque"] if edit.opacity < 1 else []
        done += ["tinted"] if edit.color is not None else []
        done += ["moved"] if edit.translation != ORIGIN else []
        done += ["turned"] if edit.rotation != NO_TURN else []
        done += [f"{edit.scale:g} times as large"] if edit.scale != 1 else []
        done += [f"{len(edit.copies)} more" if len(edit.copies) > 1 else "one more"] if edit.copies else []
        lines.append(f"- {target}: {', '.join(done)}")
    if state.class_colors:
        lines.append(f"- other colours: {', '.join(state.class_colors)}")
    if state.hidden_classes:
        lines.append(f"- uncoloured: {', '.join(state.hidden_classes)}")
    return "\n".join(lines) or "*Nothing is edited.*"


def to_euler(quaternion: Quaternion) -> Vector:
    """Degrees about x, then y, then z (fixed axes): the inverse of `from_euler`."""
    w, x, y, z = quaternion
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    a, b, c = np.degrees([roll, pitch, yaw]).round(3).tolist()
    return a, b, c


def render_command(folder: Path, state_file: Path) -> str:
    """The command that renders a video with the saved edits."""
    return f"semflow render {shlex.quote(str(folder))} out.mp4 --scene-state {shlex.quote(str(state_file))}"


class EditsPanel:
    """What can be done to the selection, and to all edits."""

    def __init__(self, page: Page, browser: Browser) -> None:
        self.page, self.browser = page, browser
        with page.folder("Edit"):
            page.button("Undo", browser.undo)
            page.button("Redo", browser.redo)
            page.button("Reset all edits", browser.reset)
            self.list = page.markdown("")
            with page.folder("Selection: look"):
                page.button("Hide", lambda: self._each(hide), "What lies behind shows")
                page.button("Isolate", self.isolate, "Hide everything else; again: show it again")
                page.button("Restore", lambda: self._each(restore), "Drop all that is done to the selection")
                self.opacity = page.slider("Object opacity", 0.0, 1.0, 0.05, 1.0, self.ghost, "Ghost the selection")
                self.tint = page.color("Tint", _GREY, self.recolor)
                page.button("Own colour", lambda: self._each(lambda state, target: recolor(state, target, None)))
            with page.folder("Selection: place", open_at_first=False):
                self.gizmo = page.checkbox("Gizmo", False, self.show_gizmo, "Drag arrows and rings in the scene")
                self.translation = page.vector("Move by", ORIGIN, self.translate, hint="Scene units")
                self.rotation = page.vector("Turn by", ORIGIN, self.rotate, 1.0, "Degrees about x, then y, then z")
                self.scale = page.slider("Object scale", 0.1, 3.0, 0.05, 1.0, self.rescale)
                self.offset = page.vector("Copy offset", ORIGIN, hint="Scene units from the object")
                last = browser.most_frames - 1
                self.delay = page.slider("Copy delay", -last, last, 1, 0, None, "Frames that the copy is behind")
                page.button("Duplicate", self.duplicate)
                page.button("Remove copies", lambda: self._each(without_copies))
            with page.folder("Background", open_at_first=False):
                self.replaced = page.checkbox(
                    "Replace background", False, self.set_background, "A colour behind what is isolated, or moves"
                )
                self.background = page.color("Replacement colour", (0, 177, 64), lambda _: self.recolor_background())
            with page.folder("File", open_at_first=False):
                self.file = page.text(
                    "Edits file", str(self._default_file()), None, "Where edits are saved, and read from"
                )
                page.button("Save edits", self.save)
                page.button("Load edits", self.load)
                page.upload("Upload edits", "application/json", self.uploaded)
                self.command = page.markdown("")
        browser.on_change.append(self.show)
        browser.on_time.append(lambda _: self.place_gizmo())
        browser.on_scene.append(lambda: self.file.show(str(self._default_file())))
        self.show()

    # ------------------------------------------------------------------ showing

    def show(self) -> None:
        """Bring the widgets up to date."""
        state, targets = self.browser.state, self.browser.selection.targets
        self.list.show(describe(state))
        if targets:
            edit = state.edit(targets[0])
            self.opacity.show(edit.opacity)
            self.translation.show(edit.translation)
            self.rotation.show(to_euler(edit.rotation))
            self.scale.show(edit.scale)
            self.tint.show(_GREY if edit.color is None else to_bytes(edit.color))
        self.replaced.show(state.background is not None)
        if state.background is not None:
            self.background.show(to_bytes(state.background))
        self.place_gizmo()

    def _targets(self) -> tuple[str, ...]:
        targets = self.browser.selection.targets
        if not targets:
            raise ValueError("Nothing is selected: click on something or choose it by name first.")
        return targets

    def _each(self, change, drag: bool = False) -> None:
        """Apply a change (state, target) -> state to all that is selected."""
        state = self.browser.state
        for target in self._targets():
            state = change(state, target)
        (self.browser.drag if drag else self.browser.edit)(state)

    # ------------------------------------------------------------------ look

    def isolate(self) -> None:
        """Show the selection alone, or everything again."""
        chosen = self._targets()
        state = self.browser.state
        self.browser.edit(isolate(state, () if state.isolate == chosen else chosen))

    def ghost(self, opacity: float) -> None:
        """Let the selection be seen through."""
        self._each(lambda state, target: ghost(state, target, float(opacity)), drag=True)

    def recolor(self, color: tuple[int, int, int]) -> None:
        """Tint the selection."""
        chosen: Rgb = from_bytes(color)
        self._each(lambda state, target: recolor(state, target, chosen), drag=True)

    # ------------------------------------------------------------------ place

    def translate(self, translation: Vector) -> None:
        """Move the selection."""
        self._each(lambda state, target: place(state, target, translation=translation), drag=True)

    def rotate(self, degrees: Vector) -> None:
        """Turn the selection."""
        rotation = from_euler(degrees)
        self._each(lambda state, target: place(state, target, rotation=rotation), drag=True)

    def rescale(self, scale: float) -> None:
        """Make the selection larger or smaller."""
        self._each(lambda state, target: place(state, target, scale=float(scale)), drag=True)

    def duplicate(self) -> None:
        """Put a copy of the selection elsewhere, now or later."""
        offset, delay = self.offset.value, self._delay()
        if offset == ORIGIN and delay == 0:
            raise ValueError("The copy would be where the object is: set a copy offset or a delay first.")
        self._each(lambda state, target: duplicate(state, target, offset, delay))

    def _delay(self) -> float:
        times = self.browser.frame_times
        return float(self.delay.value) * (times[-1] - times[0]) / max(len(times) - 1, 1)

    def _center(self) -> Float[np.ndarray, "3"] | None:
        """Where the first selected target is now, without edits."""
        selection = self.browser.selection
        center = self.browser.center_of(selection.targets[0], self.page.time) if selection.targets else None
        if center is None and selection.picked is not None:
            center = np.array(selection.picked.position)
        return center

    def show_gizmo(self, on: bool) -> None:
        """Show or hide the handles."""
        self.page.remove(GIZMO)
        if not on:
            return
        center = self._center()
        if center is None:
            self.gizmo.show(False)
            self._targets()
            raise ValueError("The gizmo needs to know where the selection is: click on it once.")
        size = 12 * self.browser.marker_size
        self.page.show_gizmo(GIZMO, center, size, self.dragged)
        self.place_gizmo()

    def place_gizmo(self) -> None:
        """Put the handles where the selection is."""
        if not self.page.shows(GIZMO):
            return
        center = self._center()
        if center is None:
            self.page.remove(GIZMO)
            self.gizmo.show(False)
            return
        edit = self.browser.state.edit(self.browser.selection.targets[0])
        self.page.move_gizmo(GIZMO, center + np.array(edit.translation), edit.rotation)

    def dragged(self, position: Float[np.ndarray, "3"], rotation: Quaternion) -> None:
        """The handles were dragged."""
        center = self._center()
        if center is None:
            return
        # What is dragged back to where it was is there again.
        x, y, z = (position - center).round(6).tolist()
        self._each(lambda state, target: place(state, target, (x, y, z), rotation), drag=True)

    # ------------------------------------------------------------------ background

    def set_background(self, on: bool) -> None:
        """Put a colour behind everything, or take it away."""
        if on != (self.browser.state.background is not None):
            color = from_bytes(self.background.value) if on else None
            self.browser.edit(with_background(self.browser.state, color))

    def recolor_background(self) -> None:
        """Another colour."""
        if self.browser.state.background is not None:
            self.browser.drag(with_background(self.browser.state, from_bytes(self.background.value)))

    # ------------------------------------------------------------------ files

    def _default_file(self) -> Path:
        """Each of several scenes has a file of its own."""
        scene = self.browser.state.scene
        return self.browser.folder / (FILE_NAME if scene is None else f"scene_state_{scene}.json")

    def _path(self) -> Path:
        if not self.file.value.strip():
            raise ValueError("The edits file has no name: write one into its field.")
        return Path(self.file.value.strip()).expanduser()

    def save(self) -> None:
        """Save all edits."""
        self.browser.settle()
        path = self._path()
        save_scene_state(self.browser.state, path)
        self.command.show(f"Saved. As a video:\n\n```\n{render_command(self.browser.folder, path)}\n```")

    def load(self) -> None:
        """Load edits."""
        self.browser.load(load_scene_state(self._path()))

    def uploaded(self, name: str, content: bytes) -> None:
        """Take edits from a file of the user's machine."""
        try:
            state = from_json(json.loads(content))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        self.browser.load(state)
