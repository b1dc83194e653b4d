"""What the viewer shows of a pipeline, apart from any widget: edits, options, selection, and images made with them."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semflow_nerfstudio.editing.scene_state import History, SceneState, check_known
from semflow_nerfstudio.viewer.compat import Interrupted
from semflow_nerfstudio.viewer.legend import Rgb, matching, visible_shares
from semflow_nerfstudio.viewer.selection import Selection
from semflow_nerfstudio.visuals.display import Display, Membership

if TYPE_CHECKING:
    from semflow_nerfstudio.model import SemanticFlowModel
    from semflow_nerfstudio.pipeline import SemanticFlowPipeline

LEGEND_SECONDS = 0.3
"""The legend's shares follow the images after this time, and not more often."""
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

    def __init__(self, pipeline: SemanticFlowPipeline, folder: Path, report: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self.folder = folder
        """Of the run: where scene states are saved by default."""
        self.report = report
        """Shows a message."""
        self.on_change: list[Callable[[], None]] = []
        """Called after edits, options or the selection changed."""
        self.on_image: list[Callable[[], None]] = []
        """Called after an image was rendered, at most every half second."""
        self.on_time: list[Callable[[float], None]] = []
        """Called after the time moved."""
        self.history = History()
        self.selection = Selection()
        self.shares: list[float] = []
        self._legend_due = False
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
        return self.model.config.default_scene or next(iter(self.model.scenes))

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
    def instance_ids(self) -> list[int]:
        """Instances that are known."""
        return []

    @property
    def membership(self) -> Membership | None:
        """Which instance a point belongs to."""
        return None

    def center_of(self, target: str, moment: float) -> Float[np.ndarray, "3"] | None:
        """Centre of a target at a time, scene units."""
        return None

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
            live, self._live, self._settling = self._live, None, None
            if live is not None:
                self.history.apply(live)

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
        options, state = self.options, self.state
        unlisted = set(self.class_names) - set(matching(self.class_names, options.filter))
        return Display(
            opacity=options.opacity,
            colors=state.class_colors,
            hidden=frozenset({*state.hidden_classes, *unlisted}),
            probability_of=options.probability_class or None,
            highlight=self.selection.targets if options.highlighting else (),
        )

    # ------------------------------------------------------------------ images

    @contextlib.contextmanager
    def edited(self) -> Iterator[None]:
        """The model with edits and display; as it was afterwards. Only while holding the page's lock."""
        model = self.model
        before = model.display
        try:
            model.display = self.display
            yield
        finally:
            model.display = before

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


class ViewedModel:
    """What the viewer renders in place of the model: with edits and display, and never failing because of them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._failed = False

    @property
    def device(self) -> torch.device:
        return self._browser.model.device

    @property
    def training(self) -> bool:
        return self._browser.model.training

    def eval(self) -> None:
        self._browser.model.eval()

    def train(self) -> None:
        self._browser.model.train()

    def get_outputs_for_camera(self, camera: Any, obb_box: Any = None) -> dict[str, Tensor]:
        """An image with edits and display; where they fail the plain one, and the page says why."""
        browser = self._browser
        model, before = browser.model, browser.model.display
        # The viewer interrupts rendering by raising at any traced line: not at those of this frame, which restore.
        sys._getframe().f_trace = None
        try:
            try:
                model.display = browser.display
                outputs = model.get_outputs_for_camera(camera, obb_box)
            finally:
                model.display = before
            if self._failed:
                self._failed = False
                browser.report("")
        except Interrupted:
            raise
        except Exception as error:
            self._failed = True
            browser.report(f"Shown without edits and highlights: {error}")
            outputs = model.get_outputs_for_camera(camera, obb_box)
        browser.rendered(outputs)
        return outputs
