"""nerfstudio's viewer on a trained run, driven as a browser would: every output, time, crop, split screen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer_legacy.server.viewer_utils import get_free_port
from tiny_runs import OUTPUTS, TrainedRun, forget_writers, parameters, set_up, tiny_config
from viewer_client import ViewerClient
from viewer_session import HEIGHT, WIDTH, Session, end, watched

from semflow_nerfstudio.runs import Run, load_run


@pytest.fixture(scope="module")
def run(tiny_run: TrainedRun) -> Run:
    return load_run(tiny_run.folder)


@pytest.fixture(scope="module")
def session(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with watched(run, tmp_path_factory.mktemp("viewer")) as session:
        yield session


def test_every_output_can_be_chosen(session: Session) -> None:
    options = session.client.control("Output type")["options"]
    assert set(options) >= OUTPUTS | {"gl_z_buf_depth"} and options[0] == "rgb"
    for name in (*options[1:], "rgb"):
        image = session.show("Output type", name)
        assert image.shape == (HEIGHT, WIDTH, 3), name
        outputs = session.rendered[-1]
        if name in outputs and outputs[name].shape[-1] == 3:
            np.testing.assert_array_equal(image, (outputs[name] * 255).byte().numpy(), err_msg=name)
        assert {*outputs} - {"time"} <= set(options)


def test_time_can_be_moved(session: Session) -> None:
    """A moment in between, and both ends of the slider."""
    session.show("Output type", "semantics_overlay")
    for time in (0.35, 1.0, 0.0):
        session.show("Time", time)
        shown = session.rendered[-1]["time"]
        assert shown is not None and shown.item() == pytest.approx(time)


def test_crop_and_split_screen_and_depth(session: Session) -> None:
    session.show("Crop center", (50.0, 50.0, 50.0))
    for output in ("depth", "rgb"):
        session.show("Output type", output)
        session.show("Enable ", True)  # the crop, in which nothing is
        if output == "rgb":
            assert (session.rendered[-1]["accumulation"] == 0).all()
        session.show("Enable ", False)
    session.show("Enable", True)  # the split screen
    session.show("Output render split", "semantics")
    session.show("Enable", False)
    session.show("Composite depth", False)
    image = session.show("Composite depth", True)
    assert np.array_equal(image, (session.rendered[-1]["rgb"] * 255).byte().numpy())


def test_moving_the_camera_interrupts_and_goes_on(session: Session) -> None:
    session.client.set("Max res", 164)
    for k in range(12):
        session.client.look((0.3 * k, -8.0, 0.0), (0.7071, -0.7071, 0.0, 0.0))
    session.client.next_image(164)
    assert session.alive


def test_viewer_of_a_training_run(scene: Path, tmp_path: Path) -> None:
    """What `ns-train` starts by default: images come while training goes on, and the tab's controls work."""
    config = tiny_config(scene, tmp_path, steps=100_000)
    port = get_free_port()
    config.viewer.websocket_host, config.viewer.websocket_port = "127.0.0.1", port
    trainer = set_up(config, vis="viewer")
    seen: list[int] = []
    threads: list[RenderStateMachine] = []

    def watch() -> None:
        try:
            with ViewerClient(port) as client:
                client.look((0.0, -9.0, 0.0), (0.7071, -0.7071, 0.0, 0.0))
                for label, value in (("Max res", 64), ("Output type", "semantics"), ("Time", 0.5)):
                    client.image = None
                    client.set(label, value)
                    client.wait(lambda: client.image is not None)
                    seen.append(trainer.step)
                for label, value in (("Selected", "moving"), ("Replace background", True), ("Select with", "click")):
                    client.set(label, value)
                client.click((0.0, -90.0, 0.0), (0.0, 1.0, 0.0))
                client.press("Hide")
                client.wait(lambda: "hidden" in client.texts() or "Nothing is selected" in client.texts(), 60)
                client.wait(lambda: "another background" in client.texts(), 60)
                assert isinstance(trainer.viewer_state, Viewer)
                threads.extend(trainer.viewer_state.render_statemachines.values())
        finally:
            trainer.stop_training = True

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        trainer.train()
    finally:
        thread.join()
        end(threads)
        trainer.shutdown()
        forget_writers()
    assert len(seen) == 3 and len(threads) == 1 and 0 < seen[-1] < 100_000
    assert all(value.isfinite().all() for value in parameters(trainer).values())
