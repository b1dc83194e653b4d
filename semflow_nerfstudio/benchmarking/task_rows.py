"""What `semflow bench tasks` measures: few labels, two scenes in one model, and adaptation to a new scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from semflow_nerfstudio.data.protocols import NAMED_PROTOCOLS, SCRIBBLES

ADAPTATION_STEPS = (0, 100, 500, 2000)
"""Steps with labels after which an adapted run is scored; the last gives the final figure."""
BUILT_IN_NAMES = ("target", ("source_a", "source_b"))
"""Names of the built-in scenes: the one to measure on, and those to adapt from."""
FEWEST = ("completion-25", "tracking-25")
"""Protocols with the fewest labels, where flows have most to bring."""
TWO_SCENES = "two-scenes"
"""Name of the row of two scenes in one model."""
LONG_WINDOW = {
    "model.render.window": 5,
    "model.render.window_stride": 0,
    "datamanager.label_propagation": "none",
}
"""Trajectories through the whole clip, which reach labelled frames, in place of carried labels."""


@dataclass(frozen=True)
class Row:
    """One run."""

    name: str
    labels: str = "all"
    """--labelled-frames."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from `semantic-flow-lite`, by dotted name below `pipeline`."""
    scored_as: tuple[str, ...] = ()
    """Protocols on whose unlabelled times the run is scored; () for all held-out views at once."""
    baselines: bool = False
    """Whether labels carried by 2-D flow and labels warped with depth are scored on the same views."""
    adapt: int | None = None
    """Steps with labels after an adaptation, whose fields are first trained without; None: no adaptation."""
    scratch: bool = False
    """Whether the adaptation starts from untrained shared networks instead of the source scenes'."""
    fields_too: bool = False
    """Whether fields are untrained as well: no adaptation, but an ordinary training of as many steps as one has with
    labels."""
    together: bool = False
    """Whether another scene is in the same model, with as many steps for each of them."""


def rows() -> list[Row]:
    """All rows, in the order in which they are measured."""
    full = Row("full", scored_as=("all", *NAMED_PROTOCOLS))
    without = {"model.render.flow_features": False}
    result = [full, Row("full-no-flow-features", overrides=without, scored_as=full.scored_as)]
    result.append(Row(TWO_SCENES, scored_as=("all",), together=True))
    for spec in (*NAMED_PROTOCOLS, *SCRIBBLES):
        result.append(Row(spec, spec, scored_as=(spec,), baselines=True))
        result.append(Row(f"{spec}-no-flow-features", spec, without, (spec,)))
        result.append(Row(f"{spec}-no-propagation", spec, {"datamanager.label_propagation": "none"}, (spec,)))
        if spec in FEWEST:
            result.append(Row(f"{spec}-no-consistency", spec, {"model.losses.consistency": 0.0}, (spec,)))
            result.append(Row(f"{spec}-long-window", spec, LONG_WINDOW, (spec,)))
    for steps in ADAPTATION_STEPS:
        result.append(Row(f"adaptation-{steps}", scored_as=("all",), adapt=steps))
        if steps:
            result += [
                Row(f"adaptation-{steps}-scratch", scored_as=("all",), adapt=steps, scratch=True),
                Row(f"adaptation-{steps}-nothing", scored_as=("all",), adapt=steps, fields_too=True),
            ]
    return result


def chosen_rows(only: list[str]) -> list[Row]:
    """Rows whose names hold one of the words, or are a word that begins with "="; all where there is none.

    Raises:
        ValueError: a word is in no name.
    """

    def chooses(word: str, row: Row) -> bool:
        return row.name == word[1:] if word.startswith("=") else word in row.name

    everything = rows()
    for word in only:
        if not any(chooses(word, row) for row in everything):
            raise ValueError(f"--only {word} names no row: use parts of {', '.join(row.name for row in everything)}")
    return [row for row in everything if not only or any(chooses(word, row) for word in only)]
