"""Static, dynamic, flow and proposal fields, and the small networks that they share."""

import math
from dataclasses import replace

import pytest
import torch
from builders import CONFIG, shake
from torch import nn

from semflow_nerfstudio.fields.dynamic_field import DynamicField
from semflow_nerfstudio.fields.flow_field import FlowField
from semflow_nerfstudio.fields.mlp import frequency_encoding, mlp, spherical_harmonics, truncated_exp
from semflow_nerfstudio.fields.proposal_field import ProposalField
from semflow_nerfstudio.fields.static_field import FieldOutputs, StaticField


def random_inputs(count: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    directions = nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return torch.rand(count, 3, generator=generator), torch.rand(count, 1, generator=generator), directions


def test_ranges_of_what_fields_say() -> None:
    torch.manual_seed(0)
    static, dynamic = StaticField(CONFIG.static), DynamicField(CONFIG.dynamic, 3)
    shake(static)
    shake(dynamic)
    unit, times, directions = random_inputs()
    for out in (static(unit, directions), dynamic(unit, times, directions)):
        assert (out.density > 0).all() and out.trunk.shape == (50, 6)
        assert ((out.rgb > 0) & (out.rgb < 1)).all()
    blend = dynamic(unit, times, directions).blend
    assert ((blend > 0) & (blend < 1)).all()


@pytest.mark.parametrize("bands", [0, 2, 3])
def test_colour_depends_on_the_direction_if_it_has_bands_and_density_never_does(bands: int) -> None:
    torch.manual_seed(0)
    static = StaticField(replace(CONFIG.static, direction_bands=bands))
    shake(static)
    unit, _, directions = random_inputs()
    one, other = static(unit, directions), static(unit, -directions)
    assert torch.equal(one.density, other.density)
    assert ((one.rgb - other.rgb).abs().max() > 1e-3) == (bands > 0)


def test_stopped_rays_keep_their_values_and_lose_their_gradients() -> None:
    torch.manual_seed(0)
    shape, where = (3, 4), torch.tensor([True, False, True])
    values = [torch.rand(*shape, requires_grad=True), *(torch.rand(*shape, n, requires_grad=True) for n in (3, 6))]
    out = FieldOutputs(*values)
    stopped = out.stop_gradient(where)
    for source, kept in zip(values, (stopped.density, stopped.rgb, stopped.trunk), strict=True):
        assert torch.equal(source, kept)
        (grad,) = torch.autograd.grad(kept.sum(), source)
        assert not grad[where].any() and (grad[~where] == 1).all()


def test_fields_take_the_backend_they_are_told() -> None:
    grid = replace(CONFIG.static.grid, backend="torch")
    fields = (
        StaticField(replace(CONFIG.static, grid=grid)),
        DynamicField(replace(CONFIG.dynamic, grid=grid), 3),
        FlowField(replace(CONFIG.flow, grid=grid), 3),
        ProposalField(replace(CONFIG.proposals[0], grid=grid), 3),
    )
    assert [field.grid.backend for field in fields] == ["torch"] * 4


def test_dynamic_and_proposal_fields_depend_on_time() -> None:
    torch.manual_seed(0)
    unit, _, directions = random_inputs()
    start, end = torch.zeros(50, 1), torch.ones(50, 1)
    dynamic, proposal = DynamicField(CONFIG.dynamic, 3), ProposalField(CONFIG.proposals[0], 3)
    shake(dynamic)
    shake(proposal)
    assert (dynamic(unit, start, directions).density - dynamic(unit, end, directions).density).abs().max() > 1e-3
    assert (proposal(unit, start) - proposal(unit, end)).abs().max() > 1e-3


def test_long_clips_have_a_proposal_grid_for_what_stands_still() -> None:
    torch.manual_seed(0)
    unit, times, _ = random_inputs()
    short, long = ProposalField(CONFIG.proposals[0], 46), ProposalField(CONFIG.proposals[0], 47)
    assert short.static_grid is None and long.static_grid is not None
    shake(long)
    before = long(unit, times)
    before.sum().backward()
    table = long.static_grid.table
    assert table.grad is not None and table.grad.abs().max() > 0
    with torch.no_grad():
        table.zero_()
    assert (long(unit, times) - before).abs().max() > 1e-3


def test_flow_rests_before_training_but_learns() -> None:
    torch.manual_seed(0)
    flow = FlowField(CONFIG.flow, 3)
    unit, times, _ = random_inputs()
    velocity = flow(unit, times)
    assert torch.equal(velocity, torch.zeros(50, 3))
    velocity.sum().backward()
    assert flow.head[-1].weight.grad.abs().max() > 0  # type: ignore[union-attr]


def test_time_axis_of_a_static_scene() -> None:
    unit, _, directions = random_inputs()
    out = DynamicField(CONFIG.dynamic, 0)(unit, torch.zeros(50, 1), directions)
    assert out.density.isfinite().all()


def test_truncated_exp_has_bounded_values_and_gradients() -> None:
    x = torch.tensor([-100.0, 0.0, 1.0, 100.0], requires_grad=True)
    y = truncated_exp(x)
    torch.testing.assert_close(y, torch.tensor([0.0, 1.0, math.e, math.exp(15)]))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([math.exp(-15), 1.0, math.e, math.exp(15)]))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_spherical_harmonics_are_orthonormal(degree: int) -> None:
    # Points that are even in z and in azimuth integrate low polynomials on the sphere exactly enough.
    z, azimuth = torch.meshgrid((torch.arange(400) + 0.5) / 200 - 1, torch.arange(16) * math.pi / 8, indexing="ij")
    radius = (1 - z * z).sqrt()
    points = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], -1).reshape(-1, 3)
    basis = spherical_harmonics(points, degree)
    gram = basis.T @ basis * (4 * math.pi / len(points))
    torch.testing.assert_close(gram, torch.eye(degree**2), atol=1e-3, rtol=0)


def test_spherical_harmonics_know_their_limit() -> None:
    with pytest.raises(ValueError, match="1 to 3 bands"):
        spherical_harmonics(torch.ones(1, 3), 4)


def test_frequency_encoding_by_hand() -> None:
    got = frequency_encoding(torch.tensor([0.5, -1.0]), 2)
    phases = [0.5, 1.0, -1.0, -2.0]
    expected = [0.5, -1.0, *map(math.sin, phases), *map(math.cos, phases)]
    torch.testing.assert_close(got, torch.tensor(expected))


def test_mlp_has_the_hidden_layers_asked_for() -> None:
    linear = [m for m in mlp(3, 8, 2, num_hidden=2) if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(3, 8), (8, 8), (8, 2)]
