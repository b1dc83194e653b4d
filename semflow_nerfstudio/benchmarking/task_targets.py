"""README table of what `semflow bench tasks` found against what it should find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from semflow_nerfstudio.benchmarking.task_groups import Record, adapted, by_partner, comparable, mean_score
from semflow_nerfstudio.benchmarking.task_rows import ADAPTATION_STEPS, BUILT_IN_NAMES, TWO_SCENES
from semflow_nerfstudio.data.protocols import NAMED_PROTOCOLS

FEW_LABELS = {
    "completion-75": (0.02, 0.92),
    "completion-50": (0.04, 0.85),
    "completion-25": (0.07, 0.75),
    "tracking-75": (0.03, 0.85),
    "tracking-50": (0.06, 0.75),
    "tracking-25": (0.12, 0.55),
    "scribbles-1": (0.03, 0.92),
}
"""By row: by how much mIoU may be below that of the model with all labels, and which share of its mIoU of moving
classes is to be reached, on the same times and views."""
JOINT = (0.01, 0.97)
"""The same of two scenes in one model, beside each of them alone."""
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
    found_in = {scene: [*_few_labels(mine), *_two_scenes(mine)] for scene, mine in comparable(records).items()}
    for scene, mine in adapted(records).items():
        if mine[0]["scene"] == BUILT_IN_NAMES[0]:  # other scenes are reported without a target
            found_in[scene] = list(_adaptation(mine))
    for scene, figures in found_in.items():
        for row, figure, found, target, met in figures:
            known = found is not None
            cells = [f"{found:.3f}", target, "yes" if met else "no"] if known else ["not measured", target, "-"]
            lines.append([scene, row, figure, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _few_labels(records: Sequence[Record]) -> Iterator[Line]:
    if not any(record["configuration"] in FEW_LABELS for record in records):
        return
    for row, (loss, share) in FEW_LABELS.items():
        reference = row if row in NAMED_PROTOCOLS else "all"
        yield from _beside_full(records, records, (row, row), row, reference, loss, share)
        if row in NAMED_PROTOCOLS:
            moving = mean_score(records, row, row, "model", "miou_moving")
            flow = mean_score(records, row, row, "flow_2d", "miou_moving")
            above = None if moving is None or flow is None else moving - flow
            target = f"at least {ABOVE_FLOW}"
            yield row, "moving mIoU above labels along 2-D flow", above, target, _holds(above, at_least=ABOVE_FLOW)


def _two_scenes(records: Sequence[Record]) -> Iterator[Line]:
    for partner, joint in by_partner(records, TWO_SCENES).items():
        yield from _beside_full(joint, records, (TWO_SCENES, "all"), f"{TWO_SCENES} with {partner}", "all", *JOINT)


def _beside_full(
    records: Sequence[Record],
    references: Sequence[Record],
    row: tuple[str, str],
    title: str,
    reference: str,
    loss: float,
    share: float,
) -> Iterator[Line]:
    """A row, scored as one protocol, against the model of one scene with all labels on the same views."""

    def both(score: str) -> tuple[float | None, float | None]:
        return mean_score(records, *row, "model", score), mean_score(references, "full", reference, "model", score)

    miou, full = both("miou")
    below = None if miou is None or full is None else full - miou
    yield title, "mIoU below all labels", below, f"at most {loss}", _holds(below, at_most=loss)
    moving, full = both("miou_moving")
    reached = moving / full if moving is not None and full else None
    yield title, "share of all labels' moving mIoU", reached, f"at least {share}", _holds(reached, at_least=share)


def _holds(found: float | None, at_least: float | None = None, at_most: float | None = None) -> bool:
    """Whether a figure is known and within its bound."""
    return found is not None and (at_least is None or found >= at_least) and (at_most is None or found <= at_most)


def _adaptation(records: Sequence[Record]) -> Iterator[Line]:
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
