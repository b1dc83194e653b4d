"""Where rays end, what hides a point, and the chain that follows a point through all times of a clip. Torch only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semflow_nerfstudio.flow.trajectories import Integrator, Velocity, integrate


@dataclass(frozen=True)
class RayProfile:
    """What R rays meet: S samples each, distances along the ray in scene units, directions of length one."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]
    starts: Float[Tensor, "R S"]
    ends: Float[Tensor, "R S"]
    static: Float[Tensor, "R S"]
    """The static field's share of the weights."""
    dynamic: Float[Tensor, "R S"]
    """The movers' share."""

    @property
    def shows_mover(self) -> Bool[Tensor, "R"]:
        """Whether most of what is seen moves."""
        return self.dynamic.sum(-1) > self.static.sum(-1)

    def surface(self) -> Float[Tensor, "R"]:
        """Distance of what is seen: the median of the weights of the mover, or of the static scene, whichever is seen.

        A mean over both would lie in the empty space between them.
        """
        weights = torch.where(self.shows_mover[:, None], self.dynamic, self.static)
        cumulative = weights.cumsum(-1)
        half = cumulative[:, -1:] / 2
        index = (cumulative < half).sum(-1, keepdim=True).clamp(max=weights.shape[-1] - 1)
        here, start, end = (values.gather(1, index) for values in (weights, self.starts, self.ends))
        fraction = ((half - cumulative.gather(1, index) + here) / here.clamp(min=1e-12)).clamp(0, 1)
        return (start + fraction * (end - start))[:, 0]

    def at(self, distances: Float[Tensor, "R"]) -> Float[Tensor, "R 3"]:
        """Points on the rays."""
        return self.origins + self.directions * distances[:, None]

    def light_stopped(self, distances: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
        """Share of the light that is stopped nearer than the given distances."""
        passed = (distances[:, None] - self.starts) / (self.ends - self.starts).clamp(min=1e-12)
        return ((self.static + self.dynamic) * passed.clamp(0, 1)).sum(-1)


def follow(
    velocity: Velocity,
    points: Float[Tensor, "P 3"],
    times: Float[Tensor, "P"],
    targets: Float[Tensor, "T"],
    tau: Tensor | float,
    moving: Bool[Tensor, "P"],
    substeps: int = 1,
    method: Integrator = "midpoint",
) -> Float[Tensor, "P T 3"]:
    """Where points are at all target times: a chain of steps along the flow, forward and backward from their own times.

    Args:
        velocity: The flow field.
        points: Positions at the points' own times.
        times: Those times.
        targets: Ascending times.
        tau: Time step of the velocity.
        moving: Points that move; the others stay where they are.
        substeps: Integration steps from one target time to the next.
        method: Integrator.
    """
    positions = points[:, None].repeat(1, len(targets), 1)
    for order in (range(len(targets)), range(len(targets) - 1, -1, -1)):
        forward = order.step > 0
        state, here = points.clone(), times.clone()
        for k in order:
            due = (here < targets[k] if forward else here > targets[k]).logical_and(moving).nonzero()[:, 0]
            if not len(due):
                continue
            start = here[due, None]
            moved = integrate(velocity, state[due], start, targets[k] - start, tau, substeps, method)
            state[due], here[due], positions[due, k] = moved, targets[k], moved
    return positions


def to_world(points: Float[Tensor, "*batch 3"], transform: Float[Tensor, "3 4"], scale: float) -> Tensor:
    """Points (*batch, 3) in scene units as world points: the inverse of x -> scale (R x + t)."""
    return (points / scale - transform[:, 3]) @ transform[:, :3]


def from_world(points: Float[Tensor, "*batch 3"], transform: Float[Tensor, "3 4"], scale: float) -> Tensor:
    """World points (*batch, 3) in scene units."""
    return scale * (points @ transform[:, :3].T + transform[:, 3])
