"""Scene units to the unit cube."""

import torch

from semflow_nerfstudio.fields.space import SceneSpace

AABB = torch.tensor([[-1.0, -2.0, 0.0], [3.0, 2.0, 1.0]])


def test_bounded_space_is_linear() -> None:
    space = SceneSpace(AABB, bounded=True)
    points = torch.tensor([[-1.0, -2.0, 0.0], [3.0, 2.0, 1.0], [1.0, 0.0, 0.5], [5.0, -4.0, 0.25]])
    expected = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [1.5, -0.5, 0.25]])
    torch.testing.assert_close(space(points), expected)


def test_box_of_an_unbounded_scene_fills_the_middle_half() -> None:
    space = SceneSpace(AABB, bounded=False)
    points = torch.stack([AABB[0], AABB[1], AABB.mean(0)])
    torch.testing.assert_close(space(points), torch.tensor([[0.25] * 3, [0.75] * 3, [0.5] * 3]))


def test_contraction_stays_in_the_cube_and_keeps_directions() -> None:
    space = SceneSpace(AABB, bounded=False)
    points = (
        torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * 10 ** torch.linspace(-3, 6, 1000)[:, None]
    )
    unit = space(points)
    assert unit.min() >= 0 and unit.max() <= 1
    far = AABB.mean(0) + torch.tensor([1e6, 2e6, -0.5e6]) * (AABB[1] - AABB[0])
    torch.testing.assert_close(space(far), 0.5 + torch.tensor([0.25, 0.5, -0.125]), atol=1e-5, rtol=0)


def test_contraction_is_continuous_and_smooth_at_the_box() -> None:
    space = SceneSpace(AABB, bounded=False)
    generator = torch.Generator().manual_seed(1)
    direction = torch.rand(200, 3, generator=generator) * 2 - 1
    edge = direction / direction.abs().amax(-1, keepdim=True)
    half, middle = (AABB[1] - AABB[0]) / 2, AABB.mean(0)

    def at(scale: float) -> torch.Tensor:
        return space(middle + half * edge * scale)

    torch.testing.assert_close(at(1 - 1e-5), at(1 + 1e-5), atol=1e-5, rtol=0)
    inward, outward = (at(1.0) - at(1 - 1e-3)) / 1e-3, (at(1 + 1e-3) - at(1.0)) / 1e-3
    torch.testing.assert_close(inward, outward, atol=2e-3, rtol=0)


def test_gradients_are_finite_everywhere() -> None:
    space = SceneSpace(AABB, bounded=False)
    points = torch.stack([AABB.mean(0), AABB[1], torch.full((3,), 1e6)]).requires_grad_()
    space(points).sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()
