import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.visuals import trajectories
from semflow_nerfstudio.visuals.trajectories import RenderView


def rotation(x: float, y: float, z: float) -> torch.Tensor:
    """Rotation matrix of a rotation vector in degrees."""
    rx, ry, rz = (math.radians(value) for value in (x, y, z))
    cross = torch.tensor([[0, -rz, ry], [rz, 0, -rx], [-ry, rx, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(cross)


def make_view(position=(0.0, 0.0, 0.0), angles=(0.0, 0.0, 0.0), time=0.0, fx=50.0) -> RenderView:
    pose = torch.cat([rotation(*angles), torch.tensor(position, dtype=torch.float64)[:, None]], dim=-1)
    return RenderView(pose, fx, 60.0, 33.0, 21.0, 64, 48, time)


@pytest.fixture
def capture() -> list[RenderView]:
    """A shaky hand-held path at uneven times."""
    generator = torch.Generator().manual_seed(0)
    times = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0]
    shake = torch.randn(len(times), 6, generator=generator).tolist()
    return [
        make_view((i + 0.1 * s[0], 0.1 * s[1], 0.1 * s[2]), (2 * s[3], 10 * i + 2 * s[4], 2 * s[5]), time, 50.0 + i)
        for i, (time, s) in enumerate(zip(times, shake, strict=True))
    ]


def assert_same_camera(a: RenderView, b: RenderView) -> None:
    torch.testing.assert_close(a.camera_to_world, b.camera_to_world, atol=1e-9, rtol=0)
    assert (a.fx, a.fy, a.cx, a.cy) == pytest.approx((b.fx, b.fy, b.cx, b.cy))


def assert_rigid(views: list[RenderView]) -> None:
    for view in views:
        matrix = view.camera_to_world[:, :3]
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)
        assert torch.linalg.det(matrix) > 0


def project(views: list[RenderView], point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and depths of one point in all views, by the project's own cameras."""
    cameras = FrameCameras(
        torch.stack([view.camera_to_world.double() for view in views]),
        torch.tensor([[view.fx, view.fy, view.cx, view.cy] for view in views], dtype=torch.float64),
        views[0].width,
        views[0].height,
    )
    return cameras.project(point.double().expand(len(views), 3), torch.arange(len(views)))


def test_time_sweep_keeps_the_camera_and_meets_both_ends():
    view = make_view((1, 2, 3), time=0.4)
    sweep = trajectories.time_sweep(view, 7, 0.1, 0.7)
    assert [v.time for v in sweep] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert sweep[0].time == 0.1 and sweep[-1].time == 0.7
    assert all(v.camera_to_world is view.camera_to_world for v in sweep)
    assert [v.time for v in trajectories.time_sweep(view, 1)] == [0.0]
    assert [v.time for v in trajectories.time_sweep(view, 3, 1.0, 0.0)] == [1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match="at least one frame"):
        trajectories.time_sweep(view, 0)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        trajectories.time_sweep(view, 3, 0.0, 1.5)


def test_frame_exact_times_hit_every_frame_once_gaps_kept():
    times = torch.tensor([0.5, 0.0, 1 / 3, 1.0, 1 / 3])
    result = trajectories.frame_exact_times(times.tolist(), 3)
    assert len(result) == 3 * 3 + 1
    assert result[::3] == sorted(set(times.tolist())), "exactly, not nearly"
    assert all(a < b for a, b in pairwise(result))
    assert trajectories.frame_exact_times([0.3], 5) == [0.3]
    views = trajectories.at_times(make_view(), result)
    assert [view.time for view in views] == result
    with pytest.raises(ValueError, match="at least one step"):
        trajectories.frame_exact_times([0.0, 1.0], 0)


def test_nearest_frame():
    assert trajectories.nearest_frame([0.0, 0.4, 1.0], 0.65) == 1
    assert trajectories.nearest_frame([0.0, 0.4, 1.0], 0.75) == 2
    assert trajectories.nearest_frame([0.0, 1.0], 0.5) == 0
    with pytest.raises(ValueError, match="no frames"):
        trajectories.nearest_frame([], 0.5)


def test_interpolation_hits_every_view_exactly(capture):
    path = trajectories.interpolate(capture, 8)
    assert len(path) == 5 * 8 + 1
    for view, key in zip(path[::8], capture, strict=True):
        assert_same_camera(view, key)
        assert view.time == pytest.approx(key.time)
    assert_rigid(path)


def test_interpolation_is_smooth_in_space_and_monotone_in_time(capture):
    path = trajectories.interpolate(capture, 50)
    positions = torch.stack([view.camera_to_world[:, 3] for view in path])
    velocity = positions.diff(dim=0) * 50
    # Straight lines would change the velocity by about 0.2 to 0.4 from one frame to the next at the views.
    corners = torch.stack([view.camera_to_world[:, 3] for view in capture]).diff(dim=0).diff(dim=0).norm(dim=-1)
    assert velocity.diff(dim=0).norm(dim=-1).max() < 0.2 * corners.max()
    times = torch.tensor([view.time for view in path])
    assert (times.diff() > 0).all() and times.min() == 0 and times.max() == 1


def test_interpolated_rotation_halfway_is_the_mean_rotation():
    views = [make_view(angles=(0, angle, 0)) for angle in (0, 30, 60, 90)]
    middle = trajectories.interpolate(views, 2)[3]
    torch.testing.assert_close(middle.camera_to_world[:, :3], rotation(0, 45, 0), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("time", "expected"), [(0.3, [0.3] * 5), ((0.0, 1.0), [0, 0.25, 0.5, 0.75, 1]), (None, [0.2, 0.3, 0.4, 0.6, 0.8])]
)
def test_time_along_a_path_stands_still_runs_or_follows_the_views(time, expected):
    views = [make_view((i, 0, 0), time=t) for i, t in enumerate((0.2, 0.4, 0.8))]
    assert [view.time for view in trajectories.interpolate(views, 2, time)] == pytest.approx(expected)


def test_closed_paths_return_without_repeating_a_frame_or_running_backwards():
    views = [make_view((math.cos(a), math.sin(a), 0), time=i / 4) for i, a in enumerate((0, 1.57, 3.14, 4.71))]
    path = trajectories.interpolate(views, 10, closed=True)
    assert len(path) == 40
    positions = torch.stack([view.camera_to_world[:, 3] for view in [*path, path[0]]])
    steps = positions.diff(dim=0).norm(dim=-1)
    assert steps.max() < 2 * steps.min()
    assert all(a.time <= b.time for a, b in pairwise(path))


def test_interpolation_refuses_what_has_no_path(capture):
    with pytest.raises(ValueError, match="at least 2 views, got 1"):
        trajectories.interpolate(capture[:1], 4)
    with pytest.raises(ValueError, match="one picture size"):
        trajectories.interpolate([capture[0], capture[1].scaled_to(32, 24)], 4)
    with pytest.raises(ValueError, match="opposite directions"):
        trajectories.interpolate([make_view(), make_view(angles=(0, 180, 0))], 2)
    with pytest.raises(ValueError, match="at least one step"):
        trajectories.interpolate(capture, 0)


def test_stabilising_takes_out_shake_and_keeps_the_way(capture):
    way = [make_view((0.1 * i, 0, 0), (0, 0.5 * i, 0), i / 40) for i in range(41)]
    generator = torch.Generator().manual_seed(1)
    shaky = []
    for view in way:
        shift = 0.05 * torch.randn(3, generator=generator, dtype=torch.float64)
        turn = rotation(*torch.randn(3, generator=generator).tolist())
        pose = torch.cat([view.camera_to_world[:, :3] @ turn, (view.camera_to_world[:, 3] + shift)[:, None]], dim=-1)
        shaky.append(replace(view, camera_to_world=pose))
    smooth = trajectories.stabilised(shaky, window=3.0)
    assert_rigid(smooth)
    assert [view.time for view in smooth] == [view.time for view in way]

    def roughness(views: list[RenderView]) -> torch.Tensor:
        return torch.stack([view.camera_to_world for view in views]).diff(n=2, dim=0).flatten(1).norm(dim=-1).mean()

    def error(views: list[RenderView]) -> torch.Tensor:
        return torch.stack([(a.camera_to_world - b.camera_to_world).norm() for a, b in zip(views, way, strict=True)])

    assert roughness(smooth) < 0.1 * roughness(shaky)
    assert error(smooth)[6:-6].mean() < 0.6 * error(shaky)[6:-6].mean()
    for view, same in zip(trajectories.stabilised(capture, 0.0), capture, strict=True):
        assert_same_camera(view, same)
    with pytest.raises(ValueError, match="window"):
        trajectories.stabilised(capture, -1.0)


@pytest.mark.parametrize("by_depth", [True, False])
def test_orbits_look_at_the_focus_and_stay_level(by_depth):
    reference = make_view((1, 2, 3), (20, -30, 10), time=0.6)
    axis = -reference.camera_to_world[:, 2]
    focus = reference.camera_to_world[:, 3] + 4.0 * axis
    path = trajectories.orbit(reference, 4.0 if by_depth else focus, 24, angle=5.0)
    assert len(path) == 24 and {view.time for view in path} == {0.6}
    assert_rigid(path)
    pixels, depth = project(path, focus)
    torch.testing.assert_close(pixels, torch.tensor([[33.0, 21.0]], dtype=torch.float64).expand(24, 2))
    assert (depth > 4.0).all()
    offsets = torch.stack([view.camera_to_world[:, 3] for view in path]) - reference.camera_to_world[:, 3]
    expected = torch.full((24,), 4.0 * math.tan(math.radians(5.0)), dtype=torch.float64)
    torch.testing.assert_close(offsets.norm(dim=-1), expected)
    torch.testing.assert_close(offsets.mean(dim=0), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    rights = torch.stack([view.camera_to_world[:, 0] for view in path])
    up = reference.camera_to_world[:, 1]
    torch.testing.assert_close(rights @ up, torch.zeros(24, dtype=torch.float64), atol=1e-9, rtol=0)


def test_orbits_close_smoothly_and_can_run_in_time():
    path = trajectories.orbit(make_view(), 2.0, 20, radius=0.1, turns=2, time=(0.0, 1.0))
    assert (path[0].time, path[-1].time) == (0.0, 1.0)
    steps = torch.stack([v.camera_to_world[:, 3] for v in [*path, path[0]]]).diff(dim=0).norm(dim=-1)
    torch.testing.assert_close(steps, steps[:1].expand(20), atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="not both"):
        trajectories.orbit(make_view(), 2.0, 20, angle=1.0, radius=0.1)
    with pytest.raises(ValueError, match="in front of the reference camera"):
        trajectories.orbit(make_view(), torch.tensor([0.0, 0.0, 5.0]), 20)


def test_turntable_goes_around_and_keeps_the_picture_of_the_centre():
    reference = make_view((3, 0, 1), (80, 0, 0), time=0.5)
    center = torch.tensor([0.5, -0.5, 0.0])
    path = trajectories.turntable(reference, center, 12)
    assert_rigid(path)
    assert_same_camera(path[0], reference)
    pixels, depth = project(path, center)
    torch.testing.assert_close(pixels, pixels[:1].expand(12, 2))
    torch.testing.assert_close(depth, depth[:1].expand(12))
    positions = torch.stack([view.camera_to_world[:, 3] for view in path])
    assert positions[:, 2].std() < 1e-9
    torch.testing.assert_close(positions[:, :2].mean(dim=0), center[:2].double(), atol=1e-9, rtol=0)
    angle = torch.atan2(positions[:, 1] + 0.5, positions[:, 0] - 0.5)
    assert float((angle[1] - angle[0]) % (2 * math.pi)) == pytest.approx(2 * math.pi / 12)
    half = trajectories.turntable(reference, center, 3, degrees=180, time=(0.0, 1.0))
    torch.testing.assert_close(half[-1].camera_to_world[:2, 3], 2 * center[:2].double() - positions[0, :2])


def test_views_and_nerfstudio_cameras_convert_both_ways(capture):
    cameras = trajectories.to_cameras(capture, scene=3)
    assert cameras.shape == (6,) and cameras.times.shape == (6, 1)
    for value in (cameras.camera_to_worlds, cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.times):
        assert value.dtype == torch.float32
    assert torch.equal(cameras.metadata["scene"], torch.full((6, 1), 3))
    rays = cameras.generate_rays(camera_indices=4)
    assert rays.shape == (48, 64)
    torch.testing.assert_close(rays.times, torch.full((48, 64, 1), 0.9))
    assert torch.equal(rays.metadata["scene"], torch.full((48, 64, 1), 3))
    # A point that the project's cameras see at a pixel's centre lies on nerfstudio's ray through that pixel.
    point = rays.origins[10, 20] + 3.0 * rays.directions[10, 20]
    pixels, _ = project([capture[4]], point)
    torch.testing.assert_close(pixels[0], torch.tensor([20.5, 10.5], dtype=torch.float64), atol=1e-3, rtol=0)

    again = trajectories.from_cameras(cameras)
    for view, key in zip(again, capture, strict=True):
        torch.testing.assert_close(view.camera_to_world, key.camera_to_world, atol=1e-5, rtol=0)
        assert (view.fx, view.fy, view.cx, view.cy) == pytest.approx((key.fx, key.fy, key.cx, key.cy))
        assert (view.width, view.height) == (64, 48)
        assert view.time == pytest.approx(key.time)
    cameras.times = None
    assert [view.time for view in trajectories.from_cameras(cameras, 0.7)] == [0.7] * 6
    assert trajectories.to_cameras(capture).metadata is None


def test_a_single_camera_out_of_a_set_converts(capture):
    (view,) = trajectories.from_cameras(trajectories.to_cameras(capture)[2:3])
    assert view.time == pytest.approx(0.25)


def test_scaled_views_show_the_same():
    view = make_view((0, 0, 0), (10, 20, 0))
    point = torch.tensor([0.3, 0.2, -4.0])
    (pixel,), _ = project([view], point)
    (scaled,), _ = project([view.scaled_to(128, 24)], point)
    torch.testing.assert_close(scaled, pixel * torch.tensor([2.0, 0.5]))


def test_views_check_themselves():
    with pytest.raises(ValueError, match=r"shape \(3, 4\), got \(4, 4\)"):
        RenderView(torch.eye(4), 1.0, 1.0, 1.0, 1.0, 2, 2)
    with pytest.raises(ValueError, match="got nan"):
        make_view(time=float("nan"))
