"""README tables of `semflow bench tasks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from semflow_nerfstudio.benchmarking.task_rows import ADAPTATION_STEPS
from semflow_nerfstudio.data.protocols import NAMED_PROTOCOLS, SCRIBBLES

Record = dict[str, Any]

COLUMNS = {
    "miou": "mIoU",
    "miou_moving": "moving",
    "total_accuracy": "accuracy",
    "class_accuracy": "class accuracy",
    "J": "J",
    "F": "F",
}
METHODS = {"flow_2d": "labels along 2-D flow, model's depth", "warped": "nearest labelled frame, model's depth"}
ROWS = {"": "this model", "-no-propagation": "without carried labels", "-no-flow-features": "without flow features"}


def few_labels_table(records: Sequence[Record]) -> str:
    """Every protocol's rows, and the model that sees all labels, on the protocol's unlabelled times."""
    lines = _head(["scene", "labels", "method", "seeds"])
    for scene in _scenes(records):
        for spec in (*NAMED_PROTOCOLS, *SCRIBBLES):
            reference = "all" if spec in SCRIBBLES else spec
            entries = [(title, f"{spec}{ending}", spec, "model") for ending, title in ROWS.items()]
            entries += [(title, spec, spec, method) for method, title in METHODS.items()]
            entries.append(("all labels, on the same views", "full", reference, "model"))
            found = [(title, _scores(records, scene, row, key, method)) for title, row, key, method in entries]
            if any(scores for title, scores in found[:-1]):
                lines += [_line([scene, spec, title], scores) for title, scores in found if scores]
    return "\n".join(lines)


def adaptation_table(records: Sequence[Record]) -> str:
    """Scores after every number of steps with labels, beside those of training from scratch."""
    lines = _head(["scene", "steps with labels", "start", "seeds"])
    for scene in _scenes(records):
        # In zero-shot no label is read, not even to copy it.
        copies = (_scores(records, scene, f"adaptation-{steps}", "all", "copy") for steps in ADAPTATION_STEPS)
        copied = next(filter(None, copies), None)
        if copied:
            lines.append(_line([scene, "-", "labels of the frame of the same time, as they are"], copied))
        for steps in ADAPTATION_STEPS:
            for ending, title in (("", "shared networks of two other scenes"), ("-scratch", "untrained")):
                scores = _scores(records, scene, f"adaptation-{steps}{ending}", "all", "model")
                if scores:
                    lines.append(_line([scene, str(steps), title], scores))
    return "\n".join(lines)


def _head(titles: list[str]) -> list[str]:
    titles = [*titles, *COLUMNS.values()]
    return [f"| {' | '.join(titles)} |", f"| {' | '.join('---' for _ in titles)} |"]


def _line(cells: list[str], scores: list[dict[str, float | None]]) -> str:
    """Means over the seeds."""
    for name in COLUMNS:
        known = [value for entry in scores if (value := entry.get(name)) is not None]
        cells = [*cells, f"{fmean(known):.3f}" if known else "-"]
    return f"| {' | '.join([*cells[:3], str(len(scores)), *cells[3:]])} |"


def _scenes(records: Sequence[Record]) -> list[str]:
    return sorted({record["scene"] for record in records})


def _scores(
    records: Sequence[Record], scene: str, row: str, protocol: str, method: str
) -> list[dict[str, float | None]]:
    """A method's scores in the runs of a row, one entry a seed."""
    runs = [record for record in records if record["scene"] == scene and record["configuration"] == row]
    found = [run["scores"].get(protocol, {}).get(method) for run in runs]
    return [scores for scores in found if scores]


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    "few_labels": few_labels_table,
    "adaptation": adaptation_table,
}
