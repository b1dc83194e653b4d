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
    latest: dict[tuple[str, ...], Record] = {}
    for record in sorted(records, key=lambda record: record["measured"]):
        together = ", ".join(record["overrides"].get("together", ()))
        row = (record["configuration"], str(record["seed"]), together, origin(record) or "")
        latest[(_title(record), *row)] = record
    groups: dict[str, list[Record]] = {}
    for (title, *_), record in latest.items():
        groups.setdefault(title, []).append(record)
    return dict(sorted(groups.items()))


def origin(record: Record) -> str | None:
    """The training that an adaptation starts from; None of other rows."""
    settings = record["overrides"]
    if "sources" not in settings:
        return None
    return f"from {' and '.join(settings['sources'])}, {settings['source_steps']} steps"


def adapted(records: Sequence[Record]) -> dict[str, list[Record]]:
    """As `comparable`, but only scenes that were adapted to, and apart what started from different trainings."""
    groups: dict[str, list[Record]] = {}
    for title, mine in comparable(records).items():
        for start in sorted({start for record in mine if (start := origin(record)) is not None}):
            groups[f"{title}, {start}"] = [record for record in mine if origin(record) in (None, start)]
    return groups


def by_partner(records: Sequence[Record], row: str) -> dict[str, list[Record]]:
    """A row's records of two scenes in one model, by the names of the others in it."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record["configuration"] == row:
            others = list(record["overrides"]["together"])
            others.remove(record["scene"])
            found.setdefault(", ".join(others), []).append(record)
    return found


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
