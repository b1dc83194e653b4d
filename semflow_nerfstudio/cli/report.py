"""What subcommands print and write."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from semflow_nerfstudio.whole_file import whole_file


@contextmanager
def progress(title: str) -> Iterator[Any]:
    """A progress bar; yields a function (done, total, note="") that moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with NaN and infinities as None, which JSON can hold."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def write_json(path: Path, content: Any) -> None:
    """Write JSON such that the file is never half-written."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def print_scores(scores: Mapping[str, Any], title: str) -> None:
    """Print the scores as a table."""
    table = Table(title=title, show_header=False)
    for name, value in scores.items():
        shown = "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        table.add_row(name, shown)
    Console().print(table)
