"""What a pick selects at each level, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semflow_nerfstudio.viewer.selection import Level, Picked, Selection

PICKED = Picked((0.1, 0.2, 0.3), (0.03, 0.0, 0.04), 0.5, True, "dog", 0.87, 4)


@pytest.mark.parametrize(
    ("level", "changes", "target"),
    [
        ("instance", {}, "instance:4"),
        ("instance", {"instance": -1}, "class:dog"),
        ("instance", {"instance": -1, "label": None}, "moving"),
        ("class", {}, "class:dog"),
        ("class", {"label": None}, "moving"),
        ("moving or static", {}, "moving"),
        ("moving or static", {"moving": False}, "static"),
    ],
)
def test_levels(level: Level, changes: dict[str, object], target: str) -> None:
    assert replace(PICKED, **changes).target(level) == target  # type: ignore[arg-type]


def test_label_probability_place_and_motion_are_told() -> None:
    text = Selection(("instance:4",), PICKED).describe()
    for part in ("`instance:4`", "**dog**, probability 0.87", "(0.100, 0.200, 0.300), time 0.500", "0.050 units"):
        assert part in text
    assert "does not move" in replace(PICKED, moving=False).describe()
    assert Selection().describe() == "Nothing is selected."
    assert Selection(note="Nothing is there.").describe() == "Nothing is there."
    assert "`class:a`, `class:b`" in Selection(("class:a", "class:b")).describe()
