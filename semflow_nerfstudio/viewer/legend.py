"""The class legend: colours, names, visible shares, a text filter, and which classes are coloured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semflow_nerfstudio.editing.scene_state import with_class_color, with_class_visible
from semflow_nerfstudio.visuals.display import matching

if TYPE_CHECKING:
    from semflow_nerfstudio.viewer.browser import Browser
    from semflow_nerfstudio.viewer.compat import Page

Rgb = tuple[float, float, float]
MAX_SWITCHES = 40
"""Classes that get a checkbox each; longer lists are ruled with the filter and the buttons."""


def visible_shares(label: Float[Tensor, "H W 1"], accumulation: Float[Tensor, "H W 1"], count: int) -> list[float]:
    """Share of an image's pixels that show each of `count` classes; pixels that show nothing belong to none."""
    seen = label[accumulation > 0.5].long()
    return (torch.bincount(seen, minlength=count)[:count].double() / label.numel()).tolist()


def to_hex(color: Rgb) -> str:
    """(1, 0.5, 0) -> "#ff8000"."""
    return "#" + "".join(f"{value:02x}" for value in to_bytes(color))


def to_bytes(color: Rgb) -> tuple[int, int, int]:
    """RGB in [0, 1] -> 0..255."""
    red, green, blue = (int(value) for value in np.round(np.clip(color, 0, 1) * 255))
    return red, green, blue


def from_bytes(color: Sequence[int]) -> Rgb:
    """RGB in 0..255 -> [0, 1]."""
    red, green, blue = (value / 255 for value in color)
    return red, green, blue


def legend_markdown(
    names: Sequence[str], colors: Sequence[Rgb], shares: Sequence[float], listed: Sequence[str], grey: Sequence[str]
) -> str:
    """A table of classes: colour chip, name, share of the image; `grey` ones are not coloured.

    Args:
        names: All classes.
        colors: Their colours.
        shares: Their shares of the last image; empty before there is one.
        listed: Those to list.
        grey: Those that pictures leave uncoloured.
    """
    if not names:
        return "*This run has no classes: its data has no labels.*"
    if not listed:
        return "*No class matches the filter.*"
    rows = ["| colour | class | visible |", "| --- | --- | ---: |"]
    for index, name in enumerate(names):
        if name in listed:
            share = f"{100 * shares[index]:.1f} %" if shares else ""
            shown = f"~~{escape(name)}~~" if name in grey else escape(name)
            rows.append(f"| `{to_hex(colors[index])}` | {shown} | {share} |")
    return "\n".join(rows)


def escape(text: str) -> str:
    """Text that markdown (viser's is MDX) shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|~$" else letter for letter in text)


class LegendPanel:
    """Legend, filter, colours and opacity."""

    def __init__(self, page: Page, browser: Browser) -> None:
        self.page, self.browser = page, browser
        names = browser.class_names
        with page.folder("Legend"):
            self.table = page.markdown("")
            if names:
                self._controls(names)
        browser.on_change.append(self.show)
        browser.on_image.append(self.show_table)
        self.show()

    def _controls(self, names: Sequence[str]) -> None:
        page, browser = self.page, self.browser
        page.text("Filter", "", self.filter, "Parts of class names, separated by ;  Only these are listed and coloured")
        page.slider("Overlay opacity", 0.0, 1.0, 0.05, browser.options.opacity, self.set_opacity)
        self.chosen = page.dropdown(
            "Class", names, browser.options.probability_class, self.choose, "Shown by the class_probability output"
        )
        self.color = page.color(
            "Class colour", to_bytes(browser.color_of(browser.options.probability_class)), self.recolor
        )
        page.button("Only this class", self.only, "Leave all other classes uncoloured")
        page.button("All classes", self.everything)
        with page.folder("Coloured classes", open_at_first=len(names) <= 12):
            self.switches = {
                name: page.checkbox(name, True, lambda on, name=name: self.switch(name, on))
                for name in names[:MAX_SWITCHES]
            }

    def show_table(self) -> None:
        """Show what the last image shows."""
        browser = self.browser
        names = browser.class_names
        colors = [browser.color_of(name) for name in names]
        listed = matching(names, browser.options.filter)
        self.table.show(legend_markdown(names, colors, browser.shares, listed, browser.state.hidden_classes))

    def show(self) -> None:
        """Bring the widgets up to date."""
        browser = self.browser
        names = browser.class_names
        listed = matching(names, browser.options.filter)
        self.show_table()
        if names:
            self.color.show(to_bytes(browser.color_of(browser.options.probability_class)))
            for name, switch in self.switches.items():
                switch.show(name not in browser.state.hidden_classes)
                switch.visible = name in listed

    def filter(self, query: str) -> None:
        """List and colour classes that match."""
        self.browser.update(filter=query)

    def set_opacity(self, opacity: float) -> None:
        """Strength of the overlay."""
        self.browser.update(opacity=float(opacity))

    def choose(self, name: str) -> None:
        """The class whose probability is shown and whose colour can be changed."""
        self.browser.update(probability_class=name)

    def recolor(self, color: tuple[int, int, int]) -> None:
        """Another colour for the chosen class."""
        name = self.browser.options.probability_class
        if color != to_bytes(self.browser.color_of(name)):
            self.browser.drag(with_class_color(self.browser.state, name, from_bytes(color)))

    def switch(self, name: str, on: bool) -> None:
        """Colour a class or not."""
        if on == (name in self.browser.state.hidden_classes):
            self.browser.edit(with_class_visible(self.browser.state, name, on))

    def only(self) -> None:
        """Colour the chosen class alone."""
        browser = self.browser
        others = tuple(name for name in browser.class_names if name != browser.options.probability_class)
        browser.edit(replace(browser.state, hidden_classes=others))

    def everything(self) -> None:
        """Colour all classes."""
        self.browser.edit(replace(self.browser.state, hidden_classes=()))
