"""Legend texts, filter and shares."""

from __future__ import annotations

import torch

from semflow_nerfstudio.viewer.legend import from_bytes, legend_markdown, to_bytes, to_hex, visible_shares
from semflow_nerfstudio.visuals.display import matching

NAMES = ("person", "Parked car", "road")


def test_filter_matches_any_of_its_parts() -> None:
    assert matching(NAMES, "") == list(NAMES) and matching(NAMES, " ; ") == list(NAMES)
    assert matching(NAMES, "PER") == ["person"]
    assert matching(NAMES, "road; car") == ["Parked car", "road"]
    assert matching(NAMES, "sky") == []


def test_shares_count_pixels_that_show_something() -> None:
    label = torch.tensor([[0.0, 1.0], [1.0, 2.0]])[..., None]
    accumulation = torch.tensor([[1.0, 1.0], [0.9, 0.1]])[..., None]
    assert visible_shares(label, accumulation, 4) == [0.25, 0.5, 0.0, 0.0]


def test_table_lists_colour_name_and_share() -> None:
    colors = [(1.0, 0.5, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)]
    table = legend_markdown(NAMES, colors, [0.25, 0.5, 0.0], ["person", "road"], ["road"])
    assert "| `#ff8000` | person | 25.0 % |" in table
    assert "~~road~~" in table and "Parked car" not in table
    assert "no classes" in legend_markdown((), [], [], [], [])
    assert "No class matches" in legend_markdown(NAMES, colors, [], [], [])
    assert r"a\_b\{1\}" in legend_markdown(("a_b{1}",), colors, [], ["a_b{1}"], [])


def test_colours_survive_the_way_through_bytes() -> None:
    assert to_hex((1.0, 0.5, 0.0)) == "#ff8000"
    for color in ((0, 0, 0), (255, 128, 1), (13, 77, 254)):
        assert to_bytes(from_bytes(color)) == color
