"""Camera paths that carry time: what is looked at from where and when, frame by frame.

Poses are OpenGL camera-to-world matrices in the frame of the cameras that they are made from (scene units), times are
in [0, 1]. Everything is computed in float64 and leaves through `to_cameras` in float32, as nerfstudio wants it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

Time = float | tuple[float, float] | None
"""How time goes along a path: a number: it stands still there; (first, last): it runs evenly from the first to the last
view; None: every view has its own (in between, linearly interpolated)."""


@dataclass(frozen=True, eq=False)
class RenderView:
    """One frame of a path: a pinhole camera and a time."""

    camera_to_world: Float[Tensor, "3 4"]
    """OpenGL camera-to-world matrix."""
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    time: float = 0.0
    """In [0, 1]."""

    def __post_init__(self) -> None:
        if tuple(self.camera_to_world.shape) != (3, 4):
            raise ValueError(f"A view's camera_to_world has shape (3, 4), got {tuple(self.camera_to_world.shape)}.")
        if not 0.0 <= self.time <= 1.0:
            raise ValueError(f"A view's time must be in [0, 1], got {self.time}.")

    def scaled_to(self, width: int, height: int) -> RenderView:
        """The same view as a picture of another size; both axes scale by their own exact ratio."""
        x, y = width / self.width, height / self.height
        return replace(self, fx=self.fx * x, cx=self.cx * x, fy=self.fy * y, cy=self.cy * y, width=width, height=height)


def from_cameras(cameras: Cameras, default_time: float = 0.0) -> list[RenderView]:
    """Views of nerfstudio cameras of shape (N,); those without times get `default_time`. Distortion is dropped."""
    flat = cameras.flatten()
    times = [default_time] * flat.shape[0] if flat.times is None else flat.times.flatten().tolist()
    numbers = zip(*(value.flatten().tolist() for value in (flat.fx, flat.fy, flat.cx, flat.cy)), strict=True)
    sizes = zip(flat.width.flatten().tolist(), flat.height.flatten().tolist(), strict=True)
    return [
        RenderView(pose, *intrinsics, width=int(width), height=int(height), time=min(max(time, 0.0), 1.0))
        for pose, intrinsics, (width, height), time in zip(
            flat.camera_to_worlds.detach().cpu().double(), numbers, sizes, times, strict=True
        )
    ]


def to_cameras(views: Sequence[RenderView], scene: int | None = None) -> Cameras:
    """nerfstudio cameras of shape (N,) with times, all float32; `scene` becomes their scene index in the metadata."""
    from nerfstudio.cameras.cameras import Cameras, CameraType

    def column(values: list[float] | list[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype)[:, None]

    _require_views(views, 1)
    return Cameras(
        camera_to_worlds=torch.stack([view.camera_to_world for view in views]).float(),
        fx=column([view.fx for view in views], torch.float32),
        fy=column([view.fy for view in views], torch.float32),
        cx=column([view.cx for view in views], torch.float32),
        cy=column([view.cy for view in views], torch.float32),
        width=column([view.width for view in views], torch.int64),
        height=column([view.height for view in views], torch.int64),
        camera_type=CameraType.PERSPECTIVE,
        times=column([view.time for view in views], torch.float32),
        metadata=None if scene is None else {"scene": column([scene] * len(views), torch.int64)},
    )


def retime(views: Sequence[RenderView], time: Time) -> list[RenderView]:
    """The same path with time standing still, running evenly, or as it is (see `Time`)."""
    if time is None:
        return list(views)
    times = _linspace(*time, len(views)) if isinstance(time, tuple) else [time] * len(views)
    return [replace(view, time=t) for view, t in zip(views, times, strict=True)]


def time_sweep(view: RenderView, num_frames: int, first: float = 0.0, last: float = 1.0) -> list[RenderView]:
    """A camera that stands still while time runs evenly from `first` to `last`, both included."""
    return retime([view] * num_frames, (first, last))


def at_times(view: RenderView, times: Sequence[float]) -> list[RenderView]:
    """A camera that stands still, at exactly these times (those of the video's frames, say)."""
    return [replace(view, time=float(time)) for time in times]


def frame_exact_times(times: Sequence[float], steps: int) -> list[float]:
    """Times that hit every frame of the video exactly, with `steps` - 1 evenly spaced ones between two frames.

    Args:
        times: Times of the video's frames, in any order, repeated where several cameras share one.
        steps: Output frames per frame of the video, at least 1.
    """
    distinct = sorted({float(time) for time in times})
    _require_steps(steps)
    between = [a + (b - a) * step / steps for a, b in pairwise(distinct) for step in range(steps)]
    return between + distinct[-1:]


def nearest_frame(times: Sequence[float], time: float) -> int:
    """Index of the frame whose time is nearest; the earlier index where two are equally near."""
    if not times:
        raise ValueError("There are no frames to look for a time in.")
    return min(range(len(times)), key=lambda index: abs(times[index] - time))


def interpolate(views: Sequence[RenderView], steps: int, time: Time = None, closed: bool = False) -> list[RenderView]:
    """A smooth path (Catmull-Rom) through views in the given order.

    Args:
        views: At least two, of one picture size. View k is hit exactly, as frame k * steps.
        steps: Frames from one view to the next.
        time: How time goes; None: as in the views, linearly in between, so it never overshoots.
        closed: Whether the path returns to the first view (the frame that would repeat it is left out). Time does not
            jump back on the way: where the views carry it, it stands still at the last view's.

    Raises:
        ValueError: for fewer than two views, differing sizes, or neighbours that look in opposite directions.
    """
    _require_views(views, 2)
    _require_steps(steps)
    count = len(views)
    segments = count if closed else count - 1
    keys = torch.stack([_as_vector(view) for view in views])
    if closed:
        padded = torch.cat([keys[-1:], keys, keys[:2]])
    else:
        # Mirrored at its ends the curve starts and stops without a bend.
        padded = torch.cat([2 * keys[:1] - keys[1:2], keys, 2 * keys[-1:] - keys[-2:-1]])
    position = torch.arange(segments * steps + (0 if closed else 1), dtype=torch.float64) / steps
    index = position.floor().long().clamp(max=segments - 1)
    u = (position - index)[:, None]
    before, start, end, after = (padded[index + offset] for offset in range(4))
    curve = start + 0.5 * u * (
        end - before + u * (2 * before - 5 * start + 4 * end - after + u * (3 * (start - end) + after - before))
    )
    times = torch.tensor([view.time for view in views] + [views[-1].time], dtype=torch.float64)
    own = torch.lerp(times[index], times[index + 1], u[:, 0]).clamp(0, 1).tolist()
    return retime([_from_vector(vector, views[0], t) for vector, t in zip(curve, own, strict=True)], time)


def stabilised(views: Sequence[RenderView], window: float, time: Time = None) -> list[RenderView]:
    """The camera's own path without its shake: positions and orientations under a Gaussian over the frames.

    Args:
        views: In the order of the video, of one picture size.
        window: Standard deviation of the Gaussian in frames; 0 leaves the path as it is.
        time: How time goes; None: as in the views.
    """
    _require_views(views, 1)
    if not (math.isfinite(window) and window >= 0):
        raise ValueError(f"The smoothing window must be a number of frames of at least 0, got {window}.")
    index = torch.arange(len(views), dtype=torch.float64)
    distance = (index[:, None] - index[None]) / max(window, 1e-6)
    weights = torch.softmax(-0.5 * distance**2, dim=-1)
    smooth = weights @ torch.stack([_as_vector(view) for view in views])
    return retime([_from_vector(vector, views[0], view.time) for vector, view in zip(smooth, views, strict=True)], time)


def orbit(
    view: RenderView,
    focus: float | Float[Tensor, "3"],
    num_frames: int,
    angle: float | None = None,
    radius: float | None = None,
    turns: int = 1,
    time: Time = None,
) -> list[RenderView]:
    """A small circular sway around a reference camera that keeps looking at one point: shows depth in any scene.

    Args:
        view: The reference: the circle's centre, its plane, and the up direction.
        focus: The point looked at, or its depth (camera z > 0) on the reference's optical axis.
        num_frames: Frames in all; the path is closed, so it can be looped.
        angle: The sway in degrees as seen from the focus (3 if `radius` is not given either).
        radius: Or the circle's radius in scene units.
        turns: Rounds.
        time: How time goes; None: the reference's time.

    Raises:
        ValueError: if both angle and radius are given, or the focus is not in front of the reference camera.
    """
    pose = view.camera_to_world.double()
    right, up, back, center = pose.unbind(dim=-1)
    target = focus.to(pose) if isinstance(focus, Tensor) else center - back * focus
    depth = float((center - target) @ back)
    if not depth > 0:
        raise ValueError(f"The focus must be in front of the reference camera, but its depth is {depth:g}.")
    if angle is not None and radius is not None:
        raise ValueError("An orbit takes an angle or a radius, not both.")
    if radius is None:
        radius = float((center - target).norm()) * math.tan(math.radians(3.0 if angle is None else angle))
    path = []
    for phase in _linspace(0.0, 2 * math.pi * turns, num_frames + 1)[:-1]:
        position = center + radius * (math.cos(phase) * right + math.sin(phase) * up)
        path.append(replace(view, camera_to_world=_look_at(position, target, up)))
    return retime(path, time)


def turntable(
    view: RenderView,
    center: Float[Tensor, "3"],
    num_frames: int,
    degrees: float = 360.0,
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
    time: Time = None,
) -> list[RenderView]:
    """Carry a camera around an axis through `center`, as it is: for scenes that were captured from all sides.

    Args:
        view: First frame.
        center: Point on the axis, scene units.
        num_frames: Frames in all. A full turn leaves out the frame that repeats the first; less includes its end.
        degrees: How far, counter-clockwise seen from above.
        up: Direction of the axis; nerfstudio's scenes are z-up.
        time: How time goes; None: the first frame's time.
    """
    pose = view.camera_to_world.double()
    axis = torch.nn.functional.normalize(pose.new_tensor(up), dim=0)
    zero = axis.new_zeros(())
    cross = torch.stack([zero, -axis[2], axis[1], axis[2], zero, -axis[0], -axis[1], axis[0], zero]).view(3, 3)
    full = abs(degrees) % 360 == 0
    angles = _linspace(0.0, math.radians(degrees), num_frames + full)[:num_frames]
    path = []
    for angle in angles:
        rotation = torch.linalg.matrix_exp(angle * cross)
        position = rotation @ (pose[:, 3] - center.to(pose)) + center.to(pose)
        path.append(replace(view, camera_to_world=torch.cat([rotation @ pose[:, :3], position[:, None]], dim=-1)))
    return retime(path, time)


def _look_at(position: Tensor, target: Tensor, up: Tensor) -> Tensor:
    back = torch.nn.functional.normalize(position - target, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, back), dim=0)
    return torch.stack([right, torch.linalg.cross(back, right), back, position], dim=-1)


def _as_vector(view: RenderView) -> Tensor:
    intrinsics = torch.tensor([view.fx, view.fy, view.cx, view.cy], dtype=torch.float64)
    return torch.cat([view.camera_to_world.double().flatten(), intrinsics])


def _from_vector(vector: Tensor, like: RenderView, time: float) -> RenderView:
    """Undo `_as_vector` for a mean of several: its matrix is moved to the nearest rotation (the chordal mean)."""
    pose = vector[:12].view(3, 4)
    u, singular, vh = torch.linalg.svd(pose[:, :3])
    if singular[1] < 1e-3:
        raise ValueError("Neighbouring cameras look in opposite directions, so there is no path between them.")
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.linalg.det(u @ vh)
    rotation = (u * sign) @ vh
    fx, fy, cx, cy = vector[12:].tolist()
    pose = torch.cat([rotation, pose[:, 3:]], dim=-1)
    return replace(like, camera_to_world=pose, fx=fx, fy=fy, cx=cx, cy=cy, time=time)


def _linspace(first: float, last: float, count: int) -> list[float]:
    if count < 1:
        raise ValueError(f"A path needs at least one frame, got {count}.")
    # The ends are met exactly: frames of the video are looked up by their time.
    return [first + (last - first) * i / (count - 1) for i in range(count - 1)] + [last if count > 1 else first]


def _require_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"There must be at least one step from view to view, got {steps}.")


def _require_views(views: Sequence[RenderView], least: int) -> None:
    if len(views) < least:
        raise ValueError(f"A path needs at least {least} view{'s' if least > 1 else ''}, got {len(views)}.")
    sizes = {(view.width, view.height) for view in views}
    if len(sizes) > 1:
        raise ValueError(f"All views of a path must have one picture size, got {sorted(sizes)}; see scaled_to.")
