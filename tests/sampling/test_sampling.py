"""Where rays are sampled."""

import pytest
import torch
from builders import random_samples, random_scene
from nerfstudio.cameras.rays import Frustums, RayBundle, RaySamples
from nerfstudio.model_components.losses import lossfun_distortion

from semflow_nerfstudio.renderer import RenderConfig, render_rays
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.sampling import occupancy
from semflow_nerfstudio.sampling.collider import FAR_PLANE, NEAR_PLANE, intersect_box, set_near_far
from semflow_nerfstudio.sampling.occupancy import OccupancySampling, OccupancySamplingConfig
from semflow_nerfstudio.sampling.proposal import (
    ProposalSampling,
    ProposalSamplingConfig,
    Proposed,
    distortion_loss,
    proposal_losses,
)

CONFIG = ProposalSamplingConfig(proposal_samples=(24,), samples=10)
BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def bundle(times: torch.Tensor) -> RayBundle:
    rays = random_samples(times)
    return RayBundle(origins=rays.origins, directions=rays.directions, pixel_area=torch.ones(len(times), 1))


def test_box_is_entered_and_left_where_it_is() -> None:
    origins = torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, 0.0], [-3.0, 0.5, 0.0], [0.0, 5.0, 3.0]])
    directions = torch.tensor([[0.0, 0.0, -1.0], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    near, far = intersect_box(origins, directions, BOX)
    torch.testing.assert_close(near[:3, 0], torch.tensor([2.0, NEAR_PLANE, 2.0]))
    torch.testing.assert_close(far[:3, 0], torch.tensor([4.0, 1.25, 4.0]))
    assert 0 < (far - near)[3].item() < 0.01  # misses the box


def test_near_and_far_come_from_the_scene() -> None:
    scene, _ = random_scene()
    rays = set_near_far(bundle(torch.zeros(3)), scene)
    assert rays.nears is not None and rays.nears.unique().tolist() == [pytest.approx(scene.near)]
    scene.near = scene.far = None
    rays = set_near_far(bundle(torch.zeros(3)), scene)
    assert rays.nears is not None and rays.fars is not None
    near, far = intersect_box(rays.origins, rays.directions, scene.space.aabb)
    assert torch.equal(rays.nears, near) and torch.equal(rays.fars, far)
    scene.bounded = False
    rays = set_near_far(bundle(torch.zeros(3)), scene)
    assert rays.fars is not None and rays.fars.unique().tolist() == [FAR_PLANE]


def test_free_cameras_see_what_the_nearest_training_camera_sees() -> None:
    scene, _ = random_scene()
    pose = scene.bank.camera_to_worlds[0]
    view = -pose[:, 2]
    origins = torch.stack([pose[:, 3], pose[:, 3] - 0.5 * view, pose[:, 3] + 0.5 * view, pose[:, 3] - 0.5 * view])
    directions = torch.stack([view, view, view, -view])
    assert scene.near is not None and scene.far is not None

    def space() -> tuple[list[float], list[float]]:
        rays = RayBundle(origins=origins, directions=directions, pixel_area=torch.ones(4, 1))
        cut = set_near_far(rays, scene)
        assert cut.nears is not None and cut.fars is not None
        return cut.nears[:, 0].tolist(), cut.fars[:, 0].tolist()

    assert space() == (pytest.approx([scene.near] * 4), pytest.approx([scene.far] * 4)), "training looks nowhere else"
    scene.eval()
    near, far = space()
    assert near == pytest.approx([scene.near, scene.near + 0.5, scene.near - 0.5, scene.near - 0.5])
    assert far == pytest.approx([scene.far, scene.far + 0.5, scene.far - 0.5, scene.far + 0.5])


def test_crops_are_cut_to_the_scene() -> None:
    """nerfstudio says 1e10 for rays that miss the box, 0 where a camera stands in it."""
    scene, _ = random_scene()
    rays = bundle(torch.zeros(3))
    rays.nears = torch.tensor([[2.0], [0.0], [1e10]])
    rays.fars = torch.tensor([[9.0], [2.5], [1e10]])
    cut = set_near_far(rays, scene)
    assert cut.nears is not None and cut.fars is not None
    torch.testing.assert_close(cut.nears[:, 0], torch.tensor([2.0, 1.6, 3.4]))
    torch.testing.assert_close(cut.fars[:, 0], torch.tensor([3.4, 2.5, 3.4]))
    samples, _ = ProposalSampling(scene, CONFIG).eval()(rays, torch.zeros(3, 1), scene)
    assert samples.positions.isfinite().all() and not samples.deltas[2].any()


def test_samples_follow_one_another_between_near_and_far() -> None:
    scene, _ = random_scene()
    times = torch.linspace(0, 1, 8)[:, None]
    sampler = ProposalSampling(scene, CONFIG).eval()
    samples, _ = sampler(bundle(times[:, 0]), times, scene)
    assert samples.starts.shape == (8, 10) and torch.equal(samples.times, times)
    assert (samples.deltas > 0).all()
    torch.testing.assert_close(samples.ends[:, :-1], samples.starts[:, 1:])
    assert samples.starts.min() >= 1.6 - 1e-5 and samples.ends.max() <= 3.4 + 1e-5
    again, _ = sampler(bundle(times[:, 0]), times, scene)
    assert torch.equal(samples.starts, again.starts)


def test_samples_are_where_the_density_is_at_their_time() -> None:
    """A wall at z = 0 before t = .5 and at z = -.5 after it."""
    scene, _ = random_scene()

    def density(level: int, positions: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        wall = torch.where(times < 0.5, 0.0, -0.5)[:, None]
        return 50.0 * ((positions[..., 2:] - wall).abs() < 0.15)

    scene.proposal_density = density  # type: ignore[method-assign]
    times = torch.tensor([[0.0], [1.0]])
    sampler = ProposalSampling(scene, ProposalSamplingConfig(proposal_samples=(128,), samples=32)).eval()
    rays = random_samples(torch.zeros(1)).rays(torch.tensor([0, 0]))
    same = RayBundle(origins=rays.origins, directions=rays.directions, pixel_area=torch.ones(2, 1))
    samples, _ = sampler(same, times, scene)
    height = samples.positions[..., 2].median(dim=1).values
    torch.testing.assert_close(height, torch.tensor([0.1, -0.4]), atol=0.1, rtol=0)


def test_proposals_learn_from_the_interlevel_loss() -> None:
    scene, _ = random_scene()
    times = torch.rand(8, 1)
    sampler = ProposalSampling(scene, CONFIG)
    sampler.set_step(0)
    samples, proposed = sampler(bundle(times[:, 0]), times, scene)
    weights = torch.zeros_like(samples.starts)
    weights[:, 3] = 1.0
    interlevel, distortion = proposal_losses(proposed, weights)
    assert interlevel.item() > 0 and distortion.item() >= 0
    interlevel.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in scene.proposal_fields.parameters())


def histogram(edges: list[float]) -> RaySamples:
    """Intervals of one ray."""
    starts, ends = torch.tensor(edges[:-1])[None, :, None], torch.tensor(edges[1:])[None, :, None]
    where = Frustums(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), starts, ends, torch.ones(1, 1, 1))
    return RaySamples(frustums=where, spacing_starts=starts, spacing_ends=ends)


def test_proposals_have_to_enclose_the_weights() -> None:
    """Interlevel: mean of max(0, w - what is proposed where it lies)^2 / w; an enclosing proposal costs nothing."""

    def cost(proposed: list[float], weights: list[float]) -> float:
        given = torch.tensor(proposed)[None, :, None].requires_grad_()
        every = [histogram([0.0, 0.5, 1.0]), histogram([0.1, 0.4, 0.9])]  # the second one reaches into both
        return proposal_losses(Proposed(every, [given]), torch.tensor([weights]))[0].item()

    assert cost([0.25, 0.75], [0.5, 0.5]) == pytest.approx((0.25**2 / 0.5 + 0) / 2, rel=1e-5)
    assert cost([0.4, 0.6], [0.5, 0.5]) < cost([0.25, 0.75], [0.5, 0.5])
    assert cost([0.5, 0.5], [0.5, 0.5]) == cost([0.9, 0.1], [0.5, 0.5]) == 0


def test_distortion_by_hand() -> None:
    """2 w_1 w_2 |m_1 - m_2| + (w_1^2 s_1 + w_2^2 s_2) / 3; what is nearer together costs less."""
    edges, weights = torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[0.5, 0.25]])
    loss = distortion_loss(edges, weights).item()
    assert loss == pytest.approx(2 * 0.5 * 0.25 * 1.5 + (0.25 * 1 + 0.0625 * 2) / 3)
    assert distortion_loss(edges, torch.tensor([[0.75, 0.0]])).item() < loss
    assert distortion_loss(edges / 2, weights).item() < loss


def test_as_many_passes_as_proposal_fields() -> None:
    scene, _ = random_scene()
    with pytest.raises(ValueError, match="2 entries for 1 proposal fields"):
        ProposalSampling(scene, ProposalSamplingConfig(proposal_samples=(64, 32)))


def test_distortion_is_nerfstudios() -> None:
    edges = torch.rand(9, 65).sort(dim=-1).values
    weights = (torch.rand(9, 64) / 40).requires_grad_()
    plain, fast = lossfun_distortion(edges, weights).mean(), distortion_loss(edges, weights)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-7)
    slopes = [torch.autograd.grad(loss, weights)[0] for loss in (fast, plain)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------- occupancy grid


def grid(scene, updates: int = 3, samples: int = 32, **options) -> OccupancySampling:
    """A grid all of whose cells have been looked at a few times."""
    settings = {"resolution": 12, "steps": 128, "cells": 10**6, "decay": 0.0, **options}
    sampler = OccupancySampling(scene, OccupancySamplingConfig(**settings), samples)
    for _ in range(updates):
        sampler.update(scene)
    return sampler.eval()


def walls(scene, unit: torch.Tensor, grid_times: torch.Tensor) -> torch.Tensor:
    """A wall at z = .5 before the middle of the clip and at z = -.5 after it."""
    height = torch.where(grid_times[:, 0] < 0.5, 0.5, -0.5)
    return 50.0 * ((unit[:, 2] * 2 - 1 - height).abs() < 0.1)


def test_occupied_space_gets_the_samples_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "total_density", walls)
    scene, _ = random_scene()
    for parameter in scene.flow_field.parameters():  # between frames it follows the flow: these walls do not move
        torch.nn.init.zeros_(parameter)
    sampler = grid(scene, updates=30, decay=0.9)
    times = torch.tensor([[0.0], [1.0]])
    rays = random_samples(torch.zeros(1)).rays(torch.tensor([0, 0]))
    same = RayBundle(origins=rays.origins, directions=rays.directions, pixel_area=torch.ones(2, 1))
    samples, proposed = sampler(same, times, scene)
    assert samples.starts.shape == (2, 32) and (samples.deltas >= 0).all()
    assert not any(weights.requires_grad for weights in proposed.weights)
    height = samples.positions[..., 2]
    torch.testing.assert_close(height.median(dim=1).values, torch.tensor([0.5, -0.5]), atol=0.2, rtol=0)
    # Between two frames it looks where something is at either of them: here, frames 1 and 2 of 4.
    half = torch.full((2, 1), 0.4)
    seen = sampler.look_up(scene, samples.positions, half) > sampler.least_density()
    assert seen.float().mean() > 0.9


def test_empty_rays_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "total_density", lambda scene, unit, times: torch.zeros(len(unit)))
    scene, _ = random_scene()
    samples, _ = grid(scene)(bundle(torch.zeros(3)), torch.zeros(3, 1), scene)
    assert samples.positions.isfinite().all() and (samples.deltas > 0).all()
    assert samples.deltas.max() < 5 * samples.deltas.min()


def test_grid_forgets_what_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = random_scene()
    sampler = OccupancySampling(scene, OccupancySamplingConfig(resolution=6, cells=10**6, decay=0.5), 8)
    before = sampler.density.clone()
    monkeypatch.setattr(occupancy, "total_density", lambda scene, unit, times: torch.zeros(len(unit)))
    sampler.update(scene)
    torch.testing.assert_close(sampler.density, before / 2)
    monkeypatch.setattr(occupancy, "total_density", lambda scene, unit, times: torch.full((len(unit),), 7.0))
    sampler.update(scene)
    assert (sampler.density == 7).all()


def test_grid_is_updated_now_and_then_while_training(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(OccupancySampling, "update", lambda self, scene: steps.append(self._step))
    scene, _ = random_scene()
    sampler = OccupancySampling(scene, OccupancySamplingConfig(resolution=6, steps=8, update_every=3), 8)
    for step in range(7):
        sampler.set_step(step)
        sampler(bundle(torch.zeros(2)), torch.zeros(2, 1), scene)
    sampler.eval()(bundle(torch.zeros(2)), torch.zeros(2, 1), scene)
    assert steps == [0, 3, 6]


@pytest.mark.parametrize("bounded", [True, False])
def test_renders_what_proposals_render(bounded: bool) -> None:
    """Colours of either sampler against many evenly spaced samples."""
    scene, _ = random_scene()
    scene.space.bounded = scene.bounded = bounded
    times = torch.linspace(0, 1, 16)[:, None]
    rays = bundle(times[:, 0])
    edges = torch.linspace(1.6, 3.4, 513).expand(16, -1)
    even = Samples(rays.origins, rays.directions, times, edges[:, :-1], edges[:, 1:])
    config = RenderConfig()
    exact = render_rays(scene, None, even, config).rgb
    proposal = ProposalSampling(scene, ProposalSamplingConfig(proposal_samples=(128,), samples=64)).eval()
    for sampler in (proposal, grid(scene, samples=64)):
        samples, _ = sampler(rays, times, scene)
        found = render_rays(scene, None, samples, config).rgb
        assert (found - exact).abs().max() < 0.05 and (found - exact).abs().mean() < 0.01


def test_impossible_grids_are_refused() -> None:
    scene, _ = random_scene()
    with pytest.raises(ValueError, match="at least 1"):
        OccupancySampling(scene, OccupancySamplingConfig(resolution=0), 8)
