"""How visible points are from cameras, by the densities between them."""

import math

import pytest
import torch
from builders import random_samples, random_scene
from torch import Tensor

from semflow_nerfstudio.flow.visibility import MARGIN, transmittance
from semflow_nerfstudio.renderer import RenderConfig, render_rays

ORIGINS = torch.zeros(3, 3)
POINTS = torch.tensor([[2.0, 0, 0], [0, 4.0, 0], [0, 0, 1.0]])
TIMES = torch.tensor([[0.0], [0.5], [1.0]])


def test_even_fog_dims_with_the_distance() -> None:
    seen = transmittance(lambda x, t: torch.full(x.shape[:2], 0.7), ORIGINS, POINTS, TIMES, 4)
    expected = [math.exp(-0.7 * d * (1 - MARGIN)) for d in (2, 4, 1)]
    torch.testing.assert_close(seen, torch.tensor(expected))


@pytest.mark.parametrize("samples", [1, 2, 8])
def test_samples_lie_between_camera_and_point(samples: int) -> None:
    asked: list[Tensor] = []

    def density(positions: Tensor, times: Tensor) -> Tensor:
        asked.append(positions)
        assert torch.equal(times, TIMES)
        return positions.new_zeros(positions.shape[:2])

    assert transmittance(density, ORIGINS + 1, POINTS, TIMES, samples).tolist() == [1, 1, 1]
    share = (torch.arange(samples) + 0.5) / samples * (1 - MARGIN)
    expected = 1 + (POINTS - 1)[:, None] * share[:, None]
    torch.testing.assert_close(asked[0], expected)


def test_a_wall_hides_what_is_behind_it_and_nothing_before_it() -> None:
    def wall(positions: Tensor, times: Tensor) -> Tensor:
        return 50.0 * ((positions[..., 0] > 1.0) & (positions[..., 0] < 1.4))

    points = torch.tensor([[3.0, 0, 0], [0.9, 0, 0], [-3.0, 0, 0]])
    seen = transmittance(wall, ORIGINS, points, TIMES, 16)
    assert seen[0] < 1e-3 and seen[1] == 1 and seen[2] == 1


def test_hidden_tokens_do_not_count() -> None:
    """Where every camera's way is blocked, flows have no token, and logits do not depend on the trajectories."""
    scene, shared = random_scene(residual=False)
    samples = random_samples(torch.tensor([0.2, 0.2, 0.6]))
    maps = shared.encode(scene.bank)
    config = RenderConfig(static_samples=99, flow_samples=99, min_dynamicness=0.0)
    plain = render_rays(scene, shared, samples, config, maps)
    looking = RenderConfig(static_samples=99, flow_samples=99, min_dynamicness=0.0, token_visibility=4)

    def logits(density: float) -> Tensor:
        scene.proposal_density = lambda level, positions, times: torch.full((*positions.shape[:2], 1), density)  # type: ignore[method-assign]
        out = render_rays(scene, shared, samples, looking, maps)
        assert out.flow is not None and out.flow.shared_logits is not None
        return out.flow.shared_logits

    assert plain.flow is not None and plain.flow.shared_logits is not None
    torch.testing.assert_close(logits(0.0), plain.flow.shared_logits)
    hidden = logits(1e3)
    nothing = shared.flow_network(torch.zeros(1, shared.config.attention_width))
    torch.testing.assert_close(hidden, nothing.expand_as(hidden), atol=1e-4, rtol=0)
    between = logits(0.5)
    assert (between - hidden).abs().max() > 1e-3 and (between - logits(0.0)).abs().max() > 1e-3
