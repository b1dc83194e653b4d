"""What the viewer shows of a pipeline, apart from any widget: edits, options, selection, and images made with them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.find_instances import find_instances, fingerprint_of, instances_file, with_flow
from semflow_nerfstudio.editing.instances import Instances
from semflow_nerfstudio.editing.scene_state import History, SceneState, check_known
from semflow_nerfstudio.editing.targets import Objects, bounds_of, center_of, needs_instances, resolve
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


class Browser:
    """State of the "Semantics" tab. Changes are whole values, swapped at once; `on_change` hears of them."""

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
        self.history = History()
        self.selection = Selection()
        self.shares: list[float] = []
        self._legend_due = False
        self._instances: Objects | None = None
        self._not_found = ""
        """Why the search for instances failed; it is not repeated for every image."""
        self._finding: threading.Thread | None = None
        self._applied: tuple[int, SceneState, Objects | None] | None = None
        self._live: SceneState | None = None
        self._settling: threading.Timer | None = None
        self._lock = threading.RLock()
        model = self.model
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
        return self._instances

    @instances.setter
    def instances(self, instances: Objects | None) -> None:
        self._instances = instances
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
        with self._lock:
            if self._finding is not None and self._finding.is_alive():
                return
            self._not_found = ""
            self._finding = threading.Thread(target=self._find_instances, args=(search,), daemon=True)
            self._finding.start()

    def _find_instances(self, search: bool) -> None:
        try:
            model, name = self.model, self.scene_name
            file = instances_file(model, self.folder, name)
            with self.lock():
                fingerprint = fingerprint_of(model, name)
            found = None
            with contextlib.suppress(SceneDataError):
                found = Instances.load(file)
            if found is None or found.fingerprint != fingerprint:
                if not search:
                    return
                found = self._search(model, name)
                if found.fingerprint == fingerprint:
                    found.save(file)  # else training has gone on meanwhile
            self.instances = with_flow(found, model.scene(name))
            self.tell("" if len(found) else "No instances were found: nothing is solid and confident enough.")
        except Exception as error:
            CONSOLE.print_exception()
            self._not_found = f"Instances could not be found: {error}"
            self.tell(self._not_found)

    def _search(self, model: SemanticFlowModel, name: str) -> Instances:
        """Find instances with the model to itself, but for a pause after every view in which others have it."""
        with contextlib.ExitStack() as held:

            def take() -> None:
                held.enter_context(self.lock())
                held.enter_context(model.unedited())
                held.callback(model.train, model.training)
                model.eval()

            def progress(done: int, total: int) -> None:
                self.tell(f"Looking for instances: {done} of {total} views")
                held.close()
                time.sleep(0.02)
                take()

            take()
            return find_instances(model, name, progress=progress)

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
    def state(self) -> SceneState:
        """The edits, as they are shown."""
        return self._live or self.history.state

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
            self._live = state
            self._settling = later(SETTLE_SECONDS, self.settle)
        self.changed()

    def settle(self) -> None:
        """What was dragged rests."""
        with self._lock:
            if self._settling is not None:
                self._settling.cancel()
            if self._live is not None:
                self.history.apply(self._live)
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
        """Take over a state from a file, as one step.

        Raises:
            ValueError: it names classes, instances or scenes that are not there.
        """
        check_known(state, self.class_names, self.instance_ids or None, list(self.model.scenes))
        self.edit(state)

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
        if self._applied == (id(model), state, instances):
            return
        if instances is None and any(needs_instances(target) for target in state.targets):
            if not self._not_found:
                self.find_instances()
            raise ValueError(self._not_found or SEARCHING)
        model.set_scene_state(state, instances)
        self._applied = (id(model), state, instances)

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
