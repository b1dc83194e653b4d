"""Which frames of a video or a folder make the scene: rate, count, size; blurred and duplicate ones are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.sources import Moment, Source
from semflow_nerfstudio.process.steps import Progress, Step
from semflow_nerfstudio.whole_file import whole_file

IMAGES = "images"
BLUR_RATIO = 0.35
"""A frame is blurred if its sharpness is below this share of its neighbours' median."""
NEIGHBOURS = 3
"""Frames on each side that a frame's sharpness is compared with."""
DUPLICATE_DIFFERENCE = 0.4
"""Mean difference of grey values (of 255) below which a frame is the same as the one before."""
MIN_FRAMES = 3


@dataclass(frozen=True)
class FrameOptions:
    """Which frames to take."""

    rate: float | None = None
    """Frames per second of video; None: all of them, thinned out evenly to `count`."""
    count: int = 100
    """At most this many frames, evenly spread."""
    size: int = 960
    """Longer side of the scene's images at most, in pixels. Images are never enlarged."""
    start: float = 0.0
    """Where to begin, in seconds of the video (in images, for a folder)."""
    end: float | None = None
    """Where to end, likewise; None: at the end."""
    keep_all: bool = False
    """Keep blurred and duplicate frames, too."""

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ValueError(f"--rate is {self.rate}: use a number of frames per second above 0, such as 10.")
        if self.count < MIN_FRAMES:
            raise ValueError(f"--count is {self.count}: motion needs at least {MIN_FRAMES} frames.")
        if self.size < 16:
            raise ValueError(f"--size is {self.size}: use the longer side of the images in pixels, such as 960.")
        if not self.start >= 0 or (self.end is not None and not self.end > self.start):
            raise ValueError(f"--start {self.start} and --end {self.end} leave nothing: use 0 <= start < end.")


@dataclass(frozen=True)
class Frame:
    """A frame of the scene."""

    name: str
    """Its image is images/NAME: the name that it has in its folder, with .png; for a video its number."""
    time: float
    """Seconds since the start of the video; for a folder its place in it, or the time that its name states."""
    source: str
    """The image's file name, or the frame's number and time in the video."""
    source_index: int
    """Its place among all frames of the video or folder, from 0."""


@dataclass(frozen=True)
class Frames:
    """The frames of a scene."""

    frames: list[Frame]
    width: int
    height: int
    """Size of the scene's images."""
    source_width: int
    source_height: int
    """Size of the video's or folder's images, turned upright."""
    source_count: int
    """How many frames the video or folder has."""
    left_out: list[str]
    """Sentences: which frames were left out, and why."""
    skipped: list[str]
    """Names that the images of all other frames of the video or folder would have."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Frames:
        """From what `to_json` gave."""
        return cls(**{**content, "frames": [Frame(**frame) for frame in content["frames"]]})


def make_frames(scene: Path, source: Source, options: FrameOptions, progress: Progress) -> tuple[Step, Frames]:
    """The step that writes scene/images.

    Raises:
        SceneDataError: an empty or corrupt source, or too few frames left.
    """
    step = Step(scene, "frames", {"source": source.stamp(), "options": asdict(options)}, folders=(IMAGES,))
    result = step.result()
    if result is not None:
        return step, Frames.from_json(result)
    moments = source.moments()
    chosen = choose(moments, options)
    if len(chosen) < MIN_FRAMES:
        raise SceneDataError(
            f"{source.path} has {len(chosen)} frames where --rate, --start and --end look: motion needs at least "
            f"{MIN_FRAMES}."
        )
    step.begin()
    kept, left_out, size, source_size = _write(scene, source, chosen, options, progress)
    if len(kept) < MIN_FRAMES:
        raise SceneDataError(
            f"{source.path} has {len(kept)} frames that are neither blurred nor duplicates of the one before: film "
            "again, or keep all frames with --keep-all."
        )
    if source.trouble is not None:
        left_out.append(source.trouble)
    taken = {frame.source_index for frame in kept}
    skipped = [moment.file_name for moment in moments if moment.index not in taken]
    frames = Frames(kept, *size, *source_size, len(moments), left_out, skipped)
    return step, Frames.from_json(step.finish(frames.to_json(), [scene / IMAGES / frame.name for frame in kept]))


def choose(moments: Sequence[Moment], options: FrameOptions) -> list[Moment]:
    """The frames nearest to the wanted times, whatever the gaps between the frames are."""
    end = float("inf") if options.end is None else options.end
    first = moments[0].elapsed if moments else 0.0
    within = [moment for moment in moments if options.start <= moment.elapsed - first <= end]
    if options.rate is not None and len(within) > 1:
        elapsed = np.array([moment.elapsed for moment in within])
        wanted = np.arange(elapsed[0], elapsed[-1] + 0.5 / options.rate, 1 / options.rate)
        within = [within[index] for index in nearest(elapsed, wanted)]
    if len(within) > options.count:
        within = [within[round(index)] for index in np.linspace(0, len(within) - 1, options.count)]
    return within


def nearest(values: Float[np.ndarray, "N"], wanted: Float[np.ndarray, "M"]) -> list[int]:
    """Indices of the sorted values that are nearest to the wanted ones, each index once."""
    right = np.clip(np.searchsorted(values, wanted), 1, len(values) - 1)
    left = right - 1
    return sorted({int(i) for i in np.where(wanted - values[left] <= values[right] - wanted, left, right)})


def _write(
    scene: Path, source: Source, chosen: Sequence[Moment], options: FrameOptions, progress: Progress
) -> tuple[list[Frame], list[str], tuple[int, int], tuple[int, int]]:
    """Read, scale and write the chosen frames, then take the bad ones away again."""
    folder = scene / IMAGES
    written: list[tuple[Frame, float]] = []
    left_out: list[str] = []
    size = source_size = (0, 0)
    last: np.ndarray | None = None
    progress(0, len(chosen))
    for number, (moment, pixels) in enumerate(source.read(chosen)):
        here = (pixels.shape[1], pixels.shape[0])
        if number == 0:
            source_size, size = here, scaled_size(*here, options.size)
        elif here != source_size:
            raise SceneDataError(
                f"{source.path} changes from {source_size[0]}x{source_size[1]} to {here[0]}x{here[1]} at "
                f"{moment.name}: all frames must have one size, so cut it there (--end) or scale them alike."
            )
        small = pixels if here == size else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        progress(number + 1, len(chosen))
        if last is not None and not options.keep_all and difference(grey, last) < DUPLICATE_DIFFERENCE:
            left_out.append(f"{moment.name} is the same picture as the frame before")
            continue
        last = grey
        frame = Frame(moment.file_name, moment.time, moment.name, moment.index)
        with whole_file(folder / frame.name) as hidden:
            Image.fromarray(small).save(hidden, compress_level=4)
        written.append((frame, sharpness(grey)))
    kept = []
    relative = relative_sharpness([value for _, value in written])
    for (frame, _), ratio in zip(written, relative, strict=True):
        if ratio < BLUR_RATIO and not options.keep_all:
            left_out.append(f"{frame.source} is blurred ({ratio:.0%} as sharp as its neighbours)")
            (folder / frame.name).unlink()
        else:
            kept.append(frame)
    for leftover in set(folder.iterdir()) - {folder / frame.name for frame in kept}:
        leftover.unlink()
    return kept, left_out, size, source_size


def scaled_size(width: int, height: int, longer_side: int) -> tuple[int, int]:
    """(width, height) with the longer side at most `longer_side`."""
    scale = min(1.0, longer_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def sharpness(grey: UInt8[np.ndarray, "H W"]) -> float:
    """Variance of the Laplacian."""
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def relative_sharpness(values: Sequence[float]) -> list[float]:
    """Every frame's sharpness as a share of the median of its neighbours: what is in view changes slowly."""
    shares = []
    for index, value in enumerate(values):
        around = [*values[max(0, index - NEIGHBOURS) : index], *values[index + 1 : index + 1 + NEIGHBOURS]]
        typical = float(np.median(around)) if around else 0.0
        shares.append(value / typical if typical > 0 else 1.0)
    return shares


def difference(grey: UInt8[np.ndarray, "H W"], other: UInt8[np.ndarray, "H W"]) -> float:
    """Mean absolute difference of grey values."""
    return float(cv2.absdiff(grey, other).mean())


def read_grey(path: Path) -> UInt8[np.ndarray, "H W"]:
    """A written frame in grey."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def consecutive(frames: Sequence[Frame]) -> Iterator[tuple[int, int]]:
    """Index pairs of neighbours in time."""
    yield from zip(range(len(frames) - 1), range(1, len(frames)), strict=True)
