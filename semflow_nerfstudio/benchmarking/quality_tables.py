"""Markdown tables of what `semflow bench quality` measured; what is not measured says so."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from semflow_nerfstudio.benchmarking.quality_rows import MAIN, ROWS, WITHHELD_LABELS, Group, QualityRow

NOT_MEASURED = "not measured"
COLUMNS: dict[str, tuple[str, str, float]] = {
    "psnr": ("PSNR", ".1f", 1),
    "dynamic_psnr": ("on movers", ".1f", 1),
    "ssim": ("SSIM", ".3f", 1),
    "miou": ("mIoU", ".3f", 1),
    "miou_dataset": ("mIoU, data set", ".3f", 1),
    "miou_moving": ("moving", ".3f", 1),
    "boundary_f": ("boundary F", ".3f", 1),
    "ece": ("ECE", ".3f", 1),
    "flow_epe_moving": ("flow error, px", ".2f", 1),
    "depth_error": ("depth error, %", ".1f", 100),
    "depth_error_moving": ("on movers, %", ".1f", 100),
}
"""Scores: title, format, factor."""
BASELINES = {"copy": "training frame of the same time", "warp": "that frame warped with the model's depth"}

Record = dict[str, Any]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latest(records: Iterable[Record]) -> list[Record]:
    """Records that one table may hold, in order of scene, row and seed.

    Of several of one row, scene and seed, the one measured last; and no seed that was measured with other settings
    (steps, views, ...) than the row's last one.
    """
    kept: dict[tuple[str, str, int], Record] = {}
    settings: dict[tuple[str, str], Any] = {}
    for record in sorted(records, key=lambda record: record["measured"]):
        row = (record["scene"], record["configuration"])
        kept[(*row, record["seed"])] = record
        settings[row] = record.get("overrides")
    return [kept[key] for key in sorted(kept) if kept[key].get("overrides") == settings[key[:2]]]


def spread(values: Sequence[float | None], form: str, factor: float = 1) -> str:
    """The mean over seeds, and half of the range where there are several."""
    known = [factor * value for value in values if value is not None]
    if not known:
        return NOT_MEASURED
    mean = format(statistics.fmean(known), form)
    return mean if len(known) == 1 else f"{mean} ± {format((max(known) - min(known)) / 2, form)}"


def scores_of(records: Sequence[Record], names: Iterable[str]) -> list[str]:
    """Cells of some scores of one row's seeds; what was not measured at all says so once."""
    names = list(names)
    if not records:
        return [NOT_MEASURED, *["-"] * (len(names) - 1)]
    return [spread([r["scores"].get(name) for r in records], *COLUMNS[name][1:]) for name in names]


def runs_of(records: Sequence[Record], row: QualityRow, scene: str) -> list[Record]:
    """The seeds of a row on a scene."""
    return [record for record in records if record["configuration"] == row.name and record["scene"] == scene]


def budget(records: Sequence[Record]) -> list[str]:
    """Cells of seeds, views, steps and training time."""
    if not records:
        return ["-"] * 4
    seconds = statistics.fmean(record["train_seconds"] for record in records)
    seeds = ", ".join(str(record["seed"]) for record in records)
    return [seeds, str(len(records[0]["views"])), str(records[0]["steps"]), f"{seconds / 60:.1f} min"]


def group_table(group: Group) -> Callable[[Sequence[Record]], str]:
    """Maker of the table of a group's rows, for each scene that any of them was measured on."""

    def make(records: Sequence[Record]) -> str:
        records = latest(records)
        names = list(COLUMNS)
        head = ["configuration", "scene", "seeds", "views", "steps", "training", *(COLUMNS[n][0] for n in names)]
        lines = []
        for scene in scenes_of(records, group):
            for row in ROWS[group]:
                runs = runs_of(records, row, scene)
                lines.append([row.name, scene, *budget(runs), *scores_of(runs, names)])
        return markdown(head, lines)

    return make


def scenes_of(records: Sequence[Record], group: Group) -> list[str]:
    """Scenes that rows of a group were measured on; a dash where there are none, so that the rows are shown."""
    names = {row.name for row in ROWS[group]}
    return sorted({record["scene"] for record in records if record["configuration"] in names}) or ["-"]


def baseline_table(records: Sequence[Record]) -> str:
    """What a field must beat, beside the field, scored in the same runs."""
    records, names = latest(records), ["psnr", "dynamic_psnr", "ssim", "miou", "miou_moving", "boundary_f"]
    lines = []
    for scene in scenes_of(records, "baselines"):
        for row in (*ROWS["baselines"], MAIN):
            runs, size = runs_of(records, row, scene), f"1/{row.downscale:g}"
            if row.baselines:
                for key, title in BASELINES.items():
                    scored = [{"scores": run["baselines"][key]} for run in runs if key in run.get("baselines", {})]
                    lines.append([title, scene, size, *scores_of(scored, names)])
            title = "all of it" if row.baselines else row.name
            lines.append([title, scene, size, *scores_of(runs, names)])
    return markdown(["shown", "scene", "size", *(COLUMNS[name][0] for name in names)], lines)


def withheld_table(records: Sequence[Record]) -> str:
    """IoU per class on frames whose labels were withheld, beside the neighbours' labels warped along the given flow."""
    records = latest(records)
    rows = {row.name: row for row in ROWS["withheld"]}
    measured = [record for record in records if record["configuration"] in rows]
    classes = sorted({name for r in measured for name, value in r["scores"].items() if _is_class(name, value)})
    lines = []
    for scene in scenes_of(records, "withheld"):
        runs = {name: runs_of(records, row, scene) for name, row in rows.items()}
        warped = [{"scores": run["baselines"]["warped neighbours"]} for run in runs[WITHHELD_LABELS.name]]
        shown = {"model": runs.pop(WITHHELD_LABELS.name)}
        shown |= {f"model, {name.split(', ')[-1]}": found for name, found in runs.items()}
        for title, scored in (*shown.items(), ("neighbours' labels along the given flow", warped)):
            values = [spread([r["scores"].get(name) for r in scored], ".3f") for name in ["miou_dataset", *classes]]
            lines.append([title, scene, *values])
    head = ["labels from", "scene", "mIoU, data set", *(name.removeprefix("iou_") for name in classes)]
    return markdown(head, lines)


def _is_class(name: str, value: Any) -> bool:
    return name.startswith("iou_") and value is not None


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    "quality-main": group_table("main"),
    "quality-baselines": baseline_table,
    "quality-ablations": group_table("ablations"),
    "quality-robustness": group_table("robustness"),
    "quality-withheld": withheld_table,
    "quality-generated": group_table("generated"),
}
"""By the name of their place in the README."""
