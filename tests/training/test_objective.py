"""Which losses a batch gives, and that together they train everything."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from builders import HEIGHT, NUM_CLASSES, TIMES, WIDTH, arc_cameras, random_samples, random_scene
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from semflow_nerfstudio.rendered import Rendered
from semflow_nerfstudio.renderer import RenderConfig, render_rays
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.sampling.proposal import ProposalSampling, ProposalSamplingConfig, proposal_losses
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.shared import SharedNetworks
from semflow_nerfstudio.training.backgrounds import random_background
from semflow_nerfstudio.training.objective import (
    FLOW_WIDTH,
    LossWeights,
    dynamic_losses,
    forward_and_back,
    gap_in_taus,
    static_losses,
)
from semflow_nerfstudio.training.observed import Observed, given_distance, left_out, observe

EVERYTHING = LossWeights(
    depth_guided_blend=0.1, depth_everywhere=0.1, advected_blend_static=0.1, advected_dynamicness=0.1
)
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
        aspect=torch.full((rays,), HEIGHT / WIDTH),
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
    out = render_rays(scene, shared, samples, CONFIG, maps, static_only=static_only, shared_alone=True, training=True)
    return scene, shared, out


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


TOLERANCES = {"hidden_margin": 0.1, "line_of_sight_tolerance": 0.02, "surface_tolerance": 0.03, "rigidity_radius": 0.5}
NOT_TERMS_HERE = ("proposal", "proposal_surface", "distortion", "silhouette", "flow_robust_scale", *TOLERANCES)
"""Settings, and weights of the model's own losses."""


@pytest.mark.parametrize("term", [f.name for f in fields(LossWeights) if f.name not in NOT_TERMS_HERE])
def test_every_term_has_a_weight_that_counts(term: str) -> None:
    """Doubling a weight doubles its term and nothing else; 0 leaves nothing of it."""
    frames = torch.zeros(80, dtype=torch.long) if term.startswith("depth_e") or term == "depth" else FRAMES
    scene, _, out = rendered(random_samples(torch.tensor(TIMES)[frames]))
    seen = random_observed(frames)
    if term == "depth":  # the stand-in for disparity that could not be aligned
        seen = replace(seen, inverse_depth=None, disparity=torch.rand(80))

    def terms(weights: LossWeights) -> dict[str, float]:
        torch.manual_seed(0)
        return {k: v.item() for k, v in dynamic_losses(scene, out, seen, weights, CONFIG, 1, len(seen.image)).items()}

    single = {f.name: 0.0 for f in fields(LossWeights)} | TOLERANCES
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
        assert not {"surface", "line_of_sight_static", "depth_guided_blend"} & set(losses)
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
    losses = static_losses(scene, out, seen, EVERYTHING)
    sum(losses.values(), torch.zeros(())).backward()
    assert {"color", "semantic", "line_of_sight_static"} <= set(losses)
    assert len(moving) > 0 and scene.static_field.grid.table.grad is not None
    changed = replace(seen, image=seen.image.clone(), labels=seen.labels.clone())  # type: ignore[union-attr]
    changed.image[moving] = 1 - changed.image[moving]
    changed.labels[moving] = 0  # type: ignore[index]
    again = static_losses(scene, out, changed, EVERYTHING)
    for name in ("color", "semantic", "line_of_sight_static"):
        assert torch.equal(losses[name], again[name])


def test_static_stage_leaves_the_movers_relative_disparity_out() -> None:
    """Shares of the frame's rays that move change neither the loss nor the normalisation of the others."""
    frames = torch.zeros(200, dtype=torch.long)
    scene, _, out = rendered(random_samples(torch.tensor(TIMES)[frames]), static_only=True)
    seen = replace(random_observed(frames), inverse_depth=None, disparity=torch.rand(200))
    assert seen.disparity is not None
    other = replace(seen, disparity=torch.where(seen.moving, 50 * torch.rand(200), seen.disparity))
    kept = replace(seen, disparity=torch.where(seen.static, seen.disparity, torch.nan))
    loss = static_losses(scene, out, seen, EVERYTHING)["depth"]
    assert loss > 0 and torch.equal(loss, static_losses(scene, out, other, EVERYTHING)["depth"])
    assert torch.equal(loss, static_losses(scene, out, kept, EVERYTHING)["depth"])


@pytest.mark.parametrize("term", ["depth", "depth_everywhere"])
def test_relative_depth_is_inverse_depth_along_the_camera_axis(term: str) -> None:
    """What the fields show costs nothing at any scale and shift; distances along the rays cost something."""
    frames = torch.zeros(200, dtype=torch.long)
    scene, _, out = rendered(random_samples(torch.tensor(TIMES)[frames]), static_only=True)
    still = torch.zeros(200, dtype=torch.uint8)
    seen = replace(random_observed(frames), motion=still, z_ratio=1 + torch.rand(200))
    weights = LossWeights(**({f.name: 0.0 for f in fields(LossWeights)} | TOLERANCES | {term: 1.0}))

    def loss(disparity: Tensor) -> float:
        given = {"disparity": disparity, "inverse_depth": None if term == "depth" else disparity}
        return static_losses(scene, out, replace(seen, **given), weights)[term].item()

    shown = (seen.z_ratio / out.distance).detach()
    assert loss(3 * shown + 7) == pytest.approx(0, abs=1e-6)
    assert loss(3 / out.distance.detach() + 7) > 0.1
    assert loss(7 - 3 * shown) > 1


@pytest.mark.parametrize("static_only", [False, True])
def test_classes_of_other_scenes_do_not_compete(static_only: bool) -> None:
    """Their logits may be anything."""
    scene, _, out = rendered(static_only=static_only)
    scene.own_classes = torch.tensor([True, True, False])
    seen = replace(random_observed(), labels=torch.randint(0, 2, (RAYS,), dtype=torch.uint8))

    def terms() -> dict[str, float]:
        torch.manual_seed(0)
        losses = (
            static_losses(scene, out, seen, EVERYTHING)
            if static_only
            else dynamic_losses(scene, out, seen, EVERYTHING, CONFIG, 1, RAYS)
        )
        return {name: loss.item() for name, loss in losses.items() if "semantic" in name or name == "consistency"}

    before = terms()
    assert len(before) == (2 if static_only else 5) and all(value > 0 for value in before.values())
    flow = () if out.flow is None else (out.flow.logits, out.flow.shared_logits)
    with torch.no_grad():
        for logits in (out.logits, out.static_logits, out.shared_logits, *flow):
            if logits is not None:
                logits[..., 2] += 100
    assert terms() == before


@pytest.mark.parametrize("static_only", [False, True])
def test_shared_networks_are_taught_alone(static_only: bool) -> None:
    """As the composited logits are, if they are asked for."""
    scene, _, out = rendered(static_only=static_only)
    seen = replace(random_observed(), label_weight=torch.rand(RAYS))
    w = LossWeights(shared_semantic=0.5)

    def terms() -> dict[str, Tensor]:
        if static_only:
            return static_losses(scene, out, seen, w)
        return dynamic_losses(scene, out, seen, w, CONFIG, 1, RAYS)

    alone = terms()["shared_semantic"]
    assert out.logits is not None and out.shared_logits is not None
    own, out.shared_logits = out.shared_logits, out.static_logits if static_only else out.logits
    same = terms()
    torch.testing.assert_close(same["shared_semantic"] / 0.5, same["semantic"] / w.semantic)
    assert (alone - same["shared_semantic"]).abs() > 1e-5
    out.shared_logits = own + 5 * torch.nn.functional.one_hot(torch.as_tensor(seen.labels).long(), NUM_CLASSES)
    assert terms()["shared_semantic"] < alone
    out.shared_logits = None
    assert "shared_semantic" not in terms()


@pytest.mark.parametrize(("direction", "frame"), [(1, len(TIMES) - 1), (-1, 0)])
def test_no_frame_no_advected_losses(direction: int, frame: int) -> None:
    """Rays of the first and the last frame have no neighbour on one side, and all others have."""
    for frames, exists in ((torch.full((60,), frame), False), (torch.full((60,), len(TIMES) // 2), True)):
        scene, _, out = rendered(random_samples(torch.tensor(TIMES)[frames]))
        seen = replace(random_observed(frames), motion=torch.ones(60, dtype=torch.uint8))
        losses = dynamic_losses(scene, out, seen, EVERYTHING, CONFIG, direction, 60)
        assert (losses["consistency"] > 0) == exists and (losses["advected_color"] > 0) == exists
        assert losses["dynamic_color"] > 0


def test_relative_disparity_counts_on_frames_without_aligned_one() -> None:
    """A scene may have depth, or disparity that was aligned, on some of its frames."""
    frames = torch.arange(2).repeat_interleave(100)
    scene, _, out = rendered(random_samples(torch.tensor(TIMES)[frames]), static_only=True)
    still = torch.zeros(200, dtype=torch.uint8)
    seen = replace(random_observed(frames), motion=still, disparity=torch.rand(200))
    assert seen.inverse_depth is not None and seen.disparity is not None
    partly = replace(seen, inverse_depth=torch.where(frames == 0, 1.0, torch.nan))
    loss = static_losses(scene, out, partly, LossWeights())["depth"]
    for frame, counts in ((0, False), (1, True)):
        other = replace(partly, disparity=torch.where(frames == frame, torch.rand(200), seen.disparity))
        assert (static_losses(scene, out, other, LossWeights())["depth"] != loss) == counts
    assert static_losses(scene, out, replace(seen, inverse_depth=torch.ones(200)), LossWeights())["depth"] == 0


def test_given_distance_of_aligned_disparity() -> None:
    seen = replace(
        random_observed(torch.zeros(5, dtype=torch.long)),
        inverse_depth=torch.tensor([0.5, float("nan"), 0.0, -1.0, float("inf")]),
        z_ratio=torch.tensor([1.1, 1.2, 1.3, 1.4, 1.5]),
    )
    known, distance = given_distance(seen)
    assert known.tolist() == [True, False, False, False, False]
    assert distance[0].item() == pytest.approx(2.2) and distance.isfinite().all() and (distance > 0).all()


def test_observed_flow_and_pixels_are_shares_of_width_and_height() -> None:
    indices = torch.tensor([[4, 2, 3], [5, 0, 7]])
    batch = {
        "indices": indices,
        "image": torch.tensor([[0, 51, 255], [255, 0, 0]], dtype=torch.uint8),
        "image_size": torch.tensor([[10.0, 5.0], [20.0, 40.0]]),
        "labels": torch.tensor([[1], [255]], dtype=torch.uint8),
        "flow_forward": torch.tensor([[1.0, -2.0], [4.0, 0.0]], dtype=torch.float16),
        "flow_forward_mask": torch.tensor([[True], [False]]),
    }
    seen = observe(batch, None, torch.tensor([[1.0], [1.5]]), 4, torch.device("cpu"))
    torch.testing.assert_close(seen.image[0], torch.tensor([0.0, 0.2, 1.0]))
    torch.testing.assert_close(seen.pixel, torch.tensor([[0.35, 0.5], [0.375, 0.0125]]))
    assert seen.aspect.tolist() == [0.5, 2.0]
    assert seen.frame.tolist() == [0, 1] and seen.z_ratio.tolist() == [1, 1.5]
    assert seen.labels is not None and seen.labels.tolist() == [1, 255]
    assert seen.flow is not None and seen.flow_backward is None and seen.motion is None
    torch.testing.assert_close(seen.flow[0], torch.tensor([[0.1, -0.4], [0.2, 0.0]]))
    one = observe(batch, torch.tensor([1]), torch.tensor([[1.5]]), 4, torch.device("cpu"))
    assert one.frame.tolist() == [1] and one.labels is not None and one.labels.tolist() == [255]


def optical_flow(scene: Scene, out: Rendered, seen: Observed) -> Tensor:
    weights = LossWeights(optical_flow=1.0, flow_robust_scale=0.0)
    return dynamic_losses(scene, out, seen, weights, CONFIG, 1, RAYS)["optical_flow"]


def test_exact_flow_of_a_static_scene_costs_nothing() -> None:
    """Where nothing moves, the given flow is that of the cameras; a pixel of a 480-wide image more costs one."""
    scene, _ = random_scene()
    with torch.no_grad():
        for parameter in scene.flow_field.parameters():
            parameter.zero_()
    cameras = arc_cameras(len(TIMES))
    size = torch.tensor([WIDTH, HEIGHT])
    samples = random_samples(torch.tensor(TIMES)[FRAMES])
    out = render_rays(scene, None, samples, CONFIG, training=True)
    total = out.weights.total / out.weights.total.sum(-1, keepdim=True)
    points = (total[..., None] * samples.positions).sum(1)
    here, _ = cameras.project(points, FRAMES)
    there, _ = cameras.project(points, (FRAMES + 1).clamp(max=3))
    known = torch.ones(RAYS, dtype=torch.bool)
    aspect = torch.full((RAYS,), HEIGHT / WIDTH)
    seen = Observed(torch.rand(RAYS, 3), here / size, aspect, FRAMES, torch.ones(RAYS))
    for pixels, cost in (((0, 0), 0), ((1, 0), 1), ((0, 1), 1), ((-2, 3), 5)):
        excess = torch.tensor(pixels) / torch.tensor([FLOW_WIDTH, FLOW_WIDTH * HEIGHT / WIDTH])
        seen.flow = ((there - here) / size + excess, known)
        assert optical_flow(scene, out, seen).item() == pytest.approx(cost, abs=0.01)


def test_rays_that_see_nothing_have_no_optical_flow() -> None:
    """Their flow may be anything, and no gradient is infinite."""
    scene, shared = random_scene()
    full = random_samples(torch.tensor(TIMES)[FRAMES])
    empty = torch.arange(RAYS) % 3 == 0
    samples = replace(full, ends=torch.where(empty[:, None], full.starts, full.ends))
    out = render_rays(scene, shared, samples, CONFIG, shared.encode(scene.bank), training=True)
    assert out.accumulation[empty].max() == 0 and out.accumulation[~empty].min() > 0.05
    seen = random_observed()
    assert seen.flow is not None
    wild = replace(seen, flow=(torch.where(empty[:, None], 1e3, seen.flow[0]), seen.flow[1]))
    assert optical_flow(scene, out, seen) > 0
    assert torch.equal(optical_flow(scene, out, seen), optical_flow(scene, out, wild))
    losses = dynamic_losses(scene, out, wild, EVERYTHING, CONFIG, 1, RAYS)
    sum(losses.values(), torch.zeros(())).backward()
    for name, parameter in [*scene.named_parameters(), *shared.named_parameters()]:
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_batch_that_sees_nothing_at_all() -> None:
    scene, shared = random_scene()
    full = random_samples(torch.tensor(TIMES)[FRAMES])
    samples = replace(full, ends=full.starts.clone())
    out = render_rays(scene, shared, samples, CONFIG, shared.encode(scene.bank), training=True)
    losses = dynamic_losses(scene, out, random_observed(), EVERYTHING, CONFIG, 1, RAYS)
    assert losses["optical_flow"].item() == 0 and all(loss.isfinite() for loss in losses.values())
    sum(losses.values(), torch.zeros(())).backward()
    for name, parameter in [*scene.named_parameters(), *shared.named_parameters()]:
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


# ---------------------------------------------------------------- motions that are known exactly


def moving_as(scene: Scene, velocity: Callable[[Tensor], Tensor], config: RenderConfig = CONFIG) -> Rendered:
    """Rays through a scene in which points move as told, at every frame time."""
    scene.velocity = lambda points, times: velocity(points)  # type: ignore[method-assign]
    return render_rays(scene, None, random_samples(torch.tensor(TIMES)[FRAMES]), config, training=True)


def test_gaps_are_in_units_of_the_velocitys_time_step() -> None:
    scene, _ = random_scene()
    out = moving_as(scene, torch.zeros_like)
    assert scene.timeline.tau.item() == pytest.approx(0.4)
    torch.testing.assert_close(gap_in_taus(scene, out, 1), torch.tensor([0.5, 1.0, 1.0, 1.0])[FRAMES])
    torch.testing.assert_close(gap_in_taus(scene, out, -1), -torch.tensor([1.0, 0.5, 1.0, 1.0])[FRAMES])


def test_constant_velocity_costs_no_smoothness_however_uneven_the_frames() -> None:
    scene, _ = random_scene()
    out = moving_as(scene, lambda points: torch.tensor([0.1, -0.2, 0.05]).expand_as(points))
    weights = LossWeights(flow_smooth=1.0, flow_cycle=1.0, flow_magnitude=1.0)
    losses = dynamic_losses(scene, out, random_observed(), weights, CONFIG, 1, RAYS)
    # the last frame has no next one
    assert losses["flow_magnitude"].item() == pytest.approx(0.35 * 3 / 4, rel=1e-4)
    assert losses["flow_smooth"].item() == pytest.approx(0, abs=1e-5)
    assert losses["flow_cycle"].item() == pytest.approx(0, abs=1e-5)


def test_acceleration_costs_smoothness() -> None:
    """Velocity 0.3 t / tau: mean velocities differ by 0.3 times half the time from the last frame to the next."""
    scene, _ = random_scene()
    tau = 0.4

    def velocity(points: Tensor, times: Tensor) -> Tensor:
        return 0.3 * times / tau * torch.tensor([1.0, 0.0, 0.0])

    scene.velocity = velocity  # type: ignore[method-assign]
    times = torch.tensor([0.2, 0.6]).repeat(6)
    out = render_rays(scene, None, random_samples(times), CONFIG, training=True)
    assert out.flow is not None
    weights, config = LossWeights(flow_smooth=1.0), CONFIG
    loss = dynamic_losses(scene, out, random_observed(torch.tensor([1, 2]).repeat(6)), weights, config, 1, 12)
    change = (0.3 * torch.tensor([0.6, 0.8]) / 2 / tau).repeat(6)[:, None]
    expected = (change * out.flow.weights).sum() / out.flow.weights.sum().clamp(min=1)
    assert loss["flow_smooth"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("integrator", ["euler", "midpoint", "rk4"])
def test_forward_and_back_costs_a_rotation_the_integrators_error_only(integrator) -> None:
    """A round trip by an angle h scales the circle by 1 + h^2 (Euler), 1 + h^4 / 4 (midpoint), 1 - h^6 / 72 (RK4)."""
    scene, _ = random_scene()
    rate, config = 0.5, replace(CONFIG, integrator=integrator)
    out = moving_as(scene, lambda p: rate * torch.stack([p[:, 2], p[:, 1] * 0, -p[:, 0]], dim=-1), config)
    assert out.flow is not None
    returned = forward_and_back(scene, out, config)
    angle = rate * (gap_in_taus(scene, out, 1) * out.flow.exists(1))[:, None]
    growth = {"euler": angle**2, "midpoint": angle**4 / 4, "rk4": -(angle**6) / 72}[integrator]
    change = (returned - out.flow.points)[..., [0, 2]]
    torch.testing.assert_close(change, growth[..., None] * out.flow.points[..., [0, 2]], atol=3e-6, rtol=5e-2)
    assert change.abs().max() > 1e-4


@pytest.mark.parametrize("static_only", [True, False])
def test_empty_space_costs_nothing_in_front_of_the_images_own_background(static_only: bool) -> None:
    scene, _, out = rendered(static_only=static_only)
    weights = out.static_weights if static_only else out.weights.total
    rgb = out.static_rgb if static_only else out.rgb
    scene.background_color = (1.0, 1.0, 1.0)
    seen = replace(random_observed(), image=(rgb + (1 - weights.sum(-1, keepdim=True))).detach(), motion=None)
    if static_only:
        still = replace(seen, motion=torch.zeros_like(seen.frame))
        color = static_losses(scene, out, still, EVERYTHING)["color"]
    else:
        color = dynamic_losses(scene, out, seen, EVERYTHING, CONFIG, 1, RAYS)["color"]
    scene.background_color = (0.0, 0.0, 0.0)
    assert color.item() == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("static_only", [True, False])
def test_what_shines_through_cannot_pass_for_a_darker_colour(static_only: bool) -> None:
    """Colours that are right in front of black alone cost something in front of anything else, wherever they count."""
    scene, _, out = rendered(static_only=static_only)
    weights = out.static_weights if static_only else out.weights.total
    rgb, left = (out.static_rgb if static_only else out.rgb).detach(), 1 - weights.sum(-1, keepdim=True).detach()
    assert left.max() > 0.1
    motion = torch.full_like(FRAMES, 0 if static_only else 1)
    seen = replace(random_observed(), image=rgb, motion=motion)

    def colors(behind: Tensor | None) -> dict[str, Tensor]:
        known = replace(seen, behind=behind)
        if static_only:
            return {"color": static_losses(scene, out, known, EVERYTHING)["color"]}
        losses = dynamic_losses(scene, out, known, EVERYTHING, CONFIG, 1, RAYS)
        return {name: losses[name] for name in ("color", "static_color", "dynamic_color", "advected_color")}

    black, other = colors(None), colors(torch.full_like(rgb, 0.5))
    assert black["color"].item() == pytest.approx(0.0, abs=1e-10)
    expected = EVERYTHING.color * (0.5 * left).square().mean()
    torch.testing.assert_close(other["color"], expected, atol=1e-6, rtol=1e-4)
    assert colors(torch.zeros_like(rgb)) == black
    if not static_only:
        assert all(other[name] != black[name] for name in ("dynamic_color", "advected_color"))


def test_backgrounds_are_random_where_something_is_seen() -> None:
    """Pixels of exactly the background's colour may show nothing at all; images with transparency tell the rest."""
    scene, _ = random_scene()
    image = torch.rand(400, 3).clamp(min=0.01)
    image[::4] = 0.0
    image[1::4, :2] = 0.0  # dark, but not black
    behind = random_background(scene, image)
    assert behind is not None and (behind[::4] == 0).all()
    others = behind[torch.arange(400) % 4 != 0]
    assert (others.mean(0) - 0.5).abs().max() < 0.1 and others.std(0).min() > 0.2
    again = random_background(scene, image)
    assert again is not None and (again != behind).any()
    scene.background_color = (1.0, 1.0, 1.0)
    image[::4] = 1.0
    white = random_background(scene, image)
    assert white is not None and (white[::4] == 1).all() and (white[1::4] != 1).any()
    scene.opaque = False
    assert random_background(scene, image) is None


def test_flow_to_a_frame_of_another_time_is_not_used() -> None:
    """Cameras that take turns: a camera's own next frame is two times on, trajectories go to the very next time."""
    scene, _, out = rendered()
    seen = random_observed()
    assert optical_flow(scene, out, seen) > 0
    for name in ("next_frame", "previous_frame"):
        neighbour = getattr(scene, name)
        skipping = neighbour + (1 if name == "next_frame" else -1)
        getattr(scene, name).copy_(torch.where((skipping >= 0) & (skipping < len(TIMES)), skipping, -1))
    assert optical_flow(scene, out, seen) == 0


def test_rays_that_may_move_and_have_no_dynamic_field_say_nothing() -> None:
    motion = torch.tensor([0, 1, 255, 0, 1, 255], dtype=torch.uint8)
    rays = left_out(motion, torch.tensor([0, 1, 2]))
    assert rays.tolist() == [False, False, False, False, True, True]
    assert not left_out(motion, slice(None)).any() and not left_out(motion, None).any()
    seen = random_observed(torch.zeros(6, dtype=torch.long)).without(rays)
    assert seen.labels is not None and seen.inverse_depth is not None
    assert (seen.labels == IGNORE_LABEL).tolist() == rays.tolist()
    assert seen.inverse_depth.isnan().tolist() == rays.tolist()
