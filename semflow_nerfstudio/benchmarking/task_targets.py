"""README table of what `semflow bench tasks` found against what it should find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from semflow_nerfstudio.benchmarking.task_groups import Record, comparable, mean_score
from semflow_nerfstudio.benchmarking.task_rows import ADAPTATION_STEPS, TWO_SCENES
from semflow_nerfstudio.data.protocols import NAMED_PROTOCOLS

FEW_LABELS = {
    "completion-75": (0.02, 0.92),
    "completion-50": (0.04, 0.85),
    "completion-25": (0.07, 0.75),
    "tracking-75": (0.03, 0.85),
    "tracking-50": (0.06, 0.75),
    "tracking-25": (0.12, 0.55),
    "scribbles-1": (0.03, 0.92),
    TWO_SCENES: (0.01, 0.97),
}
"""By row: by how much mIoU may be below that of the model with all labels of one scene, and which share of its mIoU of
moving classes is to be reached, on the same times and views."""
ABOVE_FLOW = 0.15
"""By how much completion and tracking are to exceed labels along the 2-D flow, in mIoU of moving classes."""
ABOVE_SCRATCH, SHARE_OF_FINAL = 0.05, 0.95
"""By how much adaptation is to exceed training from scratch after 100 steps, and which share of the mIoU after the last
number of steps it is to reach after 500."""

Line = tuple[str, str, float | None, str, bool]
"""Row, figure, what was found (None: not measured), the target, and whether it is met."""


def target_table(records: Sequence[Record]) -> str:
    """Every figure that there is a target for, means over the seeds on either side."""
    lines = [["scene", "task", "figure", "found", "target", "met"], ["---"] * 6]
    for scene, mine in comparable(records).items():
        for row, figure, found, target, met in (*_few_labels(mine), *_adaptation(mine)):
            known = found is not None
            cells = [f"{found:.3f}", target, "yes" if met else "no"] if known else ["not measured", target, "-"]
            lines.append([scene, row, figure, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _few_labels(records: Sequence[Record]) -> Iterator[Line]:
    if not any(record["configuration"] in FEW_LABELS for record in records):
        return
    for row, (loss, share) in FEW_LABELS.items():
        miou, full = _beside_all_labels(records, row, "miou")
        below = None if miou is None or full is None else full - miou
        yield row, "mIoU below all labels", below, f"at most {loss}", _holds(below, at_most=loss)
        moving, full = _beside_all_labels(records, row, "miou_moving")
        reached = moving / full if moving is not None and full else None
        yield row, "share of all labels' moving mIoU", reached, f"at least {share}", _holds(reached, at_least=share)
        if row in NAMED_PROTOCOLS:
            flow = mean_score(records, row, row, "flow_2d", "miou_moving")
            above = None if moving is None or flow is None else moving - flow
            target = f"at least {ABOVE_FLOW}"
            yield row, "moving mIoU above labels along 2-D flow", above, target, _holds(above, at_least=ABOVE_FLOW)


def _beside_all_labels(records: Sequence[Record], row: str, score: str) -> tuple[float | None, float | None]:
    """A score of a row, and of the model with all labels on the same views."""
    own = "all" if row == TWO_SCENES else row
    reference = row if row in NAMED_PROTOCOLS else "all"
    return mean_score(records, row, own, "model", score), mean_score(records, "full", reference, "model", score)


def _holds(found: float | None, at_least: float | None = None, at_most: float | None = None) -> bool:
    """Whether a figure is known and within its bound."""
    return found is not None and (at_least is None or found >= at_least) and (at_most is None or found <= at_most)


def _adaptation(records: Sequence[Record]) -> Iterator[Line]:
    if not any(record["configuration"].startswith("adaptation-") for record in records):
        return

    def miou(row: str, method: str = "model") -> float | None:
        return mean_score(records, f"adaptation-{row}", "all", method, "miou")

    # In zero-shot no label is read, not even to copy it: the copies are those of other rows.
    copied = next((value for steps in ADAPTATION_STEPS if (value := miou(str(steps), "copy")) is not None), None)
    zero, hundred, most = miou("0"), miou("100"), miou("500")
    scratch, nothing, final = miou("100-scratch"), miou("100-nothing"), miou(str(ADAPTATION_STEPS[-1]))
    above = None if zero is None or copied is None else zero - copied
    yield "adaptation-0", "mIoU above copied labels", above, "above 0", above is not None and above > 0
    for start, figure in ((scratch, "above untrained networks on trained fields"), (nothing, "above training anew")):
        above, target = None if hundred is None or start is None else hundred - start, f"at least {ABOVE_SCRATCH}"
        yield "adaptation-100", f"mIoU {figure}", above, target, _holds(above, at_least=ABOVE_SCRATCH)
    share, figure = (
        most / final if most is not None and final else None,
        f"share of the mIoU after {ADAPTATION_STEPS[-1]}",
    )
    target = f"at least {SHARE_OF_FINAL}"
    yield "adaptation-500", figure, share, target, _holds(share, at_least=SHARE_OF_FINAL)
