"""Every control of the "Semantics" tab in turn, faster than images come: nothing raises, and all goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nerfstudio.utils.rich_utils import CONSOLE
from tiny_runs import TrainedRun, forget_writers, model_of, set_up, tiny_config
from viewer_client import ViewerClient
from viewer_session import Session, watched

from semflow_nerfstudio.editing.scene_state import SceneState
from semflow_nerfstudio.runs import Run, load_run
from semflow_nerfstudio.viewer.panel import TAB, SemanticsPanel

KINDS = {"Button", "UploadButton", "Slider", "Dropdown", "Checkbox", "Rgb", "Vector3", "Text"}
LABELS = {
    *("Play / pause", "Frame", "Step back", "Step forward", "Frames per second", "At the end", "Playing moves"),
    *("Smooth time", "Go to frame", "Time of clicked camera"),
    *("Select with", "Level", "Selected", "Highlight", "Find instances", "Clear selection"),
    *("Filter", "Overlay opacity", "Class", "Class colour", "Only this class", "All classes"),
    *("Show tracks", "Last frames", "Next frames", "Number of tracks", "Colour tracks by", "Trace again"),
    *("Undo", "Redo", "Reset all edits", "Hide", "Isolate", "Restore", "Object opacity", "Tint", "Own colour"),
    *("Gizmo", "Move by", "Turn by", "Object scale", "Copy offset", "Copy delay", "Duplicate", "Remove copies"),
    *("Replace background", "Replacement colour", "Edits file", "Save edits", "Load edits", "Upload edits"),
}
"""All that the tab has, beside a switch for every class."""


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Errors that are not about the user's input: the tab prints them to the terminal."""
    import sys

    errors: list[str] = []
    monkeypatch.setattr(CONSOLE, "print_exception", lambda **_: errors.append(repr(sys.exc_info()[1])))
    return errors


def controls_of_tab(client: ViewerClient) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and message of each control of the tab, in the order of the page."""
    client.wait(lambda: "Upload edits" in {c.get("label") for c in client.controls.values()})
    (group,) = (c for c in client.controls.values() if c["type"] == "GuiAddTabGroupMessage")
    inside = {group["tab_container_ids"][group["tab_labels"].index(TAB)]}
    for message in sorted(client.controls.values(), key=lambda message: message["order"]):
        if message.get("container_id") in inside:
            kind = message["type"].removeprefix("GuiAdd").removesuffix("Message")
            if kind == "Folder":
                inside.add(message["id"])
            elif kind != "Markdown":
                yield kind, message


def use(client: ViewerClient, kind: str, message: dict[str, Any], file: Path) -> None:
    """Do with a control what can be done with it, and leave it as it was."""
    label, value = message["label"], message.get("value")
    if kind == "Button":
        client.press(label)
    elif kind == "UploadButton":
        client.upload(label, "edits.json", b'{"version": 1, "objects": {"moving": {"opacity": 0.5}}}')
    elif kind == "Slider":
        for position in (message["min"], message["max"], value):
            client.set(label, position)
    elif kind == "Dropdown":
        for option in (*message["options"], value):
            client.set(label, option)
    elif kind == "Checkbox":
        client.set(label, not value)
        client.receive(0.1)
        client.set(label, value)
    elif kind == "Rgb":
        client.set(label, (12, 200, 90))
    elif kind == "Vector3":
        client.set(label, (0.1, -0.2, 0.3))
        client.set(label, value)
    else:
        client.set(label, str(file) if label == "Edits file" else "w")
        client.receive(0.1)
        client.set(label, str(file) if label == "Edits file" else "")
    client.receive(0.1)


def use_all(session: Session, file: Path) -> None:
    client = session.client
    controls = list(controls_of_tab(client))
    assert {kind for kind, _ in controls} == KINDS
    assert {message["label"] for _, message in controls} == LABELS | set(model_of(session.run).class_names)
    for target in ("nothing", "class:floor"):
        for kind, message in controls:
            if message["label"] != "Selected":
                client.set("Selected", target)
            use(client, kind, message, file)
    panel = session.run.pipeline.semantics.panel
    assert isinstance(panel, SemanticsPanel)
    session.settle(patience=600)  # the server works on messages side by side
    client.press("Reset all edits")
    client.wait(lambda: panel.browser.state == SceneState(), 120)
    session.settle(patience=600)
    assert session.alive and file.is_file() and not panel.playback.playback.playing, "steps pause"
    assert session.rendered[-1]["label"].max() < 255, "it is shown as it is"


def test_every_control_of_a_trained_run(tiny_run: TrainedRun, tmp_path: Path, raised: list[str]) -> None:
    with watched(load_run(tiny_run.folder), tmp_path) as session:
        use_all(session, tmp_path / "edits.json")
    assert raised == []


def test_every_control_before_a_checkpoint_is_loaded(scene: Path, tmp_path: Path, raised: list[str]) -> None:
    trainer = set_up(tiny_config(scene, tmp_path / "runs"))
    forget_writers()
    with watched(Run(trainer.config, trainer.pipeline), tmp_path) as session:  # type: ignore[arg-type]
        use_all(session, tmp_path / "edits.json")
    assert raised == []
