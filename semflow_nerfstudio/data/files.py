"""Reading images and arrays from disk, with every way in which they can be broken reported as SceneDataError."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.lib import format as npy_format
from PIL import Image

from semflow_nerfstudio.data.checks import SceneDataError

MAX_PIXELS = 100_000_000
"""Larger images and arrays are refused before they are decoded: they are mistakes or decompression bombs."""
MAX_BYTES = 32 * MAX_PIXELS
_ONE_HEADER_AT_A_TIME = Lock()
"""Headers are parsed as Python literals, which CPython 3.11 does not always survive in several threads at once."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile, RuntimeError)


def _missing(path: Path) -> SceneDataError:
    return SceneDataError(f"{path} does not exist: restore the file or correct the path that names it.")


def _broken(path: Path, what: str, error: Exception) -> SceneDataError:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SceneDataError(f"{path} cannot be read as {what} ({detail}): copy or make the file again.")


def _open_image(path: Path) -> Image.Image:
    if not path.is_file():
        raise _missing(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Image.DecompressionBombError:
        raise SceneDataError(f"{path} has too many pixels: scale it down to at most {MAX_PIXELS:,} pixels.") from None
    except _BROKEN as error:
        raise _broken(path, "an image", error) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise SceneDataError(f"{path} is {image.width}x{image.height}: scale it down to at most {MAX_PIXELS:,} pixels.")
    return image


def read_image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header of an image.

    Raises:
        SceneDataError: missing file, no image, or more than MAX_PIXELS pixels.
    """
    with _open_image(path) as image:
        return image.size


def load_image(path: Path) -> Image.Image:
    """A fully decoded image in its own mode.

    Raises:
        SceneDataError: missing, truncated or corrupt file, or more than MAX_PIXELS pixels.
    """
    with _open_image(path) as image:
        try:
            image.load()
        except _BROKEN as error:
            raise _broken(path, "an image", error) from error
        return image.copy()


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """A decoded image as RGB (H, W, 3) uint8; of 16 bits a pixel, the higher eight."""
    if image.mode.startswith("I"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGB"))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a .npz by name, or the array of a .npy under the name "". Pickled objects are refused.

    Raises:
        SceneDataError: missing, truncated or corrupt file, one that holds other things than numbers, or a huge one.
    """
    if not path.is_file():
        raise _missing(path)
    try:
        if path.suffix.lower() != ".npz":
            return {"": _parse_npy(path, _limited(path, path.stat().st_size), path.read_bytes())}
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {
                info.filename[: -len(".npy")]: _parse_npy(path, _limited(path, info.file_size), archive.read(info))
                for info in members
            }
    except SceneDataError:
        raise
    except _BROKEN as error:
        raise _broken(path, "an array", error) from error


def _limited(path: Path, size: int) -> int:
    if size > MAX_BYTES:
        raise SceneDataError(f"{path} holds {size:,} bytes of numbers: store it at the size of the images.")
    return size


def _parse_npy(path: Path, size: int, data: bytes) -> np.ndarray:
    stream = BytesIO(data)
    version = npy_format.read_magic(stream)
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    with _ONE_HEADER_AT_A_TIME:
        shape, column_major, dtype = read_header(stream)
    if dtype.kind not in "biuf":
        raise SceneDataError(f"{path} holds {dtype} instead of numbers: save it again as a plain numeric array.")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > size - stream.tell():
        raise EOFError("it ends too early")
    return np.ndarray(shape, dtype, data, stream.tell(), order="F" if column_major else "C").copy()
