"""Videos and folders of images as sequences of upright RGB frames with times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import av.error
import av.video.frame
import numpy as np
from jaxtyping import UInt8
from PIL import ImageOps

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.files import MAX_PIXELS, load_image, read_image_size, rgb_pixels
from semflow_nerfstudio.process.steps import file_stamp

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Moment:
    """A frame of a source, not yet read."""

    index: int
    """Its place among all frames, from 0."""
    time: float
    """Its time stamp."""
    elapsed: float
    """What --rate, --start and --end measure: seconds of a video, images of a folder."""
    name: str
    """What to call it: file name, or number and time in the video."""
    file_name: str
    """What to call its image in the scene."""


class Source(Protocol):
    """Where frames come from."""

    path: Path
    trouble: str | None
    """A sentence about what could not be read, once `moments` was called."""

    def stamp(self) -> list[dict[str, Any]]:
        """What tells whether the source is still the same."""
        ...

    def moments(self) -> list[Moment]:
        """All frames in order of time."""
        ...

    def read(self, chosen: Sequence[Moment]) -> Iterator[tuple[Moment, UInt8[np.ndarray, "H W 3"]]]:
        """The chosen frames, upright RGB, in order of time."""
        ...


def open_source(path: Path) -> Source:
    """A video file or a folder of images.

    Raises:
        SceneDataError: there is nothing, or nothing that can be read.
    """
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        raise SceneDataError(f"{path} does not exist: pass a video file or a folder of images.")
    return Video(path)


class ImageFolder:
    """Images of a folder in the order of the numbers in their names.

    Time is an image's place, unless all names are times themselves, as in TUM's data sets (1305031102.175304.png).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble: str | None = None
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
        if not files:
            raise SceneDataError(f"{path} holds no images (.png, .jpg, ...): pass the folder with the frames.")
        self.files = sorted(files, key=lambda file: natural(file.name))
        stems = [file.stem for file in self.files]
        if len(set(stems)) < len(stems):
            twice = max(stems, key=stems.count)
            raise SceneDataError(f"{path} has several images named {twice}: remove all but one of them.")
        stated = [float(file.stem) if re.fullmatch(r"\d+\.\d+", file.stem) else math.nan for file in self.files]
        self.times = stated if not any(map(math.isnan, stated)) else [float(place) for place in range(len(files))]
        if sorted(set(self.times)) != self.times:
            raise SceneDataError(f"{path} has images whose names state times that do not rise: rename them.")

    def stamp(self) -> list[dict[str, Any]]:
        """Names, sizes and times of change of all images."""
        return [file_stamp(file) for file in self.files]

    def moments(self) -> list[Moment]:
        """All images; the sizes in their headers are checked."""
        for file in self.files:
            read_image_size(file)
        return [
            Moment(index, time, float(index), file.name, f"{file.stem}.png")
            for index, (file, time) in enumerate(zip(self.files, self.times, strict=True))
        ]

    def read(self, chosen: Sequence[Moment]) -> Iterator[tuple[Moment, UInt8[np.ndarray, "H W 3"]]]:
        """The chosen images, turned as their EXIF data says."""
        for moment in chosen:
            image = load_image(self.files[moment.index])
            yield moment, rgb_pixels(ImageOps.exif_transpose(image))


class Video:
    """A video file, read with PyAV: every container and codec that FFmpeg knows.

    Times are the frames' own time stamps, so a variable frame rate does no harm; the rotation that phones note in the
    file is applied.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble: str | None = None

    def stamp(self) -> list[dict[str, Any]]:
        """Name, size and time of change of the file."""
        return [file_stamp(self.path)]

    def moments(self) -> list[Moment]:
        """All frames that can be decoded; this reads the whole video once."""
        moments: list[Moment] = []
        for index, frame in enumerate(self._decode()):
            time = self._time(frame, index, moments)
            moments.append(Moment(index, time, time, f"frame {index} ({time:.2f} s)", f"{index:05d}.png"))
        if not moments:
            raise SceneDataError(f"{self.path} holds no picture that can be decoded: export or download it again.")
        return moments

    def read(self, chosen: Sequence[Moment]) -> Iterator[tuple[Moment, UInt8[np.ndarray, "H W 3"]]]:
        """The chosen frames, turned upright; this reads the video once more."""
        wanted = {moment.index: moment for moment in chosen}
        last = max(wanted, default=-1)
        for index, frame in enumerate(self._decode()):
            if index in wanted:
                turns = round(frame.rotation / 90) % 4
                yield wanted[index], np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            if index >= last:
                return

    def _decode(self) -> Iterator[av.video.frame.VideoFrame]:
        """All frames up to the first place that cannot be decoded, as players do."""
        decoded = 0
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise SceneDataError(f"{self.path} has no video stream: pass a video file or a folder of images.")
                stream = container.streams.video[0]
                width, height = stream.codec_context.width, stream.codec_context.height
                if width * height > MAX_PIXELS:
                    raise SceneDataError(
                        f"{self.path} is {width}x{height}: scale it down to at most {MAX_PIXELS:,} pixels."
                    )
                stream.thread_type = "AUTO"
                for frame in container.decode(stream):
                    yield frame
                    decoded += 1
        except (av.error.FFmpegError, EOFError) as error:
            if not decoded:
                raise SceneDataError(
                    f"{self.path} cannot be read as a video ({_reason(error)}): export or download it again."
                ) from None
            self.trouble = f"{self.path} cannot be decoded after frame {decoded - 1} ({_reason(error)})"

    def _time(self, frame: av.video.frame.VideoFrame, index: int, before: list[Moment]) -> float:
        """The frame's time stamp; where it has none or it does not rise, a frame's length after the one before."""
        if frame.time is not None and (not before or frame.time > before[-1].time):
            return float(frame.time)
        if len(before) < 2:
            return before[-1].time + 1 / 30 if before else 0.0
        return before[-1].time + (before[-1].time - before[0].time) / (index - 1)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key in which frame_10 comes after frame_9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
