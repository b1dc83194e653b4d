"""A scene's dynamic field between frames."""

import pytest
import torch
from builders import CONFIG, NUM_CLASSES, TIMES, random_frames, random_scene, shake
from torch import Tensor

from semflow_nerfstudio.configs import methods
from semflow_nerfstudio.encodings.hash_grid import HashGrid
from semflow_nerfstudio.encodings.warm_up import LITE
from semflow_nerfstudio.fields.dynamic_field import DynamicFieldOutputs
from semflow_nerfstudio.model import SemanticFlowModelConfig
from semflow_nerfstudio.scene import Scene


def blob(center: Tensor, positions: Tensor) -> DynamicFieldOutputs:
    """A soft ball whose colour says where in it a point lies."""
    offset = positions - center
    density = torch.exp(-offset.square().sum(-1) / 0.02)
    return DynamicFieldOutputs(density, offset.sigmoid(), offset, density.clamp(max=1))


def test_movers_travel_between_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = random_scene()
    speed = torch.tensor([0.3, -0.1, 0.05])
    tau = float(scene.timeline.tau)

    def seen_at_frames_only(positions: Tensor, times: Tensor, directions: Tensor) -> DynamicFieldOutputs:
        gap = (times - torch.tensor(TIMES)).abs().amin(-1)
        assert (gap < 1e-5).all(), "the field is trained at frame times and must be read there"
        return blob((speed * times / tau)[:, None], positions)

    monkeypatch.setattr(scene, "dynamic", seen_at_frames_only)
    monkeypatch.setattr(scene, "velocity", lambda points, times: speed.expand_as(points))
    times = torch.tensor([[0.05], [0.4], [0.9], [1.0]])
    positions = torch.rand(4, 7, 3, generator=torch.Generator().manual_seed(0))
    out = scene.dynamic_between_frames(positions, times, torch.zeros_like(positions))
    expected = blob((speed * times / tau)[:, None], positions)
    for name in ("density", "rgb", "trunk", "blend"):
        torch.testing.assert_close(getattr(out, name), getattr(expected, name), atol=1e-5, rtol=1e-4)


def test_at_frames_it_is_the_field_itself() -> None:
    scene, _ = random_scene()
    positions = torch.rand(len(TIMES), 5, 3) - 0.5
    times, directions = torch.tensor(TIMES)[:, None], torch.nn.functional.normalize(positions, dim=-1)
    at, between = (f(positions, times, directions) for f in (scene.dynamic, scene.dynamic_between_frames))
    torch.testing.assert_close(between.density, at.density)
    mixed = torch.cat([times[:1], times[1:] - 0.01])
    rows = scene.dynamic_between_frames(positions, mixed, directions)
    torch.testing.assert_close(rows.rgb[0], at.rgb[0])


def test_held_out_times_are_read_between_training_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid vertex of a time that no frame was trained at would never learn anything."""
    scene = Scene(random_frames(TIMES, (*TIMES, 0.4)), CONFIG, NUM_CLASSES)
    shake(scene)
    assert len(scene.timeline) == len(TIMES) + 1
    assert scene.dynamic_field.grid.layout.resolutions[0][3] == len(TIMES) - 1
    monkeypatch.setattr(scene, "velocity", lambda points, times: torch.zeros_like(points))
    positions = torch.rand(1, 9, 3) - 0.5
    directions = torch.nn.functional.normalize(positions, dim=-1)
    before, after = (scene.dynamic(positions, torch.tensor([[t]]), directions) for t in (0.2, 0.6))
    held_out = scene.dynamic_between_frames(positions, torch.tensor([[0.4]]), directions)
    torch.testing.assert_close(held_out.density, (before.density + after.density) / 2)
    scene.eval()
    sides = [scene.proposal_density(0, positions, torch.tensor([[t]])) for t in (0.2, 0.6)]
    torch.testing.assert_close(scene.proposal_density(0, positions, torch.tensor([[0.4]])), sum(sides) / 2)


def test_proposals_follow_movers_between_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = random_scene()
    scene.eval()
    speed, tau = torch.tensor([0.3, -0.1, 0.05]), float(scene.timeline.tau)

    def solid(level: int, positions: Tensor, times: Tensor) -> Tensor:
        return blob((speed * times / tau)[:, None], positions).density[..., None]

    monkeypatch.setattr(scene, "_proposal_at_frames", solid)
    monkeypatch.setattr(scene, "velocity", lambda points, times: speed.expand_as(points))
    times, positions = torch.tensor([[0.05], [0.4]]), torch.rand(2, 7, 3)
    torch.testing.assert_close(scene.proposal_density(0, positions, times), solid(0, positions, times))


@pytest.mark.parametrize("shape", [(0,), (5,), (2, 3), (2, 0)])
def test_the_static_residual_reads_trunk_and_grid(shape: tuple[int, ...]) -> None:
    """At any number of points, also none; both the place and the trunk tell classes apart."""
    scene, _ = random_scene()
    points, trunk = torch.rand(*shape, 3) - 0.5, torch.randn(*shape, CONFIG.static.trunk_dim)
    logits = scene.static_residual_logits(points, trunk)
    assert logits.shape == (*shape, NUM_CLASSES)
    if logits.numel():
        assert (logits - scene.static_residual_logits(points + 0.1, trunk)).abs().max() > 0
        assert (logits - scene.static_residual_logits(points, -trunk)).abs().max() > 0


def test_the_warm_up_compiles_every_grid_of_the_small_method() -> None:
    model = methods.lite(1).pipeline.model
    assert isinstance(model, SemanticFlowModelConfig)
    scene = Scene(random_frames(TIMES), model.scene, NUM_CLASSES)
    grids = [module for module in scene.modules() if isinstance(module, HashGrid)]
    assert {(grid.layout.input_dim, grid.layout.features) for grid in grids} == set(LITE)
