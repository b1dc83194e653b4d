"""Which losses a batch gives, and that together they train everything."""

from dataclasses import fields, replace

import pytest
import torch
from builders import NUM_CLASSES, TIMES, arc_cameras, random_samples, random_scene
from nerfstudio.cameras.rays import RayBundle

from semflow_nerfstudio.renderer import RenderConfig, Rendered, render_rays
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.sampling.proposal import ProposalSampling, ProposalSamplingConfig, proposal_losses
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.shared import SharedNetworks
from semflow_nerfstudio.training.objective import LossWeights, Observed, dynamic_losses, observe, static_losses

EVERYTHING = LossWeights(depth_guided_blend=0.1)
CONFIG = RenderConfig()
RAYS = 6 * len(TIMES)
FRAMES = torch.arange(len(TIMES)).repeat_interleave(6)


def random_observed(frames: torch.Tensor = FRAMES) -> Observed:
    """Everything that can be known about rays of these frames, at random."""
    generator, rays = torch.Generator().manual_seed(0), len(frames)

    def flow() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(rays, 2, generator=generator) * 0.02, torch.rand(rays, generator=generator) > 0.2

    return Observed(
        image=torch.rand(rays, 3, generator=generator),
        pixel=torch.rand(rays, 2, generator=generator),
        frame=frames,
        z_ratio=1 + 0.1 * torch.rand(rays, generator=generator),
        labels=torch.randint(0, NUM_CLASSES, (rays,), generator=generator, dtype=torch.uint8),
        motion=torch.randint(0, 2, (rays,), generator=generator, dtype=torch.uint8),
        flow=flow(),
        flow_backward=flow(),
        inverse_depth=1 / (1.8 + torch.rand(rays, generator=generator)),
    )


def rendered(samples: Samples | None = None, static_only: bool = False) -> tuple[Scene, SharedNetworks, Rendered]:
    scene, shared = random_scene()
    samples = samples or random_samples(torch.tensor(TIMES)[FRAMES])
    maps = shared.encode(scene.bank)
    return scene, shared, render_rays(scene, shared, samples, CONFIG, maps, static_only=static_only, training=True)


@pytest.mark.parametrize("direction", [-1, 1])
def test_every_parameter_learns(direction: int) -> None:
    """From what is sampled where the proposals say, all losses together reach every weight of scene and networks."""
    scene, shared = random_scene()
    rays = random_samples(torch.tensor(TIMES)[FRAMES])
    sampler = ProposalSampling(scene, ProposalSamplingConfig(proposal_samples=(16,), samples=12))
    sampler.set_step(0)
    bundle = RayBundle(origins=rays.origins, directions=rays.directions, pixel_area=torch.ones(RAYS, 1))
    samples, proposed = sampler(bundle, rays.times, scene)
    out = render_rays(scene, shared, samples, CONFIG, shared.encode(scene.bank), training=True)
    losses = dynamic_losses(scene, out, random_observed(), EVERYTHING, CONFIG, direction, RAYS)
    losses["interlevel"], losses["distortion"] = proposal_losses(proposed, out.weights.total)
    assert all(loss.isfinite() and loss.item() >= 0 for loss in losses.values())
    sum(losses.values(), torch.zeros(())).backward()
    parameters = [*scene.named_parameters(), *shared.named_parameters()]
    assert [name for name, p in parameters if p.grad is None or not p.grad.isfinite().all()] == []
    assert [name for name, p in parameters if p.grad is not None and p.grad.abs().max() == 0] == []


NOT_TERMS_HERE = ("proposal", "proposal_line_of_sight", "distortion", "flow_robust_scale", "line_of_sight_tolerance")
"""Settings, and weights of the sampling's own losses."""


@pytest.mark.parametrize("term", [f.name for f in fields(LossWeights) if f.name not in NOT_TERMS_HERE])
def test_every_term_has_a_weight_that_counts(term: str) -> None:
    """Doubling a weight doubles its term and nothing else; 0 leaves nothing of it."""
    frames = torch.zeros(80, dtype=torch.long) if term == "depth" else FRAMES
    scene, _, out = rendered(random_samples(torch.tensor(TIMES)[frames]))
    seen = random_observed(frames)
    if term == "depth":  # the stand-in for disparity that could not be aligned
        seen = replace(seen, inverse_depth=None, disparity=torch.rand(80))

    def terms(weights: LossWeights) -> dict[str, float]:
        torch.manual_seed(0)
        return {k: v.item() for k, v in dynamic_losses(scene, out, seen, weights, CONFIG, 1, len(seen.image)).items()}

    single = {f.name: 0.0 for f in fields(LossWeights)} | {"line_of_sight_tolerance": 0.02}
    one, two = terms(LossWeights(**(single | {term: 1.0}))), terms(LossWeights(**(single | {term: 2.0})))
    changed = [name for name in one if one[name] != 0]
    assert len(changed) == 1, changed
    assert two[changed[0]] == pytest.approx(2 * one[changed[0]], rel=1e-5)
    assert sum(terms(LossWeights(**single)).values()) == 0


@pytest.mark.parametrize("missing", ["labels", "motion", "flow", "flow_backward", "inverse_depth", "all"])
def test_missing_modalities_leave_their_terms_out(missing: str) -> None:
    scene, _, out = rendered()
    everything = ("labels", "motion", "flow", "flow_backward", "inverse_depth")
    gone = everything if missing == "all" else (missing,)
    losses = dynamic_losses(
        scene,
        out,
        replace(random_observed(), **dict.fromkeys(gone)),
        EVERYTHING,
        CONFIG,
        1,
        RAYS,  # type: ignore[arg-type]
    )
    assert all(loss.isfinite() for loss in losses.values())
    if "labels" in gone:
        assert not {"semantic", "static_semantic", "dynamic_semantic", "consistency"} & set(losses)
    if "motion" in gone:
        assert not {"blend_static", "dynamicness"} & set(losses)
    if "inverse_depth" in gone:
        assert not {"line_of_sight", "line_of_sight_static", "depth_guided_blend"} & set(losses)
    assert ("optical_flow" in losses) == (missing != "all")


def test_unknown_pixels_say_nothing() -> None:
    """Labels and motion unknown, flow masked out, depth NaN: only what needs none of them is left."""
    scene, _, out = rendered()
    seen = random_observed()
    assert seen.flow is not None and seen.flow_backward is not None and seen.labels is not None
    unknown = torch.full_like(seen.labels, IGNORE_LABEL)
    nowhere = torch.zeros(RAYS, dtype=torch.bool)
    blind = replace(
        seen,
        labels=unknown,
        motion=unknown,
        flow=(seen.flow[0], nowhere),
        flow_backward=(seen.flow_backward[0], nowhere),
        inverse_depth=torch.full((RAYS,), float("nan")),
    )
    losses = dynamic_losses(scene, out, blind, EVERYTHING, CONFIG, 1, RAYS)
    left = {name for name, loss in losses.items() if loss.item() != 0}
    assert left == {"color", "blend_prior", "sparsity", "flow_smooth", "flow_magnitude", "flow_cycle"}


def test_static_stage_trains_on_what_does_not_move() -> None:
    scene, _, out = rendered(static_only=True)
    seen = random_observed()
    moving = (seen.motion == 1).nonzero()[:, 0]
    losses = static_losses(out, seen, EVERYTHING)
    sum(losses.values(), torch.zeros(())).backward()
    assert {"color", "semantic", "line_of_sight_static"} <= set(losses)
    assert len(moving) > 0 and scene.static_field.grid.table.grad is not None
    changed = replace(seen, image=seen.image.clone(), labels=seen.labels.clone())  # type: ignore[union-attr]
    changed.image[moving] = 1 - changed.image[moving]
    changed.labels[moving] = 0  # type: ignore[index]
    again = static_losses(out, changed, EVERYTHING)
    for name in ("color", "semantic", "line_of_sight_static"):
        assert torch.equal(losses[name], again[name])


def test_observed_flow_and_pixels_are_shares_of_the_width() -> None:
    indices = torch.tensor([[4, 2, 3], [5, 0, 7]])
    batch = {
        "indices": indices,
        "image": torch.tensor([[0, 51, 255], [255, 0, 0]], dtype=torch.uint8),
        "image_width": torch.tensor([10.0, 20.0])[:, None],
        "labels": torch.tensor([[1], [255]], dtype=torch.uint8),
        "flow_forward": torch.tensor([[1.0, -2.0], [4.0, 0.0]], dtype=torch.float16),
        "flow_forward_mask": torch.tensor([[True], [False]]),
    }
    seen = observe(batch, None, torch.tensor([[1.0], [1.5]]), 4, torch.device("cpu"))
    torch.testing.assert_close(seen.image[0], torch.tensor([0.0, 0.2, 1.0]))
    torch.testing.assert_close(seen.pixel, torch.tensor([[0.35, 0.25], [0.375, 0.025]]))
    assert seen.frame.tolist() == [0, 1] and seen.z_ratio.tolist() == [1, 1.5]
    assert seen.labels is not None and seen.labels.tolist() == [1, 255]
    assert seen.flow is not None and seen.flow_backward is None and seen.motion is None
    torch.testing.assert_close(seen.flow[0], torch.tensor([[0.1, -0.2], [0.2, 0.0]]))
    one = observe(batch, torch.tensor([1]), torch.tensor([[1.5]]), 4, torch.device("cpu"))
    assert one.frame.tolist() == [1] and one.labels is not None and one.labels.tolist() == [255]


def test_exact_flow_of_a_static_scene_costs_nothing() -> None:
    """Where nothing moves, the given flow is that of the cameras: induced flow agrees to a hundredth of a pixel."""
    scene, _ = random_scene()
    with torch.no_grad():
        for parameter in scene.flow_field.parameters():
            parameter.zero_()
    cameras = arc_cameras(len(TIMES))
    samples = random_samples(torch.tensor(TIMES)[FRAMES])
    out = render_rays(scene, None, samples, CONFIG, training=True)
    total = out.weights.total / out.weights.total.sum(-1, keepdim=True)
    points = (total[..., None] * samples.positions).sum(1)
    here, _ = cameras.project(points, FRAMES)
    there, _ = cameras.project(points, (FRAMES + 1).clamp(max=3))
    known = torch.ones(RAYS, dtype=torch.bool)
    seen = Observed(torch.rand(RAYS, 3), here / cameras.width, FRAMES, torch.ones(RAYS))
    seen.flow = ((there - here) / cameras.width, known)
    loss = dynamic_losses(scene, out, seen, LossWeights(optical_flow=1.0), CONFIG, 1, RAYS)["optical_flow"]
    assert loss.item() < 0.01
    seen.flow = ((there - here) / cameras.width + 1 / 480, known)
    loss = dynamic_losses(scene, out, seen, LossWeights(optical_flow=1.0), CONFIG, 1, RAYS)["optical_flow"]
    assert loss.item() == pytest.approx(2, abs=0.02)
