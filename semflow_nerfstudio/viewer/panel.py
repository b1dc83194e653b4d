"""The "Semantics" tab: a message line, time, selection, legend, tracks and edits, in this order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerfstudio.utils.rich_utils import CONSOLE

from semflow_nerfstudio.viewer.browser import Browser
from semflow_nerfstudio.viewer.compat import Control, Page
from semflow_nerfstudio.viewer.edits_panel import EditsPanel
from semflow_nerfstudio.viewer.legend import LegendPanel, escape
from semflow_nerfstudio.viewer.playback import PlaybackPanel
from semflow_nerfstudio.viewer.selection import SelectionPanel
from semflow_nerfstudio.viewer.tracks import TracksPanel
from semflow_nerfstudio.viewer.viewed_model import ViewedModel

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from semflow_nerfstudio.pipeline import SemanticFlowPipeline

TAB = "Semantics"


class SemanticsPanel:
    """All of the tab."""

    def __init__(self, pipeline: SemanticFlowPipeline, viewer: Viewer) -> None:
        self.page = Page(viewer, self.report)
        self.browser = Browser(pipeline, viewer.log_filename.parent, self.tell, self.page.lock)
        with self.page.tab(TAB):
            self.status = self.page.markdown("")
            self.message = self.page.markdown("")
            self.playback = PlaybackPanel(self.page, self.browser)
            self.selection = SelectionPanel(self.page, self.browser)
            self.legend = LegendPanel(self.page, self.browser)
            self.tracks = TracksPanel(self.page, self.browser)
            self.edits = EditsPanel(self.page, self.browser)
        self.browser.on_change.append(self.page.rerender)
        if len(self.browser.model.scenes) > 1:
            self.page.on_choice(self.browser.model.scene_choice, self.browser.scene_changed)
        self.page.render_with(ViewedModel(self.browser))
        self.browser.find_instances(search=False)

    def report(self, message: str) -> None:
        """Show what came of an action, at the top of the tab; an empty message clears it."""
        self.message.show(f"**{escape(message)}**" if message else "")

    def tell(self, status: str) -> None:
        """Show what rendering or the search for instances has to say, likewise."""
        self.status.show(f"*{escape(status)}*" if status else "")


def semantics_control(pipeline: SemanticFlowPipeline) -> Control:
    """What a pipeline holds so that nerfstudio's viewer gets the tab; a viewer without it is better than none."""

    def start(viewer: Viewer) -> None:
        try:
            control.panel = SemanticsPanel(pipeline, viewer)
        except Exception:
            CONSOLE.print_exception()
            CONSOLE.print(f'The "{TAB}" tab could not be made; the viewer goes on without it.', style="bold red")

    control = Control(start)
    return control
