"""Where rays end, what hides points, and points carried along known flows."""

import math

import pytest
import torch

from semflow_nerfstudio.tracking.trace import RayProfile, follow, from_world, to_world

TIMES = torch.tensor([0.0, 0.2, 0.6, 1.0])


def profile(static: list[float], dynamic: list[float]) -> RayProfile:
    """One ray from the origin along z, with samples of length one."""
    starts = torch.arange(len(static), dtype=torch.float32)[None]
    return RayProfile(
        origins=torch.zeros(1, 3),
        directions=torch.tensor([[0.0, 0.0, 1.0]]),
        starts=starts,
        ends=starts + 1,
        static=torch.tensor([static]),
        dynamic=torch.tensor([dynamic]),
    )


def test_surface_is_the_median_of_what_is_seen() -> None:
    """Half of the light of a sample of weight .8 is stopped in its middle; a little fog in front changes little."""
    assert profile([0, 0, 0.8, 0], [0, 0, 0, 0]).surface().item() == pytest.approx(2.5)
    foggy = profile([0.1, 0, 0.7, 0], [0, 0, 0, 0])
    assert foggy.surface().item() == pytest.approx(2 + 0.3 / 0.7)
    assert foggy.at(foggy.surface())[0].tolist() == pytest.approx([0, 0, 2 + 0.3 / 0.7])


def test_a_mover_in_front_of_a_wall_is_where_it_is() -> None:
    """Not between both, and the other way round where the wall is most of what is seen."""
    mover = profile([0, 0, 0, 0.4], [0, 0.6, 0, 0])
    assert mover.shows_mover.item() and mover.surface().item() == pytest.approx(1.5)
    wall = profile([0, 0, 0, 0.6], [0, 0.4, 0, 0])
    assert not wall.shows_mover.item() and wall.surface().item() == pytest.approx(3.5)


def test_light_is_stopped_in_front_of_a_point() -> None:
    ray = profile([0, 0.5, 0, 0.5], [0, 0, 0, 0])
    for distance, stopped in ((0.5, 0.0), (1.0, 0.0), (1.5, 0.25), (2.5, 0.5), (3.5, 0.75), (9.0, 1.0)):
        assert ray.light_stopped(torch.tensor([distance])).item() == pytest.approx(stopped)


def turning(points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """A quarter turn about z over the clip, per tau = 0.4."""
    rate = math.pi / 2 * 0.4
    return rate * torch.stack([-points[:, 1], points[:, 0], torch.zeros(len(points))], dim=-1)


def test_points_go_round_forward_and_backward_from_their_own_times() -> None:
    """Queries at different times, one of them between frames, all lie on one circle."""
    own = torch.tensor([0.0, 0.6, 1.0, 0.4])
    angle = math.pi / 2 * own
    points = torch.stack([angle.cos(), angle.sin(), torch.full((4,), 0.3)], dim=-1)
    followed = follow(turning, points, own, TIMES, 0.4, torch.ones(4, dtype=torch.bool), substeps=8, method="rk4")
    expected = torch.stack([(math.pi / 2 * TIMES).cos(), (math.pi / 2 * TIMES).sin(), torch.full((4,), 0.3)], dim=-1)
    torch.testing.assert_close(followed, expected[None].expand(4, 4, 3), atol=1e-5, rtol=0)
    assert followed[1, 2].equal(points[1])  # at its own time a point is where it was put


def test_static_points_stay_whatever_the_flow_says() -> None:
    points = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    followed = follow(turning, points, torch.zeros(2), TIMES, 0.4, torch.tensor([False, True]))
    assert followed[0].equal(points[:1].expand(4, 3)) and followed[1, -1, 1] > 0.5


def test_world_units() -> None:
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    transform = torch.cat([turn, torch.tensor([[1.0], [2.0], [3.0]])], dim=1)
    point = torch.tensor([0.5, -0.25, 2.0])
    scene = from_world(point, transform, 0.5)
    assert scene.tolist() == pytest.approx([0.5 * (0.25 + 1), 0.5 * (0.5 + 2), 0.5 * (2 + 3)])
    torch.testing.assert_close(to_world(scene, transform, 0.5), point)
