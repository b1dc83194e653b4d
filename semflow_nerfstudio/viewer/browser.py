"""What the viewer shows of a pipeline, apart from any widget: edits, options, selection, and images made with them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semflow_nerfstudio.editing.scene_state import History, SceneState, check_known
from semflow_nerfstudio.editing.targets import Objects, bounds_of, center_of, needs_instances, resolve
from semflow_nerfstudio.viewer.instance_search import InstanceSearch
from semflow_nerfstudio.viewer.legend import Rgb, visible_shares
from semflow_nerfstudio.viewer.selection import Selection
from semflow_nerfstudio.visuals.display import Display, Membership, instance_membership, matching

if TYPE_CHECKING:
    from semflow_nerfstudio.model import SemanticFlowModel
    from semflow_nerfstudio.pipeline import SemanticFlowPipeline

LEGEND_SECONDS = 0.3
"""The legend's shares follow the images after this time, and not more often."""
SEARCHING = "The edits need this scene's instances, which are being looked for."
SETTLE_SECONDS = 0.5
"""Edits by dragging become one step of the history when they have rested for so long."""


@dataclass(frozen=True)
class Options:
    """How the viewer shows things; not part of a scene's edits."""

    opacity: float
    """Of the overlay."""
    probability_class: str = ""
    """Class of the `class_probability` output; the legend's colour control is about it."""
    filter: str = ""
    """Parts of class names; classes that match none are neither listed nor coloured."""
    highlighting: bool = True
    """Whether the selection is tinted and outlined."""


@dataclass
class Shown:
    """What is remembered of one scene while another one is shown."""

    history: History
    instances: Objects | None = None


class Browser:
    """State of the "Semantics" tab. Changes are whole values, swapped at once; `on_change` hears of them.

    Edits, their history and instances are those of the scene that is shown: every scene of a run keeps its own.
    """

    def __init__(
        self,
        pipeline: SemanticFlowPipeline,
        folder: Path,
        tell: Callable[[str], None],
        lock: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        self._pipeline = pipeline
        self.folder = folder
        """Of the run: where scene states are saved by default."""
        self.tell = tell
        """Shows what there is to say of rendering and of the search for instances; nothing: an empty text."""
        self.lock = lock
        """Keeps training and rendering away from the model."""
        self.on_change: list[Callable[[], None]] = []
        """Called after edits, options or the selection changed."""
        self.on_image: list[Callable[[], None]] = []
        """Called after images were rendered, not for every one of them."""
        self.on_time: list[Callable[[float], None]] = []
        """Called after the time moved."""
        self.on_scene: list[Callable[[], None]] = []
        """Called when another scene is shown, before `on_change`."""
        self.selection = Selection()
        self.shares: list[float] = []
        self._legend_due = False
        self._live: tuple[str, SceneState] | None = None
        """The scene in which something is dragged, and its state meanwhile."""
        self._settling: threading.Timer | None = None
        self._lock = threading.RLock()
        self._search = InstanceSearch(lambda: self.model, folder, lock, tell, self._found)
        model, state = self.model, self.model.scene_state
        alone = len(model.scenes) == 1
        self._scenes = {name: Shown(History(SceneState(scene=None if alone else name))) for name in model.scenes}
        # `semflow select` may have chosen edits, which the model shows already, with the instances that they need.
        edited = self._scenes[model.edited_scene(state)]
        edited.history = History(replace(state, scene=edited.history.state.scene))
        self._applied: tuple[int, str, SceneState, Objects | None] | None = None
        if edited is self._scenes[self.scene_name]:
            self._applied = (id(model), self.scene_name, edited.history.state, None)
        self._announced = self.scene_name
        """The scene that the panels know of."""
        first = Display().probability_class(model.class_names, model.foreground.tolist())
        self.options = Options(model.config.overlay_opacity, model.class_names[first] if model.class_names else "")

    # ------------------------------------------------------------------ the scene

    @property
    def model(self) -> SemanticFlowModel:
        """The pipeline's model."""
        from semflow_nerfstudio.model import SemanticFlowModel

        model = self._pipeline.model
        assert isinstance(model, SemanticFlowModel)
        return model

    @property
    def scene_name(self) -> str:
        """The scene that cameras without a scene show."""
        return self.model.shown_scene

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.model.class_names

    @property
    def frame_times(self) -> list[float]:
        """Times of the scene's frames, ascending."""
        return self.model.scene(self.scene_name).timeline.times.tolist()

    @property
    def most_frames(self) -> int:
        """Frame times of the longest scene: sliders reach for all of them."""
        return max(len(self.model.scene(name).timeline) for name in self.model.scenes)

    def scene_changed(self) -> None:
        """Tell the panels if another scene is shown: the selection was of the former one."""
        if self._announced == self.scene_name:
            return
        self._announced = self.scene_name
        self.settle()
        self.selection = Selection()
        for listener in self.on_scene:
            listener()
        self.find_instances(search=False)
        self.changed()

    def _frames(self) -> tuple[Any, Float[np.ndarray, "F"]]:
        """The scene's training cameras and their times."""
        cameras: Any = self._pipeline.datamanager.train_dataset.cameras  # type: ignore[union-attr]
        names = list(self.model.scenes)
        index = (cameras.metadata or {}).get("scene")
        if index is not None and len(names) > 1:
            cameras = cameras[(index[:, 0] == names.index(self.scene_name)).nonzero()[:, 0]]
        times = torch.zeros(len(cameras)) if cameras.times is None else cameras.times[:, 0]
        return cameras, times.cpu().numpy()

    def camera_at(self, moment: float) -> tuple[Float[np.ndarray, "3 4"], float]:
        """Pose (OpenGL, scene units) and vertical field of view (radians) of the training frame nearest to a time."""
        cameras, times = self._frames()
        camera = cameras[int(np.abs(times - moment).argmin())]
        height, focal = float(camera.height.flatten()[0]), float(camera.fy.flatten()[0])
        return camera.camera_to_worlds.reshape(3, 4).cpu().numpy(), 2 * float(np.arctan(height / 2 / focal))

    def time_of_camera(self, index: int) -> float:
        """Time of a training camera, by its index in the data set."""
        cameras: Any = self._pipeline.datamanager.train_dataset.cameras  # type: ignore[union-attr]
        return 0.0 if cameras.times is None else float(cameras.times[index, 0])

    @property
    def instances(self) -> Objects | None:
        """The scene's instances, once they are known."""
        return self._scenes[self.scene_name].instances

    @instances.setter
    def instances(self, instances: Objects) -> None:
        self._found(self.scene_name, instances)

    def _found(self, name: str, instances: Objects) -> None:
        self._scenes[name].instances = instances
        self.changed()

    @property
    def instance_ids(self) -> list[int]:
        """Instances that are known."""
        return [] if self.instances is None else list(self.instances.ids)

    @property
    def membership(self) -> Membership | None:
        """Which instance a point belongs to."""
        return None if self.instances is None else instance_membership(self.instances)

    def find_instances(self, search: bool = True) -> None:
        """Read the instances of the scene from beside the run, or find them, in a thread of its own."""
        self._search.start(self.scene_name, search)

    def center_of(self, target: str, moment: float) -> Float[np.ndarray, "3"] | None:
        """Centre of a target at a time, scene units, as it was before edits; None where that is not known."""
        try:
            resolved = resolve(target, self.instances, self.class_names)
        except ValueError:
            return None
        box = bounds_of(resolved, self.instances, moment, self.model.scene(self.scene_name).space.aabb)
        return None if box is None else center_of(resolved, self.instances, moment, box).cpu().numpy()

    @property
    def marker_size(self) -> float:
        """Radius of a marker, in scene units: small against the distances between cameras and scene."""
        scene = self.model.scene(self.scene_name)
        if scene.near is not None and scene.far is not None:
            return 0.01 * min(scene.far, 3 * scene.near)
        return 0.005 * float((scene.space.aabb[1] - scene.space.aabb[0]).max())

    # ------------------------------------------------------------------ state

    @property
    def history(self) -> History:
        """Of the scene's edits."""
        return self._scenes[self.scene_name].history

    @property
    def state(self) -> SceneState:
        """The edits, as they are shown."""
        live = self._live
        return live[1] if live is not None and live[0] == self.scene_name else self.history.state

    def edit(self, state: SceneState) -> None:
        """Go on to another state of the edits, as one step."""
        with self._lock:
            self.settle()
            self.history.apply(state)
        self.changed()

    def drag(self, state: SceneState) -> None:
        """Show another state while something is dragged; where it comes to rest is one step."""
        with self._lock:
            if self._settling is not None:
                self._settling.cancel()
            self._live = (self.scene_name, state)
            self._settling = later(SETTLE_SECONDS, self.settle)
        self.changed()

    def settle(self) -> None:
        """What was dragged rests."""
        with self._lock:
            if self._settling is not None:
                self._settling.cancel()
            if self._live is not None:
                name, state = self._live
                self._scenes[name].history.apply(state)
            self._live = self._settling = None

    def undo(self) -> None:
        """Take the last step back."""
        self._travel(self.history.undo)

    def redo(self) -> None:
        """Take it again."""
        self._travel(self.history.redo)

    def reset(self) -> None:
        """Drop all edits, which can be undone."""
        self._travel(self.history.reset)

    def _travel(self, step: Callable[[], SceneState]) -> None:
        with self._lock:
            self.settle()
            step()
        self.changed()

    def load(self, state: SceneState) -> None:
        """Take over a state from a file, as one step; the scene that it names is shown.

        Raises:
            ValueError: it names classes, instances or scenes that are not there.
        """
        name, scenes = state.scene or self.scene_name, list(self.model.scenes)
        known = self._scenes[name].instances if name in self._scenes else None
        check_known(state, self.class_names, None if known is None else known.ids, scenes)
        if name != self.scene_name:
            self.model.show_scene(name)
            self.scene_changed()
        self.edit(state if len(scenes) == 1 else replace(state, scene=name))

    def update(self, **options: Any) -> None:
        """Change options."""
        with self._lock:
            self.options = replace(self.options, **options)
        self.changed()

    def select(self, selection: Selection) -> None:
        """Select something else."""
        self.selection = selection
        self.changed()

    def changed(self) -> None:
        """Tell the panels."""
        for listener in self.on_change:
            listener()

    def time_changed(self, moment: float) -> None:
        """Tell the panels that show something of a time."""
        for listener in self.on_time:
            listener(moment)

    def color_of(self, name: str) -> Rgb:
        """A class's colour, RGB in [0, 1]."""
        if name in self.state.class_colors:
            return self.state.class_colors[name]
        red, green, blue = self.model.class_colors[self.class_names.index(name)].tolist()
        return red, green, blue

    @property
    def display(self) -> Display:
        """How images show classes."""
        options = self.options
        unlisted = set(self.class_names) - set(matching(self.class_names, options.filter))
        return Display(
            opacity=options.opacity,
            unlisted=frozenset(unlisted),
            probability_of=options.probability_class or None,
            highlight=self.selection.targets if options.highlighting else (),
        )

    # ------------------------------------------------------------------ images

    def apply(self) -> None:
        """Bring the model to the edits and the display. Only while holding the page's lock.

        Raises:
            ValueError: the edits need the scene's instances, which are not known yet (they are looked for).
        """
        model, state, instances = self.model, self.state, self.instances
        model.display, model.membership = self.display, self.membership
        name = self.scene_name
        if self._applied == (id(model), name, state, instances):
            return
        if instances is None and any(needs_instances(target) for target in state.targets):
            failure = self._search.failures.get(name)
            if failure is None:
                self.find_instances()
            raise ValueError(failure or SEARCHING)
        model.set_scene_state(state, instances)
        self._applied = (id(model), name, state, instances)

    def rendered(self, outputs: dict[str, Tensor]) -> None:
        """An image was made: the legend's shares are of it, told at most every so often."""
        if "label" not in outputs:
            return
        self.shares = visible_shares(outputs["label"], outputs["accumulation"], len(self.class_names))
        with self._lock:
            if not self._legend_due:
                self._legend_due = True
                later(LEGEND_SECONDS, self._tell_shares)

    def _tell_shares(self) -> None:
        self._legend_due = False
        for listener in self.on_image:
            listener()


def later(seconds: float, call: Callable[[], None]) -> threading.Timer:
    """Call something in a while, in a thread that does not keep the process alive."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer
