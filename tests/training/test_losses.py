"""Every loss: its value on a case worked out by hand, and that a better prediction lowers it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.training import losses as L

NAN = float("nan")


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_masked_mean() -> None:
    values = tensor(1.0, 2.0, 6.0)
    assert L.masked_mean(values).item() == 3
    assert L.masked_mean(values, torch.tensor([True, False, True])).item() == 3.5
    assert L.masked_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0
    assert L.masked_mean(values, tensor(1.0, 1.0, 0.5)).item() == pytest.approx(6 / 2.5)


def test_color() -> None:
    predicted, seen = tensor([0.1, 0.2, 0.3], [1, 1, 1]), tensor([0.1, 0.5, 0.3], [0, 0, 0])
    assert L.color_loss(predicted, seen).item() == pytest.approx((0.09 / 3 + 1) / 2)
    assert L.color_loss(predicted, seen, tensor(1, 0)).item() == pytest.approx(0.03)


def test_semantic() -> None:
    logits = tensor([0.0, math.log(3)], [0.0, 0.0], [5.0, -5.0])
    labels = torch.tensor([1, 0, IGNORE_LABEL], dtype=torch.uint8)
    one, two = math.log(4 / 3), math.log(2)
    assert L.semantic_loss(logits, labels).item() == pytest.approx((one + two) / 2)
    assert L.semantic_loss(logits, labels, tensor(1, 3, 9)).item() == pytest.approx((one + 3 * two) / 4)


def test_unlabelled_pixels_say_nothing() -> None:
    logits = torch.randn(4, 3).requires_grad_()
    loss = L.semantic_loss(logits, torch.full((4,), IGNORE_LABEL, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_occlusion_weight() -> None:
    own = tensor([0.5, 0.5], [1.0, 0.0], [0.6, 0.2]).requires_grad_()
    advected = tensor([0.5, 0.5], [0.0, 1.0], [0.2, 0.2])
    weight = L.occlusion_weight(own, advected)
    torch.testing.assert_close(weight, tensor(1.0, 0.0, 0.8))
    assert not weight.requires_grad


def test_optical_flow() -> None:
    predicted, given = tensor([1, 2], [0, 0], [9, 9]), tensor([0, 0], [3, -4], [0, 0])
    mask = torch.tensor([True, True, False])
    assert L.optical_flow_loss(predicted, given, mask).item() == pytest.approx((3 + 7) / 2)
    robust = (2 * math.log(1 + 3 / 2) + 2 * math.log(1 + 7 / 2)) / 2
    assert L.optical_flow_loss(predicted, given, mask, robust_scale=2.0).item() == pytest.approx(robust)


def test_cycle_and_priors_on_motion() -> None:
    points, returned, weight = tensor([0, 0, 0], [1, 1, 1]), tensor([0.1, -0.2, 0], [1, 1, 2]), tensor(1, 3)
    assert L.cycle_loss(points, returned).item() == pytest.approx((0.3 + 1) / 2)
    assert L.cycle_loss(points, returned, weight).item() == pytest.approx((0.3 + 3) / 4)
    motion = tensor([1, -2, 0], [0, 0, 2])
    assert L.magnitude_loss(motion).item() == pytest.approx((3 + 2) / 2)
    assert L.static_flow_loss(motion, tensor(1, 0)).item() == pytest.approx(5)
    after, before = tensor([1, 0, 0], [1, 0, 0]), tensor([1, 0, 0], [-0.5, 0, 2])
    assert L.time_smoothness_loss(after, before).item() == pytest.approx((0 + 3.5) / 2)
    assert L.time_smoothness_loss(after, before, tensor(3, 1)).item() == pytest.approx(3.5 / 4)


def test_ray_smoothness() -> None:
    points = tensor([[0, 0, 0], [0, 0, 1], [0, 0, 4]])
    displacement = tensor([[0, 0, 0], [0.5, 0, 0], [0.5, 1, 0]])
    weight = tensor([0.25, 1.0, 0.25])
    # gaps 1 and 3, their mean 2; changes .5 and 1; both pairs weigh sqrt(.25)
    expected = 0.5 * math.exp(-0.5) * 0.5 + 1 * math.exp(-1.5) * 0.5
    assert L.ray_smoothness_loss(displacement, points, weight).item() == pytest.approx(expected)
    assert L.ray_smoothness_loss(displacement[:, :1].expand(1, 3, 3), points, weight).item() == 0


def test_rigidity() -> None:
    """Three points in a row that turn as one cost nothing; one that leaves its neighbour by .1 costs that."""
    points = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]])
    turned = torch.tensor([[0.0, 0, 0], [0, 0.1, 0], [0, 0.2, 0]])
    group, weight = torch.zeros(3, dtype=torch.long), torch.ones(3)
    assert L.rigidity_loss(points, turned, group, weight, 0.5).item() == pytest.approx(0, abs=1e-6)
    left = torch.tensor([[0.0, 0, 0], [0.2, 0, 0]])
    pair = L.rigidity_loss(points[:2], left, group[:2], weight[:2], 1e3)
    assert pair.item() == pytest.approx(0.1, rel=1e-4)
    apart = L.rigidity_loss(points[:2], left, torch.tensor([0, 1]), weight[:2], 1e3)
    assert apart.item() == 0, "points of different frames are no neighbours"
    assert L.rigidity_loss(points[:2], left, group[:2], torch.tensor([1.0, 0.0]), 1e3).item() == 0
    moved = left.clone().requires_grad_()
    L.rigidity_loss(points[:2], moved, group[:2], weight[:2], 1e3).backward()
    assert moved.grad is not None and moved.grad[1, 0] > 0, "descent brings it back"


def test_silhouette() -> None:
    """Half of the first ray's weight lands on another class; nothing is said by unlabelled pixels and rays."""
    weights = torch.tensor([[0.5, 0.3], [0.4, 0.4], [0.9, 0.1]], requires_grad=True)
    labels = torch.tensor([1, IGNORE_LABEL, 2])
    there = torch.tensor([[2, 1], [0, 0], [IGNORE_LABEL, 2]])
    live = torch.ones(3, dtype=torch.bool)
    loss = L.silhouette_loss(weights, labels, there, live)
    assert loss.item() == pytest.approx(0.5 / 2)
    loss.backward()
    assert weights.grad is not None and weights.grad.tolist() == [[0.5, 0], [0, 0], [0, 0]]
    assert L.silhouette_loss(weights, labels, there, torch.tensor([False, True, True])).item() == 0


def test_blend_prior() -> None:
    assert L.blend_prior_loss(tensor([0.2, 0.4], [1, 1])).item() == pytest.approx(0.65)


def test_blend_static() -> None:
    assert L.blend_static_loss(tensor([0.2, 0.4], [1, 1]), tensor(1, 0)).item() == pytest.approx(0.3)


def test_what_movers_hide_is_static() -> None:
    """Behind the margin on moving rays alone; a smaller b there costs less, and no other b counts."""
    blend = tensor([0.9, 0.8, 0.6, 0.2], [0.7, 0.7, 0.7, 0.7]).requires_grad_()
    distances, given = tensor([1, 2.1, 2.3, 4], [1, 2, 3, 4]), tensor(2, 2)
    loss = L.hidden_blend_loss(blend, distances, given, tensor(1, 0), 0.1)
    assert loss.item() == pytest.approx(0.4)
    (slope,) = torch.autograd.grad(loss, blend)
    torch.testing.assert_close(slope, tensor([0, 0, 0.5, 0.5], [0, 0, 0, 0]))
    assert L.hidden_blend_loss(blend, distances, given, tensor(0, 0), 0.1).item() == 0


def test_dynamicness() -> None:
    share, moving, known = tensor(0.8, 0.3, 0.5), tensor(1, 0, 1), tensor(1, 1, 0)
    expected = -(math.log(0.8) + math.log(0.7)) / 2
    assert L.dynamicness_loss(share, moving, known).item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("share, moving, direction", [(0.0, 1.0, -1), (1.0, 0.0, 1)])
def test_dynamicness_pulls_hardest_where_it_is_most_wrong(share: float, moving: float, direction: int) -> None:
    value = torch.tensor([share], requires_grad=True)
    loss = L.dynamicness_loss(value, tensor(moving), tensor(1))
    loss.backward()
    assert loss.isfinite() and value.grad is not None and value.grad.item() * direction > 100


def test_dynamicness_of_the_papers_weights_which_may_exceed_one() -> None:
    assert L.dynamicness_loss(tensor(1.3), tensor(1), tensor(1)).item() == pytest.approx(0, abs=2e-3)


def test_line_of_sight() -> None:
    weights, distances = tensor([0.5, 0.25, 0.25], [1, 0, 0]), tensor([1, 2, 4], [1, 2, 4])
    given, mask = tensor(2, 2), torch.tensor([True, False])
    expected = 0.5 * (math.log(2) - 0.1) + 0.25 * (math.log(2) - 0.1)
    assert L.line_of_sight_loss(weights, distances, given, mask, 0.1).item() == pytest.approx(expected)


def test_surface() -> None:
    weights, distances = tensor([0.1, 0.2, 0.5, 0.1], [1, 0, 0, 0]), tensor([1, 2, 2.1, 4], [1, 2, 3, 4])
    loss = L.surface_loss(weights, distances, tensor(2, 2), torch.tensor([True, False]), 0.1)
    assert loss.item() == pytest.approx(0.1 + (1 - 0.7) ** 2)


def test_surface_has_no_barrier_behind_what_stands_in_front() -> None:
    """Thinning what is in front helps as much, whether it uncovers what is near the surface or far behind."""
    front = torch.tensor(0.8, requires_grad=True)
    for uncovered in (tensor(3.5), tensor(400)):
        weights = torch.stack([front, front * 0, 1 - front])[None]
        distances = torch.stack([tensor(1)[0], tensor(2)[0], uncovered[0]])[None]
        loss = L.surface_loss(weights, distances, tensor(2), YES, 0.03)
        (slope,) = torch.autograd.grad(loss, front)
        assert slope.item() == pytest.approx(1)


def test_normalize_by_mad() -> None:
    values, mask = tensor(1, 2, 6, 100), torch.tensor([True, True, True, False])
    # median 2, mean absolute deviation (1 + 0 + 4) / 3
    groups = L.Groups.of(torch.zeros(4), mask)
    torch.testing.assert_close(L.normalize_by_mad(values, groups)[:3], tensor(-1, 0, 4) * 3 / 5)


def test_groups_are_what_loops_over_them_give() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(50, generator=generator).requires_grad_()
    group = torch.randint(0, 5, (50,), generator=generator)
    mask = torch.rand(50, generator=generator) < 0.8
    groups = L.Groups.of(group, mask)
    median, mean = groups.median(values), groups.mean(values)
    for g in range(5):
        rays = mask & (group == g)
        kept = values[rays]
        assert torch.equal(median[rays], kept.median().expand(int(rays.sum())))
        torch.testing.assert_close(mean[rays], kept.mean().expand(int(rays.sum())))
        assert groups.count[rays].tolist() == [len(kept)] * len(kept)
    (slope,) = torch.autograd.grad(median[mask].sum(), values)
    assert slope.nonzero().numel() == 5 and slope.sum().item() == mask.sum().item()


def relative_depth_case(frames: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    disparity = torch.rand(frames * 64, generator=generator)
    return disparity, disparity * 3 + 7, torch.arange(frames).repeat_interleave(64)


def test_relative_depth_knows_no_scale_and_shift_but_the_sign() -> None:
    inverse, disparity, frame = relative_depth_case()
    assert L.relative_depth_loss(inverse, disparity, frame).item() == pytest.approx(0, abs=1e-6)
    # Flipped, every normalised value is the other's negative (but for the median of an even count).
    groups = L.Groups.of(frame, torch.ones(64, dtype=torch.bool))
    normalized, flipped = L.normalize_by_mad(disparity, groups), L.normalize_by_mad(-disparity, groups)
    expected = (flipped - normalized).square().mean().item()
    assert expected > 4
    assert L.relative_depth_loss(-inverse, disparity, frame).item() == pytest.approx(expected, rel=1e-5)


def test_relative_depth_by_hand() -> None:
    inverse, disparity, frame = tensor(1, 2, 6), tensor(10, 20, 30), torch.zeros(3, dtype=torch.long)
    # (-1, 0, 4) / (5 / 3) against (-10, 0, 10) / (20 / 3)
    expected = ((-0.6 + 1.5) ** 2 + 0 + (2.4 - 1.5) ** 2) / 3
    assert L.relative_depth_loss(inverse, disparity, frame, min_rays=3).item() == pytest.approx(expected)


def test_relative_depth_is_per_frame_and_needs_enough_rays() -> None:
    inverse, disparity, frame = relative_depth_case(frames=2)
    other_scale = torch.where(frame == 1, disparity * 10 - 3, disparity)
    assert L.relative_depth_loss(inverse, other_scale, frame).item() == pytest.approx(0, abs=1e-6)
    few = torch.where(torch.arange(128) == 64, NAN, -disparity)  # frame 1 keeps 63 rays
    first = L.relative_depth_loss(inverse[:64], -disparity[:64], frame[:64])
    torch.testing.assert_close(L.relative_depth_loss(inverse, few, frame), first)
    assert L.relative_depth_loss(inverse, disparity, frame, min_rays=65).item() == 0


def test_order() -> None:
    dynamic, static = tensor(1.5, 3.0, 9.0).requires_grad_(), tensor(1.0, 4.0, 1.0).requires_grad_()
    loss = L.order_loss(dynamic, static, tensor(1, 1, 0))
    assert loss.item() == pytest.approx((0.5 + 0.25) / 2)
    loss.backward()
    assert static.grad is None and dynamic.grad is not None and dynamic.grad.tolist()[:2] == [0.5, -0.125]


def test_entropies() -> None:
    weights = tensor([0.25, 0.25, 0.0], [1.0, 0.0, 0.0])
    assert L.weight_entropy_loss(weights).item() == pytest.approx(math.log(2) * 0.5 / 2)
    blend = tensor(0.5, 0.25)
    expected = (math.log(2) - 0.25 * math.log(0.25) - 0.75 * math.log(0.75)) / 2
    assert L.blend_entropy_loss(blend).item() == pytest.approx(expected)


def test_depth_guided_blend() -> None:
    blend, distances = tensor([0.2, 0.6, 0.2], [1, 1, 1]), tensor([1.0, 2.02, 3.0], [1, 2, 3])
    loss = L.depth_guided_blend_loss(blend, distances, tensor(2, 2), tensor(1, 0), threshold=0.03)
    assert loss.item() == pytest.approx((0.04 + 0.16 + 0.04) / 3)


def near(distance: Tensor) -> Tensor:
    """Weights of a surface at a distance, spread over samples at 1, 2, 3 and 4."""
    return torch.softmax(-((tensor(1, 2, 3, 4) - distance) ** 2), -1)[None]


DISTANCES = tensor([1, 2, 3, 4])
YES = torch.tensor([True])
LABEL = torch.tensor([1])

# name -> (loss of one number, where it is bad, where it is good)
CASES: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "color": (lambda x: L.color_loss(x.expand(1, 3), torch.full((1, 3), 0.5)), 0.9, 0.6),
    "semantic": (lambda x: L.semantic_loss(torch.stack([x * 0, x])[None], LABEL), -1, 2),
    "optical_flow": (lambda x: L.optical_flow_loss(x.expand(1, 2), tensor([3, 3]), YES), -5, 2),
    "robust_flow": (lambda x: L.optical_flow_loss(x.expand(1, 2), tensor([3, 3]), YES, 1.0), -5, 2),
    "cycle": (lambda x: L.cycle_loss(torch.zeros(1, 3), x.expand(1, 3)), 1, 0.1),
    "time_smoothness": (lambda x: L.time_smoothness_loss(torch.ones(1, 3), x.expand(1, 3)), 3, 1.2),
    "ray_smoothness": (
        lambda x: L.ray_smoothness_loss(
            torch.stack([x * 0, x]).reshape(1, 2, 1).expand(1, 2, 3),
            DISTANCES[:, :2, None].expand(1, 2, 3),
            tensor([1, 1]),
        ),
        2,
        1,
    ),
    "magnitude": (lambda x: L.magnitude_loss(x.expand(1, 3)), -2, -1),
    "static_flow": (lambda x: L.static_flow_loss(x.expand(1, 3)), -2, -1),
    "blend_prior": (lambda x: L.blend_prior_loss(x.expand(1, 4)), 0.9, 0.2),
    "blend_static": (lambda x: L.blend_static_loss(x.expand(1, 4), YES), 0.9, 0.2),
    "dynamicness": (lambda x: L.dynamicness_loss(x.expand(1), YES, YES), 0.1, 0.9),
    "stillness": (lambda x: L.dynamicness_loss(x.expand(1), ~YES, YES), 0.9, 0.1),
    "line_of_sight": (lambda x: L.line_of_sight_loss(near(x), DISTANCES, tensor(3), YES), 1.5, 2.5),
    "surface": (lambda x: L.surface_loss(near(x), DISTANCES, tensor(3), YES, 0.1), 1.5, 2.5),
    "relative_depth": (
        lambda x: L.relative_depth_loss(torch.stack([x * 0, x * 0 + 2, x]), tensor(0, 2, 4), torch.zeros(3), 3),
        9,
        5,
    ),
    "order": (lambda x: L.order_loss(x.expand(1), tensor(2), YES), 3.5, 2.5),
    "weight_entropy": (lambda x: L.weight_entropy_loss(torch.stack([x, 1 - x])[None]), 0.6, 0.9),
    "blend_entropy": (L.blend_entropy_loss, 0.6, 0.9),
    "depth_guided_blend": (
        lambda x: L.depth_guided_blend_loss(torch.stack([x * 0, x, x * 0, x * 0])[None], DISTANCES, tensor(2), YES),
        0.1,
        0.9,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_better_predictions_cost_less(name: str) -> None:
    """The good value costs less than the bad one, and the gradient at the bad one points to the good one."""
    loss, bad, good = CASES[name]
    x = torch.tensor(float(bad), requires_grad=True)
    value = loss(x)
    value.backward()
    assert loss(torch.tensor(float(good))) < value
    assert x.grad is not None and x.grad.item() * (good - bad) < 0
