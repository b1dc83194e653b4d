"""README tables of `semflow bench tasks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from semflow_nerfstudio.benchmarking.task_groups import Record, adapted, by_partner, comparable, scores_of
from semflow_nerfstudio.benchmarking.task_rows import ADAPTATION_STEPS, TWO_SCENES, rows
from semflow_nerfstudio.benchmarking.task_targets import target_table
from semflow_nerfstudio.data.protocols import NAMED_PROTOCOLS, SCRIBBLES

COLUMNS = {
    "miou": "mIoU",
    "miou_moving": "moving",
    "total_accuracy": "accuracy",
    "class_accuracy": "class accuracy",
    "F": "F",
}
OBJECTS = "J / F of each moving class"
METHODS = {"flow_2d": "labels along 2-D flow, model's depth", "warped": "nearest labelled frame, model's depth"}
ROWS = {
    "": "this model",
    "-no-propagation": "without carried labels",
    "-long-window": "without, but with trajectories through the whole clip",
    "-no-flow-features": "without flow features",
    "-no-consistency": "without consistency",
}
STARTS = {
    "": "shared networks of two other scenes",
    "-scratch": "untrained",
    "-nothing": "nothing trained, nor are fields",
}


def few_labels_table(records: Sequence[Record]) -> str:
    """Every protocol's rows, and the model that sees all labels, on the protocol's unlabelled times."""
    lines, known = _head(["scene", "labels", "method", "seeds"]), {row.name for row in rows()}
    for scene, mine in comparable(records).items():
        for spec in (*NAMED_PROTOCOLS, *SCRIBBLES):
            reference = "all" if spec in SCRIBBLES else spec
            own = [(title, f"{spec}{ending}") for ending, title in ROWS.items() if f"{spec}{ending}" in known]
            entries = [(title, row, spec, "model") for title, row in own]
            entries += [(title, spec, spec, method) for method, title in METHODS.items()]
            entries.append(("all labels, on the same views", "full", reference, "model"))
            found = [(title, scores_of(mine, row, key, method)) for title, row, key, method in entries]
            if any(scores for title, scores in found[:-1]):
                lines += [_line([scene, spec, title], scores) for title, scores in found]
    return "\n".join(lines)


def two_scenes_table(records: Sequence[Record]) -> str:
    """Each scene in a model of two, with as many steps for each, beside the same scene alone."""
    lines = _head(["scene", "model of", "also", "seeds"])
    for scene, mine in comparable(records).items():
        alone = scores_of(mine, "full", "all", "model")
        joint = by_partner(mine, TWO_SCENES)
        if joint and alone:
            lines.append(_line([scene, "it alone", "-"], alone))
        for others, runs in joint.items():
            lines.append(_line([scene, "two scenes", others], scores_of(runs, TWO_SCENES, "all", "model")))
    return "\n".join(lines)


def adaptation_table(records: Sequence[Record]) -> str:
    """Scores after every number of steps with labels, beside those of training from scratch."""
    lines = _head(["scene", "steps with labels", "start", "seeds"])
    for scene, mine in adapted(records).items():
        # In zero-shot no label is read, not even to copy it.
        copies = (scores_of(mine, f"adaptation-{steps}", "all", "copy") for steps in ADAPTATION_STEPS)
        copied = next(filter(None, copies), None)
        if copied:
            lines.append(_line([scene, "-", "labels of the frame of the same time, as they are"], copied))
        for steps in ADAPTATION_STEPS:
            for ending, title in STARTS.items():
                if steps or not ending:
                    scores = scores_of(mine, f"adaptation-{steps}{ending}", "all", "model")
                    lines.append(_line([scene, str(steps), title], scores))
    return "\n".join(lines)


def _head(titles: list[str]) -> list[str]:
    titles = [*titles, *COLUMNS.values(), OBJECTS]
    return [f"| {' | '.join(titles)} |", f"| {' | '.join('---' for _ in titles)} |"]


def _line(cells: list[str], scores: list[dict[str, float | None]]) -> str:
    """Means over the seeds; what was not measured says so once."""
    if not scores:
        return f"| {' | '.join([*cells, '-', 'not measured', *['-'] * len(COLUMNS)])} |"
    cells = [*cells, *(_mean(scores, name, ".3f") for name in COLUMNS)]
    objects = sorted(name.removeprefix("J_") for name in scores[0] if name.startswith("J_"))
    shares = [f"{name} {_mean(scores, f'J_{name}', '.2f')} / {_mean(scores, f'F_{name}', '.2f')}" for name in objects]
    cells.append(", ".join(shares) or "-")
    return f"| {' | '.join([*cells[:3], str(len(scores)), *cells[3:]])} |"


def _mean(scores: Sequence[dict[str, float | None]], name: str, form: str) -> str:
    known = [value for entry in scores if (value := entry.get(name)) is not None]
    return format(fmean(known), form) if known else "-"


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    "few_labels": few_labels_table,
    "two_scenes": two_scenes_table,
    "adaptation": adaptation_table,
    "task_targets": target_table,
}
