"""What frames show where a flow passes."""

import torch
from builders import HEIGHT, WIDTH, arc_cameras
from torch import Tensor, nn

from semflow_nerfstudio.flow.aggregation import FlowFeatureAggregation, bilinear_lookup
from semflow_nerfstudio.flow.frame_encoders import ConvEncoder, FrameEncoder


def grid_sample(maps: Tensor, frame: Tensor, pixels: Tensor, width: int, height: int) -> Tensor:
    """torch's own look-up, one frame a point."""
    where = pixels / pixels.new_tensor([width, height]) * 2 - 1
    channels_first = maps[frame].permute(0, 3, 1, 2)
    found = nn.functional.grid_sample(
        channels_first, where[:, None, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[:, :, 0, 0]


def test_lookup_is_grid_sample_in_values_and_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 5, 7, 4), (2, 1, 6, 2), (2, 4, 1, 2), (1, 1, 1, 3)):
        maps = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        pixels = (torch.rand(200, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2) * torch.tensor([30, 20])
        pixels.requires_grad_()
        frame = torch.randint(0, shape[0], (200,), generator=generator)
        upstream = torch.randn(200, shape[-1], generator=generator, dtype=torch.float64)
        results = []
        for look_up in (bilinear_lookup, grid_sample):
            values = look_up(maps, frame, pixels, 30, 20)
            results.append((values, *torch.autograd.grad(values, (maps, pixels), upstream)))
        for mine, theirs in zip(*results, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_lookup_of_nothing() -> None:
    found = bilinear_lookup(torch.rand(2, 3, 3, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, 2), 3, 3)
    assert found.shape == (0, 4)


def aggregate_one(
    trajectory: Tensor, frame: Tensor, weight: Tensor, maps: Tensor, module: FlowFeatureAggregation | None = None
) -> tuple[Tensor, Tensor]:
    count, tokens, _ = trajectory.shape
    offset = torch.arange(tokens).float().expand(count, tokens) - 1
    module = module or FlowFeatureAggregation(displacement_scale=10.0, num_frequencies=1)
    return module(maps, arc_cameras(len(maps)), trajectory, trajectory[:, 1], frame, offset, weight)


def pixel_maps(count: int) -> Tensor:
    """Maps whose features are (frame, u, v) at every pixel centre."""
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    return torch.stack([torch.stack([torch.full_like(u, k), u, v], -1) for k in range(count)])


def test_tokens_hold_the_right_frames_at_the_right_pixels() -> None:
    trajectory = (torch.rand(5, 3, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.6
    frame = torch.tensor([[1, 2, 3]]).expand(5, 3)
    features, weight = aggregate_one(trajectory, frame, torch.ones(5, 3), pixel_maps(4))
    expected, _ = arc_cameras(4).project(trajectory, frame)
    torch.testing.assert_close(features[..., 0], frame.float())
    torch.testing.assert_close(features[..., 1:3], expected, atol=1e-4, rtol=0)
    assert torch.equal(weight, torch.ones(5, 3))


def test_displacement_and_time_offset_are_encoded() -> None:
    trajectory = (torch.rand(5, 3, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.6
    frame = torch.tensor([[1, 2, 3]]).expand(5, 3)
    features, _ = aggregate_one(trajectory, frame, torch.ones(5, 3), pixel_maps(4))
    module = FlowFeatureAggregation(10.0, 1)
    assert features.shape[-1] == 3 + module.encoding_dim
    moved = (trajectory - trajectory[:, 1:2]) * 10
    plain = torch.cat([moved, torch.tensor([-1.0, 0.0, 1.0]).expand(5, 3)[..., None]], -1)
    torch.testing.assert_close(features[..., 3:7], plain)
    torch.testing.assert_close(features[..., 7:11], plain.sin())


def test_tokens_out_of_view_or_without_a_frame_do_not_count() -> None:
    inside, outside, behind = torch.zeros(3), torch.tensor([5.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 5.0])
    trajectory = torch.stack([torch.stack([inside] * 3), torch.stack([outside, inside, behind])])
    frame = torch.tensor([[0, 1, -1], [0, 1, 2]])
    _, weight = aggregate_one(trajectory, frame, torch.tensor([[0.5, 1.0, 1.0]] * 2), pixel_maps(3))
    assert weight.tolist() == [[0.5, 1, 0], [0, 1, 0]]


def test_tokens_fade_as_their_point_leaves_the_view() -> None:
    x = torch.linspace(0.9, 1.6, 400)
    trajectory = torch.stack([x, torch.zeros(400), torch.zeros(400)], -1)[:, None].expand(400, 3, 3)
    _, weight = aggregate_one(trajectory, torch.ones(400, 3, dtype=torch.long), torch.ones(400, 3), pixel_maps(3))
    assert weight[0, 0] == 1 and weight[-1, 0] == 0
    assert weight[:, 0].diff().abs().max() < 0.05


def test_gradients_reach_maps_and_trajectories() -> None:
    maps = pixel_maps(3).requires_grad_()
    trajectory = ((torch.rand(5, 3, 3) - 0.5) * 0.6).requires_grad_()
    features, _ = aggregate_one(trajectory, torch.tensor([[0, 1, 2]]).expand(5, 3), torch.ones(5, 3), maps)
    features[..., :3].square().sum().backward()
    assert maps.grad is not None and trajectory.grad is not None
    assert (trajectory.grad.abs().sum(-1) > 0).all() and maps.grad.abs().sum() > 0


def test_encoder_cells_are_centred_where_lookups_think() -> None:
    """An encoder that averages around a cell must give back a picture's own coordinates, at any size and stride."""
    for stride, width, height in ((1, 20, 15), (2, 20, 16), (2, 21, 15), (4, 60, 56)):
        encoder = ConvEncoder(width=2, hidden=3, stride=stride)
        assert isinstance(encoder, FrameEncoder)
        for layer in encoder.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        for axis, coordinate in enumerate((u, v)):
            with torch.no_grad():
                maps = encoder(coordinate.expand(1, 3, height, width)).permute(0, 2, 3, 1)
            assert maps.shape[1:3] == (-(-height // stride), -(-width // stride))
            middle = torch.tensor([[0.5 * width + 0.3, 0.5 * height - 0.2]])
            found = bilinear_lookup(maps, torch.zeros(1, dtype=torch.long), middle, width, height)
            torch.testing.assert_close(found, middle[:, axis : axis + 1].expand(1, 2), atol=0.02, rtol=0)
