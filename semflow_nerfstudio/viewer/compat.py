"""The only file that touches viser 0.2.7 and nerfstudio 1.1.5's viewer: widgets, pointer, gizmo, cameras, locks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import viser
import viser.transforms as vtf
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.utils import CameraState, get_camera
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO as SCALE
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerDropdown
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from viser._gui_handles import GuiTabHandle
from viser._messages import GuiUpdateMessage

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

Interrupted = IOChangeException
"""Raised into rendering at any line when the image is no longer wanted; never an error."""
Rgb255 = tuple[int, int, int]
SMALL_WIDTH = 96
"""Pixels across a client's view where it is asked what is seen, not shown."""
PointerMode = Literal["off", "click", "rect-select"]


@dataclass(frozen=True)
class Click:
    """A click into the scene: a ray in scene units, direction of length one."""

    origin: Float[np.ndarray, "3"]
    direction: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Rectangle:
    """A rectangle drawn over a client's view; corners are shares of its width and height, (right, down)."""

    camera: Cameras
    """Of the whole view, some 96 pixels wide."""
    low: tuple[float, float]
    high: tuple[float, float]


class Widget:
    """One control. `value` is what the user set; `show` changes it without calling back."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def value(self) -> Any:
        return self._handle.value

    def show(self, value: Any) -> None:
        """Display a value; unlike viser's own setter this does not call back, so that nothing echoes."""
        state = self._handle._impl
        if state.value == value:
            return
        state.value = value
        self.repeat()

    def repeat(self) -> None:
        """Tell all clients the value once more."""
        state = self._handle._impl
        state.gui_api._websock_interface.queue_message(GuiUpdateMessage(state.id, {"value": state.value}))

    def show_options(self, options: Sequence[str], value: str) -> None:
        """Display other options of a dropdown, and which of them is chosen."""
        if tuple(options) != self._handle.options:
            self._handle.options = tuple(options)
        self.show(value)

    @property
    def visible(self) -> bool:
        return self._handle.visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        self._handle.visible = visible


class Text:
    """A piece of markdown."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def show(self, content: str) -> None:
        if self._handle.content != content:
            self._handle.content = content


class Page:
    """What the browser shows, and what it reports. Callbacks run one at a time; what they raise is reported."""

    def __init__(self, viewer: Viewer, report: Callable[[str], None]) -> None:
        self._viewer = viewer
        self._server: viser.ViserServer = viewer.viser_server
        self._gui = self._server.gui
        self._report = report
        self._busy = threading.RLock()
        self._pointer: PointerMode = "off"
        self._nodes: dict[str, Any] = {}

    # ------------------------------------------------------------------ widgets

    @contextlib.contextmanager
    def tab(self, label: str) -> Iterator[None]:
        """A tab beside nerfstudio's own: the group's handle is not kept by the viewer, but by its tabs."""
        tabs = (h for h in self._gui._container_handle_from_id.values() if isinstance(h, GuiTabHandle))
        group = next(tabs)._parent
        with group.add_tab(label, viser.Icon.COLOR_SWATCH):
            yield

    @contextlib.contextmanager
    def folder(self, label: str, open_at_first: bool = True) -> Iterator[None]:
        with self._gui.add_folder(label, expand_by_default=open_at_first):
            yield

    def guarded(self, callback: Callable[..., None], *args: Any) -> None:
        """Run a callback; what it raises becomes a message on the page, and a new image is asked for."""
        with self._busy:
            self._report("")
            try:
                callback(*args)
            except Exception as error:
                self.fail(error)
        self.rerender()

    def fail(self, error: Exception) -> None:
        """Report an error on the page until the next action, and in full in the terminal if it is not about input."""
        if not isinstance(error, ValueError | OSError):
            CONSOLE.print_exception()
        self._report(f"{error}" or type(error).__name__)

    def button(self, label: str, callback: Callable[[], None], hint: str | None = None) -> Widget:
        handle = self._gui.add_button(label, hint=hint)
        handle.on_click(lambda _: self.guarded(callback))
        return Widget(handle)

    def _input(self, handle: Any, callback: Callable[[Any], None] | None) -> Widget:
        widget = Widget(handle)
        if callback is not None:

            def changed(_: object) -> None:
                sent = handle.value
                self.guarded(callback, sent)
                if handle.value != sent:
                    # Next, viser passes on what was sent to the other clients, in place of what the callback showed.
                    threading.Timer(0.1, widget.repeat).start()

            handle.on_update(changed)
        return widget

    def checkbox(self, label: str, value: bool, callback: Callable[[bool], None] | None, hint: str | None = None):
        return self._input(self._gui.add_checkbox(label, value, hint=hint), callback)

    def slider(
        self,
        label: str,
        low: float,
        high: float,
        step: float,
        value: float,
        callback: Callable[[Any], None] | None,
        hint: str | None = None,
    ) -> Widget:
        # viser's slider needs room to move; a clip of one frame has none.
        handle = self._gui.add_slider(label, low, max(high, low + step), step, value, hint=hint, disabled=high <= low)
        return self._input(handle, callback)

    def number(
        self,
        label: str,
        value: float,
        callback: Callable[[Any], None] | None = None,
        low: float | None = None,
        high: float | None = None,
        step: float | None = None,
        hint: str | None = None,
    ) -> Widget:
        return self._input(self._gui.add_number(label, value, low, high, step, hint=hint), callback)

    def text(self, label: str, value: str, callback: Callable[[str], None] | None, hint: str | None = None) -> Widget:
        return self._input(self._gui.add_text(label, value, hint=hint), callback)

    def dropdown(
        self,
        label: str,
        options: Sequence[str],
        value: str,
        callback: Callable[[str], None] | None,
        hint: str | None = None,
    ) -> Widget:
        return self._input(self._gui.add_dropdown(label, tuple(options), value, hint=hint), callback)

    def color(
        self, label: str, value: Rgb255, callback: Callable[[Rgb255], None] | None, hint: str | None = None
    ) -> Widget:
        return self._input(self._gui.add_rgb(label, value, hint=hint), callback)

    def vector(
        self,
        label: str,
        value: tuple[float, float, float],
        callback: Callable[[tuple[float, float, float]], None] | None = None,
        step: float = 0.01,
        hint: str | None = None,
    ) -> Widget:
        return self._input(self._gui.add_vector3(label, value, step=step, hint=hint), callback)

    def markdown(self, content: str) -> Text:
        return Text(self._gui.add_markdown(content))

    def upload(self, label: str, mime_type: str, callback: Callable[[str, bytes], None], hint: str | None = None):
        handle = self._gui.add_upload_button(label, mime_type=mime_type, hint=hint)
        handle.on_upload(lambda _: self.guarded(callback, handle.value.name, handle.value.content))

    # ------------------------------------------------------------------ rendering, time, cameras

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        """Keeps training and rendering away while the model is asked something."""
        return self._viewer.train_lock if self._viewer.train_lock is not None else contextlib.nullcontext()

    def render_with(self, model: Any) -> None:
        """Let the viewer render this in place of the pipeline's model."""
        self._viewer.get_model = lambda: model  # type: ignore[method-assign]

    def rerender(self) -> None:
        """Ask for a new image."""
        self._viewer._trigger_rerender()

    @property
    def time(self) -> float:
        """Time in [0, 1] of the images."""
        return float(self._viewer.control_panel.time)

    def show_time(self, time: float) -> None:
        """Set the time of the images, exactly: the slider itself only knows hundredths."""
        handle = self._viewer.control_panel._time.gui_handle
        if handle is not None:
            Widget(handle).show(float(time))

    def on_time(self, callback: Callable[[float], None]) -> None:
        """Call back when the user moves nerfstudio's own time slider."""
        handle = self._viewer.control_panel._time.gui_handle
        if handle is not None:
            handle.on_update(lambda _: self.guarded(callback, float(handle.value)))

    def on_choice(self, element: ViewerDropdown[str], callback: Callable[[], None]) -> None:
        """Call back when the user chooses from one of nerfstudio's own lists."""
        if element.gui_handle is not None:
            element.gui_handle.on_update(lambda _: self.guarded(callback))

    @property
    def watched(self) -> bool:
        """Whether somebody looks."""
        return bool(self._server.get_clients())

    @property
    def clicked_camera(self) -> int:
        """Index of the training camera that was clicked last."""
        return int(self._viewer.current_camera_idx)

    def look_through(self, pose: Float[np.ndarray, "3 4"], fov: float) -> None:
        """Put all clients at a camera: OpenGL camera-to-world in scene units, vertical field of view in radians."""
        turned = vtf.SO3.from_matrix(pose[:, :3]) @ vtf.SO3.from_x_radians(np.pi)
        for client in self._server.get_clients().values():
            if client.camera._state.update_timestamp == 0.0:
                continue  # it has not told its camera yet
            with client.atomic():
                client.camera.position = pose[:, 3] * SCALE
                client.camera.wxyz = turned.wxyz
                client.camera.fov = fov

    # ------------------------------------------------------------------ pointer and scene

    @property
    def pointer(self) -> PointerMode:
        return self._pointer

    def listen(self, mode: PointerMode, callback: Callable[[Any], None], removed: Callable[[], None]) -> None:
        """Report clicks (`Click`) or rectangles (`Rectangle`) until told otherwise or another tool takes over."""
        scene = self._server.scene
        if self._pointer != "off":
            self._pointer = "off"
            scene.on_pointer_callback_removed(lambda: None)
            scene.remove_pointer_callback()
        if mode == "off":
            return

        @scene.on_pointer_event(mode)
        def _(event: viser.ScenePointerEvent) -> None:
            self.guarded(callback, self._pointed(event))

        def taken() -> None:
            self._pointer = "off"
            self.guarded(removed)

        scene.on_pointer_callback_removed(taken)
        self._pointer = mode

    def _pointed(self, event: viser.ScenePointerEvent) -> Click | Rectangle:
        if event.event_type == "click":
            return Click(np.array(event.ray_origin) / SCALE, np.array(event.ray_direction))
        first, second = event.screen_pos[0], event.screen_pos[-1]
        low = min(first[0], second[0]), min(first[1], second[1])
        return Rectangle(self._small_camera(event.client), low, (max(first[0], second[0]), max(first[1], second[1])))

    def show_marker(self, name: str, position: Float[np.ndarray, "3"], text: str, radius: float, color: Rgb255) -> None:
        """A small ball with a text at a point in scene units."""
        at = position * SCALE
        ball = self._server.scene.add_icosphere(f"/semantics/{name}", radius * SCALE, color, 2, position=at)
        label = self._server.scene.add_label(f"/semantics/{name}_text", text, position=at)
        self._keep(name, [ball, label])

    def show_dots(
        self, name: str, points: Float[np.ndarray, "N 3"], colors: Float[np.ndarray, "N 3"], size: float
    ) -> None:
        """Coloured dots at points in scene units, hidden by what is in front of them while depth is composited.

        Dense enough they are lines of any colours in one message, which viser's splines are not.
        """
        if not len(points):
            self.remove(name)
            return
        node = self._server.scene.add_point_cloud(
            f"/semantics/{name}", points * SCALE, colors, point_size=size * SCALE, point_shape="circle"
        )
        self._keep(name, [node])

    def show_gizmo(
        self,
        name: str,
        position: Float[np.ndarray, "3"],
        size: float,
        callback: Callable[[Float[np.ndarray, "3"], tuple[float, float, float, float]], None],
    ) -> None:
        """Handles that move and turn something; reports position (scene units) and rotation (wxyz) while dragged."""
        gizmo = self._server.scene.add_transform_controls(
            f"/semantics/{name}", scale=size * SCALE, depth_test=False, line_width=3.0, position=position * SCALE
        )

        def moved(handle: viser.TransformControlsHandle) -> None:
            w, x, y, z = (float(v) for v in handle.wxyz)
            self.guarded(callback, np.asarray(handle.position) / SCALE, (w, x, y, z))

        gizmo.on_update(moved)
        self._keep(name, [gizmo])

    def move_gizmo(self, name: str, position: Float[np.ndarray, "3"], wxyz: tuple[float, float, float, float]) -> None:
        """Put a gizmo somewhere without a report."""
        for gizmo in self._nodes.get(name, ()):
            if not np.allclose(gizmo.position, position * SCALE) or not np.allclose(gizmo.wxyz, wxyz):
                gizmo.position, gizmo.wxyz = position * SCALE, np.array(wxyz)

    def shows(self, name: str) -> bool:
        """Whether there is something of that name in the scene."""
        return name in self._nodes

    def camera(self) -> Cameras | None:
        """Camera of a client, some 96 pixels wide; None where nobody looks."""
        for client in self._server.get_clients().values():
            if client.camera._state.update_timestamp != 0.0:
                return self._small_camera(client)
        return None

    def _small_camera(self, client: viser.ClientHandle) -> Cameras:
        state: CameraState = self._viewer.get_camera_state(client)
        return get_camera(state, max(1, round(SMALL_WIDTH / state.aspect)), SMALL_WIDTH)

    def remove(self, name: str) -> None:
        """Take a marker, lines or a gizmo off the scene."""
        for node in self._nodes.pop(name, ()):
            node.remove()

    def _keep(self, name: str, nodes: list[Any]) -> None:
        self._nodes[name] = nodes  # nodes of the same name have replaced the former ones


class Control(ViewerControl):
    """What nerfstudio looks for on a pipeline; `start` is called with the page when a viewer has been built."""

    def __init__(self, start: Callable[[Viewer], None]) -> None:
        self._start = start
        self.panel: Any = None
        """What was made when the viewer started."""

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        self._start(viewer)
