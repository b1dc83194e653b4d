"""Time in the viewer: a cursor over the frames that runs, steps and jumps, and what it moves: time, camera or both."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from semflow_nerfstudio.viewer.browser import Browser
    from semflow_nerfstudio.viewer.compat import Page

Ending = Literal["loop", "there and back", "stop"]
"""What happens after the last frame."""
Moves = Literal["time", "camera", "time and camera"]
"""What the cursor moves; the rest stands still."""
TICK = 0.02
"""Seconds between looks at the clock while playing."""


class Playback:
    """A cursor over frames 0..T-1. Pure: the clock is handed in."""

    def __init__(self, times: Sequence[float]) -> None:
        """`times` (T,) in [0, 1], ascending."""
        if not len(times):
            raise ValueError("a clip needs at least one frame")
        self.times = np.asarray(times, dtype=np.float64)
        self.cursor = 0.0
        """Position in frames; whole but for `smooth`."""
        self.playing = False
        self.speed = 10.0
        """Frames per second."""
        self.ending: Ending = "loop"
        self.moves: Moves = "time"
        self.smooth = False
        """Whether time passes between frames, too."""
        self._direction = 1
        self._last = 0.0

    @property
    def last(self) -> int:
        """The last frame."""
        return len(self.times) - 1

    @property
    def frame(self) -> int:
        """The frame that the cursor is in: each lasts until the next one's place."""
        return min(int(self.cursor + 1e-6), self.last)

    @property
    def time(self) -> float:
        """Time in [0, 1] at the cursor: exactly a frame's unless `smooth`."""
        position = self.cursor if self.smooth else self.frame
        return float(np.interp(position, np.arange(len(self.times)), self.times))

    def nearest_frame(self, time: float) -> int:
        """The frame whose time is nearest."""
        return int(np.abs(self.times - time).argmin())

    def play(self, now: float) -> None:
        """Run from here; from the start, if the clip had ended."""
        self.playing, self._last = True, now
        self._direction = 1
        if self.ending == "stop" and self.frame == self.last:
            self.cursor = 0.0

    def pause(self) -> None:
        """Stop at a whole frame, unless time is smooth."""
        self.playing = False
        if not self.smooth:
            self.cursor = float(self.frame)

    def step(self, frames: int) -> None:
        """Go forward or back by whole frames, round the ends of the clip; pauses."""
        self.playing = False
        self.cursor = float((self.frame + frames) % len(self.times))

    def seek(self, frame: float) -> None:
        """Jump to a frame."""
        self.cursor = float(min(max(frame, 0), self.last))

    def seek_time(self, moment: float) -> None:
        """Put the cursor where a time is: at the nearest frame, or in between where time is smooth."""
        position = float(np.interp(moment, self.times, np.arange(len(self.times))))
        self.seek(position if self.smooth else round(position))

    def set_times(self, times: Sequence[float]) -> None:
        """Go on in another clip, at its nearest frame."""
        moment = self.time
        self.times = np.asarray(times, dtype=np.float64)
        self.seek_time(moment)

    def tick(self, now: float) -> bool:
        """Let time pass; returns whether what is shown has changed."""
        if not self.playing:
            return False
        before = self.frame, self.time
        distance = (now - self._last) * self.speed
        self._last = now
        if self.ending == "there and back":
            self._swing(distance)
        else:
            self.cursor += distance
            if self.cursor > self.last and self.ending == "stop":
                self.cursor, self.playing = float(self.last), False
            # The last frame stays as long as the others.
            self.cursor %= self.last + 1
        return (self.frame, self.time) != before

    def _swing(self, distance: float) -> None:
        """Go on along 0..last..0..last."""
        period = max(2 * self.last, 1)
        phase = (self.cursor if self._direction > 0 else period - self.cursor) + distance
        phase %= period
        self._direction = 1 if phase <= self.last else -1
        self.cursor = min(phase if self._direction > 0 else period - phase, float(self.last))


class PlaybackPanel:
    """Play, pause, step, speed, frame slider, jumps; a thread of its own only while playing."""

    def __init__(self, page: Page, browser: Browser) -> None:
        self.page, self.browser = page, browser
        self.playback = Playback(browser.frame_times)
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        play = self.playback
        with page.folder("Time"):
            self.play_button = page.button("Play / pause", self.toggle, "Time runs in front of a camera that stands")
            self.frame = page.slider(
                "Frame", 0, browser.most_frames - 1, 1, 0, self.seek, "Exactly the time of this frame"
            )
            page.button("Step back", lambda: self.step(-1))
            page.button("Step forward", lambda: self.step(1))
            page.slider("Frames per second", 0.5, 30.0, 0.5, play.speed, self._set("speed"))
            page.dropdown("At the end", get_args(Ending), play.ending, self._set("ending"))
            page.dropdown(
                "Playing moves", get_args(Moves), play.moves, self._set("moves"), "The camera moves as the capture did"
            )
            page.checkbox("Smooth time", False, self._set("smooth"), "Also show moments between frames")
            page.button("Go to frame", self.go_to_frame, "Camera and time of the frame of the slider")
            page.button("Time of clicked camera", self.go_to_clicked, "Time of the training camera you clicked on last")
        page.on_time(self.time_moved)
        browser.on_scene.append(self.scene_changed)

    def _set(self, name: str):
        def change(value: object) -> None:
            with self._lock:
                setattr(self.playback, name, value)

        return change

    def toggle(self) -> None:
        """Play or pause."""
        with self._lock:
            if self.playback.playing:
                self.playback.pause()
                self._apply()
                return
            self.playback.play(time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="semflow playback", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(TICK)
            with self._lock:
                if not self.page.watched:
                    self.playback.pause()
                if not self.playback.playing:
                    self._thread = None
                    return
                if not self.playback.tick(time.monotonic()):
                    continue
                try:
                    self._apply()
                except Exception as error:
                    self.playback.pause()
                    self.page.fail(error)
            self.page.rerender()

    def _apply(self) -> None:
        """Show where the cursor is."""
        play = self.playback
        self.frame.show(play.frame)
        if play.moves != "camera":
            self.page.show_time(play.time)
            self.browser.time_changed(play.time)
        if play.moves != "time":
            self.page.look_through(*self.browser.camera_at(float(play.times[play.frame])))

    def step(self, frames: int) -> None:
        """One frame forward or back."""
        with self._lock:
            self.playback.step(frames)
            self._apply()

    def seek(self, frame: int) -> None:
        """The user moved the frame slider."""
        with self._lock:
            if frame != self.playback.frame:
                self.playback.seek(frame)
                self._apply()

    def time_moved(self, moment: float) -> None:
        """The user moved nerfstudio's time slider: follow it."""
        with self._lock:
            self.playback.seek_time(moment)
            self.frame.show(self.playback.frame)
            self.browser.time_changed(moment)

    def scene_changed(self) -> None:
        """Frames are those of another scene."""
        with self._lock:
            self.playback.set_times(self.browser.frame_times)
            self._apply()

    def go_to_frame(self) -> None:
        """Camera and time of the frame."""
        with self._lock:
            moment = float(self.playback.times[self.playback.frame])
            self.page.show_time(moment)
            self.page.look_through(*self.browser.camera_at(moment))
            self.browser.time_changed(moment)

    def go_to_clicked(self) -> None:
        """Time of the training camera that was clicked last."""
        with self._lock:
            self.playback.seek(self.playback.nearest_frame(self.browser.time_of_camera(self.page.clicked_camera)))
            self._apply()
