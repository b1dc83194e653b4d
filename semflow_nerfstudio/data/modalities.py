"""Loaders of everything a frame has beside its image, each at any size and with one rule for resizing.

Files may have another size than the images (folders of a data set often differ), but show the same picture: pixel
centres lie at +.5 and each axis scales by its own exact ratio. `decode_*` return a file's content at its own size,
`read_*` at an asked (width, height). Broken or senseless content raises SceneDataError.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.files import MAX_PIXELS, load_arrays, load_image, read_image_size, rgb_pixels
from semflow_nerfstudio.data.labels import ClassTable, majority_resize
from semflow_nerfstudio.data.resize import resize_area, resize_area_where, resize_half, resize_nearest
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

__all__ = [
    "decode_depth",
    "decode_disparity",
    "decode_flow",
    "decode_labels",
    "decode_mask",
    "downscaled_size",
    "read_depth",
    "read_disparity",
    "read_flow",
    "read_image",
    "read_image_size",
    "read_labels",
    "read_mask",
    "resize_flow",
]

FLO_MAGIC = 202021.25
FLO_UNKNOWN = 1e9
"""Middlebury's .flo files mark unknown flow by larger values."""
_ID_MODES = ("1", "L", "I;16", "I;16B", "I;16L", "I")


def downscaled_size(width: int, height: int, factor: float) -> tuple[int, int]:
    """(floor(width / factor), floor(height / factor)), at least one pixel."""
    return max(int(width / factor), 1), max(int(height / factor), 1)


def read_image(path: Path, width: int, height: int) -> UInt8[np.ndarray, "height width channels"]:
    """RGB, or RGBA where the file has transparency, by area (transparent pixels do not bleed)."""
    image = load_image(path)
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    pixels = np.asarray(image.convert("RGBA")) if transparent else rgb_pixels(image)
    if pixels.shape[:2] == (height, width):
        return pixels
    if transparent:
        alpha = pixels[..., 3:].astype(np.float64)
        mean_alpha = resize_area(alpha, width, height)
        color = resize_area(pixels[..., :3] * alpha, width, height) / np.maximum(mean_alpha, 1e-6)
        values = np.concatenate([color, mean_alpha], axis=-1)
    else:
        values = resize_area(pixels, width, height)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def decode_labels(path: Path, classes: ClassTable) -> UInt8[np.ndarray, "H W"]:
    """Class ids of a label image, 255 where it is to be ignored.

    Colour images (and palette images, where the table states colours) are read by exact colour; pixels with alpha 0 are
    ignored. Single-channel images hold ids, with 255 (and 65535) for ignore; only where every colour of the table is a
    grey do they hold greys.

    Raises:
        SceneDataError: on a colour or id that the table does not have: it never becomes a class.
    """
    image = load_image(path)
    grey_table = classes.colors_given and bool((classes.colors == classes.colors[:, :1]).all())
    by_index = image.mode == "P" and not classes.colors_given
    if by_index or (image.mode in _ID_MODES and not (grey_table and image.mode in ("1", "L"))):
        return _ids_of_indices(path, np.asarray(image).astype(np.int64), classes)
    if not classes.colors_given:
        raise SceneDataError(
            f"{path} is a colour image but the class table states no colours: give every class a colour or store the "
            "ids in a single-channel PNG."
        )
    pixels = np.asarray(image.convert("RGBA"))
    ids, unknown = classes.ids_of_colors(pixels[..., :3])
    transparent = pixels[..., 3] == 0
    ids[transparent] = IGNORE_LABEL
    unknown &= ~transparent
    if unknown.any():
        colors, counts = np.unique(pixels[unknown][:, :3], axis=0, return_counts=True)
        color = ",".join(str(value) for value in colors[counts.argmax()])
        raise SceneDataError(
            f"{path} has {int(unknown.sum())} pixels whose colour is in no class, most often {color} "
            f"({int(counts.max())} pixels): add that colour to the class table (as a class, or as a line named "
            "`ignore`) or repaint the pixels."
        )
    return ids


def _ids_of_indices(path: Path, values: np.ndarray, classes: ClassTable) -> UInt8[np.ndarray, "H W"]:
    if values.ndim != 2:
        raise SceneDataError(f"{path} has {values.ndim} dimensions: store labels as a flat image.")
    class_ids = np.arange(len(classes), dtype=np.uint8) if classes.file_ids is None else classes.file_ids
    ignored = (values == IGNORE_LABEL) | (values == 65535)
    unknown = ~ignored & ((values < 0) | (values >= len(class_ids)))
    if unknown.any():
        raise SceneDataError(
            f"{path} has {int(unknown.sum())} pixels with ids of no class, for example {int(values[unknown][0])}, but "
            f"the class table ends at {len(class_ids) - 1}: add classes or write 255 for pixels to ignore."
        )
    return np.where(ignored, np.uint8(IGNORE_LABEL), class_ids[np.where(ignored, 0, values)])


def read_labels(path: Path, classes: ClassTable, width: int, height: int) -> UInt8[np.ndarray, "height width"]:
    """Class ids by majority of area, 255 where ignored (see `decode_labels`)."""
    return majority_resize(decode_labels(path, classes), width, height, len(classes))


def decode_flow(path: Path) -> tuple[Float32[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]:
    """Optical flow (u right, v down) in pixels of its own size, and where it is valid.

    Reads .npz (`flow` and, if there, `mask`), .npy and Middlebury .flo. Without a mask, finite flow is valid.

    Raises:
        SceneDataError: broken file, wrong shape, no valid pixel at all without a mask, non-finite flow inside the mask.
    """
    mask = None
    if path.suffix.lower() == ".flo":
        flow = _read_flo(path)
    else:
        arrays = load_arrays(path)
        flow = arrays.get("flow", arrays.get(""))
        mask = arrays.get("mask")
        if flow is None:
            raise SceneDataError(f"{path} has the arrays {sorted(arrays)} but no `flow`: save it under that name.")
    if flow.ndim == 4 and flow.shape[0] == 1:
        flow = flow[0]
    if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape:
        raise SceneDataError(f"{path} holds flow of shape {flow.shape}: save it as height x width x 2, u before v.")
    flow = flow.astype(np.float32)
    finite = (np.abs(flow[..., 0]) < FLO_UNKNOWN) & (np.abs(flow[..., 1]) < FLO_UNKNOWN)  # NaN compares false
    if mask is None:
        if not finite.any():
            raise SceneDataError(f"{path} holds no finite flow: compute it again or remove the file.")
        return np.where(finite[..., None], flow, 0), finite
    valid = np.squeeze(mask) > 0.5
    if valid.shape != flow.shape[:2]:
        raise SceneDataError(
            f"{path} has a mask of shape {mask.shape} for flow of shape {flow.shape}: save both at one size."
        )
    if (valid & ~finite).any():
        raise SceneDataError(
            f"{path} has NaN or infinite flow on {int((valid & ~finite).sum())} pixels that its mask calls valid: "
            "take them out of the mask or compute the flow again."
        )
    return np.where(valid[..., None], flow, 0), valid


def _read_flo(path: Path) -> Float32[np.ndarray, "H W 2"]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneDataError(f"{path} cannot be read ({error.strerror}): restore the file.") from error
    if len(data) < 12:
        raise SceneDataError(f"{path} is no Middlebury .flo file (too short): compute the flow again.")
    magic, width, height = struct.unpack("<fii", data[:12])
    if magic != np.float32(FLO_MAGIC) or width <= 0 or height <= 0 or width * height > MAX_PIXELS:
        raise SceneDataError(f"{path} is no Middlebury .flo file (bad header): compute the flow again.")
    if len(data) < 12 + 8 * width * height:
        raise SceneDataError(f"{path} ends too early for {width}x{height} pixels of flow: copy or compute it again.")
    return np.frombuffer(data, "<f4", 2 * width * height, 12).reshape(height, width, 2)


def read_flow(
    path: Path, width: int, height: int
) -> tuple[Float32[np.ndarray, "height width 2"], Bool[np.ndarray, "height width"]]:
    """Flow in pixels of a width x height image, averaged over the valid area, and where at least half is valid."""
    return resize_flow(*decode_flow(path), width, height)


def resize_flow(
    flow: Float[np.ndarray, "H W 2"], valid: Bool[np.ndarray, "H W"], width: int, height: int
) -> tuple[Float32[np.ndarray, "height width 2"], Bool[np.ndarray, "height width"]]:
    """Flow in pixels of its own size, brought to those of a width x height image as `read_flow` does."""
    ratio = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    flow, valid = resize_area_where(flow, valid, width, height)
    return np.where(valid[..., None], flow * ratio, 0), valid


def decode_mask(path: Path) -> tuple[UInt8[np.ndarray, "H W"], int]:
    """A mask's grey values and the value that means "fully inside": 255, or 1 where none is larger."""
    image = load_image(path)
    if image.mode.startswith("I"):
        raise SceneDataError(f"{path} has 16 or 32 bits a pixel: store masks as 8-bit black and white.")
    if image.mode == "P":  # a palette's colours say nothing: 0 is outside, every other index (object) inside
        return (np.asarray(image) > 0).astype(np.uint8), 1
    values = np.asarray(image.convert("L"))
    return values, 255 if values.max() > 1 else 1


def read_mask(path: Path, width: int, height: int) -> UInt8[np.ndarray, "height width"]:
    """1 where the mask covers at least half of the pixel, else 0. Masks are 0/255 or 0/1."""
    values, full = decode_mask(path)
    return resize_half(values, full, width, height).astype(np.uint8)


def decode_disparity(path: Path) -> Float32[np.ndarray, "H W"]:
    """Relative inverse depth from .npy, .npz (its only array, or `disparity`/`disp`) or a grey image; NaN: unknown.

    Raises:
        SceneDataError: broken file, wrong shape, nothing finite in it.
    """
    values = _read_plane(path, ("disparity", "disp"))
    values[~np.isfinite(values)] = np.nan
    if np.isnan(values).all():
        raise SceneDataError(f"{path} holds no finite disparity: compute it again or remove the file.")
    return values


def read_disparity(
    path: Path, width: int, height: int, method: Literal["area", "nearest"] = "area"
) -> Float32[np.ndarray, "height width"]:
    """Relative inverse depth; NaN where less than half of the area is known.

    "area" averages inverse depth, which is what a pixel that sees both sides of an edge shows; "nearest" picks one
    input pixel and makes no depths between foreground and background.
    """
    return _resize_plane(decode_disparity(path), width, height, method)


def decode_depth(path: Path, unit: float = 1.0) -> Float32[np.ndarray, "H W"]:
    """Camera z from a 16-bit PNG, .npy or .npz (its only array, or `depth`), times `unit`; NaN where not positive.

    Raises:
        SceneDataError: broken file, wrong shape, no positive depth in it.
    """
    values = _read_plane(path, ("depth",))
    values[~(np.isfinite(values) & (values > 0))] = np.nan
    if np.isnan(values).all():
        raise SceneDataError(f"{path} holds no positive depth: compute it again or remove the file.")
    return values * np.float32(unit)


def read_depth(
    path: Path, width: int, height: int, unit: float = 1.0, method: Literal["area", "nearest"] = "nearest"
) -> Float32[np.ndarray, "height width"]:
    """Camera z times `unit`; NaN where unknown. "nearest" makes no depths between foreground and background."""
    return _resize_plane(decode_depth(path, unit), width, height, method)


def _resize_plane(values: Float[np.ndarray, "H W"], width: int, height: int, method: str) -> np.ndarray:
    if method == "nearest":
        return resize_nearest(values, width, height)
    means, known = resize_area_where(values, np.isfinite(values), width, height)
    return np.where(known, means, np.float32(np.nan))


def _read_plane(path: Path, keys: tuple[str, ...]) -> Float32[np.ndarray, "H W"]:
    """A float32 copy of a single-channel array or image."""
    if path.suffix.lower() in (".npy", ".npz"):
        arrays = load_arrays(path)
        named = [arrays[key] for key in (*keys, "") if key in arrays] or list(arrays.values())
        if len(named) != 1 and not any(key in arrays for key in keys):
            raise SceneDataError(f"{path} has the arrays {sorted(arrays)}: keep one, named `{keys[0]}`.")
        values = named[0]
    else:
        values = np.asarray(load_image(path))
    values = values.squeeze() if values.ndim > 2 else values
    if values.ndim != 2 or 0 in values.shape:
        raise SceneDataError(f"{path} holds {keys[0]} of shape {values.shape}: save it as height x width.")
    return values.astype(np.float32)
