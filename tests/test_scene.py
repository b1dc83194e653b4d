"""A scene's dynamic field between frames."""

import pytest
import torch
from builders import TIMES, random_scene
from torch import Tensor

from semflow_nerfstudio.fields.dynamic_field import DynamicFieldOutputs


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
