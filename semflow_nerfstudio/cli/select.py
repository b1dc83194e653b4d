"""`semflow select`: what a trained run shows when it is rendered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Select:
    """Choose the scene (and edits of it) that ns-render, ns-viewer and semflow render show of a run.

    Without options, the choice is printed.
    """

    run: tyro.conf.Positional[Path]
    """The run's folder, or its config.yml."""
    scene: str | None = None
    """Name of the scene."""
    scene_state: Path | None = None
    """Edits to show, a file that the editor saved; it is copied."""
    clear: bool = False
    """Go back to the first scene, without edits."""

    def main(self) -> None:
        """Write the choice beside config.yml, and print it."""
        from semflow_nerfstudio.runs import run_config_file
        from semflow_nerfstudio.selection import clear_selection, read_selection, write_selection
        from semflow_nerfstudio.training.adaptation import checkpoint_file, read_state, scene_names

        folder = run_config_file(self.run).parent
        scenes = scene_names(read_state(checkpoint_file(folder)))
        if self.scene not in (None, *scenes):
            raise ValueError(f"there is no scene '{self.scene}' in {folder}: it has {', '.join(scenes)}")
        if self.clear:
            if self.scene is not None or self.scene_state is not None:
                raise ValueError("--clear takes a choice back: leave --scene and --scene-state out, or --clear")
            clear_selection(folder)
        elif self.scene is not None or self.scene_state is not None:
            write_selection(folder, self.scene, self.scene_state)
        chosen = read_selection(folder)
        print(f"scene: {chosen.scene or 'default'} (of {', '.join(scenes)})")
        print(f"edits: {chosen.scene_state or 'none'}")
