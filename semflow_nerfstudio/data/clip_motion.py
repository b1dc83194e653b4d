"""What moves in a clip of posed frames: pixels whose tracks over several frames no point that stands still explains.

The flow between two frames cannot show motion along epipolar lines: it looks like another depth. Over three frames and
more that depth has to stay the same, so one static point is fitted to each pixel's track, and what misses the track by
more than usual is suspect.

Flow errs where there is no texture, and an error is suspect, too. Where flow is good, suspects are movers: few pixels
lie between good fits and bad ones. Where it is not, only suspects near pixels count that the pictures confirm: those
that look worse in every place where a static point could be seen than where flow leads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.moving_pixels import GREY_NOISE, LEAST_RESIDUAL, NOISE_FACTOR, PATCH, WORSE, clean
from semflow_nerfstudio.data.triangulation import Match, StaticPoints, triangulate

WIDTH = 320
"""Frames are looked at in this width at most: errors of flow grow with the size of the image, movers do not shrink."""
SMEARED, AROUND = 0.1, 3
"""Flow smears edges: it errs, beside what it usually does, by that share of its range over so many pixels around."""
REACH = 4
"""Frames in each direction that flow is followed to."""
SUSPECT, SURE = 2.5, 5.0
"""A pixel is suspect if its track misses its static point by this many times the usual error, sure by that many."""
TRUSTED, UNCONFIRMED = 0.65, 0.05
"""Flow is good if this share of the suspects is sure, and at most that share of all pixels is suspect without the
pictures confirming it anywhere near. Then all suspects move."""
CONFIRMED, NEAR = 0.06, 1 / 15
"""If flow is not good, this share of the suspects has to be confirmed, within about that share of the width."""
VOTES = 0.3
"""Then what moves in that share of the frames along a track moves: things pause, and clips begin and end."""
GROWN = 1
"""Pixels by which movers are grown: those on an edge show both sides of it."""
STEPS = (0.0, -2.0, 2.0, -5.0, 5.0, -9.0, 9.0)
"""Changes of a static point, in pixels that its views move, at which the other images are looked at."""
LEVELS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
"""Percentiles of the inverse depth of good fits at which they are looked at, too: an error of flow may be large."""

Flow = tuple[Float32[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]
"""Pixels (u right, v down) and where it is valid."""


@dataclass(frozen=True)
class Track:
    """Where the pixels of a frame are seen in another frame, by following the flow from frame to frame."""

    frame: int
    places: Float32[np.ndarray, "H W 2"]
    """(column, row), whole numbers at pixel centres, as OpenCV counts."""
    valid: Bool[np.ndarray, "H W"]

    def carried(self, values: np.ndarray) -> Float32[np.ndarray, "H W"]:
        """Values of the other frame, seen along the tracks; zero outside of it."""
        columns, rows = self.places[..., 0], self.places[..., 1]
        return cv2.remap(values.astype(np.float32), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def spread(self) -> Float32[np.ndarray, "H W"]:
        """Range of the displacement around each pixel, in pixels: large at the edges of things."""
        rows, columns = np.indices(self.valid.shape, np.float32)
        square, ranges = np.ones((AROUND, AROUND), np.uint8), []
        for displaced in (self.places[..., 0] - columns, self.places[..., 1] - rows):
            most = cv2.dilate(np.where(self.valid, displaced, -1e6).astype(np.float32), square)
            least = cv2.erode(np.where(self.valid, displaced, 1e6).astype(np.float32), square)
            ranges.append(most - least)
        return np.where(self.valid, np.hypot(*ranges), 0).astype(np.float32)

    def to_match(self) -> Match:
        """The same, as a list of pixels."""
        return Match(self.frame, self.places.reshape(-1, 2).astype(np.float64) + 0.5, self.valid.reshape(-1))


@dataclass(frozen=True)
class Evidence:
    """What the tracks of a frame's pixels tell."""

    misfit: Float32[np.ndarray, "H W"]
    """How far a pixel's track is from its static point, in usual errors; 0 where there is no track."""
    confirmed: Bool[np.ndarray, "H W"]
    """Where the other images look like this one on the track, and nowhere where a static point could be."""
    seen: Bool[np.ndarray, "H W"]
    """Where there is a track."""


class ClipMotion:
    """Finds what moves in the frames of one clip."""

    def __init__(
        self,
        cameras: FrameCameras,
        grey: Callable[[int], UInt8[np.ndarray, "H W"]],
        flow: Callable[[int, bool], tuple[int, Flow] | None],
    ) -> None:
        """
        Args:
            cameras: Cameras of all frames, at the size that is looked at (see `small_cameras`).
            grey: A frame's greys at that size.
            flow: The frame before or (True) after a frame, and the flow to it at that size; None where there is none.
        """
        self.cameras, self.grey = cameras, grey
        self._flow, self._flows, self._lock = flow, {}, threading.Lock()
        self._evidence: dict[int, Evidence] = {}
        self._good: bool | None = None

    def look(self, frame: int) -> Evidence:
        """Collect the evidence of one frame; to be called for all frames, maybe in threads, before `mask`."""
        found = evidence(self.cameras, frame, self.grey, self.tracks(frame))
        self.take(frame, found)
        return found

    def take(self, frame: int, found: Evidence) -> None:
        """Evidence of one frame that was collected before."""
        with self._lock:
            self._evidence[frame], self._good = found, None

    def mask(self, frame: int) -> tuple[Bool[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
        """What moves in a frame, and where there are tracks that can tell, after all frames have been looked at."""
        own = self._evidence[frame]
        with self._lock:
            if self._good is None:
                self._good = flow_is_good(list(self._evidence.values()))
        if self._good:
            return clean(own.misfit > SUSPECT, GROWN), own.seen
        votes = moves_by_pictures(own).astype(np.float32)
        voters = np.ones_like(votes)
        for track in self.tracks(frame):
            other = self._evidence.get(track.frame)
            if other is not None:
                votes += track.valid * track.carried(moves_by_pictures(other))
                voters += track.valid
        return clean(votes > VOTES * voters, GROWN), own.seen

    def tracks(self, frame: int) -> list[Track]:
        """A frame's pixels in the frames around it."""
        columns, rows = np.meshgrid(
            np.arange(self.cameras.width, dtype=np.float32), np.arange(self.cameras.height, dtype=np.float32)
        )
        found = []
        for forward in (False, True):
            here, valid = Track(frame, np.stack([columns, rows], axis=-1), np.ones(columns.shape, bool)), None
            for _ in range(REACH):
                step = self._small_flow(here.frame, forward)
                if step is None:
                    break
                other, (flow, known) = step
                moved = np.stack([here.carried(flow[..., axis]) for axis in (0, 1)], axis=-1)
                valid = here.valid & (here.carried(known) > 0.99)
                here = Track(other, here.places + moved, valid)
                if not valid.any():
                    break
                found.append(here)
        return found

    def _small_flow(self, frame: int, forward: bool) -> tuple[int, Flow] | None:
        key = frame, forward
        if key not in self._flows:
            found = self._flow(frame, forward)
            if found is not None:
                other, (flow, valid) = found
                found = other, (np.where(valid[..., None], flow, 0).astype(np.float32), valid)
            self._flows[key] = found
        return self._flows[key]


def small_cameras(cameras: FrameCameras) -> FrameCameras:
    """Cameras at the size that frames are looked at."""
    if cameras.width <= WIDTH:
        return cameras
    return cameras.scaled_to(WIDTH, max(1, round(cameras.height * WIDTH / cameras.width)))


def evidence(
    cameras: FrameCameras, frame: int, grey: Callable[[int], UInt8[np.ndarray, "H W"]], tracks: Sequence[Track]
) -> Evidence:
    """Fit a static point to the track of each pixel, and compare the pictures on the track to those of such points."""
    height, width = cameras.height, cameras.width
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5
    if not tracks:
        nothing = np.zeros((height, width), bool)
        return Evidence(nothing.astype(np.float32), nothing, nothing)
    fitted = triangulate(cameras, frame, pixels, [track.to_match() for track in tracks])
    inverse_depth = np.maximum(fitted.inverse_depth, 0)  # nothing static is behind the camera: at most far away
    points = StaticPoints(cameras, frame, pixels)
    usual_at_least = LEAST_RESIDUAL / NOISE_FACTOR * float(np.hypot(width, height))
    total, count = np.zeros((height, width)), np.zeros((height, width), np.float32)
    for track in tracks:
        seen = points.seen_by(track.frame, inverse_depth).reshape(height, width, 2) - 0.5
        miss = np.minimum(np.linalg.norm(seen - track.places, axis=-1), width)
        usual = max(float(np.median(miss[track.valid])), usual_at_least) + SMEARED * track.spread()
        total += np.where(track.valid, miss / usual, 0)
        count += track.valid
    misfit = cv2.medianBlur((total / np.maximum(count, 1)).astype(np.float32), 3)

    image = grey(frame).astype(np.float32)
    others = {track.frame: grey(track.frame).astype(np.float32) for track in tracks}

    def unlike(places: Callable[[Track], np.ndarray]) -> Float32[np.ndarray, "H W"]:
        """Mean difference to the patches there, in greys."""
        summed = np.zeros((height, width), np.float32)
        for track in tracks:
            place = places(track).astype(np.float32)
            there = others[track.frame]
            seen = cv2.remap(there, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            summed += track.valid * cv2.blur(np.abs(seen - image), (PATCH, PATCH))
        return summed / np.maximum(count, 1)

    step = 1 / np.sqrt(np.maximum(fitted.information, 1e-12))  # inverse depth per pixel that the views move
    candidates = [np.maximum(inverse_depth + pixel * step, 0) for pixel in STEPS]
    fits = (count.reshape(-1) > 0) & (misfit.reshape(-1) < SUSPECT) & fitted.ok
    if fits.any():
        candidates += [np.full(len(pixels), level) for level in np.quantile(inverse_depth[fits], LEVELS)]
    least = np.full((height, width), np.inf, np.float32)
    for depth in candidates:
        static = unlike(lambda track, depth=depth: points.seen_by(track.frame, depth).reshape(height, width, 2) - 0.5)
        least = np.minimum(least, static)
    confirmed = (least > WORSE * unlike(lambda track: track.places) + GREY_NOISE) & (count > 0)
    return Evidence(misfit, confirmed, count > 0)


def flow_is_good(clip: Sequence[Evidence]) -> bool:
    """Whether flow hardly errs in a clip: then tracks fit static points well or not at all, and few are in doubt."""
    suspects = sum(int((found.misfit > SUSPECT).sum()) for found in clip)
    sure = sum(int((found.misfit > SURE).sum()) for found in clip)
    doubtful = sum(int(((found.misfit > SUSPECT) & ~moves_by_pictures(found)).sum()) for found in clip)
    return sure > TRUSTED * suspects and doubtful <= UNCONFIRMED * sum(found.misfit.size for found in clip)


def moves_by_pictures(found: Evidence) -> Bool[np.ndarray, "H W"]:
    """Suspects where enough of those around them are confirmed."""
    suspect = found.misfit > SUSPECT
    sure = suspect & found.confirmed
    deviation = NEAR * suspect.shape[1]
    around, confirmed = (cv2.GaussianBlur(x.astype(np.float32), (0, 0), deviation) for x in (suspect, sure))
    return sure | (suspect & (confirmed > CONFIRMED * around))
