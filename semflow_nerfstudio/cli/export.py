"""`semflow export`: files for other programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from semflow_nerfstudio.export.options import ExportOptions


@dataclass
class Export:
    """Export point clouds, meshes, pictures, masks, depth, flow, tracks and cameras of a trained run."""

    run: tyro.conf.Positional[Path]
    """The run's folder, or its config.yml."""
    out: tyro.conf.Positional[Path]
    """Folder to write; an interrupted export goes on where it was."""
    options: tyro.conf.OmitArgPrefixes[ExportOptions] = field(default_factory=ExportOptions)
    """What, and how."""
    scene_state: Path | None = None
    """Edits to apply: a scene_state.json."""

    def main(self) -> None:
        """Export with a progress display and print what was written."""
        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.editing.scene_state_file import load_scene_state
        from semflow_nerfstudio.export.export import export_run
        from semflow_nerfstudio.runs import load_run

        state = None if self.scene_state is None else load_scene_state(self.scene_state)
        run = load_run(self.run)
        with progress("Exporting") as update:
            folders = export_run(run, self.out, self.options, state, update)
        for folder in folders:
            print(folder)
