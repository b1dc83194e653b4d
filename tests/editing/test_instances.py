"""Membership of points in instances, and the file that keeps them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.instances import IdGrid, Instance, Instances
from semflow_nerfstudio.editing.shadows import Shadows

TIMES = np.array([0.0, 0.25, 1.0])
VOXEL = 0.1


def moving_block() -> Instances:
    """Instance 0: a cube of three voxels that moves by five voxels a frame; instance 1: a static slab below."""
    nearest = torch.zeros(3, 20, 6, 6, dtype=torch.int16)
    distance = torch.full((3, 20, 6, 6), 255, dtype=torch.uint8)
    for k in range(3):
        x = torch.arange(20)[:, None, None]
        y, z = torch.arange(6)[:, None], torch.arange(6)
        gap = [torch.relu(torch.maximum(low - v, v - low - 2)) for v, low in ((x, 5 * k), (y, 1), (z, 1))]
        distance[k] = (sum(g.float() ** 2 for g in gap) ** 0.5 * 4).ceil().clamp(max=255)  # type: ignore[union-attr]
    slab = torch.full((1, 10, 10, 2), 1, dtype=torch.int16)
    static = IdGrid(torch.tensor([0.0, 0.0, -1.0]), 0.2, slab, torch.zeros(slab.shape, dtype=torch.uint8))
    centers = np.array([[0.15 + 0.5 * k, 0.25, 0.25] for k in range(3)])
    bounds = np.stack([centers - 0.15, centers + 0.15], axis=1)
    return Instances(
        [
            Instance(2, True, 0.027, centers, bounds, np.array([True, True, False])),
            Instance(5, False, 1.6, np.zeros((1, 3)), np.zeros((1, 2, 3)), np.array([True])),
        ],
        TIMES,
        IdGrid(torch.zeros(3), VOXEL, nearest, distance),
        static,
        "abc",
    )


def at(time: float, *points: list[float], margin: float = 0.0, of: Instances | None = None, **options) -> list[int]:
    instances = of or moving_block()
    return instances.membership(torch.tensor(points), torch.full((len(points),), time), margin, **options).tolist()


INSIDE, OUTSIDE, BELOW = [0.15, 0.25, 0.25], [0.55, 0.25, 0.25], [0.3, 0.3, -0.9]


def test_membership_at_frame_times() -> None:
    assert at(0.0, INSIDE, OUTSIDE, BELOW, [9.0, 9.0, 9.0], [-0.01, 0.2, 0.2]) == [0, -1, 1, -1, -1]
    assert at(0.25, INSIDE, [0.65, 0.25, 0.25], BELOW) == [-1, 0, 1]
    assert at(1.0, [1.15, 0.25, 0.25]) == at(7.0, [1.15, 0.25, 0.25]) == [0]


def test_margin_widens_instances() -> None:
    near = [0.35, 0.25, 0.25]  # one voxel outside
    assert at(0.0, near) == [-1] and at(0.0, near, margin=0.1) == [0]
    assert at(0.0, OUTSIDE, margin=0.2) == [-1] and at(0.0, OUTSIDE, margin=0.31) == [0]


def test_kinds() -> None:
    both = moving_block()
    assert both.moving is not None
    both.static = IdGrid(torch.zeros(3), VOXEL, torch.ones_like(both.moving.nearest[:1]), both.moving.distance[:1])
    assert at(0.0, INSIDE, of=both) == [0]
    assert at(0.0, INSIDE, of=both, kind="moving") == [0] and at(0.0, INSIDE, of=both, kind="static") == [1]
    assert at(0.25, INSIDE, of=both) == [1] and at(0.25, INSIDE, of=both, kind="moving") == [-1]


def test_nearest_frame_without_a_flow() -> None:
    assert at(0.1, INSIDE) == [0] and at(0.2, INSIDE) == [-1]


@pytest.mark.parametrize("time", [0.05, 0.2, 0.4, 0.9])
def test_between_frames_points_are_carried_by_the_flow(time: float) -> None:
    """The block moves five voxels from frame to frame whatever the gap, so its place is known at any time."""
    instances = moving_block()
    asked: list[int] = []

    def velocity(points: Tensor, times: Tensor) -> Tensor:
        asked.append(len(points))
        speed = torch.where(times < 0.2499, 2.0, 0.5 / 0.75)  # scene units per unit of time
        return torch.cat([speed, torch.zeros(len(points), 2)], dim=-1)

    # The flow of a target frame is asked for; at the frame in the middle both gaps meet, so it lies on one side.
    frames = (0, 1) if time < 0.25 else (1, 2)
    speed = 2.0 if frames == (0, 1) else 0.5 / 0.75
    instances.velocity = lambda p, t: torch.tensor([[speed, 0.0, 0.0]]).expand_as(velocity(p, t))
    x = 0.15 + 0.5 * frames[0] + speed * (time - TIMES[frames[0]])
    row = [[x + d, 0.25, 0.25] for d in (-0.3, -0.1, 0.0, 0.1, 0.3)]
    assert at(time, *row, [50.0, 0.0, 0.0], of=instances) == [-1, 0, 0, 0, -1, -1]
    assert max(asked) == sum(0 <= point[0] <= 2 for point in row), "points far from all movers are not carried"
    assert at(time, BELOW, of=instances) == [1]


def test_what_is_known_of_an_instance() -> None:
    instances = moving_block()
    assert instances.ids == (0, 1) and len(instances) == 2
    assert (instances.label(0), instances.label(1)) == (2, 5)
    assert instances.is_moving(0) and not instances.is_moving(1)
    torch.testing.assert_close(instances.center(0, 0.125), torch.tensor([0.4, 0.25, 0.25]))
    torch.testing.assert_close(instances.bounds(0, 1.0)[1], torch.tensor([1.3, 0.4, 0.4]))
    assert instances.is_present(0, 0.3) and not instances.is_present(0, 0.9) and instances.is_present(1, 0.9)
    with pytest.raises(ValueError, match="no instance 2; the ids are 0 to 1"):
        instances.center(2, 0.0)


def test_file(tmp_path: Path) -> None:
    instances, path = moving_block(), tmp_path / "run" / "instances.npz"
    instances.save(path)
    again = Instances.load(path)
    assert [f.name for f in path.parent.iterdir()] == ["instances.npz"]
    assert again.fingerprint == "abc" and again.ids == instances.ids
    points = torch.rand(500, 3) * torch.tensor([2.2, 0.8, 2.0]) - torch.tensor([0.1, 0.1, 1.1])
    times = torch.rand(500)
    assert torch.equal(again.membership(points, times, 0.1), instances.membership(points, times, 0.1))
    torch.testing.assert_close(again.center(0, 0.6), instances.center(0, 0.6))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SceneDataError, match=r"instances\.npz cannot be read as instances"):
        Instances.load(path)
    with pytest.raises(SceneDataError, match="does not exist"):
        Instances.load(tmp_path / "none.npz")


# ---------------------------------------------------------------- what movers hide


def looking_down(*heights: float) -> FrameCameras:
    """Cameras of 8 x 6 pixels at these heights, all looking down the z axis; a pixel is .1 wide one unit below."""
    poses = torch.eye(4)[:3].repeat(len(heights), 1, 1)
    poses[:, 2, 3] = torch.tensor(heights)
    return FrameCameras(poses, torch.tensor([[10.0, 10.0, 4.0, 3.0]]).repeat(len(heights), 1), 8, 6)


def shadows(views: list[list[int]], *heights: float) -> Shadows:
    """Mover 3 in two pixels of the middle row of every view, .5 away."""
    ids = torch.full((len(heights), 6, 8), -1, dtype=torch.int16)
    ids[:, 3, 3:5] = 3
    distance = torch.where(ids == 3, 0.5, 2.0)
    return Shadows.of(looking_down(*heights), ids, distance, torch.tensor(views))


def test_behind_a_mover_and_nowhere_else_is_hidden() -> None:
    found = shadows([[0], [1]], 0.0, 5.0)
    points = torch.tensor(
        [
            [0.0, -0.05, -1.0],  # behind
            [0.0, -0.05, -0.55],  # just behind: its own far side
            [0.0, -0.05, -0.3],  # in front
            [0.15, -0.05, -1.0],  # a pixel beside: its blurred edge
            [0.25, -0.05, -1.0],  # two pixels beside
            [0.0, -0.05, 1.0],  # behind the camera
            [9.0, 0.0, -1.0],  # out of view
        ]
    )
    assert found.lookup(points, torch.zeros(7, dtype=torch.long), 0.1).tolist() == [3, -1, -1, 3, -1, -1, -1]
    assert found.lookup(points, torch.ones(7, dtype=torch.long), 0.1)[0] == 3, "that frame's camera is farther up"


def test_what_another_frame_of_the_time_sees_is_not_hidden() -> None:
    """The second camera looks from below, past the mover; a time with one camera is not asked about the other."""
    both = shadows([[0, 1], [0, -1]], 0.0, 0.0)
    aside = both.cameras.camera_to_worlds.clone()
    aside[1, 0, 3] = 0.3
    both = replace(both, cameras=replace(both.cameras, camera_to_worlds=aside))
    point = torch.tensor([[0.0, -0.05, -1.0]])
    assert both.lookup(point, torch.tensor([0]), 0.1).tolist() == [-1]
    assert both.lookup(point, torch.tensor([1]), 0.1).tolist() == [3]


def test_shadows_are_kept_and_asked_at_the_frames_around(tmp_path: Path) -> None:
    block = moving_block()
    assert block.hidden_by(torch.zeros(1, 3), torch.zeros(1), 0.1).tolist() == [-1], "nothing is known yet"
    block = block.with_shadows(shadows([[0], [-1], [-1]], 0.0))
    block.save(tmp_path / "instances.npz")
    loaded = Instances.load(tmp_path / "instances.npz")
    point = torch.tensor([[0.0, -0.05, -1.0]])
    for instances in (block, loaded):
        times = (0.0, 0.1, 0.25, 0.5)
        found = [instances.hidden_by(point, torch.tensor([time]), 0.1).item() for time in times]
        assert found == [3, 3, -1, -1]
