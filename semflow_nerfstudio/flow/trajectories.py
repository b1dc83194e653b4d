"""Trajectories: the flow field integrated through a window of times (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Float[Tensor, "P 3"], Float[Tensor, "P 1"]], Float[Tensor, "P 3"]]
"""(points in scene units, times in [0, 1]) -> velocity in scene units per tau."""

Integrator = Literal["euler", "midpoint", "rk4"]


def integrate(
    velocity: Velocity,
    points: Float[Tensor, "P 3"],
    start: Float[Tensor, "P 1"],
    duration: Float[Tensor, "P 1"],
    tau: Tensor | float,
    substeps: int = 1,
    method: Integrator = "midpoint",
) -> Float[Tensor, "P 3"]:
    """Move points along the flow from time `start` for `duration` (negative: backward): dx = v(x, s) ds / tau."""
    h = duration / substeps
    for i in range(substeps):
        s = start + h * i
        k1 = velocity(points, s)
        if method == "euler":
            points = points + h / tau * k1
            continue
        k2 = velocity(points + h / tau / 2 * k1, s + h / 2)
        if method == "midpoint":
            points = points + h / tau * k2
            continue
        k3 = velocity(points + h / tau / 2 * k2, s + h / 2)
        k4 = velocity(points + h / tau * k3, s + h)
        points = points + h / tau / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return points


def trace(
    velocity: Velocity,
    points: Float[Tensor, "R S 3"],
    times: Float[Tensor, "R 1"],
    window_times: Float[Tensor, "R K"],
    center: int,
    tau: Tensor | float,
    at_center: bool,
    substeps: int = 1,
    method: Integrator = "midpoint",
    gaps: Sequence[int] | None = None,
) -> Float[Tensor, "R S K 3"]:
    """Trajectory of points through the window's times.

    Each direction is a chain of links that uses its own state only: from the points' own time to the nearest window
    time after (before) it, and on from there.

    Args:
        velocity: The flow field.
        points: Positions at the rays' own times, in scene units.
        times: Those times.
        window_times: The window's times, ascending along K.
        center: Column of the last window time at or before the rays' times.
        tau: Time step of the velocity.
        at_center: Whether the rays' times are exactly those of that column, which then needs no link.
        substeps: Integration steps from one frame to the next.
        method: Integrator.
        gaps: Frames from each window time to the next; None: one.
    """
    rays, samples, _ = points.shape
    gaps = (1,) * (window_times.shape[1] - 1) if gaps is None else gaps

    def link(state: Tensor, start: Tensor, target: Tensor, frames: int) -> Tensor:
        def per_point(values: Tensor) -> Tensor:
            return values[:, None].expand(rays, samples).reshape(-1, 1)

        moved = integrate(
            velocity, state.reshape(-1, 3), per_point(start), per_point(target - start), tau, frames * substeps, method
        )
        return moved.reshape(rays, samples, 3)

    positions: list[Tensor] = [points] * window_times.shape[1]
    state, here = points, times[:, 0]
    for k in range(center, -1, -1):
        if not (k == center and at_center):
            state = link(state, here, window_times[:, k], 1 if k == center else gaps[k])
        positions[k], here = state, window_times[:, k]
    state, here = points, times[:, 0]
    for k in range(center + 1, window_times.shape[1]):
        state = link(state, here, window_times[:, k], gaps[k - 1])
        positions[k], here = state, window_times[:, k]
    return torch.stack(positions, dim=2)
