"""A client of nerfstudio's viewer without a browser: viser 0.2.7's messages over a websocket."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from websockets.sync.client import connect


class ViewerClient:
    """Sees what a browser would: the controls, and the images that come back.

        with ViewerClient(port) as client:
            client.look((0.0, 0.0, 5.0))
            image = client.next_image()
            client.set("Output type", "depth")
    """

    def __init__(self, port: int) -> None:
        self._socket = connect(f"ws://127.0.0.1:{port}", max_size=None)
        self.controls: dict[str, dict[str, Any]] = {}
        """Messages that added the controls, by id, brought up to date."""
        self.image: bytes | None = None
        """The latest image."""

    def __enter__(self) -> ViewerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def look(self, position: tuple[float, ...], wxyz: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)) -> None:
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

    def next_image(self, timeout: float = 20.0) -> UInt8[np.ndarray, "H W 3"]:
        """Wait for an image, and then until no better one follows; TimeoutError if none comes."""
        self.image = None
        self.wait(lambda: self.image is not None, timeout)
        while self._receive(0.8):
            continue
        assert self.image is not None
        return np.asarray(Image.open(io.BytesIO(self.image)).convert("RGB"))

    def wait(self, until: Callable[[], bool], timeout: float = 20.0) -> None:
        """Receive until something is so."""
        end = time.monotonic() + timeout
        while not until():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing of the kind came within {timeout} seconds")
            self._receive(left)

    def _send(self, kind: str, **content: Any) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    def _receive(self, timeout: float) -> bool:
        """One packet; returns whether it had an image."""
        try:
            packet = self._socket.recv(timeout)
        except TimeoutError:
            return False
        assert isinstance(packet, bytes)
        messages = msgspec.msgpack.decode(packet)
        messages = messages if isinstance(messages, list) else [messages]
        for message in messages:
            if message["type"].startswith("GuiAdd"):
                self.controls[message["id"]] = message
            elif message["type"] == "GuiUpdateMessage" and message["id"] in self.controls:
                self.controls[message["id"]].update(message["updates"])
            elif message["type"] == "GuiRemoveMessage":
                self.controls.pop(message["id"], None)
            elif message["type"] == "BackgroundImageMessage":
                self.image = message["rgb_bytes"]
        return any(message["type"] == "BackgroundImageMessage" for message in messages)


_UNUSED = {"look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0)}
"""Fields of a camera message that the server only stores."""
