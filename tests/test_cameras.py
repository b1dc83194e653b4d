"""Pixel, axis and projection conventions of the torch-only cameras."""

import pytest
import torch
from builders import FOCAL, HEIGHT, WIDTH, arc_cameras, look_at_origin

from semflow_nerfstudio.cameras import FrameCameras, distort, pixel_centers

MILD = torch.tensor([-0.1, 0.02, 0.0, 0.0, 0.002, -0.001])


def identity_camera(distortion: torch.Tensor | None = None) -> FrameCameras:
    pose = torch.eye(4)[None, :3]
    return FrameCameras(pose, torch.tensor([[10.0, 20.0, 8.0, 6.0]]), 16, 12, distortion)


def test_axes_and_depth() -> None:
    """OpenGL camera: right is +u, up is -v, forward is -z."""
    points = torch.tensor([[0.0, 0.0, -2.0], [1.0, 0.0, -2.0], [0.0, 1.0, -2.0], [1.0, 1.0, 2.0]])
    pixels, depth = identity_camera().project(points, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(pixels[:3], torch.tensor([[8.0, 6.0], [13.0, 6.0], [8.0, -4.0]]))
    torch.testing.assert_close(depth, torch.tensor([2.0, 2.0, 2.0, -2.0]))


def test_projection_inverts_the_rays_of_pixel_centers() -> None:
    cameras = arc_cameras(3)
    pixels = pixel_centers(WIDTH, HEIGHT).reshape(-1, 2)
    assert pixels[0].tolist() == [0.5, 0.5] and pixels[-1].tolist() == [WIDTH - 0.5, HEIGHT - 0.5]
    assert pixels[1].tolist() == [1.5, 0.5]
    z = 1 + torch.rand(len(pixels), generator=torch.Generator().manual_seed(0))
    local = torch.stack(
        [(pixels[:, 0] - WIDTH / 2) / FOCAL, -(pixels[:, 1] - HEIGHT / 2) / FOCAL, -torch.ones(len(z))], -1
    )
    for k in range(3):
        pose = cameras.camera_to_worlds[k]
        world = (local * z[:, None]) @ pose[:, :3].T + pose[:, 3]
        got, depth = cameras.project(world, torch.full((len(z),), k))
        torch.testing.assert_close(got, pixels, atol=1e-4, rtol=0)
        torch.testing.assert_close(depth, z, atol=1e-5, rtol=0)


def test_each_point_goes_to_its_own_frame() -> None:
    cameras = arc_cameras(4)
    points, frame = torch.rand(2, 5, 3), torch.randint(0, 4, (2, 5))
    pixels, depth = cameras.project(points, frame)
    for i in range(2):
        for j in range(5):
            alone, z = cameras.project(points[i, j][None], frame[i, j][None])
            torch.testing.assert_close((pixels[i, j], depth[i, j]), (alone[0], z[0]))


def test_scaling_keeps_relative_positions_per_axis() -> None:
    cameras, point = arc_cameras(1), torch.tensor([[0.1, 0.2, 0.3]])
    frame = torch.zeros(1, dtype=torch.long)
    scaled = cameras.scaled_to(WIDTH * 2, HEIGHT * 3)
    one, other = cameras.project(point, frame)[0], scaled.project(point, frame)[0]
    torch.testing.assert_close(other, one * torch.tensor([2.0, 3.0]))
    assert (scaled.width, scaled.height) == (WIDTH * 2, HEIGHT * 3)


def test_visible_points_are_in_front_and_inside() -> None:
    camera = identity_camera()
    pixels = torch.tensor([[8.0, 6.0], [0.0, 0.0], [-0.1, 6.0], [8.0, 12.1], [8.0, 6.0]])
    depth = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0])
    assert camera.visible(pixels, depth).tolist() == [True, True, False, False, False]
    assert camera.visible(pixels, depth, border=1.0).tolist() == [True, False, False, False, False]


def test_visibility_fades_at_the_border() -> None:
    camera = identity_camera()
    u = torch.tensor([-1.0, 0.0, 0.8, 1.6, 8.0, 15.2, 16.0, 17.0])
    got = camera.visibility(torch.stack([u, torch.full_like(u, 6.0)], -1), torch.ones_like(u), margin=0.1)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]))
    assert camera.visibility(torch.tensor([8.0, 6.0]), torch.tensor(-1.0)).item() == 0


def test_distortion_is_opencvs() -> None:
    x, y = 0.3, -0.2
    k1, k2, k3, k4, p1, p2 = 0.1, -0.05, 0.02, 0.01, 0.003, -0.004
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + k4 * r2**4
    expected = [
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    ]
    got = distort(torch.tensor([x, y]), torch.tensor([k1, k2, k3, k4, p1, p2]))
    torch.testing.assert_close(got, torch.tensor(expected))


def test_distorted_cameras_move_pixels_and_undistorted_ones_agree() -> None:
    points, frame = torch.tensor([[0.4, 0.3, -1.0], [0.0, 0.0, -1.0]]), torch.zeros(2, dtype=torch.long)
    plain = identity_camera().project(points, frame)[0]
    zeros = identity_camera(torch.zeros(1, 6)).project(points, frame)[0]
    bent = identity_camera(MILD[None]).project(points, frame)[0]
    torch.testing.assert_close(zeros, plain)
    expected = distort(torch.tensor([0.4, -0.3]), MILD) * torch.tensor([10.0, 20.0]) + torch.tensor([8.0, 6.0])
    torch.testing.assert_close(bent[0], expected)
    torch.testing.assert_close(bent[1], plain[1])


@pytest.mark.parametrize("parameters", [[-0.3, 0.02, 0, 0, 0, 0], [0.1, 0.1, 0.1, 0.1, 0.01, 0.01]])
def test_distortion_never_folds_far_points_into_the_image(parameters: list[float]) -> None:
    camera = identity_camera(torch.tensor([parameters], dtype=torch.float32))
    angle = torch.linspace(0, 6.28, 50)[:, None]
    radius = torch.cat([torch.linspace(1.6, 20, 400), torch.tensor([1e3, 1e6])])
    points = torch.stack([radius * angle.cos(), radius * angle.sin(), -torch.ones(50, 402)], -1).reshape(-1, 3)
    points = torch.cat([points, points * torch.tensor([1.0, 1.0, -1.0])]).requires_grad_()
    pixels, depth = camera.project(points, torch.zeros(len(points), dtype=torch.long))
    assert pixels.isfinite().all() and not camera.visible(pixels, depth).any()
    pixels.clamp(0, 16).sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()


def test_cameras_of_the_builders_look_at_the_origin() -> None:
    pose = look_at_origin(0.4)
    torch.testing.assert_close(pose[:, :3].T @ pose[:, :3], torch.eye(3), atol=1e-6, rtol=0)
    assert torch.linalg.det(pose[:, :3]).item() == pytest.approx(1)
    pixels, depth = arc_cameras(3).project(torch.zeros(3, 3), torch.arange(3))
    torch.testing.assert_close(pixels, torch.tensor([[WIDTH / 2, HEIGHT / 2]]).expand(3, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(depth, torch.full((3,), 2.5))
