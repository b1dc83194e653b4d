"""Videos written frame by frame with PyAV: mp4, webm, gif or a folder of PNGs. Needs no ffmpeg on the PATH."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import av.codec
import av.error
import av.filter
import numpy as np
from PIL import Image

from semflow_nerfstudio.visuals.layout import pad_to_even
from semflow_nerfstudio.visuals.legend import Picture

FORMATS = (".mp4", ".webm", ".gif")
"""File endings that VideoWriter knows; a path without an ending is a folder of PNGs."""

ALPHA_FORMATS = (".webm", "")
"""Those that can be transparent."""

_FRAME_NAME = re.compile(r"(\d{5,})\.png")
_BT709 = 1
_LIMITED_RANGE = 1


class VideoWriter:
    """Writes a video one frame at a time; no frame is kept in memory.

        with VideoWriter("out.mp4", fps=24) as writer:
            for picture in pictures:
                writer.add(picture)

    The ending of the path decides the format: `.mp4` (H.264, yuv420p, plays everywhere), `.webm` (VP9), `.gif` (one
    palette for the whole video, made in a second pass over a temporary file), none: a folder of `00000.png`, ...

    A video appears at its path only when it is complete: it is written to a hidden sibling, which replaces the target
    when the `with` block ends and is removed when the block raises. Frames of a PNG folder appear one by one and stay,
    so that an interrupted render can go on: open the folder again with `resume=True`, skip what `done(index)` says is
    there, and name the frame in `add(picture, index)`.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float = 24.0,
        size: tuple[int, int] | None = None,
        resume: bool = False,
        alpha: bool = False,
    ):
        """Open a video for writing; an existing video file is replaced at the end.

        Args:
            path: File (.mp4, .webm, .gif) or, without an ending, folder to write. Parent folders are made.
            fps: Frames per second (PNG folders have none).
            size: (width, height) that every frame must have; None: that of the first frame.
            resume: Keep the frames that are in a PNG folder already. Without it a folder with frames is refused,
                because old and new frames would mix.
            alpha: Frames are RGBA; only PNG folders and .webm (VP9, yuva420p) can hold them.

        Raises:
            ValueError: for an unknown ending, an fps that is not positive, `resume` of a video file, or `alpha` of one
                that has none.
            FileExistsError: if the folder holds frames and `resume` is off.
        """
        self.path = Path(path)
        self.fps = frame_rate(fps)
        self.size = size
        self.count = 0
        """Frames added by this writer."""
        self._sink: _Sink
        self._finished = False
        self._channels = 4 if alpha else 3
        suffix = self.path.suffix.lower()
        if alpha and suffix in FORMATS and suffix not in ALPHA_FORMATS:
            raise ValueError(f"{self.path}: {suffix} has no alpha channel; write a .webm, or a folder of PNGs.")
        check_target(self.path)
        if not suffix:
            self._sink = folder = _PngFolder(self.path, resume)
            self.size = size or folder.size()
        elif resume:
            raise ValueError(
                f"{self.path}: only a folder of PNGs can be resumed; write its frames to one, then use encode_folder."
            )
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = _GifFile(self.path, self.fps) if suffix == ".gif" else _CodecFile(self.path, self.fps, alpha)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def done(self, index: int) -> bool:
        """Whether frame `index` need not be rendered: it is in the PNG folder that is resumed."""
        return self._sink.done(index)

    def add(self, picture: Picture, index: int | None = None) -> None:
        """Append a frame.

        Args:
            picture: RGB (with alpha RGBA), all of one size. Odd sizes are padded by one pixel for mp4 and webm.
            index: Number of the frame. By default frames are numbered as they come; only PNG folders may skip.

        Raises:
            ValueError: if it is no uint8 (H, W, 3) array (with alpha 4), its size differs, or `index` skips a frame of
                a video.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != self._channels or 0 in picture.shape:
            raise ValueError(
                f"{self.path}: frames are uint8 arrays (H, W, {self._channels}), "
                f"got {picture.dtype} with shape {picture.shape}."
            )
        if self._finished:
            raise ValueError(f"{self.path}: the video is finished; frames cannot be added any more.")
        size = (picture.shape[1], picture.shape[0])
        self.size = self.size or size
        if size != self.size:
            raise ValueError(
                f"{self.path}: all frames must be {self.size[0]}x{self.size[1]}, "
                f"but frame {self.count if index is None else index} is {size[0]}x{size[1]}."
            )
        self._sink.add(picture, self.count if index is None else index)
        self.count += 1

    def close(self) -> None:
        """Finish the video and move it to its path.

        Raises:
            ValueError: if no frame was added to a video file.
        """
        if self._finished:
            return
        try:
            self._sink.close()
        except BaseException:
            self.abort()
            raise
        self._finished = True

    def abort(self) -> None:
        """Drop an unfinished video file; the target stays as it was. PNGs stay."""
        if not self._finished:
            self._finished = True
            self._sink.abort()


def check_target(path: Path) -> None:
    """Raise ValueError where no video can be written: an unknown ending, a folder named like a file, or the reverse."""
    suffix = path.suffix.lower()
    if suffix not in ("", *FORMATS):
        raise ValueError(
            f"{path}: cannot write '{path.suffix}' videos; use one of {', '.join(FORMATS)}, or a folder for PNGs."
        )
    if suffix and path.is_dir():
        raise ValueError(f"{path}: this is a folder; choose another name for the video.")
    if not suffix and path.exists() and not path.is_dir():
        raise ValueError(f"{path}: this is a file; choose another name for the folder of PNGs.")


class _Sink(Protocol):
    def done(self, index: int) -> bool: ...
    def add(self, picture: Picture, index: int) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class _PngFolder:
    def __init__(self, folder: Path, resume: bool):
        if not resume and frame_files(folder):
            raise FileExistsError(f"{folder}: holds frames already; resume, or choose another folder or delete them.")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def done(self, index: int) -> bool:
        return (self.folder / frame_name(index)).is_file()

    def size(self) -> tuple[int, int] | None:
        """(width, height) of the frames that are there already."""
        present = next(iter(frame_files(self.folder).values()), None)
        if present is None:
            return None
        with Image.open(present) as image:
            return image.size

    def add(self, picture: Picture, index: int) -> None:
        target = self.folder / frame_name(index)
        partial = _partial(target)
        try:
            Image.fromarray(picture).save(partial, format="PNG")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _CodecFile:
    """mp4 and webm, encoded as the frames come."""

    def __init__(self, target: Path, fps: Fraction, alpha: bool = False):
        self.target, self.fps = target, fps
        self.partial = _partial(target)
        self.container: Any = None
        self.stream: Any = None
        self.count = 0
        self.given, self.stored = ("rgba", "yuva420p") if alpha else ("rgb24", "yuv420p")

    def done(self, index: int) -> bool:
        return False

    def add(self, picture: Picture, index: int) -> None:
        _check_order(self.target, index, self.count)
        picture = pad_to_even(picture)
        if self.container is None:
            self.container, self.stream = self._open(picture.shape[1], picture.shape[0])
        # Without naming BT.709 here and in the stream, players guess the matrix from the size and colours shift.
        frame = av.VideoFrame.from_ndarray(picture, format=self.given).reformat(
            format=self.stored, dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.pts = self.count
        frame.time_base = 1 / self.fps
        self.container.mux(self.stream.encode(frame))
        self.count += 1

    def _open(self, width: int, height: int) -> tuple[Any, Any]:
        if self.target.suffix.lower() == ".mp4":
            codec, options, container_options = "libx264", {"crf": "18", "preset": "medium"}, {"movflags": "+faststart"}
        else:
            codec, container_options = "libvpx-vp9", {}
            options = {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
        _require_encoder(codec, self.target)
        container = av.open(str(self.partial), "w", format=self.target.suffix[1:].lower(), options=container_options)
        stream = container.add_stream(codec, rate=self.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, self.stored
        if self.stored == "yuva420p":
            stream.metadata["alpha_mode"] = "1"  # players look here whether the alpha counts
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return container, stream

    def close(self) -> None:
        if self.container is None:
            raise ValueError(f"{self.target}: no frames were added, so there is no video to write.")
        self.container.mux(self.stream.encode(None))
        self.container.close()
        os.replace(self.partial, self.target)

    def abort(self) -> None:
        _drop(self.container, self.partial)


class _GifFile:
    """gif: the first pass gathers a palette while the frames go losslessly to a temporary file, the second encodes.

    One palette for all frames keeps what stands still identical from frame to frame: no flicker, and smaller files.
    """

    def __init__(self, target: Path, fps: Fraction):
        self.target, self.fps = target, fps
        self.partial = _partial(target)
        self.raw = _partial(target.with_suffix(".mkv"))
        self.container: Any = None
        self.stream: Any = None
        self.graph: Any = None
        self.count = 0

    def done(self, index: int) -> bool:
        return False

    def add(self, picture: Picture, index: int) -> None:
        _check_order(self.target, index, self.count)
        if self.container is None:
            self.container, self.stream, self.graph = self._open(picture.shape[1], picture.shape[0])
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
        frame.pts = self.count
        frame.time_base = 1 / self.fps
        self.graph.push(frame)
        for _ in _pull(self.graph):  # gives nothing before the end, but makes the filter consume the frame
            pass
        self.container.mux(self.stream.encode(frame))
        self.count += 1

    def _open(self, width: int, height: int) -> tuple[Any, Any, Any]:
        container = av.open(str(self.raw), "w", format="matroska")
        stream = container.add_stream("ffv1", rate=self.fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        graph: Any = av.filter.Graph()
        chain = [
            graph.add_buffer(width=width, height=height, format="bgr0", time_base=1 / self.fps),
            graph.add("palettegen", "stats_mode=full"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*chain).configure()
        return container, stream, graph

    def close(self) -> None:
        if self.container is None:
            raise ValueError(f"{self.target}: no frames were added, so there is no video to write.")
        self.container.mux(self.stream.encode(None))
        self.container.close()
        self.container = None
        self.graph.push(None)
        self._encode(self.graph.pull())
        self.raw.unlink()
        os.replace(self.partial, self.target)

    def _encode(self, palette: Any) -> None:
        with av.open(str(self.raw)) as source, av.open(str(self.partial), "w", format="gif") as out:
            video = source.streams.video[0]
            stream = out.add_stream("gif", rate=self.fps)
            stream.width, stream.height, stream.pix_fmt = video.width, video.height, "pal8"
            graph: Any = av.filter.Graph()
            frames = graph.add_buffer(width=video.width, height=video.height, format="bgr0", time_base=1 / self.fps)
            colors = graph.add_buffer(
                width=palette.width, height=palette.height, format=palette.format.name, time_base=1 / self.fps
            )
            # Ordered dither: error diffusion would make still surfaces crawl.
            use = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle")
            sink = graph.add("buffersink")
            frames.link_to(use, 0, 0)
            colors.link_to(use, 0, 1)
            use.link_to(sink)
            graph.configure()
            palette.pts = 0
            palette.time_base = 1 / self.fps
            colors.push(palette)
            colors.push(None)
            for index, frame in enumerate(source.decode(video)):
                frame.pts = index
                frame.time_base = 1 / self.fps
                frames.push(frame)
                for result in _pull(graph):
                    out.mux(stream.encode(result))
            frames.push(None)
            for result in _pull(graph):
                out.mux(stream.encode(result))
            out.mux(stream.encode(None))

    def abort(self) -> None:
        _drop(self.container, self.partial, self.raw)


def _pull(graph: Any) -> Iterator[Any]:
    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _drop(container: Any, *files: Path) -> None:
    if container is not None:
        # The encoder may be in any state: the file is deleted, so what closing has to say does not matter.
        with contextlib.suppress(Exception):
            container.close()
    for file in files:
        file.unlink(missing_ok=True)


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")


def _check_order(target: Path, index: int, count: int) -> None:
    if index != count:
        raise ValueError(f"{target}: frames of a video come in order, expected frame {count}, got frame {index}.")


def _require_encoder(codec: str, target: Path) -> None:
    try:
        av.codec.Codec(codec, "w")
    except ValueError as error:
        raise RuntimeError(
            f"{target}: this PyAV has no {codec} encoder; install PyAV from PyPI, or write another format or a folder."
        ) from error


def frame_rate(fps: float) -> Fraction:
    """Frames per second as a fraction. ValueError where it is no positive number."""
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a positive number, got {fps}.")
    return Fraction(fps).limit_denominator(1001)


def frame_name(index: int) -> str:
    """File name of a frame of a folder."""
    return f"{index:05d}.png"


def frame_files(folder: Path) -> dict[int, Path]:
    """The frames of a folder by number."""
    if not folder.is_dir():
        return {}
    matches = ((_FRAME_NAME.fullmatch(file.name), file) for file in folder.iterdir())
    return {int(match[1]): file for match, file in matches if match}
