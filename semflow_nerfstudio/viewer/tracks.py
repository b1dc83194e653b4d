"""Trajectories of the selection: points on it followed through the clip, shown around the current time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semflow_nerfstudio.flow.trajectories import trace
from semflow_nerfstudio.viewer.selection import probe
from semflow_nerfstudio.visuals.display import Membership, target_mask

if TYPE_CHECKING:
    from semflow_nerfstudio.model import SemanticFlowModel
    from semflow_nerfstudio.viewer.browser import Browser
    from semflow_nerfstudio.viewer.compat import Page

ColorBy = Literal["time", "class"]
DOTS = 16
"""Dots from one frame to the next."""
_PAST, _NOW, _NEXT = (0.15, 0.45, 1.0), (1.0, 1.0, 1.0), (1.0, 0.45, 0.1)


@dataclass(frozen=True)
class Tracks:
    """N points of the selection at the T frame times."""

    positions: Float[np.ndarray, "N T 3"]
    """Scene units."""
    colors: Float[np.ndarray, "N 3"]
    """Of the points' classes, RGB in [0, 1]."""

    def dots(
        self, frame: int, past: int, following: int, color_by: ColorBy
    ) -> tuple[Float[np.ndarray, "D 3"], Float[np.ndarray, "D 3"]]:
        """Dots along the tracks from `past` frames before a frame to `following` after it, and their colours."""
        first, last = max(frame - past, 0), min(frame + following, self.positions.shape[1] - 1)
        steps = np.linspace(first, last, (last - first) * DOTS + 1)
        lower = np.minimum(steps.astype(int), max(self.positions.shape[1] - 2, 0))
        upper = np.minimum(lower + 1, self.positions.shape[1] - 1)
        part = (steps - lower)[:, None]
        points = self.positions[:, lower] * (1 - part) + self.positions[:, upper] * part
        if color_by == "class":
            colors = np.broadcast_to(self.colors[:, None], points.shape)
        else:
            age = np.where(steps < frame, (steps - frame) / max(past, 1), (steps - frame) / max(following, 1))[:, None]
            end = np.where(age < 0, np.array(_PAST), np.array(_NEXT))
            ramp = np.array(_NOW) + np.abs(age) * (end - np.array(_NOW))
            colors = np.broadcast_to(ramp, points.shape)
        return points.reshape(-1, 3), colors.reshape(-1, 3)


@torch.no_grad()
def trace_selection(
    model: SemanticFlowModel,
    scene_name: str,
    camera: Cameras,
    time: float,
    targets: Sequence[str],
    count: int,
    class_colors: Float[Tensor, "C 3"],
    membership: Membership | None = None,
) -> Tracks:
    """Follow up to `count` points of a selection, as a camera sees it at a time, through all frames along the flow.

    Raises:
        ValueError: the camera sees nothing of it, or it does not move.
    """
    rays = camera.to(model.device).generate_rays(camera_indices=0, keep_shape=True)
    height, width = rays.shape
    flat = rays.flatten()
    rows = probe(model, flat.origins, flat.directions, time)
    image = {name: value.reshape(height, width, -1) for name, value in rows.items()}
    masks = [target_mask(image, target, model.class_names, membership) for target in targets]
    selected = torch.stack(masks).any(0) if masks else torch.zeros(height, width, dtype=torch.bool)
    if not bool(selected.any()):
        raise ValueError("Nothing of the selection is in view at this time: tracks start from what is seen.")
    moving = selected & target_mask(image, "moving", model.class_names)
    moving &= (image["source_time"][..., 0] - time).abs() < 1e-4  # not of copies that lag behind
    if not bool(moving.any()):
        raise ValueError("The selection does not move: it has no tracks.")
    indices = moving.flatten().nonzero()[:, 0]
    indices = indices[torch.linspace(0, len(indices) - 1, min(count, len(indices))).round().long()]
    scene = model.scene(scene_name)
    points = rows["source"][indices]
    shift = rows["here"][indices] - points
    times = torch.full_like(points[:, :1], time)
    index = scene.timeline.index(times[:1])
    center, at_center = int((index + 1e-4).floor()), bool((index - index.round()).abs() < 1e-4)
    all_times = scene.timeline.times.expand(len(points), -1)
    tau = scene.timeline.tau
    positions = trace(scene.velocity, points[:, None], times, all_times, center, tau, at_center, substeps=2)[:, 0]
    colors = torch.ones_like(points)
    if "logits" in rows:
        colors = class_colors.to(points)[rows["logits"][indices].argmax(-1)]
    # What was moved by an edit has its tracks where it is shown.
    return Tracks((positions + shift[:, None]).cpu().numpy(), colors.cpu().numpy())


class TracksPanel:
    """Which tracks are shown, and how."""

    def __init__(self, page: Page, browser: Browser) -> None:
        self.page, self.browser = page, browser
        self.tracks: Tracks | None = None
        self._of: tuple[str, tuple[str, ...]] = ("", ())
        """The scene and the targets that the tracks are of."""
        with page.folder("Tracks", open_at_first=False):
            last = browser.most_frames - 1
            self.on = page.checkbox("Show tracks", False, lambda _: self.trace(), "Where the selection was and will be")
            self.past = page.slider("Last frames", 0, last, 1, min(5, last), lambda _: self.show())
            self.following = page.slider("Next frames", 0, last, 1, min(5, last), lambda _: self.show())
            self.count = page.slider("Number of tracks", 1, 200, 1, 24, lambda _: self.trace())
            self.color_by = page.dropdown("Colour tracks by", get_args(ColorBy), "time", lambda _: self.show())
            page.button("Trace again", self.trace, "From what is in view now")
        browser.on_change.append(self.selection_changed)
        browser.on_time.append(lambda _: self.show())

    def _wanted(self) -> tuple[str, tuple[str, ...]]:
        return self.browser.scene_name, self.browser.selection.targets

    def selection_changed(self) -> None:
        """Other things have other tracks."""
        if self.on.value and self._of != self._wanted():
            try:
                self.trace()
            except ValueError as error:
                self.page.fail(error)

    def trace(self) -> None:
        """Follow the selection from what a client sees now."""
        browser, page = self.browser, self.page
        self.tracks, self._of = None, self._wanted()
        self.show()
        if not self.on.value or not self._of[1]:
            return
        camera = page.camera()
        if camera is None:
            return
        colors = torch.tensor([browser.color_of(name) for name in browser.class_names])
        with page.lock():
            self.tracks = trace_selection(
                browser.model,
                browser.scene_name,
                camera,
                page.time,
                self._of[1],
                int(self.count.value),
                colors,
                browser.membership,
            )
        self.show()

    def show(self) -> None:
        """Show the tracks around the current time."""
        if self.tracks is None or not self.on.value or self._of[0] != self.browser.scene_name:
            self.page.remove("tracks")
            return
        times = np.asarray(self.browser.frame_times)
        frame = int(np.abs(times - self.page.time).argmin())
        points, colors = self.tracks.dots(frame, self.past.value, self.following.value, self.color_by.value)
        self.page.show_dots("tracks", points, colors, 0.1 * self.browser.marker_size)
