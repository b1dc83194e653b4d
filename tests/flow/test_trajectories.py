"""Trajectories through a window of times."""

import math

import pytest
import torch
from torch import Tensor

from semflow_nerfstudio.flow.trajectories import Integrator, integrate, trace

METHODS: tuple[Integrator, ...] = ("euler", "midpoint", "rk4")
TAU = 0.25
POINTS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def constant(points: Tensor, times: Tensor) -> Tensor:
    """One unit along x and two along y per tau."""
    return points.new_tensor([1.0, 2.0, 0.0]).expand_as(points)


def rotating(points: Tensor, times: Tensor) -> Tensor:
    """Turns about z by 0.8 radians per tau, faster as time goes."""
    rate = 0.8 * (1 + times)
    return torch.cat([-points[:, 1:2] * rate, points[:, :1] * rate, torch.zeros_like(rate)], dim=-1)


def turned(points: Tensor, start: float, end: float) -> Tensor:
    """Where `rotating` really takes points."""
    angle = 0.8 / TAU * ((end + end**2 / 2) - (start + start**2 / 2))
    c, s = math.cos(angle), math.sin(angle)
    return points @ points.new_tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def column(value: float, like: Tensor = POINTS) -> Tensor:
    return torch.full((len(like), 1), value, dtype=like.dtype)


@pytest.mark.parametrize("method", METHODS)
def test_velocity_is_per_tau(method: Integrator) -> None:
    moved = integrate(constant, POINTS, column(0.1), column(0.5), TAU, 3, method)
    torch.testing.assert_close(moved - POINTS, POINTS.new_tensor([2.0, 4.0, 0.0]).expand_as(POINTS))


@pytest.mark.parametrize("method", METHODS)
def test_constant_flow_forward_then_backward_returns(method: Integrator) -> None:
    there = integrate(constant, POINTS, column(0.1), column(0.3), TAU, 2, method)
    back = integrate(constant, there, column(0.4), column(-0.3), TAU, 2, method)
    torch.testing.assert_close(back, POINTS)


def round_trip_error(method: Integrator, substeps: int) -> float:
    there = integrate(rotating, POINTS, column(0.1), column(TAU), TAU, substeps, method)
    back = integrate(rotating, there, column(0.1 + TAU), column(-TAU), TAU, substeps, method)
    return (back - POINTS).abs().max().item()


def test_rotating_flow_forward_then_backward_returns() -> None:
    errors = [round_trip_error(method, 4) for method in METHODS]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-4 and round_trip_error("rk4", 16) < 1e-7


@pytest.mark.parametrize("method, order", [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_accuracy(method: Integrator, order: int) -> None:
    exact = turned(POINTS, 0.1, 0.1 + TAU)
    errors = [
        (integrate(rotating, POINTS, column(0.1), column(TAU), TAU, n, method) - exact).abs().max().item()
        for n in (4, 8)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


WINDOW = torch.tensor([[0.0, 0.1, 0.5, 0.6], [0.1, 0.5, 0.6, 1.0]], dtype=torch.float64)
RAY_POINTS = POINTS.reshape(2, 3, 3)


def test_trajectory_visits_the_windows_uneven_times() -> None:
    times = torch.tensor([[0.2], [0.55]], dtype=torch.float64)
    path = trace(rotating, RAY_POINTS, times, WINDOW, 1, TAU, False, 32, "rk4")
    assert path.shape == (2, 3, 4, 3)
    for ray in range(2):
        for k in range(4):
            exact = turned(RAY_POINTS[ray], times[ray].item(), WINDOW[ray, k].item())
            torch.testing.assert_close(path[ray, :, k], exact, atol=1e-5, rtol=0)


def test_point_itself_is_at_the_center_of_a_frames_window() -> None:
    times = WINDOW[:, 1:2]
    path = trace(rotating, RAY_POINTS, times, WINDOW[:, :3], 1, TAU, True)
    assert torch.equal(path[:, :, 1], RAY_POINTS)
    assert (path[:, :, 0] - RAY_POINTS).abs().min(-1).values.max() < 1e-12  # z does not turn
    assert (path[:, :, 0] - path[:, :, 2]).abs().max() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_each_direction_uses_its_own_state_only(method: Integrator) -> None:
    def nan_before(points: Tensor, times: Tensor) -> Tensor:
        return rotating(points, times).where(times >= 0.5 - 1e-9, torch.nan)

    def nan_after(points: Tensor, times: Tensor) -> Tensor:
        return rotating(points, times).where(times <= 0.5 + 1e-9, torch.nan)

    times, window = torch.full((2, 1), 0.5, dtype=torch.float64), WINDOW.new_tensor([[0.1, 0.5, 0.6]]).expand(2, 3)
    forward = trace(nan_before, RAY_POINTS, times, window, 1, TAU, True, 2, method)
    backward = trace(nan_after, RAY_POINTS, times, window, 1, TAU, True, 2, method)
    assert forward[:, :, 1:].isfinite().all() and forward[:, :, 0].isnan().any()
    assert backward[:, :, :2].isfinite().all() and backward[:, :, 2].isnan().any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shift", [-1e-6, 1e-6])
def test_path_between_frames_joins_the_path_at_the_frame(method: Integrator, shift: float) -> None:
    """Just before frame 2 the window is [0, 1, 2, 3] around column 1, just after it [1, 2, 3, 4]; at it [1, 2, 3]."""
    frames = WINDOW.new_tensor([0.0, 0.1, 0.5, 0.6, 1.0])
    exact = trace(rotating, RAY_POINTS, frames[2].expand(2, 1), frames[1:4].expand(2, 3), 1, TAU, True, 1, method)
    first = 0 if shift < 0 else 1
    window = frames[first : first + 4].expand(2, 4)
    near = trace(rotating, RAY_POINTS, (frames[2] + shift).expand(2, 1), window, 1, TAU, False, 1, method)
    torch.testing.assert_close(near[:, :, 1 - first : 4 - first], exact, atol=1e-4, rtol=0)


def test_times_that_do_not_exist_do_not_move_points() -> None:
    times, window = torch.zeros(2, 1, dtype=torch.float64), WINDOW.new_tensor([[0.0, 0.0, 0.1]]).expand(2, 3)
    path = trace(rotating, RAY_POINTS, times, window, 1, TAU, True)
    torch.testing.assert_close(path[:, :, 0], RAY_POINTS)


def test_gradients_reach_velocity_and_points() -> None:
    speed = torch.ones(3, dtype=torch.float64, requires_grad=True)
    points = RAY_POINTS.clone().requires_grad_()
    trace(
        lambda p, t: speed * p, points, torch.full((2, 1), 0.2, dtype=torch.float64), WINDOW, 1, TAU, False
    ).sum().backward()
    assert speed.grad is not None and points.grad is not None
    assert speed.grad.abs().min() > 0 and points.grad.abs().min() > 0


def test_long_links_take_as_many_steps_as_there_are_frames() -> None:
    times = torch.full((2, 1), 0.3, dtype=torch.float64)
    window = WINDOW.new_tensor([[0.0, 0.3, 0.5, 1.1]]).expand(2, 4)
    calls: list[float] = []

    def counted(points: Tensor, at: Tensor) -> Tensor:
        calls.append(at[0, 0].item())
        return rotating(points, at)

    path = trace(counted, RAY_POINTS, times, window, 1, TAU, True, 2, "euler", gaps=(3, 2, 5))
    assert len(calls) == 2 * (3 + 2 + 5)
    start = RAY_POINTS.reshape(-1, 3)
    back = integrate(rotating, start, column(0.3), column(-0.3), TAU, 6, "euler")
    torch.testing.assert_close(path[:, :, 0].reshape(-1, 3), back)
