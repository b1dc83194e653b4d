"""`semflow complete`: labels for all frames of a clip of which some, or some pixels, are labelled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Complete:
    """Write a label image and a confidence image for every training frame, in the layout that the labels came in."""

    run: tyro.conf.Positional[Path]
    """The run's folder, or its config.yml."""
    out: tyro.conf.Positional[Path]
    """Folder to write to; an interrupted one is continued."""
    keep_given: bool = True
    """Leave pixels that came labelled as they came."""
    scene: str | None = None
    """Scene of the run; by default the one that `semflow select` chose for it, or else its first."""
    overwrite: bool = False
    """Make images anew that are there."""

    def main(self) -> None:
        """Write them with a progress display."""
        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.completion import complete
        from semflow_nerfstudio.data.label_files import CONFIDENCE_FOLDER
        from semflow_nerfstudio.runs import load_run

        run = load_run(self.run)
        with progress("Labelling") as update:
            files = complete(run, self.out, self.keep_given, self.overwrite, self.scene, update)
        print(f"{len(files)} label images in {self.out / files[0].name.parent}, beside {self.out / CONFIDENCE_FOLDER}")
