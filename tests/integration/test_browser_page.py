"""The viewer's page in headless Chromium: the tab is there, a mouse click selects, nothing fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chromium import PROGRAM, Chromium
from known_run import BALL_CLASS, KnownInstances, make_known
from PIL import Image
from tiny_runs import TrainedRun
from viewer_picture import click_on, open_page, panel_of
from viewer_session import watched

from semflow_nerfstudio.runs import load_run
from semflow_nerfstudio.visuals.display import HIGHLIGHT_COLOR


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium: install Debian's package `chromium`")
def test_the_page_opens_and_a_mouse_click_selects(tiny_run: TrainedRun, tmp_path: Path) -> None:
    run = load_run(tiny_run.folder)
    make_known(run)
    with watched(run, tmp_path) as session, Chromium(1100, 700) as page:
        panel = panel_of(session)
        panel.browser.instances = KnownInstances()
        pose = np.concatenate([np.eye(3), [[0.0], [0.0], [3.0]]], axis=1)
        panel.browser.camera_at = lambda moment: (pose, 0.8)  # type: ignore[method-assign]
        open_page(page, session)
        name = panel.browser.class_names[BALL_CLASS]
        page.wait_for_text("Legend", name, "Tracks", "Edit", "Nothing is selected.")
        click_on(page, session, name)
        assert panel.browser.selection.targets == ("instance:0",)
        page.wait_for_text("instance 0", f"{name}, probability")
        page.screenshot(tmp_path / "page.png")
        assert page.errors == []
    seen = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    outline = np.abs(seen - np.array(HIGHLIGHT_COLOR) * 255).max(-1) < 40
    assert outline.sum() > 100, "the selection is outlined"
