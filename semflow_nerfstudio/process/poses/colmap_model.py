"""COLMAP's models: the folders with cameras and images (.bin or .txt) that every version of it writes.

The two files are read here, without COLMAP, and nothing that they name is opened.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.frames import Frames
from semflow_nerfstudio.process.poses.track import FLIP, PoseTrack, scaled_intrinsics

MODEL_FILES = ("cameras.bin", "cameras.txt")
MODELS = (
    *(("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8), ("OPENCV_FISHEYE", 8)),
    *(("FULL_OPENCV", 12), ("FOV", 5), ("SIMPLE_RADIAL_FISHEYE", 4), ("RADIAL_FISHEYE", 5), ("THIN_PRISM_FISHEYE", 12)),
)
"""Name and number of parameters of COLMAP's camera models, by their number in .bin files."""
POINT_BYTES = 24
"""Of an observed point in images.bin."""


@dataclass(frozen=True)
class ModelCamera:
    """A camera of a model."""

    kind: str
    width: int
    height: int
    params: list[float]


@dataclass(frozen=True)
class ModelImage:
    """An image of a model that has a pose."""

    name: str
    camera: int
    quaternion: Float[np.ndarray, "4"]
    """World-to-camera rotation w, x, y, z (OpenCV axes)."""
    offset: Float[np.ndarray, "3"]
    """World-to-camera translation."""


def read_model(folder: Path, places: Mapping[str, int], frames: Frames) -> PoseTrack:
    """The cameras of a model as ours.

    `places` are the frames' indices by the names of images: the source's own, or those of the scene.

    Raises:
        SceneDataError: no model, a broken one, or one of other images.
    """
    binary = (folder / MODEL_FILES[0]).is_file()
    try:
        cameras = dict(_binary_cameras(folder) if binary else _text_cameras(folder))
        images = list(_binary_images(folder) if binary else _text_images(folder))
    except (OSError, ValueError, IndexError, struct.error) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SceneDataError(f"{folder} cannot be read as a COLMAP model ({detail}): export it again.") from None
    return _track(folder, cameras, images, places, frames)


def _track(
    folder: Path,
    cameras: Mapping[int, ModelCamera],
    images: list[ModelImage],
    places: Mapping[str, int],
    frames: Frames,
) -> PoseTrack:
    count = len(frames.frames)
    poses, known = np.tile(np.eye(4)[:3], (count, 1, 1)), np.zeros(count, bool)
    intrinsics, stated, distortion = np.ones((count, 4)), np.ones((count, 2)), np.zeros((count, 6))
    for image in images:
        place = places.get(Path(image.name).name)
        if place is None:
            continue
        camera = cameras.get(image.camera)
        numbers = np.array([*image.quaternion, *image.offset, *(camera.params if camera else [np.nan])])
        if camera is None or not np.isfinite(numbers).all() or not np.linalg.norm(image.quaternion) > 0:
            raise SceneDataError(f"{folder} has no camera or no finite pose for {image.name}: export the model again.")
        rotation = Rotation.from_quat(np.roll(image.quaternion, -1)).as_matrix()
        poses[place] = np.concatenate([rotation.T @ FLIP, -rotation.T @ image.offset[:, None]], axis=1)
        intrinsics[place], distortion[place] = camera_parameters(camera.kind, camera.params)
        stated[place] = camera.width, camera.height
        known[place] = True
    if not known.any():
        raise SceneDataError(f"{folder} is a COLMAP model of none of the frames: pass the model of these images.")
    return PoseTrack(
        method="a COLMAP model",
        poses=poses,
        intrinsics=scaled_intrinsics(intrinsics, stated, frames.width, frames.height),
        width=frames.width,
        height=frames.height,
        known=known,
        distortion=distortion if distortion[known].any() else None,
    )


def camera_parameters(model: str, params: list[float]) -> tuple[list[float], list[float]]:
    """fx, fy, cx, cy and k1, k2, k3, k4, p1, p2 of COLMAP's camera models.

    Raises:
        SceneDataError: for fisheye and other models that OpenCV's polynomial cannot express.
    """
    if model == "SIMPLE_PINHOLE":
        (f, cx, cy), tail = params, []
        fx = fy = f
    elif model == "PINHOLE":
        (fx, fy, cx, cy), tail = params, []
    elif model in ("SIMPLE_RADIAL", "RADIAL"):
        f, cx, cy, *tail = params
        fx = fy = f
    elif model == "OPENCV":
        fx, fy, cx, cy, k1, k2, p1, p2 = params
        return [fx, fy, cx, cy], [k1, k2, 0.0, 0.0, p1, p2]
    else:
        raise SceneDataError(f"COLMAP's camera model {model} is not supported: undistort the images to PINHOLE.")
    return [fx, fy, cx, cy], [*tail, *[0.0] * (6 - len(tail))]


def _camera(kind: str, width: int, height: int, params: list[float]) -> ModelCamera:
    wanted = dict(MODELS).get(kind, len(params))
    if len(params) != wanted or width <= 0 or height <= 0:
        raise ValueError(f"a camera {kind} of {width}x{height} with {len(params)} parameters")
    return ModelCamera(kind, width, height, params)


def _binary_cameras(folder: Path) -> Iterator[tuple[int, ModelCamera]]:
    data = (folder / "cameras.bin").read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        camera, model, width, height = struct.unpack_from("<iiQQ", data, at)
        if not 0 <= model < len(MODELS):
            raise ValueError(f"camera model number {model}")
        kind, parameters = MODELS[model]
        yield camera, _camera(kind, width, height, list(struct.unpack_from(f"<{parameters}d", data, at + 24)))
        at += 24 + 8 * parameters


def _binary_images(folder: Path) -> Iterator[ModelImage]:
    data = (folder / "images.bin").read_bytes()
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        _, *pose, camera = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        (points,) = struct.unpack_from("<Q", data, end + 1)
        yield ModelImage(data[at + 64 : end].decode(), camera, np.array(pose[:4]), np.array(pose[4:]))
        at = end + 9 + POINT_BYTES * points
        if at > len(data):
            raise ValueError("images.bin ends too early")


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.strip()


def _text_cameras(folder: Path) -> Iterator[tuple[int, ModelCamera]]:
    for line in filter(None, _lines(folder / "cameras.txt")):
        number, kind, width, height, *params = line.split()
        yield int(number), _camera(kind, int(width), int(height), [float(value) for value in params])


def _text_images(folder: Path) -> Iterator[ModelImage]:
    lines = _lines(folder / "images.txt")
    for line in lines:
        if not line:
            continue
        _, *pose, camera, name = line.split(maxsplit=9)
        next(lines, "")  # the points that it sees
        numbers = np.array([float(value) for value in pose])
        yield ModelImage(name, int(camera), numbers[:4], numbers[4:])
