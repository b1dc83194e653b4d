"""Records of `semflow bench tasks` sorted into those whose figures may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

Record = dict[str, Any]


def comparable(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by scene, image size, training steps and number of scored views, under a title that says these.

    Of runs of one row with one seed in a group, the one that was measured last.
    """
    latest: dict[tuple[str, str, int, tuple[str, ...]], Record] = {}
    for record in sorted(records, key=lambda record: record["measured"]):
        together = tuple(record["overrides"].get("together", ()))
        latest[_title(record), record["configuration"], record["seed"], together] = record
    groups: dict[str, list[Record]] = {}
    for (title, *_), record in latest.items():
        groups.setdefault(title, []).append(record)
    return dict(sorted(groups.items()))


def _title(record: Record) -> str:
    settings = record["overrides"]
    size = "" if settings["scale"] == 1 else f" 1/{settings['scale']}"
    made = f" {'+'.join(settings['built_in_size'])}" if "built_in_size" in settings else ""
    views = "" if settings["views"] is None else f", {settings['views']} views"
    return f"{record['scene']}{size}{made}, {settings['steps']} steps{views}"


def scores_of(records: Sequence[Record], row: str, protocol: str, method: str) -> list[dict[str, float | None]]:
    """A method's scores in the runs of a row, one entry a seed."""
    found = [r["scores"].get(protocol, {}).get(method) for r in records if r["configuration"] == row]
    return [scores for scores in found if scores]


def mean_score(records: Sequence[Record], row: str, protocol: str, method: str, score: str) -> float | None:
    """Its mean over the seeds; None where nothing was measured."""
    entries = scores_of(records, row, protocol, method)
    known = [value for entry in entries if (value := entry.get(score)) is not None]
    return fmean(known) if known else None
