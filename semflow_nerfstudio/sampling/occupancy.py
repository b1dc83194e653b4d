"""Occupancy-grid sampling that knows time: empty space gets no samples, and no proposal networks are trained.

The grid lies in the unit cube that the fields live in (so unbounded scenes need no nested grids) and has one layer for
each of a few spans of time. Rays march through it in fixed steps; the samples are drawn where the grid says that light
is stopped. Everything is a fixed number of plain tensor operations: the same code runs on a GPU, where nothing waits
for the host, and on a CPU. (nerfacc's kernels give each ray its own number of samples, know neither time nor
contraction, and need CUDA.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.ray_samplers import PDFSampler
from torch import Tensor, nn

from semflow_nerfstudio.rendering.compositing import field_weights, opacities
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.sampling.collider import set_near_far
from semflow_nerfstudio.sampling.proposal import Proposed, initial_sampler
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene import Scene


@dataclass
class OccupancySamplingConfig(SavedConfig):
    """Occupancy-grid sampling."""

    resolution: int = 48
    """Cells along each axis of the unit cube."""
    time_spans: int = 12
    """Layers of the grid along time, at most one a frame."""
    steps: int = 192
    """Steps of a ray's march."""
    update_every: int = 8
    """Training steps between updates of the grid."""
    cells: int = 65536
    """Cells looked at in an update: half of them anywhere, half of them occupied ones."""
    decay: float = 0.95
    """What a cell's density falls to, each time that it is looked at, where less is found."""
    threshold: float = 0.01
    """Opacity of a cell's width from which it is occupied; the mean of all cells where that is less."""
    explore: float = 0.1
    """Share of a ray's samples that occupied cells get whatever their density and what stands in front of them."""


class OccupancySampling(nn.Module):
    """Samples rays of one scene where a grid of its fields' densities is."""

    density: Tensor
    """Per scene unit, by span of time and cell, (B, r, r, r)."""

    def __init__(self, scene: Scene, config: OccupancySamplingConfig, samples: int) -> None:
        super().__init__()
        if min(config.resolution, config.time_spans, config.steps, config.update_every, config.cells) < 1:
            raise ValueError(
                "occupancy.resolution, .time_spans, .steps, .update_every and .cells must all be at least 1"
            )
        self.config, self.samples = config, samples
        spans, r = min(config.time_spans, len(scene.bank.timeline)), config.resolution
        self.width = cell_width(scene, r)
        # Nothing is known to be empty at the start.
        start = 2 * config.threshold / self.width
        self.register_buffer("density", torch.full((spans, r, r, r), start))
        self.initial = initial_sampler(scene)
        # The default adds a hundredth to every step's weight, most of which are empty.
        self.pdf = PDFSampler(include_original=False, single_jitter=True, histogram_padding=1e-4)
        self._step, self._updated = 0, -1

    def set_step(self, step: int) -> None:
        """Tell the sampler how far training is."""
        self._step = step

    def forward(self, rays: RayBundle, times: Float[Tensor, "R 1"], scene: Scene) -> tuple[Samples, Proposed]:
        """Rays -> samples; the march and its weights take a proposal's place, without gradient."""
        with torch.no_grad():
            if self.training and self._step % self.config.update_every == 0 and self._updated != self._step:
                self.update(scene)
                self._updated = self._step
            rays = set_near_far(rays, scene)
            march = self.initial(rays, num_samples=self.config.steps)
            weights = self.weights(scene, march.frustums.get_positions(), march.deltas[..., 0], times)[..., None]
            final = self.pdf(rays, march, weights, num_samples=self.samples)
        frustums = final.frustums
        samples = Samples(
            origins=rays.origins,
            directions=rays.directions,
            times=times,
            starts=frustums.starts[..., 0],
            ends=frustums.ends[..., 0],
        )
        return samples, Proposed([march, final], [weights])

    def weights(
        self,
        scene: Scene,
        positions: Float[Tensor, "R M 3"],
        deltas: Float[Tensor, "R M"],
        times: Float[Tensor, "R 1"],
    ) -> Float[Tensor, "R M"]:
        """How much of a ray's light each step stops, by the grid, with a share for every occupied cell."""
        density = self.look_up(scene, positions, times)
        occupied = density > self.least_density()
        length = deltas * occupied
        stopped = field_weights(opacities(density * occupied, deltas))
        anywhere = length / length.sum(-1, keepdim=True).clamp(min=1e-8)
        return (1 - self.config.explore) * stopped + self.config.explore * anywhere

    def look_up(
        self, scene: Scene, positions: Float[Tensor, "R M 3"], times: Float[Tensor, "R 1"]
    ) -> Float[Tensor, "R M"]:
        """The grid's density at points; between frames the larger one of where the flow says that they were and will
        be at the frames before and after."""
        between = None if self.training else scene.between_frames(times)
        if between is None:
            return self.at_frames(scene, positions, times)
        before, after = (
            self.at_frames(scene, scene.carried(positions, times, at, iterations=1), at) for at in between[0]
        )
        return torch.maximum(before, after)

    def at_frames(
        self, scene: Scene, positions: Float[Tensor, "R M 3"], times: Float[Tensor, "R 1"]
    ) -> Float[Tensor, "R M"]:
        """The grid's density at points at frame times."""
        spans, r = self.density.shape[:2]
        timeline = scene.bank.timeline
        cell = (scene.space(positions) * r).long().clamp(0, r - 1)
        row = (cell[..., 0] * r + cell[..., 1]) * r + cell[..., 2]
        span = self.span(timeline.index(times).round(), len(timeline))
        return self.density.view(spans, -1)[span.expand_as(row), row]

    def span(self, frame: Float[Tensor, "*batch"], frames: int) -> Int[Tensor, "*batch"]:
        """The span of time that a frame belongs to."""
        return (frame * (len(self.density) / frames)).long().clamp(0, len(self.density) - 1)

    def least_density(self) -> Float[Tensor, ""]:
        """Density from which a cell is occupied."""
        return self.density.mean().clamp(max=self.config.threshold / self.width)

    @torch.no_grad()
    def update(self, scene: Scene) -> None:
        """Look at some cells again, each at a random point and a random frame of its span."""
        flat, r, frames = self.density.view(-1), self.config.resolution, len(scene.bank.timeline)
        count = min(self.config.cells, len(flat))
        order = torch.rand_like(flat)
        occupied = (flat > self.least_density()) & (torch.rand_like(flat) < 0.5)
        cells = (order + occupied).topk(count).indices if count < len(flat) else order.argsort()
        corner = torch.stack([cells // (r * r) % r, cells // r % r, cells % r], dim=-1)
        unit = (corner + torch.rand(count, 3, device=flat.device)) / r
        span = cells // r**3
        first = (span * frames / len(self.density)).ceil()
        last = ((span + 1) * frames / len(self.density)).ceil() - 1
        frame = (first + torch.rand(count, device=flat.device) * (last - first + 1)).floor().clamp(max=frames - 1)
        found = total_density(scene, unit, frame[:, None] / max(1, frames - 1))
        flat[cells] = torch.maximum(flat[cells] * self.config.decay, found)


def total_density(scene: Scene, unit: Float[Tensor, "P 3"], grid_times: Float[Tensor, "P 1"]) -> Float[Tensor, "P"]:
    """Density of both fields together at points in the unit cube."""
    directions = torch.zeros_like(unit)
    directions[:, 2] = 1.0
    static, dynamic = scene.static_field(unit, directions), scene.dynamic_field(unit, grid_times, directions)
    return torch.lerp(static.density, dynamic.density, dynamic.blend)


def cell_width(scene: Scene, resolution: int) -> float:
    """Scene units along a cell's edge, the mean of the axes, in the scene's box."""
    edge = float((scene.space.aabb[1] - scene.space.aabb[0]).mean()) / resolution
    return edge if scene.bounded else 2 * edge
