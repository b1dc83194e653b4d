"""Whether a point is seen from a camera: the light that densities leave between them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Density = Callable[[Float[Tensor, "P n 3"], Float[Tensor, "P 1"]], Float[Tensor, "P n"]]
"""(positions in scene units, one time in [0, 1] for each of P segments) -> density per scene unit."""

MARGIN = 0.05
"""Share of the way before the point that is left out: it belongs to the surface that the point lies on."""


@torch.no_grad()
def transmittance(
    density: Density,
    origins: Float[Tensor, "P 3"],
    points: Float[Tensor, "P 3"],
    times: Float[Tensor, "P 1"],
    samples: int,
) -> Float[Tensor, "P"]:
    """Share of the light that gets from points to origins, exp(-sum_i sigma_i delta), by the midpoint rule.

    Args:
        density: Of everything there is, static and moving.
        origins: Camera centres.
        points: What may be seen.
        times: When.
        samples: Evenly spaced samples of the way, but for its last twentieth.
    """
    way = (points - origins) * (1 - MARGIN)
    share = (torch.arange(samples, device=points.device) + 0.5) / samples
    positions = origins[:, None] + way[:, None] * share[:, None]
    step = way.norm(dim=-1, keepdim=True) / samples
    return torch.exp(-(density(positions, times) * step).sum(-1))
