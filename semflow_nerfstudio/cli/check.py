"""`semflow check`: is a scene fit for training?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Check:
    """Read a scene from anywhere and say what is in it, what is missing and what that costs, and what is wrong.

    The exit code is 1 if something is wrong.
    """

    scene: tyro.conf.Positional[Path]
    """Folder with transforms.json, or in the Semantic Dynamic Scene layout."""
    report: Path | None = None
    """Write one HTML page about the scene, with thumbnails of everything."""

    def main(self) -> None:
        """Check, showing progress."""
        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.process.check import check_scene

        with progress("Comparing poses with the flow") as update:
            summary = check_scene(self.scene, update)
        if self.report is not None:
            from semflow_nerfstudio.process.report import write_report

            write_report(self.scene, summary, self.report)
        print("\n".join(summary.lines()))
        if summary.errors:
            sys.exit(1)
