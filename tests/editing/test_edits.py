"""Edits at render time, in a scene that is known by formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from analytic import (
    BALL,
    CLASSES,
    FIRST,
    PILLAR,
    RADIUS,
    WALL_Z,
    WAY,
    H,
    KnownObjects,
    W,
    analytic_scene,
    ball_center,
    camera_rays,
    centroid,
    image,
    picture,
    project,
)
from builders import random_scene
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from semflow_nerfstudio.editing.edits import Edits
from semflow_nerfstudio.editing.scene_state import (
    SceneState,
    duplicate,
    from_euler,
    ghost,
    hide,
    isolate,
    place,
    recolor,
    with_background,
)
from semflow_nerfstudio.rendered import Rendered, seen_motion
from semflow_nerfstudio.renderer import RenderConfig, render_rays
from semflow_nerfstudio.rendering.edited import LUMA
from semflow_nerfstudio.sampling.proposal import ProposalSampling, ProposalSamplingConfig

NOTHING = SceneState()
BLUE = torch.tensor([0.1, 0.2, 0.9])


def ball_at(time: float) -> Tensor:
    return ball_center(torch.tensor([[time]]))[0]


def wall_colors() -> tuple[Tensor, Tensor]:
    """What the wall alone looks like, and which pixels are clear of its stripes' edges."""
    rays = camera_rays(0.0)
    way = (WALL_Z - rays.origins[:, 2]) / rays.directions[:, 2]
    x = (rays.origins + rays.directions * way[:, None])[:, 0] * 5
    stripe = (x.floor() % 2)[:, None]
    color = stripe * torch.tensor([0.8, 0.2, 0.1]) + (1 - stripe) * torch.tensor([0.1, 0.6, 0.2])
    return color, ((x - x.round()).abs() > 0.15)


def near(point: Tensor, radius: float) -> Tensor:
    """Bool (rays): whose pixels lie at most so many pixels from a point's projection."""
    u, v = project(point)
    row, column = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    return ((column - u).square() + (row - v).square()).sqrt().reshape(-1) <= radius


def shows_wall(out: Rendered, where: Tensor) -> bool:
    color, clear = wall_colors()
    where = where & clear
    assert int(where.sum()) > 30
    return bool((out.rgb - color).abs()[where].max() < 0.02)


@pytest.mark.parametrize("target", ["class:ball", "instance:0", "moving"])
@pytest.mark.parametrize("time", [0.25, 0.4])
def test_behind_what_is_hidden_the_wall_shows(target: str, time: float) -> None:
    there = near(ball_at(time), 9)
    before, after = picture(NOTHING, time), picture(hide(NOTHING, target), time)
    assert float(before.dynamicness[near(ball_at(time), 6)].min()) > 0.97
    assert float(after.dynamicness.max()) == 0.0
    assert shows_wall(after, there) and not shows_wall(before, there)
    away = ~near(ball_at(time), 14)
    if target != "moving":  # the whole scene is sampled anew then, so that edges fall otherwise by a hair
        torch.testing.assert_close(after.rgb[away], before.rgb[away], atol=1e-4, rtol=0)
    assert float(after.distance[there].min()) > float(before.distance[near(ball_at(time), 6)].max()) + 0.5


def test_a_static_instance_is_hidden_and_moved() -> None:
    pillar = torch.tensor(PILLAR)
    assert shows_wall(picture(hide(NOTHING, "instance:1")), near(pillar, 7))
    shift = torch.tensor([-0.3, 0.5, 0.2])
    moved = picture(place(NOTHING, "instance:1", tuple(shift.tolist())))
    assert shows_wall(moved, near(pillar, 7))
    torch.testing.assert_close(moved.rgb[near(pillar + shift, 4)].mean(0), BLUE, atol=0.01, rtol=0)
    blue = (moved.rgb - BLUE).norm(dim=-1) < 0.2
    assert torch.dist(centroid(blue.float()), project(pillar + shift)) < 1


@pytest.mark.parametrize("time", [0.5, 0.6])
def test_what_is_moved_stands_where_it_should_and_leaves_its_place(time: float) -> None:
    shift = torch.tensor([0.1, 0.45, 0.4])
    out = picture(place(NOTHING, "class:ball", tuple(shift.tolist())), time)
    assert torch.dist(centroid(out.dynamicness), project(ball_at(time) + shift)) < 0.4
    assert shows_wall(out, near(ball_at(time), 8))
    nearest = float(out.distance[near(ball_at(time) + shift, 2)].mean())
    expected = float((torch.tensor([0.0, 0.0, 2.5]) - ball_at(time) - shift).norm()) - RADIUS
    assert nearest == pytest.approx(expected, abs=0.03)


def test_moving_it_in_front_of_and_behind_others_hides_the_right_one() -> None:
    to_pillar = torch.tensor(PILLAR) - ball_at(0.5)
    front = picture(place(NOTHING, "instance:0", tuple((to_pillar + torch.tensor([0, 0, 0.5])).tolist())))
    behind = picture(place(NOTHING, "instance:0", tuple((to_pillar + torch.tensor([0, 0, -0.38])).tolist())))
    middle = near(torch.tensor(PILLAR), 2)
    assert float(front.dynamicness[middle].min()) > 0.9
    assert float(behind.dynamicness[middle].max()) < 0.01


def test_turning_and_scaling_happen_about_its_centre() -> None:
    state = place(NOTHING, "instance:0", rotation=from_euler((0, 0, 90)), scale=1.5)
    plain, out = picture(NOTHING), picture(state)
    assert torch.dist(centroid(out.dynamicness), project(ball_at(0.5))) < 0.4
    assert float(out.dynamicness.sum() / plain.dynamicness.sum()) == pytest.approx(1.5**2, rel=0.12)
    # White was above and is on the left now.
    assert float(out.rgb[near(ball_at(0.5) + torch.tensor([-0.15, 0.0, 0.0]), 2), 0].min()) > 0.85
    assert float(out.rgb[near(ball_at(0.5) + torch.tensor([0.15, 0.0, 0.0]), 2), 0].max()) < 0.6


def test_a_ghost_lets_through_exactly_what_it_should() -> None:
    """The ball is solid: many of its samples stop all the light."""
    out = picture(ghost(NOTHING, "class:ball", 0.4))
    inside = near(ball_at(0.5), 6)
    torch.testing.assert_close(out.dynamicness[inside], torch.full((int(inside.sum()),), 0.4), atol=2e-3, rtol=0)
    color, clear = wall_colors()
    upper = inside & clear & near(ball_at(0.5) + torch.tensor([0.0, 0.1, 0.0]), 3)
    torch.testing.assert_close(out.rgb[upper], 0.4 * 0.9 + 0.6 * color[upper], atol=0.01, rtol=0)
    torch.testing.assert_close(out.accumulation[inside], torch.ones(int(inside.sum())), atol=1e-3, rtol=0)


def test_a_static_ghost() -> None:
    out = picture(ghost(NOTHING, "instance:1", 0.3))
    inside, (color, clear) = near(torch.tensor(PILLAR), 4), wall_colors()
    inside = inside & clear
    torch.testing.assert_close(out.rgb[inside], 0.3 * BLUE + 0.7 * color[inside], atol=0.02, rtol=0)


def test_copies_in_space_and_time() -> None:
    """At time .75 the copy is what the ball was at .25, so it stands further back on its way."""
    up = torch.tensor([0.0, 0.5, 0.0])
    out = picture(duplicate(NOTHING, "instance:0", tuple(up.tolist()), 0.5), 0.75)
    both = near(ball_at(0.75), 12), near(ball_at(0.25) + up, 12)
    for where, point in zip(both, (ball_at(0.75), ball_at(0.25) + up), strict=True):
        assert torch.dist(centroid(out.dynamicness * where), project(point)) < 0.4
    assert float((out.dynamicness * ~(both[0] | both[1])).max()) < 1e-3
    early = picture(duplicate(NOTHING, "instance:0", tuple(up.tolist()), 0.5), 0.25)
    assert torch.dist(centroid(early.dynamicness * near(ball_at(0) + up, 12)), project(ball_at(0) + up)) < 0.4


def test_copies_of_what_is_moved_count_from_there() -> None:
    state = duplicate(place(NOTHING, "instance:0", (0.0, 0.4, 0.0)), "instance:0", (0.0, -0.9, 0.0))
    out = picture(state)
    places = [ball_at(0.5) + torch.tensor([0.0, y, 0.0]) for y in (0.4, -0.5)]
    for point in places:
        assert torch.dist(centroid(out.dynamicness * near(point, 12)), project(point)) < 0.4
    assert float((out.dynamicness * ~(near(places[0], 12) | near(places[1], 12))).max()) < 1e-3
    assert float(picture(hide(state, "instance:0")).dynamicness.max()) == 0.0


def test_tints_keep_light_and_shade() -> None:
    plain, out = picture(NOTHING), picture(recolor(NOTHING, "class:ball", (0.9, 0.3, 0.3), 1.0))
    inside, luma = near(ball_at(0.5), 7), torch.tensor(LUMA)
    lower = inside & (plain.rgb[:, 0] < 0.6)
    torch.testing.assert_close((out.rgb @ luma)[lower], (plain.rgb @ luma)[lower], atol=0.02, rtol=0)
    assert float((out.rgb[lower, 0] - out.rgb[lower, 1]).min()) > 0.3
    torch.testing.assert_close(out.rgb[~near(ball_at(0.5), 11)], plain.rgb[~near(ball_at(0.5), 11)], atol=1e-5, rtol=0)


def test_what_is_more_particular_decides_colour_and_place() -> None:
    state = recolor(recolor(NOTHING, "moving", (0.0, 1.0, 0.0), 1.0), "instance:0", (1.0, 0.0, 0.0), 1.0)
    out = picture(state)
    assert float(out.rgb[near(ball_at(0.5), 6), 1].max()) < 0.1
    state = place(place(NOTHING, "moving", (0.0, -0.5, 0.0)), "instance:0", (0.0, 0.5, 0.0))
    moved = picture(state)
    assert torch.dist(centroid(moved.dynamicness), project(ball_at(0.5) + torch.tensor([0, 0.5, 0]))) < 0.4


def test_isolating_and_backgrounds_leave_nothing_else() -> None:
    inside, outside = near(ball_at(0.5), 6), ~near(ball_at(0.5), 13)
    for state in (isolate(NOTHING, ["class:ball"]), with_background(NOTHING, (0.0, 1.0, 0.0))):
        out = picture(state)
        assert float(out.accumulation[inside].min()) > 0.99 and float(out.accumulation[outside].max()) == 0.0
    both = picture(isolate(NOTHING, ["instance:0", "instance:1"]))
    assert float(both.accumulation[near(torch.tensor(PILLAR), 4)].min()) > 0.99
    copied = picture(duplicate(isolate(NOTHING, ["instance:0"]), "instance:0", (0.0, 0.5, 0.0)))
    assert float(copied.accumulation[near(ball_at(0.5) + torch.tensor([0, 0.5, 0]), 6)].min()) > 0.99


def test_the_static_and_the_dynamic_field_can_go_as_a_whole() -> None:
    assert float(picture(hide(NOTHING, "static")).accumulation[~near(ball_at(0.5), 13)].max()) == 0.0
    up = torch.tensor([0.0, 0.5, 0.0])
    moved = picture(place(NOTHING, "moving", tuple(up.tolist())))
    assert torch.dist(centroid(moved.dynamicness), project(ball_at(0.5) + up)) < 0.4


@pytest.mark.parametrize("time_offset", [0.0, 0.25])
def test_motion_follows_the_object_also_when_it_is_turned(time_offset: float) -> None:
    """Turned about itself the ball still goes its old way."""
    state = place(NOTHING, "instance:0", (0.0, 0.4, 0.0), from_euler((0, 0, 90)), 1.2)
    state = duplicate(state, "instance:0", (0.0, -0.8, 0.0), time_offset)
    out = picture(state, 0.5)
    assert out.flow is not None
    motion = torch.zeros(len(out.rgb), 3).index_add(0, out.flow.rays, seen_motion(out, 1))
    for point in (ball_at(0.5) + torch.tensor([0, 0.4, 0]), ball_at(0.5 - time_offset) + torch.tensor([0, -0.4, 0])):
        inside = near(point, 5)
        expected = 0.25 * torch.tensor(WAY)
        torch.testing.assert_close(motion[inside].mean(0), expected, atol=5e-3, rtol=0)


def test_rays_of_several_times_and_cropped_rays() -> None:
    rays = [camera_rays(0.25), camera_rays(0.75)]
    both = RayBundle(
        origins=torch.cat([r.origins for r in rays]),
        directions=torch.cat([r.directions for r in rays]),
        pixel_area=torch.ones(2 * W * H, 1),
        times=torch.cat([r.times for r in rays if r.times is not None]),
    )
    state = place(NOTHING, "instance:0", (0.0, 0.4, 0.0))
    out = picture(state, rays=both)
    for k, time in enumerate((0.25, 0.75)):
        alone = picture(state, time)
        torch.testing.assert_close(out.rgb[k * W * H : (k + 1) * W * H], alone.rgb, atol=1e-5, rtol=0)
    cropped = camera_rays(0.5)
    cropped.nears, cropped.fars = torch.full((W * H, 1), 1.4), torch.full((W * H, 1), 1.6)
    assert float(picture(state, rays=cropped).accumulation.max()) == 0.0


def test_an_edit_that_shows_nothing_else_renders_the_same() -> None:
    """Colour, semantics and flow of the edited way of a ray, in a random scene, against the plain way."""
    scene, shared = random_scene()
    sampler = ProposalSampling(scene, ProposalSamplingConfig(proposal_samples=(16,), samples=12)).eval()
    scene.eval()
    state = recolor(NOTHING, "moving", (1.0, 0.0, 0.0), 0.0)
    with torch.no_grad():
        maps = shared.encode(scene.bank)
        for time in (0.2, 0.47):
            few = [replace_rows(camera_rays(time)) for _ in range(2)]
            assert few[0].times is not None
            plain, _ = sampler(few[0], few[0].times, scene)
            edited, _ = Edits(state, scene).sample(few[1], few[0].times, sampler)
            first = render_rays(scene, shared, plain, RenderConfig(), maps)
            second = render_rays(scene, shared, edited, RenderConfig(), maps)
            assert first.logits is not None and second.logits is not None
            torch.testing.assert_close(second.rgb, first.rgb, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(second.logits, first.logits, atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(seen_motion(second, 1), seen_motion(first, 1), atol=1e-5, rtol=1e-4)


def replace_rows(rays: RayBundle) -> RayBundle:
    """Some of the rays."""
    assert rays.times is not None
    rows = torch.arange(0, len(rays), 61)
    return RayBundle(
        origins=rays.origins[rows],
        directions=rays.directions[rows],
        pixel_area=rays.pixel_area[rows],
        times=rays.times[rows],
    )


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (hide(NOTHING, "class:car"), "no class 'car'; the run has ground, wall, ball"),
        (isolate(NOTHING, ["instance:7"]), "no instance 7; the scene has 0, 1"),
    ],
)
def test_what_is_not_there_cannot_be_edited(state: SceneState, message: str) -> None:
    scene, _ = analytic_scene()
    with pytest.raises(ValueError, match=message):
        Edits(state, scene, KnownObjects(), CLASSES)
    with pytest.raises(ValueError, match="instances of this scene are not known"):
        Edits(state, scene, None, CLASSES)


def test_what_a_mover_hid_from_all_frames_goes_with_it_and_comes_nowhere_back() -> None:
    class Shadowing(KnownObjects):
        """The ball hides what lies below it, whatever the dynamic field shows there."""

        def hidden_by(self, points: Tensor, times: Tensor, margin: float) -> Tensor:
            below = points[:, 2] < ball_center(times.reshape(-1, 1))[:, 2] - RADIUS - margin
            return torch.where(below, BALL, -1)

    scene, _ = analytic_scene()
    ball = ball_at(0.5)
    down = torch.tensor([0.0, 0.0, -1.0])
    points = torch.stack([ball, ball + 2 * RADIUS * down, ball + 2 * RADIUS * torch.tensor([1.0, 0.0, 0.0])])

    def shown(state: SceneState, layer: int | None = None) -> list[bool]:
        edits = Edits(state, scene, Shadowing(), CLASSES)
        share = edits.kept(edits.owners(points, torch.full((3,), 0.5)), None if layer is None else edits.layers[layer])
        assert layer is not None or share.static.all()
        return share.dynamic.tolist()

    assert shown(hide(NOTHING, "class:ball")) == [False, False, True]
    moved = place(NOTHING, "class:ball", (0.0, 0.5, 0.0))
    assert shown(moved) == [False, False, True] and shown(moved, 0) == [True, False, False]
    assert shown(recolor(NOTHING, "class:ball", (1.0, 0.0, 0.0))) == [True, True, True]
    assert shown(hide(NOTHING, "instance:1")) == [True, True, True]


def test_an_object_that_is_not_there_at_a_time_adds_nothing() -> None:
    class Absent(KnownObjects):
        def is_present(self, number: int, time: float) -> bool:
            return number != BALL

        def membership(self, points: Tensor, times: Tensor, margin: float = 0.0, kind: str | None = None) -> Tensor:
            found = super().membership(points, times, margin, kind)
            return torch.where(found == BALL, -1, found)

    scene, sampler = analytic_scene()
    rays = camera_rays(0.5)
    assert rays.times is not None
    edits = Edits(place(NOTHING, "instance:0", (0.0, 0.5, 0.0)), scene, Absent(), CLASSES)
    samples, _ = edits.sample(rays, rays.times, sampler)
    assert samples.starts.shape[1] == sampler.config.samples
    out = render_rays(scene, None, samples, RenderConfig())
    torch.testing.assert_close(out.rgb, picture(NOTHING).rgb, atol=1e-4, rtol=0)


def test_the_scene_is_the_one_that_is_meant() -> None:
    """The tests' own scene: the ball covers what the others say it does."""
    out = picture(NOTHING)
    assert torch.dist(centroid(out.dynamicness), project(torch.tensor(FIRST) + 0.5 * torch.tensor(WAY))) < 0.4
    assert image(out.dynamicness).shape == (H, W) and replace(NOTHING) == NOTHING
