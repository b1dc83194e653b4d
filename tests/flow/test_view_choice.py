"""Static points read frames that see them, wherever the cameras look."""

import math

import torch
from builders import HEIGHT, NUM_CLASSES, WIDTH, arc_cameras, random_frames, shake
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.flow.aggregation import look_up
from semflow_nerfstudio.flow.frame_bank import FrameBank
from semflow_nerfstudio.flow.view_choice import spread_views
from semflow_nerfstudio.shared import SharedConfig, SharedNetworks

COUNT = 60


def looking_around(count: int = COUNT) -> FrameCameras:
    """Cameras in the middle that turn around once, with a view of about 57 degrees."""
    poses = []
    for k in range(count):
        angle = 2 * math.pi * k / count
        backwards = torch.tensor([math.sin(angle), 0.0, math.cos(angle)])
        right = torch.tensor([math.cos(angle), 0.0, -math.sin(angle)])
        poses.append(torch.stack([right, torch.tensor([0.0, 1.0, 0.0]), backwards, -0.1 * backwards], dim=1))
    intrinsics = torch.tensor([22.0, 22.0, WIDTH / 2, HEIGHT / 2]).repeat(count, 1)
    return FrameCameras(torch.stack(poses), intrinsics, WIDTH, HEIGHT)


def bank_of(cameras: FrameCameras) -> FrameBank:
    frames = random_frames(tuple((torch.arange(len(cameras)) / (len(cameras) - 1)).tolist()))
    frames.cameras = cameras
    return FrameBank(frames, 480)


def networks() -> SharedNetworks:
    torch.manual_seed(0)
    made = SharedNetworks(SharedConfig(encoder_width=6, encoder_hidden=4, hidden_dim=16), NUM_CLASSES)
    shake(made, 0.15)
    return made


def around(count: int = 400) -> Tensor:
    """Points on a wall around the middle."""
    angle = torch.linspace(0, 2 * math.pi, count)
    return torch.stack([3 * angle.sin(), 0.2 * (7 * angle).sin(), 3 * angle.cos()], dim=-1)


def seen_by(cameras: FrameCameras, points: Tensor, frames: Tensor) -> Tensor:
    """Which frames see which points, (P, F)."""
    shape = (len(points), len(frames))
    return cameras.visible(*cameras.project(points[:, None].expand(*shape, 3), frames.expand(shape)))


def test_candidates_see_all_that_is_seen() -> None:
    bank, points = bank_of(looking_around()), around()
    candidates = bank.spread(3, 12)
    assert len(candidates) == 12 and candidates[:3].tolist() == bank.evenly_spaced(3).tolist()
    assert seen_by(bank.cameras, points, torch.arange(COUNT)).any(1).all()
    assert not seen_by(bank.cameras, points, bank.evenly_spaced(3)).any(1).all()
    assert seen_by(bank.cameras, points, candidates).any(1).all()


def test_every_point_reads_frames_that_see_it() -> None:
    """Its logits do not depend on frames that do not, and do on some that do."""
    bank, shared, points = bank_of(looking_around()), networks(), around()
    maps = shared.encode(bank)
    before = shared.static_logits(maps, bank, points[:, None])[:, 0]
    seen = seen_by(bank.cameras, points, torch.arange(COUNT))
    for point in range(0, len(points), 23):
        for frames, matters in ((~seen[point], False), (seen[point], True)):
            changed = torch.where(frames[:, None, None, None], maps + 1, maps)
            after = shared.static_logits(changed, bank, points[point : point + 1, None])[0, 0]
            assert torch.allclose(after, before[point], atol=1e-6) != matters


def test_points_that_the_first_three_see_are_pooled_from_these() -> None:
    """As a rig whose cameras all look forward always was."""
    bank, shared = bank_of(arc_cameras(12)), networks()
    maps, points = shared.encode(bank), 0.3 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    three = bank.evenly_spaced(3)
    assert seen_by(bank.cameras, points, three).all()
    features = []
    for frame in three:
        index = frame.expand(len(points))
        features.append(look_up(maps, index, bank.cameras.project(points, index)[0], WIDTH, HEIGHT))
    expected = shared.static_network(torch.stack(features).mean(0))
    torch.testing.assert_close(shared.static_logits(maps, bank, points[:, None])[:, 0], expected)


def test_others_are_asked_only_where_none_of_the_first_sees_the_point() -> None:
    bank, shared, points = bank_of(looking_around()), networks(), around()
    maps, three = shared.encode(bank), bank.evenly_spaced(3)
    some = seen_by(bank.cameras, points, three).any(1)
    assert some.any() and not some.all()
    others = torch.ones(COUNT, dtype=torch.bool).index_fill(0, three, False)
    changed = torch.where(others[:, None, None, None], maps + 1, maps)
    before, after = (shared.static_logits(m, bank, points[:, None])[:, 0] for m in (maps, changed))
    same = torch.isclose(before, after, atol=1e-6).all(-1)
    assert same[some].all() and not same[~some].any()


def test_the_number_of_frames_that_are_asked_does_not_grow_with_the_clip() -> None:
    assert len(bank_of(looking_around(200)).spread(3, 12)) == 12
    assert sorted(bank_of(arc_cameras(5)).spread(3, 12).tolist()) == [0, 1, 2, 3, 4]


def test_one_view_is_enough_of_a_camera_that_stands_still() -> None:
    poses = arc_cameras(1).camera_to_worlds.repeat(30, 1, 1)
    assert spread_views(poses, (0, 15, 29), 12) == [0, 15, 29]


def test_the_choice_follows_a_loaded_checkpoint() -> None:
    bank, other = bank_of(looking_around()), bank_of(arc_cameras(COUNT))
    assert bank.spread(3, 12).tolist() != other.spread(3, 12).tolist()
    bank.load_state_dict(other.state_dict())
    assert bank.spread(3, 12).tolist() == other.spread(3, 12).tolist()
