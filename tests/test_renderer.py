"""The way of a ray: rendering of a small random scene against plain loops, and its continuity in time."""

import math
from dataclasses import replace

import pytest
import torch
from builders import NUM_CLASSES, TIMES, random_samples, random_scene
from torch import Tensor, nn

from semflow_nerfstudio.rendered import Rendered, seen_motion, seen_points
from semflow_nerfstudio.renderer import RenderConfig, render_advected, render_rays
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.shared import SharedConfig, SharedNetworks

ALL = RenderConfig(static_samples=99, flow_samples=99, min_dynamicness=0.0, min_semantic_weight=0.0)
"""No sample and no ray is left out."""


def render(
    scene: Scene,
    shared: SharedNetworks | None,
    samples: Samples,
    config: RenderConfig = ALL,
    training: bool = False,
    static_only: bool = False,
    moving: Tensor | None = None,
    shared_alone: bool = False,
) -> Rendered:
    maps = None if shared is None else shared.encode(scene.bank)
    return render_rays(
        scene, shared, samples, config, maps, static_only, moving=moving, shared_alone=shared_alone, training=training
    )


def at_frames() -> Samples:
    """Three rays at every frame time."""
    return random_samples(torch.tensor(TIMES).repeat(3))


def sweep(times: Tensor, rays: int = 5) -> Samples:
    """The same few rays at each of the times, time by time."""
    few = random_samples(torch.zeros(rays))
    repeated = few.rays(torch.arange(rays).repeat(len(times)))
    return replace(repeated, times=times.repeat_interleave(rays)[:, None])


def values_of(out: Rendered) -> Tensor:
    assert out.logits is not None
    return torch.cat([out.rgb, out.dynamicness[:, None], out.logits], dim=-1).detach()


# ---------------------------------------------------------------- against plain loops


@pytest.mark.parametrize("compositing", ["normalized", "paper"])
def test_rendering_matches_a_plain_loop(compositing) -> None:
    scene, shared = random_scene()
    samples = random_samples(torch.tensor([0.0, 0.13, 0.6, 0.9]))
    config = replace(ALL, compositing=compositing)
    out = render(scene, shared, samples, config)
    static = scene.static(samples)
    dynamic = scene.dynamic_between_frames(samples.positions, samples.times, samples.sample_directions)
    maps = shared.encode(scene.bank)
    static_logits = shared.static_logits(maps, scene.bank, samples.positions) + scene.static_residual_logits(
        samples.positions, static.trunk
    )
    assert out.flow is not None and out.flow.logits is not None and out.flow.rays.tolist() == [0, 1, 2, 3]
    for ray in range(4):
        left, alone, total = 1.0, 1.0, 0.0
        full = {name: [0.0] * n for name, n in {"rgb": 3, "logits": NUM_CLASSES, "static": NUM_CLASSES}.items()}
        movers, distance = 0.0, 0.0
        for i in range(samples.starts.shape[1]):
            delta = samples.ends[ray, i].item() - samples.starts[ray, i].item()
            a_s = 1 - math.exp(-static.density[ray, i].item() * delta)
            a_d = 1 - math.exp(-dynamic.density[ray, i].item() * delta)
            b = dynamic.blend[ray, i].item()
            p, q = b * a_d, (1 - b) * a_s
            alpha = 1 - (1 - p) * (1 - q)
            scale = alpha / (p + q) if compositing == "normalized" else 1.0
            w_d, w_s = left * p * scale, left * q * scale
            for c in range(3):
                full["rgb"][c] += w_d * dynamic.rgb[ray, i, c].item() + w_s * static.rgb[ray, i, c].item()
            for c in range(NUM_CLASSES):
                flow_logit = out.flow.logits[ray, i, c].item()
                full["logits"][c] += w_d * flow_logit + w_s * static_logits[ray, i, c].item()
                full["static"][c] += alone * a_s * static_logits[ray, i, c].item()
            movers += w_d
            total += w_d + w_s
            distance += (w_d + w_s) * (samples.starts[ray, i].item() + delta / 2)
            left *= 1 - alpha
            alone *= 1 - a_s
        got = torch.cat([x[ray] for x in (out.rgb, out.logits, out.static_logits)])  # type: ignore[index]
        expected = torch.tensor(full["rgb"] + full["logits"] + full["static"])
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
        scalars = torch.stack([out.dynamicness[ray], out.distance[ray], out.accumulation[ray]])
        torch.testing.assert_close(scalars, torch.tensor([movers, distance / total, 1 - left]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["attention", "mean"])
def test_flow_logits_match_a_plain_loop(attention) -> None:
    """Several cameras at one time, one at another: every existing pair of time and camera is one token."""
    config = SharedConfig(encoder_width=6, encoder_hidden=4, hidden_dim=16, attention=attention)
    scene, shared = random_scene(times=(0.0, 0.0, 0.25, 1.0, 1.0), shared=config)
    samples = random_samples(torch.tensor([0.1, 0.7]), count=3)
    out = render(scene, shared, samples)
    flow, maps, bank = out.flow, shared.encode(scene.bank), scene.bank
    assert flow is not None and flow.shared_logits is not None
    for ray in range(2):
        for sample in range(3):
            tokens = []
            for k in range(flow.window.index.shape[1]):
                time_index = int(flow.window.index[ray, k])
                for view in range(bank.views.shape[1]):
                    frame, weight = bank.views[time_index, view], flow.window.weight[ray, k]
                    if frame < 0 or weight == 0:
                        continue
                    offset = (bank.timeline.times[time_index] - samples.times[ray, 0]) / scene.timeline.tau
                    tokens.append((flow.trajectories[ray, sample, k], frame, offset, weight))
            path, frame, offset, weight = (torch.stack(column)[None] for column in zip(*tokens, strict=True))
            one = shared.aggregate(maps, bank.cameras, path, flow.points[ray, sample][None], frame, offset, weight)
            expected = shared.flow_network(shared.attention(one))[0]
            torch.testing.assert_close(flow.shared_logits[ray, sample], expected, atol=1e-5, rtol=1e-4)


def test_seen_points_and_motion_match_a_plain_loop() -> None:
    scene, shared = random_scene()
    samples = at_frames()
    out = render(scene, shared, samples, training=True)
    flow, points, moved = out.flow, seen_points(out), seen_motion(out, 1)
    assert flow is not None
    for q, ray in enumerate(flow.rays.tolist()):
        w_s, w_d = out.weights.static[ray].double(), out.weights.dynamic[ray].double()
        total = (w_s + w_d).sum()
        place, motion = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for i in range(samples.starts.shape[1]):
            there = flow.trajectories[q, i, flow.window.center + 1].double()
            here = samples.positions[ray, i].double()
            place += (w_s[i] + w_d[i]) * here / total
            motion += w_d[i] * (there - here) / total
        torch.testing.assert_close(points[ray].double(), place, atol=1e-5, rtol=0)
        torch.testing.assert_close(moved[q].double(), motion, atol=1e-5, rtol=0)


@pytest.mark.parametrize("step", [-1, 1])
def test_advected_rendering_is_the_dynamic_field_at_the_next_time(step: int) -> None:
    scene, shared = random_scene()
    samples = at_frames()
    out = render(scene, shared, samples, training=True)
    flow = out.flow
    assert flow is not None and flow.shared_logits is not None
    rows = flow.exists(step).nonzero()[:, 0]
    there = render_advected(scene, out, rows, step, ALL)
    assert there.logits is not None and len(rows) == 9
    for i, q in enumerate(rows.tolist()):
        ray = int(flow.rays[q])
        time = TIMES[TIMES.index(round(samples.times[ray, 0].item(), 4)) + step]
        places = flow.trajectories[q, :, flow.window.center + step]
        field = scene.dynamic(places[None], torch.tensor([[time]]), samples.sample_directions[ray][None])
        residual = scene.flow_residual(field.trunk)[0]
        left, color, logits = 1.0, torch.zeros(3), torch.zeros(NUM_CLASSES)
        for j in range(places.shape[0]):
            alpha = 1 - math.exp(-field.density[0, j].item() * samples.deltas[ray, j].item())
            color = color + left * alpha * field.rgb[0, j]
            logits = logits + left * alpha * (flow.shared_logits[q, j] + residual[j])
            left *= 1 - alpha
        torch.testing.assert_close(there.rgb[i], color, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(there.logits[i], logits, atol=1e-4, rtol=1e-4)


def test_uniform_weights_know_nothing_of_the_densities() -> None:
    """Every sample counts alike, split between the fields by the blending weight."""
    scene, shared = random_scene()
    samples = random_samples(torch.tensor([0.0, 0.13, 0.6, 0.9]))
    config = replace(ALL, semantic_weights="uniform")
    out = render(scene, shared, samples, config)
    assert out.flow is not None and out.flow.logits is not None and out.dynamic is not None and out.logits is not None
    trunk = scene.static(samples).trunk
    maps = shared.encode(scene.bank)
    static = shared.static_logits(maps, scene.bank, samples.positions) + scene.static_residual_logits(
        samples.positions, trunk
    )
    blend = out.dynamic.blend[..., None]
    torch.testing.assert_close(out.static_logits, static.mean(1))
    torch.testing.assert_close(out.logits, (blend * out.flow.logits + (1 - blend) * static).mean(1))
    with torch.no_grad():
        scene.static_field.density_bias, scene.dynamic_field.density_bias = 2.0, -3.0
    other = render(scene, shared, samples, config)
    assert other.logits is not None and (other.rgb - out.rgb).abs().max() > 0.01
    torch.testing.assert_close(other.logits, out.logits)


@pytest.mark.parametrize("settings", [{"window": 2}, {"window": 0}, {"window_stride": -1}, {"substeps": 0}])
def test_senseless_windows_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"render\."):
        RenderConfig(**settings)


# ---------------------------------------------------------------- continuity in time


def test_training_and_inference_agree_at_frames() -> None:
    scene, shared = random_scene()
    samples = at_frames()
    torch.testing.assert_close(
        values_of(render(scene, shared, samples, training=True)),
        values_of(render(scene, shared, samples)),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("window, stride", [(1, 1), (3, 1), (5, 1), (3, 2), (3, 0)])
@pytest.mark.parametrize("side", [-1, 1])
def test_nothing_jumps_at_frames(window: int, stride: int, side: int) -> None:
    """What changes within 1e-4 of a frame is little, and ten times less within 1e-5."""
    scene, shared = random_scene()
    config = replace(ALL, window=window, window_stride=stride)
    exact = values_of(render(scene, shared, sweep(torch.tensor(TIMES)), config))

    def change(shift: float) -> float:
        times = (torch.tensor(TIMES) + side * shift).clamp(0, 1)
        return (values_of(render(scene, shared, sweep(times), config)) - exact).abs().max().item()

    assert change(1e-4) < 0.02
    assert change(1e-5) < 0.2 * change(1e-4) + 1e-5


@pytest.mark.parametrize("config", [ALL, RenderConfig()], ids=["every sample", "default"])
def test_nothing_jumps_between_frames(config: RenderConfig) -> None:
    """The largest change from step to step shrinks with the step; a jump would not."""
    scene, shared = random_scene()
    assert config.flow_samples < 12 or config is ALL

    def largest_step(count: int) -> Tensor:
        values = values_of(render(scene, shared, sweep(torch.linspace(0, 1, count), rays=3), config))
        return values.unflatten(0, (count, -1)).diff(dim=0).abs().amax(dim=(0, 1))

    coarse, fine = largest_step(401), largest_step(1601)
    assert (coarse[-NUM_CLASSES:] > 1e-3).all()
    assert (fine < 0.4 * coarse + 1e-5).all()


def test_semantics_follow_the_flow() -> None:
    """Without flow features or motion, semantics would be those of single points: here they are not."""
    scene, shared = random_scene(residual=False)
    samples = at_frames()
    moving = render(scene, shared, samples).logits
    with torch.no_grad():
        for parameter in scene.flow_field.parameters():
            parameter.zero_()
    still = render(scene, shared, samples).logits
    assert moving is not None and still is not None
    assert (moving - still).abs().max() > 1e-3


# ---------------------------------------------------------------- what is left out


def test_heaviest_samples_only() -> None:
    scene, shared = random_scene()
    samples = random_samples(torch.tensor([0.1, 0.5, 0.8]))
    every, some = (
        render(scene, shared, samples),
        render(scene, shared, samples, replace(ALL, static_samples=2, flow_samples=3)),
    )
    assert every.flow is not None and some.flow is not None and every.flow.logits is not None
    assert every.static_logits is not None and some.logits is not None and some.flow.picked.shape == (3, 3)
    assert torch.equal(every.rgb, some.rgb)
    static = scene.static(samples)
    static_logits = shared.static_logits(shared.encode(scene.bank), scene.bank, samples.positions)
    static_logits = static_logits + scene.static_residual_logits(samples.positions, static.trunk)

    def of_heaviest(weights: Tensor, logits: Tensor, count: int) -> Tensor:
        """The heaviest samples, less the weight of the next one, scaled to the whole sum."""
        order = weights.argsort(descending=True).tolist()
        faded = [(weights[i] - weights[order[count]]).item() for i in order[:count]]
        scale = weights.sum().item() / sum(faded)
        terms = (w * scale * logits[i] for i, w in zip(order[:count], faded, strict=True))
        return sum(terms, torch.zeros(NUM_CLASSES))

    for ray in range(3):
        expected = of_heaviest(every.weights.static[ray], static_logits[ray], 2)
        expected = expected + of_heaviest(every.weights.dynamic[ray], every.flow.logits[ray], 3)
        torch.testing.assert_close(some.logits[ray], expected, atol=1e-5, rtol=1e-4)


def test_still_rays_get_no_flows_outside_training() -> None:
    scene, shared = random_scene()
    samples = random_samples(torch.linspace(0, 1, 6))
    every = render(scene, shared, samples)
    threshold = every.dynamicness.median().item()
    some = render(scene, shared, samples, replace(ALL, min_dynamicness=threshold))
    assert some.flow is not None and every.logits is not None and some.logits is not None
    moving = (every.dynamicness > threshold).nonzero()[:, 0]
    assert torch.equal(some.flow.rays, moving) and 0 < len(moving) < 6
    torch.testing.assert_close(some.logits[moving], every.logits[moving])


def test_light_samples_get_no_semantics_outside_training() -> None:
    """What empty or hidden samples would add is bounded by their weight; their networks are not run."""
    scene, shared = random_scene()
    samples = random_samples(torch.linspace(0, 1, 6))
    rows: dict[str, list[int]] = {"static": [], "flow": []}
    for name, network in (("static", shared.static_network), ("flow", shared.flow_network)):
        network.register_forward_pre_hook(lambda _, given, name=name: rows[name].append(len(given[0])))
    every = render(scene, shared, samples)
    assert every.flow is not None and every.logits is not None and every.flow.logits is not None
    threshold = every.flow.weights.quantile(0.4).item()
    some = render(scene, shared, samples, replace(ALL, min_semantic_weight=threshold))
    assert some.flow is not None and some.logits is not None and some.static_logits is not None
    heavy = every.flow.weights > threshold
    alone = torch.maximum(every.static_weights, every.weights.static) > threshold
    assert rows == {"static": [6 * 12, int(alone.sum())], "flow": [6 * 12, int(heavy.sum())]}
    assert some.flow.logits is not None and not some.flow.logits[~heavy].any()
    ramp = (every.flow.weights / threshold - 1).clamp(0, 1)[..., None]
    assert (ramp == 1).any() and ((ramp > 0) & (ramp < 1)).any()
    torch.testing.assert_close(some.flow.logits, every.flow.logits * ramp)
    assert 0 < (some.logits - every.logits).abs().max() < 24 * 2 * threshold * every.flow.logits.abs().max()
    training = render(scene, shared, at_frames(), replace(ALL, min_semantic_weight=threshold), training=True)
    whole = render(scene, shared, at_frames(), training=True)
    assert training.logits is not None and whole.logits is not None and torch.equal(training.logits, whole.logits)


def test_batch_of_still_rays() -> None:
    scene, shared = random_scene()
    out = render(scene, shared, random_samples(torch.tensor([0.1, 0.5])), replace(ALL, min_dynamicness=2.0))
    assert out.flow is not None and len(out.flow.rays) == 0
    assert out.logits is not None and out.logits.isfinite().all() and out.logits.shape == (2, NUM_CLASSES)


def test_rays_without_movers_show_the_static_field_alone() -> None:
    scene, shared = random_scene()
    samples, some = at_frames(), torch.tensor([7, 2, 11, 4])
    maps = shared.encode(scene.bank)
    every = render_rays(scene, shared, samples, ALL, maps, training=True)
    out = render_rays(scene, shared, samples, ALL, maps, training=True, mover_rays=some)
    others = torch.tensor([r for r in range(12) if r not in some.tolist()])
    assert out.flow is not None and out.flow.rays.tolist() == some.tolist()
    torch.testing.assert_close(values_of(out)[some], values_of(every)[some])
    assert every.logits is not None and out.logits is not None and out.static_logits is not None
    torch.testing.assert_close(out.rgb[others], out.static_rgb[others])
    torch.testing.assert_close(out.logits[others], out.static_logits[others])
    assert not out.dynamicness[others].any()
    torch.testing.assert_close(out.accumulation, out.weights.total.sum(-1))


def test_static_stage_leaves_everything_that_moves_out() -> None:
    scene, shared = random_scene()
    out = render(scene, shared, at_frames(), static_only=True, training=True)
    assert out.flow is None and out.dynamic is None
    assert out.logits is not None and out.static_logits is not None
    assert torch.equal(out.rgb, out.static_rgb) and torch.equal(out.logits, out.static_logits)
    torch.testing.assert_close(out.accumulation, out.static_weights.sum(-1))
    (out.rgb.sum() + out.logits.sum()).backward()
    for module in (scene.dynamic_field, scene.flow_field, shared.flow_network, shared.attention):
        assert all(p.grad is None for p in module.parameters())


def test_scene_without_labels() -> None:
    scene, _ = random_scene()
    out = render(scene, None, at_frames())
    assert out.logits is None and out.flow is not None and out.flow.logits is None
    assert out.flow.trajectories.isfinite().all()


def test_static_scene_of_one_time() -> None:
    scene, shared = random_scene(times=(0.0, 0.0, 0.0))
    for training in (True, False):
        out = render(scene, shared, random_samples(torch.zeros(3)), training=training)
        assert values_of(out).isfinite().all()
        assert out.flow is not None and not out.flow.displacement(1).any()


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("mode", ["joint", "stopped"])
def test_labels_shape_densities_only_if_they_may(mode, residual: bool) -> None:
    """With `stopped`, labels reach neither field, nor its trunk through the residuals, which learn all the same, as
    does the grid that is the labels' own; the flow, along which features are read, they always reach."""
    scene, shared = random_scene(residual=residual)
    out = render(scene, shared, at_frames(), replace(ALL, semantic_gradient=mode), training=True)
    assert out.logits is not None and out.static_logits is not None and out.flow is not None
    rows = torch.arange(4)
    there = render_advected(scene, out, rows, 1, replace(ALL, semantic_gradient=mode)).logits
    assert there is not None
    for logits, field in (
        (out.logits, scene.static_field),
        (out.logits, scene.dynamic_field),
        (out.static_logits, scene.static_field),
        (there, scene.dynamic_field),
    ):
        grads = torch.autograd.grad(
            logits.square().sum(), list(field.parameters()), allow_unused=True, retain_graph=True
        )
        reached = any(g is not None and g.abs().max() > 0 for g in grads)
        assert reached == (mode == "joint")
    grads = torch.autograd.grad(out.logits.square().sum(), list(scene.flow_field.parameters()), retain_graph=True)
    assert all(g.abs().max() > 0 for g in grads)
    if residual:
        heads = [*scene.static_residual.parameters(), *scene.flow_residual.parameters()]
        heads += scene.semantic_grid.parameters()
        grads = torch.autograd.grad((out.logits + out.static_logits).square().sum(), heads, allow_unused=True)
        assert all(g is not None and g.abs().max() > 0 for g in grads)


def test_fields_get_a_share_of_the_labels_gradient() -> None:
    """Exactly that share; what is the labels' own and the values are as ever."""
    scene, shared = random_scene()
    fields = [*scene.static_field.grid.parameters(), *scene.dynamic_field.grid.parameters()]
    own = [*scene.semantic_grid.parameters(), *scene.flow_residual.parameters(), *shared.flow_network.parameters()]

    def gradients(share: float) -> tuple[Tensor, tuple[Tensor, ...]]:
        out = render(scene, shared, at_frames(), replace(ALL, label_gradient=share), training=True)
        assert out.logits is not None
        return out.logits.detach(), torch.autograd.grad(out.logits.square().sum(), [*fields, *own])

    (full, every), (part, some) = gradients(1.0), gradients(0.25)
    assert torch.equal(full, part)
    torch.testing.assert_close(some[: len(fields)], tuple(0.25 * g for g in every[: len(fields)]))
    torch.testing.assert_close(some[len(fields) :], every[len(fields) :])


@pytest.mark.parametrize("static_only", [False, True])
def test_what_the_shared_networks_know_alone(static_only: bool) -> None:
    """Its value is what a scene without residuals shows; it teaches the shared networks, and no residual or density."""
    scene, shared = random_scene()
    samples = at_frames()
    out = render(scene, shared, samples, training=True, static_only=static_only, shared_alone=True)
    assert out.shared_logits is not None and out.logits is not None
    assert (out.logits - out.shared_logits).abs().amin(-1).max() > 1e-4
    own = [*scene.static_residual.parameters(), *scene.semantic_grid.parameters(), *scene.flow_residual.parameters()]
    fields = [*scene.static_field.parameters(), *scene.dynamic_field.parameters()]
    learns = shared.static_network if static_only else shared.flow_network
    parameters = [*own, *fields, *learns.parameters()]
    grads = torch.autograd.grad(out.shared_logits.square().sum(), parameters, allow_unused=True)
    assert all(g is None for g in grads[: len(own) + len(fields)])
    assert all(g is not None and g.abs().max() > 0 for g in grads[len(own) + len(fields) :])
    scene.residual = False
    plain = render(scene, shared, samples, training=True, static_only=static_only)
    assert plain.logits is not None and plain.shared_logits is None
    torch.testing.assert_close(out.shared_logits, plain.logits)


@pytest.mark.parametrize("static_only", [False, True])
def test_moving_rays_teach_the_static_field_nothing(static_only: bool) -> None:
    """Their values are the same, and everything else learns from them as ever."""
    scene, shared = random_scene()
    samples = at_frames()
    moving = torch.arange(12) % 3 == 0
    plain = render(scene, shared, samples, training=True, static_only=static_only)
    out = render(scene, shared, samples, training=True, static_only=static_only, moving=moving)
    torch.testing.assert_close(values_of(out), values_of(plain), atol=1e-6, rtol=0)
    assert out.logits is not None and out.static_logits is not None
    seen = [out.rgb, out.static_rgb, out.logits, out.static_logits]
    seen += [x[:, None] for x in (out.distance, out.accumulation, out.dynamicness)]
    everything = torch.cat(seen, dim=-1).square()

    def reached(module: nn.Module, rays: Tensor) -> list[bool]:
        parameters = list(module.parameters())
        grads = torch.autograd.grad(everything[rays].sum(), parameters, allow_unused=True, retain_graph=True)
        return [g is not None and bool(g.abs().max() > 0) for g in grads]

    assert not any(reached(scene.static_field, moving)) and all(reached(scene.static_field, ~moving))
    assert all(reached(scene.static_residual, moving)) and all(reached(shared.static_network, moving))
    if not static_only:
        assert all(reached(scene.dynamic_field, moving)) and all(reached(scene.flow_field, moving))


def test_other_rays_gradients_do_not_depend_on_which_rays_move() -> None:
    scene, _ = random_scene()
    samples, moving = at_frames(), torch.arange(12) % 3 == 0

    def gradient(stop: Tensor | None) -> Tensor:
        rgb = render(scene, None, samples, training=True, moving=stop).rgb
        return torch.autograd.grad(rgb[~moving].square().sum(), scene.static_field.grid.table)[0]

    torch.testing.assert_close(gradient(moving), gradient(None))
