"""Tracks drawn over rendered frames: who goes where, and from where it came."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from semflow_nerfstudio.tracking.points import Tracks
from semflow_nerfstudio.tracking.tracker import Tracker
from semflow_nerfstudio.visuals.layout import Picture, to_picture, video_frame
from semflow_nerfstudio.visuals.trajectories import at_times, from_cameras, to_cameras
from semflow_nerfstudio.visuals.video import VideoWriter, check_target

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Progress, Run

STILL = (205, 205, 205)
"""Colour of points that do not move."""
_SHIFT = 4
"""OpenCV draws at fractions of a pixel, given as whole numbers of sixteenths."""


def track_colors(tracks: Tracks) -> UInt8[np.ndarray, "N 3"]:
    """A colour for each point: all hues over the movers from left to right, grey for what stands still."""
    hues = np.zeros(len(tracks.moving))
    order = np.argsort(tracks.query_pixels[tracks.moving, 0], kind="stable")
    hues[np.flatnonzero(tracks.moving)[order]] = 0.75 * np.arange(len(order)) / max(len(order) - 1, 1)
    colors = np.array([colorsys.hsv_to_rgb(float(hue), 0.85, 1.0) for hue in hues])
    colors = (colors * 255).round().astype(np.uint8)
    colors[~tracks.moving] = STILL
    return colors


def draw_tracks(
    picture: Picture,
    trails: Float[np.ndarray, "N L 2"],
    colors: UInt8[np.ndarray, "N 3"],
    moving: Bool[np.ndarray, "N"],
) -> Picture:
    """Points and, where they move, the way that they came, drawn over a copy of a picture.

    Args:
        picture: RGB.
        trails: Pixels of N points at L times up to now, the last one now; NaN behind the camera.
        colors: Of the points.
        moving: Which of them leave a trail.
    """
    result = np.ascontiguousarray(picture.copy())
    size = max(1.0, picture.shape[1] / 320)
    fixed = np.where(np.isfinite(trails), trails - 0.5, 0.0).clip(-1e4, 1e4)  # OpenCV's pixel centres are whole numbers
    fixed = (fixed * 2**_SHIFT).round().astype(np.int32)
    known = np.isfinite(trails).all(axis=-1)
    # What moves lies on top of what does not.
    for point in np.argsort(moving, kind="stable"):
        color = tuple(int(value) for value in colors[point])
        if moving[point]:
            line = [fixed[point][known[point]].reshape(-1, 1, 2)]
            cv2.polylines(result, line, False, color, round(size), cv2.LINE_AA, _SHIFT)
        if known[point, -1]:
            radius = round((1.6 if moving[point] else 0.6) * size * 2**_SHIFT)
            cv2.circle(result, fixed[point, -1].tolist(), radius, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    return result


def track_video(
    run: Run,
    tracks: Tracks,
    out: Path,
    scene: str | None = None,
    tail: int = 5,
    scale: float = 1.0,
    fps: float = 6.0,
    progress: Progress | None = None,
) -> None:
    """Draw tracks over the rendered views that they were looked at in, one frame a view.

    A point is drawn where it is seen; its trail is where it was at the frame times before, as the same camera would see
    it now.

    Args:
        run: The run that the tracks are of.
        tracks: What `track_points` returned.
        out: .mp4, .gif, .webm, or a new folder for PNGs.
        scene: Name of the scene; None: the default one.
        tail: Frame times that a trail goes back.
        scale: Size of the pictures relative to the training frames.
        fps: Frames per second.
        progress: Told after every frame.

    Raises:
        ValueError: a number out of range, or a file that no video can be written to.
    """
    check_target(out)
    if not 0 < scale < float("inf") or tail < 0:
        raise ValueError(f"tracks are drawn at a scale above 0 with a tail of 0 or more, not {scale:g} and {tail}")
    tracker = Tracker(run, scene)
    number = list(run.model.scenes).index(tracker.name)
    frames = from_cameras(tracker.nerf_cameras.to("cpu"))
    positions = tracker.from_world(torch.from_numpy(tracks.positions).to(tracker.times.device))
    colors = track_colors(tracks)
    with VideoWriter(out, fps) as writer:
        for index, (camera, time) in enumerate(zip(tracks.view_cameras, tracks.view_times, strict=True)):
            view = at_times(frames[camera], [float(tracks.times[time])])[0]
            width, height = (max(1, round(side * scale)) for side in (view.width, view.height))
            with run.model.unedited():
                rgb = run.render(to_cameras([view.scaled_to(width, height)], scene=number))["rgb"]
            seen = torch.from_numpy(tracks.visible[:, index]).to(positions.device)
            past = positions[seen, max(time - tail, 0) : time + 1]
            pixels, depth = tracker.cameras.project(past, torch.full(past.shape[:2], int(camera), device=past.device))
            pixels = torch.where(depth[..., None] > 0, pixels, torch.nan).cpu().numpy()
            pixels = pixels * np.array([width / view.width, height / view.height])
            shown = tracks.visible[:, index]
            picture = draw_tracks(to_picture(rgb), pixels, colors[shown], tracks.moving[shown])
            writer.add(video_frame({"tracks": picture}, time=view.time, captions=False))
            if progress is not None:
                progress(index + 1, len(tracks.view_times))
