import math

import pytest
import torch

from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.visuals import colors

PALETTE = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.25], [0.2, 0.4, 0.6]])


def direction(degrees: float, length: float = 1.0) -> torch.Tensor:
    angle = math.radians(degrees)
    return torch.tensor([math.cos(angle), math.sin(angle)]) * length


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_labels_get_their_colors_and_unknown_is_no_class(dtype):
    labels = torch.tensor([[0, 1], [2, IGNORE_LABEL]]).to(dtype)
    image = colors.colorize_labels(labels, PALETTE, unknown_color=(0.1, 0.1, 0.1))
    assert torch.equal(image[0, 0], PALETTE[0]) and torch.equal(image[0, 1], PALETTE[1])
    assert torch.equal(image[1, 0], PALETTE[2])
    assert torch.equal(image[1, 1], torch.full((3,), 0.1))


def test_ids_outside_the_table_are_unknown():
    image = colors.colorize_labels(torch.tensor([-1, 3, 99]), PALETTE)
    assert torch.equal(image, torch.zeros(3, 3))


def test_hard_and_soft_probabilities():
    probabilities = torch.tensor([[0.2, 0.5, 0.3]])
    assert torch.equal(colors.colorize_probabilities(probabilities, PALETTE)[0], PALETTE[1])
    expected = 0.2 * PALETTE[0] + 0.5 * PALETTE[1] + 0.3 * PALETTE[2]
    torch.testing.assert_close(colors.colorize_probabilities(probabilities, PALETTE, soft=True)[0], expected)
    torch.testing.assert_close(colors.colorize_logits(probabilities.log(), PALETTE, soft=True)[0], expected)
    assert torch.equal(colors.colorize_logits(probabilities.log(), PALETTE)[0], PALETTE[1])


def test_overlay_blends_only_where_asked():
    rgb, over = torch.full((2, 2, 3), 0.2), torch.ones(2, 2, 3)
    where = torch.tensor([[True, False], [False, False]])
    image = colors.overlay(rgb, over, 0.25, where)
    torch.testing.assert_close(image[0, 0], torch.full((3,), 0.4))
    assert torch.equal(image[0, 1], rgb[0, 1]) and torch.equal(image[1], rgb[1])
    assert torch.equal(colors.overlay(rgb, over, 0.0), rgb)


def test_flow_wheel_has_the_known_directions():
    right, down, left, up = colors.flow_to_rgb(torch.stack([direction(a) for a in (0, 90, 180, 270)]), 1.0)
    torch.testing.assert_close(right, torch.tensor([1.0, 0.0, 0.0]))
    assert down[0] == 1 and down[1] > 0.85 and down[2] < 1e-6  # yellow
    assert left[0] < 1e-6 and left[1] > 0.7 and left[2] == 1  # cyan to blue
    assert up[0] > 0.3 and up[1] < 1e-6 and up[2] == 1  # violet
    gaps = torch.pdist(torch.stack([right, down, left, up]))
    assert gaps.min() > 0.4


def test_flow_of_zero_is_white_and_colour_fades_towards_it():
    white, pale, full, beyond = colors.flow_to_rgb(torch.stack([direction(0, r) for r in (0.0, 5.0, 10.0, 30.0)]), 10.0)
    assert torch.equal(white, torch.ones(3))
    torch.testing.assert_close(pale, torch.tensor([1.0, 0.5, 0.5]))
    torch.testing.assert_close(full, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(beyond, torch.tensor([0.75, 0.0, 0.0]))


def test_flow_colours_are_continuous_around_the_wheel():
    ring = torch.stack([direction(degrees) for degrees in torch.linspace(0, 360, 721).tolist()])
    image = colors.flow_to_rgb(ring, 1.0 + 1e-5)
    assert image.min() >= 0 and image.max() <= 1
    # The fastest hue change is a quarter of the range per step of a 55-step wheel, which is 6.5 degrees wide.
    assert image.diff(dim=0).abs().max() < 0.5 / (360 / 55) * 0.25 * 1.1


def test_unknown_flow_is_black_and_leaves_its_neighbours_alone():
    flow = torch.tensor([[float("nan"), 0.0], [0.0, float("inf")], [1.0, 0.0]])
    image = colors.flow_to_rgb(flow, 1.0)
    assert torch.equal(image[:2], torch.zeros(2, 3))
    torch.testing.assert_close(image[2], torch.tensor([1.0, 0.0, 0.0]))


def test_flow_wheel_image_is_the_key_to_the_colours():
    image = colors.flow_wheel_image(101)
    assert torch.equal(image[50, 50], torch.ones(3)) and torch.equal(image[0, 0], torch.ones(3))
    torch.testing.assert_close(image[50, 99], colors.flow_to_rgb(torch.tensor([98 / 101, 0.0]), 1.0))


def test_depth_limits_come_from_percentiles_so_that_outliers_do_not_count():
    depth = torch.linspace(1.0, 3.0, 1001)
    spoilt = torch.cat([depth, torch.tensor([1e6, float("nan"), float("inf")])])
    low, high = colors.value_range(spoilt)
    assert low == pytest.approx(1.04, abs=0.01) and high == pytest.approx(2.96, abs=0.01)
    image = colors.depth_to_rgb(spoilt)
    assert torch.equal(image[-2:], torch.zeros(2, 3))
    torch.testing.assert_close(image[0], colors.depth_to_rgb(torch.tensor([0.5]), 1.0, 2.0)[0])
    near, middle, far = image[0], image[500], image[1000]
    assert near.argmax() == 2 and middle.argmax() == 1 and far.argmax() == 0  # violet, green, red


def test_given_depth_limits_make_a_picture_independent_of_the_rest_of_the_frame():
    one = colors.depth_to_rgb(torch.tensor([1.0, 2.0, 3.0]), 1.0, 4.0)
    two = colors.depth_to_rgb(torch.tensor([1.0, 2.0, 300.0]), 1.0, 4.0)
    assert torch.equal(one[:2], two[:2])
    assert len({tuple(color.tolist()) for color in one}) == 3


def test_value_range_without_any_value_and_with_very_many():
    assert colors.value_range(torch.tensor([float("nan")])) == (0.0, 1.0)
    assert colors.value_range(torch.linspace(0, 1, 3_000_001), 0.25, 0.75) == pytest.approx((0.25, 0.75), abs=1e-4)


def test_heat_map_brightens_with_the_value_and_clamps():
    image = colors.scalar_to_rgb(torch.tensor([-1.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0]))
    brightness = image.mean(dim=-1)
    assert (brightness[1:7].diff() > 0.02).all()
    assert torch.equal(image[0], image[1]) and torch.equal(image[6], image[7])


def test_constant_values_do_not_divide_by_zero():
    image = colors.depth_to_rgb(torch.full((2, 2), 5.0))
    assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1


def test_half_precision_flow_and_depth_as_batches_hold_them():
    flow, depth = torch.tensor([[3.0, -4.0]]), torch.tensor([1.0, 2.0, 4.0])
    assert torch.equal(colors.flow_to_rgb(flow.half(), 10.0), colors.flow_to_rgb(flow, 10.0))
    assert torch.equal(colors.depth_to_rgb(depth.half(), 1.0, 4.0), colors.depth_to_rgb(depth, 1.0, 4.0))
