"""The "Semantics" tab of the viewer, driven over its websocket as a browser would, and the pictures it gives."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from known_run import BALL_CLASS, PILLAR, WALL_CLASS, KnownInstances, make_known
from tiny_runs import TrainedRun, model_of
from viewer_session import HEIGHT, WIDTH, Session, watched

from semflow_nerfstudio.editing.scene_state import SceneState
from semflow_nerfstudio.editing.scene_state_file import load_scene_state
from semflow_nerfstudio.runs import load_run
from semflow_nerfstudio.viewer.panel import SemanticsPanel

EYE = 3.0
"""The camera stands this far before the scene on the z axis."""
FOCAL = HEIGHT / 2 / math.tan(0.4)
TIMES = (0.0, 1 / 3, 2 / 3, 1.0)
Point = tuple[float, float, float]


@dataclasses.dataclass
class Tab:
    """The tab, and who uses it."""

    session: Session
    panel: SemanticsPanel

    @property
    def client(self):
        return self.session.client

    @property
    def state(self) -> SceneState:
        return self.panel.browser.state

    def picture(self, act: Callable[[], None]) -> np.ndarray:
        """What is shown after doing something that is answered with another image."""
        before = len(self.session.rendered)
        act()
        self.until(lambda: len(self.session.rendered) > before)
        return self.now()

    def now(self) -> np.ndarray:
        """What is shown when all is finished."""
        image = self.session.settle()
        assert self.session.alive and image.shape == (HEIGHT, WIDTH, 3)
        return image

    def set(self, label: str, value: object) -> np.ndarray:
        return self.picture(lambda: self.client.set(label, value))

    def press(self, label: str) -> np.ndarray:
        return self.picture(lambda: self.client.press(label))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so on the server."""
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, "it never became so"
            self.client.receive(0.05)

    def click_at(self, point: Point) -> None:
        """Click on what is seen in the direction of a point."""
        way = np.array([point[0], point[1], point[2] - EYE])
        before = self.panel.browser.selection
        self.client.click((0.0, 0.0, 10 * EYE), (way / np.linalg.norm(way)).tolist())
        self.until(lambda: self.panel.browser.selection is not before)

    def select(self, target: str) -> None:
        """Select by name."""
        self.client.set("Selected", target)
        self.until(lambda: self.panel.browser.selection.targets == ((target,) if target != "nothing" else ()))


def ball_at(time: float) -> Point:
    return (-0.45 + 0.5 * time, 0.0, 0.1)


def pixel(point: Point) -> tuple[int, int]:
    """Row and column that show a point."""
    scale = FOCAL / (EYE - point[2])
    return int(HEIGHT / 2 - scale * point[1]), int(WIDTH / 2 + scale * point[0])


def changed(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where images differ by more than what other samples along the rays explain."""
    return np.abs(image.astype(int) - other.astype(int)).max(-1) > 12


def alike(color: np.ndarray, other: np.ndarray) -> bool:
    return not bool(changed(color, other))


@pytest.fixture(scope="module")
def tab(tiny_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    run = load_run(tiny_run.folder)
    make_known(run)
    with watched(run, tmp_path_factory.mktemp("tab")) as session:
        panel = run.pipeline.semantics.panel
        assert isinstance(panel, SemanticsPanel)
        panel.browser.instances = KnownInstances()
        session.client.look((0.0, 0.0, 10 * EYE), (0.0, 1.0, 0.0, 0.0))
        session.settle()
        yield Tab(session, panel)


@pytest.fixture(autouse=True)
def fresh(tab: Tab) -> Iterator[None]:
    """Every test starts from the scene as it is, seen from in front, at the first frame, in colour."""
    tab.client.look((0.0, 0.0, 10 * EYE), (0.0, 1.0, 0.0, 0.0))
    tab.client.set("Output type", "rgb")
    tab.client.set("Filter", "")
    tab.client.set("Frame", 0)
    tab.client.set("Selected", "nothing")
    tab.client.press("Reset all edits")
    tab.until(
        lambda: tab.state == SceneState() and tab.panel.page.time == 0 and not tab.panel.browser.selection.targets
    )
    yield
    assert tab.session.alive and "Traceback" not in tab.client.texts()


def names(tab: Tab) -> tuple[str, ...]:
    return tab.panel.browser.class_names


# ---------------------------------------------------------------------- legend


def test_legend_has_colours_names_and_shares_of_the_image(tab: Tab) -> None:
    tab.set("Output type", "semantics")
    label = tab.session.rendered[-1]["label"]
    ball = names(tab)[BALL_CLASS]
    share = float((label == BALL_CLASS).double().mean())
    assert share > 0.01
    red, green, blue = tab.panel.browser.color_of(ball)
    chip = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
    tab.until(lambda: f"| `{chip}` | {ball} | {100 * share:.1f} % |" in tab.client.texts().replace("\\", ""))


def test_classes_are_recoloured_uncoloured_and_filtered(tab: Tab) -> None:
    ball, at = names(tab)[BALL_CLASS], pixel(ball_at(0))
    tab.client.set("Output type", "semantics")
    tab.client.set("Class", ball)
    recoloured = tab.set("Class colour", (1, 2, 250))
    assert recoloured[at].tolist() == [1, 2, 250]
    assert not tab.set(ball, False)[at].any(), "uncoloured"
    assert tab.press("Undo")[at].tolist() == [1, 2, 250]
    assert not tab.set("Filter", names(tab)[WALL_CLASS])[at].any()
    assert f"| {ball} |" not in tab.client.texts()
    assert tab.set("Filter", "")[at].tolist() == [1, 2, 250]
    only = tab.press("Only this class")
    assert only[at].tolist() == [1, 2, 250] and not only[2, 2].any()
    assert tab.press("All classes")[2, 2].any()


def test_opacity_of_the_overlay(tab: Tab) -> None:
    color = tab.now()
    tab.client.set("Output type", "semantics_overlay")
    assert np.array_equal(tab.set("Overlay opacity", 0.0), color)
    assert not np.array_equal(tab.set("Overlay opacity", 0.5), color)


def test_probability_of_a_chosen_class_is_an_output_whose_name_stays(tab: Tab) -> None:
    options = tab.client.control("Output type")["options"]
    tab.client.set("Output type", "class_probability")
    seen = {}
    for index in (BALL_CLASS, WALL_CLASS):
        tab.set("Class", names(tab)[index])
        seen[index] = tab.session.rendered[-1]["class_probability"][pixel(ball_at(0))].item()
    assert seen[BALL_CLASS] > 0.9 and seen[WALL_CLASS] < 0.1
    assert tab.client.control("Output type")["options"] == options


# ---------------------------------------------------------------------- time


def test_frames_are_exact_steps_go_round_and_both_sliders_agree(tab: Tab) -> None:
    for frame in (2, 1, 3):
        tab.set("Frame", frame)
        assert tab.session.rendered[-1]["time"].item() == pytest.approx(TIMES[frame], abs=1e-7)
    tab.press("Step forward")
    assert tab.session.rendered[-1]["time"].item() == 0 and tab.client.value("Frame") == 0
    tab.press("Step back")
    assert tab.client.value("Frame") == 3 and tab.client.value("Time") == 1.0
    tab.set("Time", 0.35)
    tab.until(lambda: tab.client.value("Frame") == 1)
    assert tab.session.rendered[-1]["time"].item() == pytest.approx(0.35)


def test_playing_shows_all_frames_and_pausing_stops(tab: Tab) -> None:
    tab.client.set("Frames per second", 4.0)
    start = len(tab.session.rendered)
    tab.client.press("Play / pause")
    seen: Callable[[], set[float]] = lambda: {round(float(r["time"]), 3) for r in tab.session.rendered[start:]}  # noqa: E731
    tab.until(lambda: {round(time, 3) for time in TIMES} <= seen())
    tab.client.press("Play / pause")
    tab.until(lambda: not tab.panel.playback.playback.playing)
    assert seen() == {round(time, 3) for time in TIMES}, "time goes from frame to frame"
    stopped = tab.panel.page.time
    tab.client.receive(0.5)
    assert tab.panel.page.time == stopped


def test_camera_and_time_of_a_frame(tab: Tab) -> None:
    browser = tab.panel.browser
    tab.client.set("Frame", 2)
    tab.picture(lambda: tab.client.press("Go to frame"))
    pose, fov = browser.camera_at(TIMES[2])
    np.testing.assert_allclose(tab.client.camera["position"], 10 * pose[:, 3], atol=1e-4)
    assert tab.client.camera["fov"] == pytest.approx(fov)
    tab.client.set("Playing moves", "camera")
    tab.client.press("Step forward")
    tab.until(lambda: np.allclose(tab.client.camera["position"], 10 * browser.camera_at(1.0)[0][:, 3], atol=1e-4))
    assert tab.panel.page.time == pytest.approx(TIMES[2]), "time stands still"
    tab.client.set("Playing moves", "time")


# ---------------------------------------------------------------------- selection


def test_a_click_selects_and_says_what_is_there_at_this_time(tab: Tab) -> None:
    plain = tab.set("Frame", 2)
    tab.client.set("Select with", "click")
    shown = tab.picture(lambda: tab.click_at(ball_at(TIMES[2])))
    picked = tab.panel.browser.selection.picked
    assert tab.panel.browser.selection.targets == ("instance:0",) and picked is not None
    assert picked.label == names(tab)[BALL_CLASS] and picked.probability > 0.9 and picked.moving
    assert math.dist(picked.position, ball_at(TIMES[2])) < 0.3 and picked.time == pytest.approx(TIMES[2])
    np.testing.assert_allclose(picked.motion, (0.5 / 3, 0, 0), atol=0.01)
    text = tab.client.texts()
    assert "instance 0" in text and "moves (0.16" in text
    lit = (shown != plain).any(-1)
    assert lit[pixel(ball_at(TIMES[2]))] and not lit[pixel(PILLAR)] and lit.mean() < 0.2, "highlighted"
    tab.until(lambda: "/semantics/selection" in tab.client.nodes)

    tab.client.set("Level", "class")
    tab.until(lambda: tab.panel.browser.selection.targets == (f"class:{names(tab)[BALL_CLASS]}",))
    tab.client.set("Level", "moving or static")
    tab.until(lambda: tab.panel.browser.selection.targets == ("moving",))
    tab.client.set("Level", "instance")
    assert np.array_equal(tab.set("Highlight", False), plain)
    tab.client.set("Highlight", True)
    tab.click_at((0.0, 5.0, 0.0))
    tab.until(lambda: "Nothing is there." in tab.client.texts())
    assert not tab.panel.browser.selection.targets
    tab.until(lambda: "/semantics/selection" not in tab.client.nodes)
    tab.client.set("Select with", "off")
    tab.until(lambda: tab.client.pointer is None)


def test_a_rectangle_selects_what_fills_it(tab: Tab) -> None:
    tab.client.set("Select with", "rectangle")
    tab.client.set("Level", "class")
    row, column = pixel(ball_at(0))
    low, high = ((column - 1) / WIDTH, (row - 1) / HEIGHT), ((column + 2) / WIDTH, (row + 2) / HEIGHT)
    tab.client.select_rectangle(low, high)
    tab.until(lambda: tab.panel.browser.selection.targets == (f"class:{names(tab)[BALL_CLASS]}",))
    tab.client.select_rectangle((0.0, 0.0), (1.0, 1.0))
    tab.until(lambda: f"class:{names(tab)[WALL_CLASS]}" in tab.panel.browser.selection.targets)
    tab.client.set("Select with", "off")
    tab.client.set("Level", "instance")
    tab.press("Clear selection")
    assert "Nothing is selected." in tab.client.texts()


# ---------------------------------------------------------------------- tracks


def test_tracks_of_the_selection_follow_time(tab: Tab) -> None:
    tab.select("instance:0")
    tab.client.set("Number of tracks", 5)
    tab.client.set("Last frames", 1)
    tab.client.set("Next frames", 3)
    tab.client.set("Show tracks", True)
    tab.until(lambda: "/semantics/tracks" in tab.client.nodes)

    def extent() -> float:
        points = np.frombuffer(tab.client.nodes["/semantics/tracks"]["points"], dtype=np.float32).reshape(-1, 3) / 10
        return float(np.ptp(points[:, 0]))

    assert 0.5 < extent() < 0.5 + 0.4, "the whole way, and no farther than the ball is wide"
    tab.client.set("Frame", 3)
    tab.until(lambda: extent() < 0.17 + 0.4)
    tab.client.set("Colour tracks by", "class")
    tab.select("instance:1")
    tab.until(lambda: "does not move" in tab.client.texts() and "/semantics/tracks" not in tab.client.nodes)
    tab.client.set("Show tracks", False)
    tab.select("nothing")


# ---------------------------------------------------------------------- edits


def test_hide_isolate_ghost_and_back(tab: Tab) -> None:
    ball, pillar = pixel(ball_at(0)), pixel(PILLAR)
    tab.client.set("Highlight", False)
    tab.select("instance:0")
    plain = tab.now()
    hidden = tab.press("Hide")
    assert not alike(hidden[ball], plain[ball]) and alike(hidden[pillar], plain[pillar])
    assert "instance:0: hidden" in tab.client.texts()
    assert np.array_equal(tab.press("Undo"), plain)
    assert np.array_equal(tab.press("Redo"), hidden)
    assert np.array_equal(tab.press("Restore"), plain)
    isolated = tab.press("Isolate")
    assert alike(isolated[ball], plain[ball]) and not alike(isolated[pillar], plain[pillar])
    assert np.array_equal(tab.press("Isolate"), plain)
    ghost = tab.set("Object opacity", 0.3)
    assert not alike(ghost[ball], plain[ball]) and not alike(ghost[ball], hidden[ball])
    tab.until(lambda: tab.panel.browser._live is None)
    tinted = tab.set("Tint", (250, 0, 0))
    assert not alike(tinted[ball], ghost[ball])
    tab.press("Own colour")
    tab.press("Undo")
    tab.press("Undo")
    assert np.array_equal(tab.press("Undo"), plain), "dragging a slider is one step"
    tab.client.set("Highlight", True)


def test_move_turn_scale_and_duplicate(tab: Tab) -> None:
    tab.client.set("Highlight", False)
    tab.select("instance:0")
    plain = tab.now()
    old, new = pixel(ball_at(0)), pixel((-0.45, 0.4, 0.1))
    moved = tab.set("Move by", (0.0, 0.4, 0.0))
    assert not alike(moved[old], plain[old]) and not alike(moved[new], plain[new])
    tab.client.set("Gizmo", True)
    tab.until(
        lambda: np.allclose(tab.client.nodes.get("/semantics/gizmo", {}).get("position", 0), (-4.5, 4, 1), atol=1e-3)
    )
    dragged = tab.picture(lambda: tab.client.drag("/semantics/gizmo", (-4.5, 0.0, 1.0)))
    assert np.array_equal(dragged, plain), "dragged back"
    tab.picture(lambda: tab.client.drag("/semantics/gizmo", (0.0, 4.0, 1.0)))
    np.testing.assert_allclose(tab.state.edit("instance:0").translation, (0.45, 0.4, 0.0), atol=1e-6)
    tab.set("Turn by", (0.0, 0.0, 90.0))
    np.testing.assert_allclose(tab.state.edit("instance:0").rotation, (0.5**0.5, 0, 0, 0.5**0.5), atol=1e-6)
    small, large = (tab.set("Object scale", scale) for scale in (0.5, 1.5))
    assert changed(small, plain).sum() < changed(large, plain).sum()
    tab.press("Restore")
    tab.client.set("Gizmo", False)
    tab.until(lambda: "/semantics/gizmo" not in tab.client.nodes)
    tab.client.set("Copy offset", (0.0, -0.4, 0.0))
    tab.client.set("Copy delay", -3)
    double = tab.press("Duplicate")
    there = pixel((0.05, -0.4, 0.1))
    assert alike(double[old], plain[old]) and not alike(double[there], plain[there]), "three frames ahead"
    assert np.array_equal(tab.press("Remove copies"), plain)
    tab.client.set("Highlight", True)


def test_another_background(tab: Tab) -> None:
    wall = tab.set("Replace background", True)
    green = np.array([0, 177, 64], dtype=np.uint8)
    assert alike(wall[2, 2], green) and not alike(wall[pixel(ball_at(0))], green)
    assert alike(tab.set("Replacement colour", (1, 1, 200))[2, 2], np.array([1, 1, 200], dtype=np.uint8))
    tab.press("Reset all edits")
    assert not tab.client.value("Replace background")


def test_edits_are_saved_loaded_and_uploaded(tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "edits" / "scene_state.json"
    tab.client.set("Highlight", False)
    tab.client.set("Edits file", str(file))
    tab.select("instance:1")
    hidden = tab.press("Hide")
    tab.client.press("Save edits")
    tab.until(file.is_file)
    assert load_scene_state(file) == tab.state
    tab.until(lambda: "semflow render" in tab.client.texts() and str(file) in tab.client.texts())
    tab.press("Reset all edits")
    assert np.array_equal(tab.press("Load edits"), hidden)
    tab.press("Reset all edits")
    content = file.read_bytes()
    assert np.array_equal(tab.picture(lambda: tab.client.upload("Upload edits", "mine.json", content)), hidden)
    for wrong, message in ((b"{", "mine.json"), (json.dumps({"version": 7}).encode(), "version is 7")):
        tab.client.upload("Upload edits", "mine.json", wrong)
        tab.until(lambda message=message: message in tab.client.texts())
    unknown = json.loads(content) | {"objects": {"class:unicorn": {"hidden": True}}}
    tab.client.upload("Upload edits", "mine.json", json.dumps(unknown).encode())
    tab.until(lambda: "there is no class 'unicorn'" in tab.client.texts())
    tab.client.set("Edits file", str(tmp_path / "none.json"))
    tab.client.press("Load edits")
    tab.until(lambda: "no scene state here" in tab.client.texts())
    tab.client.set("Highlight", True)


# ---------------------------------------------------------------------- when something is missing or fails


def test_controls_without_a_selection_say_so(tab: Tab) -> None:
    for label in ("Hide", "Isolate", "Restore", "Own colour", "Duplicate", "Remove copies"):
        tab.panel.report("")
        tab.client.press(label)
        tab.until(
            lambda: "Nothing is selected: click" in tab.client.texts() or "where the object is" in tab.client.texts()
        )
    for label, value in (("Gizmo", True), ("Show tracks", True), ("Object scale", 2.0), ("Move by", (1.0, 0.0, 0.0))):
        tab.client.set(label, value)
    tab.client.set("Show tracks", False)
    tab.until(lambda: tab.client.value("Gizmo") is False)
    assert tab.state == SceneState()


def test_a_failing_overlay_says_why_and_the_plain_picture_is_shown(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tab.now()

    def broken(*_: object) -> None:
        raise RuntimeError("the colours are mixed up")

    instances = tab.panel.browser.instances
    monkeypatch.setattr(KnownInstances, "membership", broken)
    assert np.array_equal(tab.picture(lambda: tab.select("instance:0")), plain)
    tab.until(lambda: "the colours are mixed up" in tab.client.texts())
    monkeypatch.undo()
    assert instances is tab.panel.browser.instances
    assert not np.array_equal(tab.picture(lambda: tab.client.press("Step forward")), plain)
    tab.until(lambda: "the colours are mixed up" not in tab.client.texts())


def test_evaluation_does_not_see_what_the_viewer_shows(tab: Tab) -> None:
    tab.select("instance:0")
    tab.press("Hide")
    model = model_of(tab.session.run)
    assert model.scene_state == tab.state and model.display.highlight == ("instance:0",)
    with model.unedited():
        assert model.scene_state == SceneState() and not model.display.highlight
    assert model.scene_state == tab.state
