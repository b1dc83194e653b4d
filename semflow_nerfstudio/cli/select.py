"""`semflow select`: what a trained run shows when it is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from semflow_nerfstudio.editing.scene_state import SceneState


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
        from semflow_nerfstudio.editing.scene_state_file import load_scene_state
        from semflow_nerfstudio.runs import run_config_file
        from semflow_nerfstudio.selection import clear_selection, read_selection, write_selection
        from semflow_nerfstudio.training.adaptation import CLASSES, Classes, checkpoint_file, read_state, scene_names

        folder = run_config_file(self.run).parent
        trained = read_state(checkpoint_file(folder))
        scenes = scene_names(trained)
        if self.scene not in (None, *scenes):
            raise ValueError(f"there is no scene '{self.scene}' in {folder}: it has {', '.join(scenes)}")
        if self.clear:
            if self.scene is not None or self.scene_state is not None:
                raise ValueError("--clear takes a choice back: leave --scene and --scene-state out, or --clear")
            clear_selection(folder)
        elif self.scene is not None or self.scene_state is not None:
            scene = self.scene
            if self.scene_state is not None:
                state = load_scene_state(self.scene_state)
                # Runs from before class names were kept say nothing of them: those are told when the run is loaded.
                self.check(state, Classes.decode(trained[CLASSES]).names if CLASSES in trained else None, scenes)
                scene = scene or state.scene
            write_selection(folder, scene, self.scene_state)
        chosen = read_selection(folder)
        print(f"scene: {chosen.scene or 'default'} (of {', '.join(scenes)})")
        print(f"edits: {chosen.scene_state or 'none'}")

    def check(self, state: SceneState, classes: Sequence[str] | None, scenes: Sequence[str]) -> None:
        """Say now what rendering would refuse later.

        Raises:
            ValueError: the edits name a class or a scene that the run does not have, or one that is not chosen.
        """
        from semflow_nerfstudio.editing.scene_state import check_known

        try:
            if classes is not None:
                check_known(state, classes, None, scenes)
        except ValueError as error:
            raise ValueError(f"{self.scene_state}: {error}") from None
        if None not in (self.scene, state.scene) and self.scene != state.scene:
            raise ValueError(
                f"{self.scene_state} edits scene '{state.scene}', but --scene is '{self.scene}': choose one"
            )
