"""`semflow make-scene`: writes the built-in procedural scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene


@dataclass
class MakeScene:
    """Make a dynamic scene with exact labels, flow, depth, masks, tracks and held-out views.

    It is written in the Semantic Dynamic Scene layout, which `dynamic-scene-data` reads.
    """

    out: tyro.conf.Positional[Path]
    """Folder of the new scene."""
    options: Annotated[SceneOptions, tyro.conf.arg(name="")] = field(default_factory=SceneOptions)
    """What scene to make."""
    overwrite: bool = False
    """Replace what is in the folder."""

    def main(self) -> None:
        """Make the scene, showing progress."""
        from rich.progress import Progress

        with Progress(transient=True) as display:
            task = display.add_task("Rendering views", total=None)
            try:
                make_scene(
                    self.out,
                    self.options,
                    overwrite=self.overwrite,
                    progress=lambda done, total: display.update(task, completed=done, total=total),
                )
            except SceneDataError as error:
                raise SystemExit(str(error)) from None
        options = self.options
        print(
            f"{self.out}: {options.frames} frames of {options.width}x{options.height}, "
            f"{options.frames * options.cameras} views with labels from {options.cameras} cameras"
        )
