"""The viewer's page in a real browser: `python tests/integration/viewer_picture.py RUN OUT.jpg` makes the README's."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from chromium import Chromium
from tiny_runs import model_of
from viewer_session import Session, watched

from semflow_nerfstudio.runs import load_run
from semflow_nerfstudio.viewer.panel import TAB, SemanticsPanel

SIZE = (1400, 860)
PATIENCE = 300.0
"""Seconds that anything may take: Chromium draws on the processor that renders, too."""


def panel_of(session: Session) -> SemanticsPanel:
    """The tab of a viewer."""
    panel = session.run.pipeline.semantics.panel
    assert isinstance(panel, SemanticsPanel)
    return panel


def open_page(page: Chromium, session: Session) -> None:
    """Open the viewer at its tab; the browser looks from the first frame's camera."""
    page.open(f"http://127.0.0.1:{session.viewer.viser_server.get_port()}")
    page.wait_for_text("Control", TAB, timeout=PATIENCE)
    page.click_text(TAB)
    page.wait_for_text("Frames per second", "Select with", timeout=PATIENCE)
    session.client.press("Go to frame")
    session.settle(2.0, PATIENCE)


def place_of(page: Chromium, session: Session, class_name: str) -> tuple[float, float]:
    """A pixel of the page well inside what shows a class."""
    # Three.js marks the canvas of the scene; another one lies over the whole page.
    x, y, width, height = page.evaluate(
        "(() => { const r = document.querySelector('canvas[data-engine]').getBoundingClientRect();"
        "return [r.x, r.y, r.width, r.height]; })()"
    )
    # The latest of the page's shape, not of the other client's; small images only roughly have it.
    labels = (r["label"][..., 0] for r in reversed(session.rendered))
    label = next(i for i in labels if abs(i.shape[1] / i.shape[0] * height / width - 1) < 0.06)
    shown = (label == model_of(session.run).class_names.index(class_name))[None, None].float()
    # Smoothed, the mask is largest in the middle of the largest piece.
    reach = 2 * (label.shape[1] // 24) + 1
    smooth = torch.nn.functional.avg_pool2d(shown, reach, 1, reach // 2)[0, 0]
    row, column = divmod(int(smooth.argmax()), label.shape[1])
    return x + (column + 0.5) / label.shape[1] * width, y + (row + 0.5) / label.shape[0] * height


def click_on(page: Chromium, session: Session, class_name: str) -> None:
    """Click with the browser's mouse on what shows a class, and wait until that is selected."""
    panel = panel_of(session)
    session.client.set("Select with", "click")
    session.client.wait(lambda: session.client.pointer == "click", PATIENCE)
    before, end = panel.browser.selection, time.monotonic() + PATIENCE
    page.click(*place_of(page, session, class_name))
    while panel.browser.selection is before:
        assert time.monotonic() < end, "the click never arrived"
        session.client.receive(0.2)
    session.settle(2.0, PATIENCE)


def main(run: Path, out: Path, class_name: str) -> None:
    """A picture of the tab over a run, after a click on a class, with its tracks."""
    with (
        tempfile.TemporaryDirectory() as folder,
        watched(load_run(run), Path(folder)) as session,
        Chromium(*SIZE) as page,
    ):
        session.client.set("Max res", 364)
        session.client.press("Hide Train Cams")
        session.client.set("Frame", len(panel_of(session).browser.frame_times) // 2)
        session.client.set("Output type", "semantics_overlay")
        open_page(page, session)
        click_on(page, session, class_name)
        session.client.set("Show tracks", True)
        session.settle(4.0, PATIENCE)
        page.screenshot(out, quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
