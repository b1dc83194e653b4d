"""`semflow bench`: measurements, whose results the README's tables are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from semflow_nerfstudio.cli.bench_tasks import Tasks, TaskTables


@dataclass
class Bench:
    """Measure: `semflow bench tasks --help`."""

    what: Annotated[Tasks, tyro.conf.subcommand("tasks")] | Annotated[TaskTables, tyro.conf.subcommand("task-tables")]

    def main(self) -> None:
        """Run the measurement."""
        self.what.main()
