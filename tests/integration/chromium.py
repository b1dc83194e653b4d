"""Chromium without a window, told what to do over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""Where it is; None where there is none."""
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class Chromium:
    """One page.

    with Chromium(1280, 800) as page:
        page.open("http://127.0.0.1:7007")
        page.wait_for_text("Control")
        page.screenshot(Path("page.png"))
    """

    def __init__(self, width: int, height: int) -> None:
        assert PROGRAM is not None
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        self._process = subprocess.Popen(
            [PROGRAM, *_FLAGS, f"--window-size={width},{height}", f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._socket = connect(self._page_address(), max_size=None)
        except BaseException:
            self.close()
            raise
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        """Uncaught errors of the page."""
        self._ask("Runtime.enable")
        self._ask("Page.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.close()

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait(30)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, address: str) -> None:
        """Go to a page."""
        self._ask("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self) -> str:
        """What can be read on the page."""
        return self.evaluate("document.body ? document.body.innerText : ''")

    def wait_for_text(self, *parts: str, timeout: float = 120.0) -> None:
        """Wait until the page shows all of some texts."""
        end = time.monotonic() + timeout
        while not all(part in self.text() for part in parts):
            if time.monotonic() > end:
                raise TimeoutError(f"the page never showed {parts}; it shows: {self.text()[:2000]}")
            time.sleep(0.3)

    def click_text(self, text: str) -> None:
        """Click the middle of the smallest element whose text is exactly this."""
        found = self.evaluate(
            "(() => { const all = [...document.querySelectorAll('*')].filter("
            f"e => e.innerText !== undefined && e.innerText.trim() === {json.dumps(text)});"
            "if (!all.length) return null; const e = all[all.length - 1];"
            "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        assert found is not None, f"'{text}' is not on the page"
        self.click(*found)

    def click(self, x: float, y: float) -> None:
        """Click at a pixel of the page."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            buttons = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **buttons)
            time.sleep(0.05)

    def screenshot(self, path: Path, quality: int | None = None) -> None:
        """Save what is to be seen, as JPEG where a quality is given, else as PNG."""
        how = {"format": "png"} if quality is None else {"format": "jpeg", "quality": quality}
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", **how)["data"]))

    def _page_address(self) -> str:
        end = time.monotonic() + 120
        told = Path(self._profile) / "DevToolsActivePort"
        while time.monotonic() < end:
            assert self._process.poll() is None, f"{PROGRAM} ended with {self._process.returncode}"
            if told.is_file() and (lines := told.read_text().split()):
                with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json", timeout=60) as answer:
                    pages = [entry for entry in json.load(answer) if entry["type"] == "page"]
                if pages:
                    return pages[0]["webSocketDebuggerUrl"]
            time.sleep(0.2)
        raise TimeoutError(f"{PROGRAM} never opened a page")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(120))
            if message.get("method") == "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details.get("text", ""))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
