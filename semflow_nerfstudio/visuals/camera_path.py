"""nerfstudio's camera-path files: what the viewer's Render tab saves and `ns-render camera-path` takes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.visuals.trajectories import RenderView
from semflow_nerfstudio.whole_file import whole_file

_DEFAULT_FPS = 24.0
_REMEDY = "save it again from the viewer's Render tab"


@dataclass(frozen=True)
class CropBox:
    """The viewer's crop, in scene units."""

    center: tuple[float, ...]
    rotation: tuple[float, ...]
    """Angles about x, y and z in radians, as nerfstudio's `OrientedBox.from_params` takes them."""
    scale: tuple[float, ...]
    """Lengths of its edges."""
    background: tuple[float, ...]
    """Colour around it, RGB in [0, 1]."""

    def as_floats(self) -> tuple[Any, Any, Any]:
        """Centre, rotation and scale as nerfstudio wants them: floats, also where they were given as whole numbers."""
        return tuple(tuple(float(v) for v in part) for part in (self.center, self.rotation, self.scale))  # type: ignore[return-value]


@dataclass(frozen=True)
class CameraPath:
    """A camera-path file."""

    views: list[RenderView]
    fps: float
    """Frames per second."""
    crop: CropBox | None
    """Box outside which nothing is to be shown; None: no crop."""


def from_camera_path_json(path: str | Path) -> CameraPath:
    """Read a camera path of nerfstudio's viewer or Blender add-on.

    Poses are OpenGL camera-to-world in scene units, `fov` is vertical in degrees, pixels are square and the principal
    point is the picture's centre. Times are `render_time`, clamped to [0, 1], because the viewer's spline through the
    keyframes' times overshoots. Where some cameras have none, they are interpolated between those that have; where no
    camera has one, time runs evenly from 0 to 1.

    Raises:
        SceneDataError: naming the file, if it is no such file or its values cannot be used.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SceneDataError(
            f"{path}: there is no camera path here; give the JSON of the viewer's Render tab."
        ) from None
    except (OSError, ValueError) as error:
        raise SceneDataError(f"{path}: this is no readable JSON ({error}); {_REMEDY}.") from error
    entries = content.get("camera_path") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise SceneDataError(f"{path}: it has no cameras under 'camera_path'; {_REMEDY}, with at least two keyframes.")
    kind = content.get("camera_type", "perspective")
    if kind != "perspective":
        raise SceneDataError(f"{path}: camera_type is '{kind}', but only 'perspective' can be rendered; {_REMEDY}.")
    width, height = (_picture_size(path, content, key) for key in ("render_width", "render_height"))
    times = _times(path, [entry.get("render_time") if isinstance(entry, dict) else None for entry in entries])
    views = []
    for index, (entry, time) in enumerate(zip(entries, times, strict=True)):
        pose, fov = _pose_and_fov(path, entry, index)
        focal = height / 2 / math.tan(math.radians(fov) / 2)
        camera_to_world = torch.from_numpy(pose[:3].copy())
        views.append(RenderView(camera_to_world, focal, focal, width / 2, height / 2, width, height, time))
    return CameraPath(views, _fps(path, content, len(views)), _crop(path, content.get("crop")))


def to_camera_path_json(views: Sequence[RenderView], path: str | Path, fps: float = _DEFAULT_FPS) -> None:
    """Write views as a camera-path file that `ns-render camera-path` and the viewer's "Load Path" take.

    The format knows neither the principal point nor the width of a pixel: `cx`, `cy` and `fx` are not kept, nor more
    than the first view's picture size.
    """
    if not views:
        raise ValueError("A camera path needs at least one view.")
    path = Path(path)
    width, height = views[0].width, views[0].height
    cameras = []
    for view in views:
        pose = [*view.camera_to_world.double().flatten().tolist(), 0.0, 0.0, 0.0, 1.0]
        fov = math.degrees(2 * math.atan(view.height / 2 / view.fy))
        cameras.append({"camera_to_world": pose, "fov": fov, "aspect": width / height, "render_time": view.time})
    # The viewer loads keyframes only: the ends and a few in between, which it can join by its own spline.
    chosen = sorted({round(k * (len(cameras) - 1) / 7) for k in range(8)})
    keyframes = [
        {
            "matrix": cameras[k]["camera_to_world"],
            "fov": cameras[k]["fov"],
            "aspect": width / height,
            "render_time": cameras[k]["render_time"],
            "override_time_enabled": True,
            "override_transition_enabled": False,
            "override_transition_sec": None,
        }
        for k in chosen
    ]
    content = {
        "default_fov": cameras[0]["fov"],
        "default_time": cameras[0]["render_time"],
        "default_transition_sec": len(cameras) / fps / max(len(keyframes) - 1, 1),
        "keyframes": keyframes,
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": fps,
        "seconds": len(cameras) / fps,
        "is_cycle": False,
        "smoothness_value": 0.0,
        "camera_path": cameras,
    }
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _number(value: Any) -> float | None:
    """The value as a finite float, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _picture_size(path: Path, content: dict[str, Any], key: str) -> int:
    value = _number(content.get(key))
    if value is None or value < 1 or value != int(value):
        raise SceneDataError(f"{path}: '{key}' must be a whole number of pixels, got {content.get(key)!r}; {_REMEDY}.")
    return int(value)


def _pose_and_fov(path: Path, entry: Any, index: int) -> tuple[np.ndarray, float]:
    where = f"{path}: camera {index} of 'camera_path'"
    if not isinstance(entry, dict):
        raise SceneDataError(f"{where} is no object with camera_to_world and fov; {_REMEDY}.")
    try:
        pose = np.asarray(entry.get("camera_to_world"), dtype=np.float64).reshape(4, 4)
    except (TypeError, ValueError):
        raise SceneDataError(f"{where} has no camera_to_world of 16 numbers; {_REMEDY}.") from None
    rotation = pose[:3, :3]
    if not (
        np.isfinite(pose).all()
        and np.allclose(pose[3], [0, 0, 0, 1], atol=1e-4)
        and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
        and np.linalg.det(rotation) > 0
    ):
        raise SceneDataError(
            f"{where} has a camera_to_world that is no rotation and translation; "
            "it must be 4x4, row by row, with the last row 0 0 0 1 and no scale."
        )
    fov = _number(entry.get("fov"))
    if fov is None or not 0 < fov < 180:
        raise SceneDataError(f"{where} needs a vertical 'fov' between 0 and 180 degrees, got {entry.get('fov')!r}.")
    return pose, fov


def _times(path: Path, given: list[Any]) -> list[float]:
    numbers = [_number(value) for value in given]
    for index, (value, number) in enumerate(zip(given, numbers, strict=True)):
        if value is not None and number is None:
            raise SceneDataError(
                f"{path}: 'render_time' of camera {index} must be a number in [0, 1], got {value!r}; mend or remove it."
            )
    known = [index for index, number in enumerate(numbers) if number is not None]
    if not known:
        return np.linspace(0.0, 1.0, len(given)).tolist()
    filled = np.interp(np.arange(len(given)), known, [number for number in numbers if number is not None])
    return filled.clip(0.0, 1.0).tolist()


def _crop(path: Path, crop: Any) -> CropBox | None:
    """The crop as nerfstudio writes it: `crop_center`, `crop_scale`, `crop_rot` and `crop_bg_color`."""
    if crop is None:
        return None
    values = crop if isinstance(crop, dict) else {}
    color = values.get("crop_bg_color", {"r": 0, "g": 0, "b": 0})
    channels = [color.get(name) for name in "rgb"] if isinstance(color, dict) else color
    parts = []
    for name, entry in (
        ("crop_center", values.get("crop_center")),
        ("crop_rot", values.get("crop_rot", [0, 0, 0])),
        ("crop_scale", values.get("crop_scale")),
        ("crop_bg_color", channels),
    ):
        numbers = [_number(value) for value in entry] if isinstance(entry, list) else []
        kept = tuple(value for value in numbers if value is not None)
        if len(kept) != 3 or len(numbers) != 3:
            raise SceneDataError(f"{path}: '{name}' of its crop must be three numbers, got {entry!r}; {_REMEDY}.")
        parts.append(kept)
    center, rotation, scale, background = parts
    if min(scale) <= 0:
        raise SceneDataError(f"{path}: 'crop_scale' must be above 0, got {list(scale)}; {_REMEDY}.")
    return CropBox(center, rotation, scale, tuple(min(max(value / 255, 0.0), 1.0) for value in background))


def _fps(path: Path, content: dict[str, Any], num_frames: int) -> float:
    """`seconds` decides, as in ns-render; `fps` where it is absent."""
    for key, to_fps in (("seconds", lambda seconds: num_frames / seconds), ("fps", float)):
        if content.get(key) is not None:
            value = _number(content[key])
            if value is None or value <= 0:
                raise SceneDataError(f"{path}: '{key}' must be a positive number, got {content[key]!r}; {_REMEDY}.")
            return to_fps(value)
    return _DEFAULT_FPS
