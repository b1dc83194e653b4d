"""What moves along epipolar lines shows over several frames, and errors of flow are not taken for movers."""

import cv2
import numpy as np
import pytest
import torch

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.clip_motion import SUSPECT, ClipMotion, flow_is_good, small_cameras
from semflow_nerfstudio.data.clip_motion import WIDTH as LOOKED_AT
from semflow_nerfstudio.data.triangulation import StaticPoints

COUNT, WIDTH, HEIGHT, FOCAL, DEPTH = 6, 160, 96, 100.0, 10.0
SHIFT = 2
"""Pixels by which the wall moves to the left from frame to frame."""
TOP, LEFT, HIGH, WIDE = 30, 70, 30, 36
UNEVEN = (0, 4, 1, -3, 2, 5)
"""Where the thing in front is, to the right of where it began, in pixels of the frame."""


def cameras(step: float = SHIFT * DEPTH / FOCAL) -> FrameCameras:
    """Cameras that walk to the right, along the rows of the image: all epipolar lines are rows."""
    poses = torch.eye(4, dtype=torch.float64)[:3].repeat(COUNT, 1, 1)
    poses[:, 0, 3] = step * torch.arange(COUNT)
    intrinsics = torch.tensor([[FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]] * COUNT, dtype=torch.float64)
    return FrameCameras(poses, intrinsics, WIDTH, HEIGHT)


def texture(seed: int, height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.2)
    return np.clip(127 + 3 * (soft - soft.mean()), 0, 255).astype(np.uint8)


class Clip:
    """A wall and something in front of it, with exact flow."""

    def __init__(self, offsets: tuple[int, ...] | None, shift: int = SHIFT) -> None:
        wall, thing = texture(0, HEIGHT, WIDTH + 2 * COUNT * SHIFT), texture(1, HIGH, WIDE)
        self.offsets, self.shift = offsets, shift
        self.greys = [wall[:, shift * k : shift * k + WIDTH].copy() for k in range(COUNT)]
        if offsets is not None:
            for grey, inside in zip(self.greys, map(self.inside, range(COUNT)), strict=True):
                grey[inside] = thing.reshape(-1)

    def inside(self, frame: int) -> np.ndarray:
        """Where the thing is."""
        found = np.zeros((HEIGHT, WIDTH), bool)
        if self.offsets is not None:
            left = LEFT + self.offsets[frame]
            found[TOP : TOP + HIGH, left : left + WIDE] = True
        return found

    def flow(self, frame: int, forward: bool):
        other = frame + (1 if forward else -1)
        if not 0 <= other < COUNT:
            return None
        flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
        flow[..., 0] = -self.shift * (other - frame)
        columns = np.arange(WIDTH) + flow[0, :, 0].astype(int)
        valid = np.broadcast_to((columns >= 0) & (columns < WIDTH), (HEIGHT, WIDTH)).copy()
        valid &= ~self.inside(other)[:, np.clip(columns, 0, WIDTH - 1)]
        if self.offsets is not None:
            inside = self.inside(frame)
            flow[inside] = (self.offsets[other] - self.offsets[frame], 0)
            valid |= inside
        return other, (flow, valid)


def masks(clip: Clip, known: FrameCameras | None = None, flow=None):
    found = ClipMotion(known or cameras(), lambda frame: clip.greys[frame], flow or clip.flow)
    evidence = [found.look(frame) for frame in range(COUNT)]
    return [found.mask(frame)[0] for frame in range(COUNT)], evidence


def recall(mask: np.ndarray, true: np.ndarray) -> float:
    return float((mask & true).sum() / true.sum())


@pytest.mark.parametrize(
    "offsets",
    [UNEVEN, tuple(3 * k for k in range(COUNT))],
    ids=["along the epipolar line, unevenly", "evenly, to the side on which nothing in front of the camera goes"],
)
def test_motion_along_epipolar_lines_is_found(offsets):
    clip = Clip(offsets)
    found, evidence = masks(clip)
    assert flow_is_good(evidence)
    for frame, mask in enumerate(found):
        inside = clip.inside(frame)
        assert recall(mask, inside) > 0.95
        near = cv2.dilate(inside.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
        assert not mask[~near].any()


def test_nothing_moves_in_a_static_scene():
    nearer = Clip(tuple(-2 * SHIFT * k for k in range(COUNT)))  # what stands at half the depth goes twice as far
    for clip in (Clip(None), nearer):
        found, _ = masks(clip)
        assert not np.any(found)


def test_a_camera_that_stands_still():
    clip = Clip(UNEVEN, shift=0)
    found, _ = masks(clip, cameras(step=0.0))
    for frame, mask in enumerate(found):
        assert recall(mask, clip.inside(frame)) > 0.95 and mask.mean() < 2.5 * clip.inside(frame).mean()


def test_flow_that_errs_where_there_is_no_texture_makes_no_movers():
    """The lower wall is blank: whatever flow says there, the pictures cannot confirm that it moves."""
    clip, rng = Clip(UNEVEN), np.random.default_rng(0)
    for grey in clip.greys:
        grey[66:] = 120

    def flow(frame: int, forward: bool):
        step = clip.flow(frame, forward)
        if step is None:
            return None
        other, (exact, valid) = step
        error = cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH, 2)).astype(np.float32), (0, 0), 4)
        error *= np.where(np.arange(HEIGHT) >= 66, 1.2, 0.05)[:, None, None].astype(np.float32) / error.std()
        return other, (exact + error, valid)

    found, evidence = masks(clip, flow=flow)
    assert not flow_is_good(evidence)
    assert np.mean([told.misfit[72:] > SUSPECT for told in evidence]) > 0.2
    assert np.mean([mask[76:].mean() for mask in found]) < 0.03
    assert np.mean([recall(mask, clip.inside(frame)) for frame, mask in enumerate(found)]) > 0.8


def test_frames_without_flow_are_not_known():
    clip = Clip(UNEVEN)
    found = ClipMotion(cameras(), lambda frame: clip.greys[frame], lambda frame, forward: None)
    assert not found.look(0).seen.any()
    moving, seen = found.mask(0)
    assert not moving.any() and not seen.any()


def test_tracks_follow_the_flow_and_end_where_it_ends():
    clip = Clip(None)
    found = {t.frame: t for t in ClipMotion(cameras(), lambda frame: clip.greys[frame], clip.flow).tracks(1)}
    assert sorted(found) == [0, 2, 3, 4, 5]
    np.testing.assert_allclose(found[4].places[50, 100], (100 - 3 * SHIFT, 50))
    assert found[4].valid[50, 3 * SHIFT] and not found[4].valid[50, 3 * SHIFT - 1]
    shown = found[3].carried(clip.greys[3])
    np.testing.assert_allclose(shown[found[3].valid], clip.greys[1][found[3].valid])


def test_static_points_are_seen_where_cameras_project_them():
    bent = cameras()
    bent = FrameCameras(bent.camera_to_worlds, bent.intrinsics, WIDTH, HEIGHT, torch.full((COUNT, 6), 0.01).double())
    pixels = np.random.default_rng(0).uniform((10, 10), (150, 86), (40, 2))
    for known in (cameras(), bent):
        points = StaticPoints(known, 1, pixels)
        np.testing.assert_allclose(points.seen_by(1, np.full(40, 0.2)), pixels, atol=1e-3)
        world = torch.from_numpy(points.origin + points.direction * 5)
        expected = known.project(world, torch.full((40,), 4))[0].numpy()
        np.testing.assert_allclose(points.seen_by(4, np.full(40, 0.2)), expected, atol=1e-6)


def test_large_frames_are_looked_at_small():
    large = cameras().scaled_to(1280, 768)
    assert (small_cameras(large).width, small_cameras(large).height) == (LOOKED_AT, 192)
    assert small_cameras(cameras()).width == WIDTH
