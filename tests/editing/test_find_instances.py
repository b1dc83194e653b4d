"""Instances of a scene that is known by formula: two balls of one class, a post and a wall."""

from pathlib import Path
from typing import Any

import pytest
import torch
from formula_model import BALL, GROUND, POST, RADIUS, WALL, ball_centers, ball_distance, formula_run, post_distance
from torch import Tensor

from semflow_nerfstudio.editing import find_instances as module
from semflow_nerfstudio.editing.find_instances import instances_file, instances_of, scene_name
from semflow_nerfstudio.editing.instances import Instances


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return formula_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def instances(run: Any) -> Instances:
    return instances_of(run)


def points_around(time: float, ball: int, count: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return ball_centers(torch.tensor([[time]]))[ball] + 0.6 * (torch.rand(count, 3, generator=generator) - 0.5)


def ids_at(instances: Instances, points: Tensor, time: float, margin: float = 0.0, kind: Any = None) -> Tensor:
    return instances.membership(points, torch.full((len(points),), time), margin, kind)


def test_two_balls_of_one_class_a_post_and_a_wall(instances: Instances) -> None:
    moving = [number for number in instances.ids if instances.is_moving(number)]
    static = [number for number in instances.ids if not instances.is_moving(number)]
    assert moving == [0, 1] and [instances.label(number) for number in moving] == [BALL, BALL]
    assert [instances.label(number) for number in static] == [WALL, GROUND]
    for number in moving:
        assert all(instances.is_present(number, time) for time in instances.times)


@pytest.mark.parametrize("time", [0.0, 0.5, 1.0, 0.4, 0.9])
def test_ids_stay_with_their_ball_and_fill_it(instances: Instances, time: float) -> None:
    """At frame times and between them; the far side, which no camera sees, belongs to the ball as well."""
    assert instances.moving is not None
    voxel, seen = instances.moving.voxel, set()
    for ball in (0, 1):
        points = points_around(time, ball)
        distance = ball_distance(points, torch.tensor([[time]]))
        found = ids_at(instances, points, time, kind="moving")
        (number,) = set(found[distance < -voxel].tolist())
        assert number >= 0
        seen.add(number)
        first = ids_at(instances, ball_centers(torch.tensor([[0.0]]))[ball], 0.0)
        assert first.tolist() == [number]
        assert set(found[distance > 2 * voxel].tolist()) == {-1}
        wide = ids_at(instances, points, time, margin=0.15, kind="moving")
        assert set(wide[distance < 0.15 - 2.5 * voxel].tolist()) == {number}
        assert set(wide[distance > 0.15 + 2 * voxel].tolist()) == {-1}
        center = ball_centers(torch.tensor([[time]]))[ball][0]
        torch.testing.assert_close(instances.center(number, time), center, atol=voxel, rtol=0)
        low, high = instances.bounds(number, time)
        torch.testing.assert_close(low, center - RADIUS, atol=2 * voxel, rtol=0)
        torch.testing.assert_close(high, center + RADIUS, atol=2 * voxel, rtol=0)
    assert seen == {0, 1}


def test_what_lies_behind_a_ball_is_hidden_by_it(run: Any, instances: Instances) -> None:
    """From the frame of that time; not its near side, nor what is in front of it or beside it."""
    bank = run.model.scene("tiny").bank
    time = instances.times[1]
    eye = bank.camera_to_worlds[int(bank.views[1, 0]), :, 3]
    for (center,) in ball_centers(torch.tensor([[float(time)]])):
        way = torch.nn.functional.normalize(center - eye, dim=0)
        side = torch.linalg.cross(way, torch.tensor([0.0, 1.0, 0.0]))
        points = center + torch.stack(
            [2.5 * RADIUS * way, -RADIUS * way, -2 * RADIUS * way, 2.5 * RADIUS * (way + side)]
        )
        own = ids_at(instances, center[None], time, kind="moving").item()
        found = instances.hidden_by(points, torch.full((4,), float(time)), 0.1).tolist()
        assert found[:3] == [own, -1, -1] and found[3] != own


def test_static_instances(instances: Instances) -> None:
    assert instances.static is not None
    post = torch.tensor(POST) + 0.4 * (torch.rand(3000, 3) - 0.5)
    found, distance = ids_at(instances, post, 0.3, kind="static"), post_distance(post)
    voxel = instances.static.voxel
    (number,) = set(found[distance < -voxel].tolist())
    assert instances.label(number) == GROUND and set(found[distance > 2 * voxel].tolist()) == {-1}


def test_kept_beside_the_run_until_its_weights_change(run: Any, instances: Instances, monkeypatch) -> None:
    path: Path = instances_file(run.model, run.config.get_base_dir(), "tiny")
    assert path.name == "instances.npz" and path.is_file()
    monkeypatch.setattr(module, "render_frames", lambda *args: pytest.fail("rendered again"))
    again = instances_of(run)
    assert again.fingerprint == instances.fingerprint and again.velocity is not None
    points = points_around(0.4, 0)
    assert torch.equal(ids_at(again, points, 0.4), ids_at(instances, points, 0.4))
    found: list[str] = []
    monkeypatch.setattr(module, "find_instances", lambda *args, **kwargs: found.append("again") or instances)
    residual = next(run.model.scene("tiny").static_residual.parameters())
    with torch.no_grad():
        residual.add_(1)
        instances_of(run)
        residual.sub_(1)
    assert found == ["again"]


def test_unknown_scene(run: Any) -> None:
    with pytest.raises(ValueError, match="there is no scene 'x' in this run; it has tiny"):
        scene_name(run.model, "x")
