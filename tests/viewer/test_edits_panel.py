"""What the edits panel says, and how it reads angles."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from semflow_nerfstudio.editing.scene_state import (
    SceneState,
    duplicate,
    from_euler,
    ghost,
    hide,
    isolate,
    place,
    with_background,
    with_class_color,
    with_class_visible,
)
from semflow_nerfstudio.viewer.edits_panel import describe, render_command, to_euler


def test_every_edit_is_listed() -> None:
    state = hide(SceneState(), "class:dog")
    state = ghost(place(state, "instance:3", (1.0, 0.0, 0.0), from_euler((0, 0, 90)), 2.0), "instance:3", 0.25)
    state = duplicate(duplicate(state, "instance:3", (0.0, 1.0, 0.0)), "instance:3", time_offset=0.5)
    state = with_background(isolate(state, ["moving"]), (0.0, 1.0, 0.0))
    state = with_class_visible(with_class_color(state, "cat", (1.0, 0.0, 0.0)), "wall", False)
    text = describe(state)
    for line in (
        "only moving",
        "another background",
        "class:dog: hidden",
        "instance:3: 25% opaque, moved, turned, 2 times as large, 2 more",
        "other colours: cat",
        "uncoloured: wall",
    ):
        assert f"- {line}" in text.splitlines()
    assert describe(SceneState()) == "*Nothing is edited.*"


@pytest.mark.parametrize("degrees", [(0, 0, 0), (30, 0, 0), (0, -40, 0), (0, 0, 170), (10, 20, 30), (-100, 60, -70)])
def test_angles_survive_the_way_through_quaternions(degrees: tuple[float, float, float]) -> None:
    assert to_euler(from_euler(degrees)) == pytest.approx(degrees, abs=1e-3)


def test_the_command_can_be_pasted() -> None:
    command = render_command(Path("runs/my run"), Path("/tmp/it's.json"))
    assert shlex.split(command) == ["semflow", "render", "runs/my run", "out.mp4", "--scene-state", "/tmp/it's.json"]
