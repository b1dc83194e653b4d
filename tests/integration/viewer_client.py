"""A client of nerfstudio's viewer without a browser: viser 0.2.7's messages over a websocket."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from websockets.sync.client import connect


class ViewerClient:
    """Sees what a browser would: the controls, and the images that come back.

    with ViewerClient(port) as client:
        client.look((0.0, 0.0, 5.0), (1.0, 0.0, 0.0, 0.0))
        image = client.next_image(width=512)
        client.set("Output type", "depth")
    """

    def __init__(self, port: int) -> None:
        self._socket = connect(f"ws://127.0.0.1:{port}", max_size=None)
        self.controls: dict[str, dict[str, Any]] = {}
        """Messages that added the controls, by id, brought up to date."""
        self.image: bytes | None = None
        """The latest image."""
        self.nodes: dict[str, dict[str, Any]] = {}
        """Messages that added what is in the scene, by name; positions are brought up to date."""
        self.camera: dict[str, Any] = {}
        """Where the server put the camera: `position`, `fov`."""
        self.pointer: str | None = None
        """What the server wants to hear of: "click" or "rect-select"."""

    def __enter__(self) -> ViewerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def look(self, position: Sequence[float], wxyz: Sequence[float]) -> None:
        """Move the camera: OpenCV axes, viser's units."""
        self._send("ViewerCameraMessage", wxyz=wxyz, position=position, fov=0.8, aspect=16 / 9, **_UNUSED)

    def control(self, label: str) -> dict[str, Any]:
        """The control of that label; it is waited for."""
        self.wait(lambda: any(control.get("label") == label for control in self.controls.values()))
        return next(control for control in self.controls.values() if control.get("label") == label)

    def set(self, label: str, value: Any) -> None:
        """Change a control as a user does."""
        control = self.control(label)
        control["value"] = value
        self._send("GuiUpdateMessage", id=control["id"], updates={"value": value})

    def press(self, label: str) -> None:
        """Press a button."""
        self._send("GuiUpdateMessage", id=self.control(label)["id"], updates={"value": True})

    def value(self, label: str) -> Any:
        """What a control shows."""
        return self.control(label)["value"]

    def texts(self) -> str:
        """All markdown on the page."""
        return "\n".join(control["markdown"] for control in self.controls.values() if "markdown" in control)

    def click(self, origin: Sequence[float], direction: Sequence[float]) -> None:
        """Click into the scene: a ray in viser's units."""
        self.wait(lambda: self.pointer == "click")
        self._send(
            "ScenePointerMessage",
            event_type="click",
            ray_origin=origin,
            ray_direction=direction,
            screen_pos=((0.5, 0.5),),
        )

    def select_rectangle(self, low: tuple[float, float], high: tuple[float, float]) -> None:
        """Drag a rectangle over the picture; corners are shares of its width and height."""
        self.wait(lambda: self.pointer == "rect-select")
        self._send(
            "ScenePointerMessage",
            event_type="rect-select",
            ray_origin=None,
            ray_direction=None,
            screen_pos=(low, high),
        )

    def drag(self, name: str, position: Sequence[float], wxyz: Sequence[float] = (1.0, 0.0, 0.0, 0.0)) -> None:
        """Move a gizmo."""
        self.wait(lambda: name in self.nodes)
        self._send("TransformControlsUpdateMessage", name=name, wxyz=wxyz, position=position)

    def upload(self, label: str, name: str, content: bytes) -> None:
        """Hand a file to an upload button."""
        source, transfer = self.control(label)["id"], f"upload of {name}"
        self._send(
            "FileTransferStart",
            source_component_id=source,
            transfer_uuid=transfer,
            filename=name,
            mime_type="application/json",
            part_count=1,
            size_bytes=len(content),
        )
        time.sleep(0.2)  # the server works on messages side by side
        self._send("FileTransferPart", source_component_id=source, transfer_uuid=transfer, part=0, content=content)

    def next_image(self, width: int, timeout: float = 20.0) -> UInt8[np.ndarray, "H W 3"]:
        """Wait for an image that is that wide: the viewer sends smaller ones first. TimeoutError if none comes."""
        self.image = None
        end = time.monotonic() + timeout
        while True:
            self.wait(lambda: self.image is not None, end - time.monotonic())
            image = self.picture()
            if image.shape[1] == width and not self._another_image(0.25):
                return image
            self.image = None

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """The latest image."""
        assert self.image is not None, "no image has come"
        return np.asarray(Image.open(io.BytesIO(self.image)).convert("RGB"))

    def wait(self, until: Callable[[], bool], timeout: float = 20.0) -> None:
        """Receive until something is so."""
        end = time.monotonic() + timeout
        while not until():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing of the kind came within {timeout} seconds")
            self.receive(left)

    def _send(self, kind: str, **content: Any) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    def _another_image(self, seconds: float) -> bool:
        before, end = self.image, time.monotonic() + seconds
        while self.image is before and (left := end - time.monotonic()) > 0:
            self.receive(left)
        return self.image is not before

    def receive(self, timeout: float) -> None:
        """Take in one packet of messages, if one comes in time."""
        try:
            packet = self._socket.recv(timeout)
        except TimeoutError:
            return
        assert isinstance(packet, bytes)
        messages = msgspec.msgpack.decode(packet)
        for message in messages if isinstance(messages, list) else [messages]:
            if message["type"].startswith("GuiAdd"):
                self.controls[message["id"]] = message
            elif message["type"] == "GuiUpdateMessage" and message["id"] in self.controls:
                self.controls[message["id"]].update(message["updates"])
            elif message["type"] == "GuiRemoveMessage":
                self.controls.pop(message["id"], None)
            elif message["type"] == "BackgroundImageMessage":
                self.image = message["rgb_bytes"]
            elif message["type"] == "ScenePointerEnableMessage":
                self.pointer = message["event_type"] if message["enable"] else None
            elif message["type"] == "SetCameraPositionMessage":
                self.camera["position"] = message["position"]
            elif message["type"] == "SetCameraFovMessage":
                self.camera["fov"] = message["fov"]
            elif message["type"] == "RemoveSceneNodeMessage":
                self.nodes.pop(message["name"], None)
            elif message["type"] in _NODES:
                self.nodes[message["name"]] = message
            elif message["type"] == "SetPositionMessage" and message["name"] in self.nodes:
                self.nodes[message["name"]]["position"] = message["position"]


_NODES = {"PointCloudMessage", "MeshMessage", "LabelMessage", "TransformControlsMessage", "CameraFrustumMessage"}
_UNUSED = {"look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0)}
"""Fields of a camera message that the server only stores."""
