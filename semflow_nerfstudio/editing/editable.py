"""What makes a model's pictures editable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semflow_nerfstudio.editing.edits import Edits
from semflow_nerfstudio.editing.scene_state import SceneState, check_known
from semflow_nerfstudio.editing.targets import Objects
from semflow_nerfstudio.visuals.display import Display, Membership

if TYPE_CHECKING:
    from semflow_nerfstudio.scene import Scene


class Editable:
    """Holds the scene state of a model: runtime only, no part of checkpoints."""

    class_names: tuple[str, ...]
    class_colors: Tensor
    scenes: Any
    training: bool
    _scene_state: SceneState = SceneState()
    _edits: Edits | None = None
    display: Display = Display()
    """How pictures show classes."""
    membership: Membership | None = None
    """Finds the instances that the display highlights."""

    if TYPE_CHECKING:

        def scene(self, name: str) -> Scene: ...

        @property
        def shown_scene(self) -> str: ...

    @property
    def scene_state(self) -> SceneState:
        """The edits that pictures show."""
        return self._scene_state

    def set_scene_state(self, state: SceneState, instances: Objects | None = None) -> None:
        """Show a scene edited; training and scores do not see it.

        Args:
            state: The edits; an empty state shows everything as it is.
            instances: The edited scene's instances, needed where the state names a class or an instance.

        Raises:
            ValueError: the state names a scene, class or instance that is not there, or the model samples with an
                occupancy grid, where moved things would get no samples.
        """
        check_known(state, self.class_names, None, list(self.scenes))
        scene = self.scene(self.edited_scene(state))
        if state.edits_scene and not len(scene.proposal_fields):
            raise ValueError(
                "edits place samples by the proposal fields, which runs with sampler 'occupancy' do not have"
            )
        edits = Edits(state, scene, instances, self.class_names) if state.edits_scene else None
        self._scene_state, self._edits = state, edits

    def edited_scene(self, state: SceneState) -> str:
        """Name of the scene that a state edits."""
        return state.scene or self.shown_scene

    def edits(self, name: str) -> Edits | None:
        """What is to be edited in a scene's pictures; never in training."""
        if self.training or self._edits is None or self.edited_scene(self._scene_state) != name:
            return None
        return self._edits

    @property
    def edited(self) -> bool:
        """Whether pictures may show something else than the scene as it was learnt."""
        return self._edits is not None

    @contextmanager
    def showing(self, state: SceneState, instances: Objects | None = None) -> Iterator[None]:
        """Within this context pictures show a scene as a state says; see `set_scene_state`."""
        kept = self._scene_state, self._edits
        try:
            self.set_scene_state(state, instances)
            yield
        finally:
            self._scene_state, self._edits = kept

    @contextmanager
    def unedited(self) -> Iterator[None]:
        """Within this context pictures show scenes as they were learnt: for scores."""
        kept = self._scene_state, self._edits, self.display
        self._scene_state, self._edits, self.display = SceneState(), None, Display()
        try:
            yield
        finally:
            self._scene_state, self._edits, self.display = kept

    def shown_classes(self) -> tuple[Float[Tensor, "C 3"], Bool[Tensor, "C"]]:
        """Colours of the classes as edited, and which are coloured at all."""
        colors = self.class_colors.clone()
        for index, name in enumerate(self.class_names):
            if name in self._scene_state.class_colors:
                colors[index] = torch.tensor(self._scene_state.class_colors[name])
        shown = [name not in self._scene_state.hidden_classes for name in self.class_names]
        return colors, torch.tensor(shown, dtype=torch.bool, device=colors.device)
