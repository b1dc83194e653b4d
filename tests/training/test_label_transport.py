"""Labels carried along known trajectories to points that labelled frames see."""

import math

import pytest
import torch
from builders import HEIGHT, WIDTH, arc_cameras, random_samples, random_scene

from semflow_nerfstudio.flow.timeline import Timeline
from semflow_nerfstudio.renderer import RenderConfig, render_rays
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.training import label_transport
from semflow_nerfstudio.training.label_transport import (
    LabelSources,
    LabelTransportConfig,
    chain,
    frames_by_time,
    read_label,
    transport_labels,
    with_transported_labels,
)
from semflow_nerfstudio.training.observed import Observed

TIMES = torch.tensor([0.0, 0.2, 0.6, 1.0])
CONFIG = LabelTransportConfig(decay=0.9, reach=3)
FIRST = torch.zeros(1, dtype=torch.long)


@pytest.fixture(params=[False, True], ids=["counted", "whole"], autouse=True)
def device_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU, which works on the rows that need it, and as on a GPU, which need not say how many these are."""
    monkeypatch.setattr(label_transport, "counting_waits", lambda device: request.param)


def steady(points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """.1 scene units to the right per tau (.4)."""
    return torch.tensor([0.1, 0.0, 0.0]).expand_as(points)


def sources(*frames: int, label: int = 2) -> LabelSources:
    """Labelled frames that see class 0 left of the image's middle and another one right of it."""
    labels = torch.zeros(len(frames), HEIGHT, WIDTH, dtype=torch.uint8)
    labels[:, :, WIDTH // 2 :] = label
    cameras = arc_cameras(1)
    pose = cameras.camera_to_worlds.expand(len(frames), 3, 4)
    cameras = type(cameras)(pose, cameras.intrinsics.repeat(len(frames), 1), WIDTH, HEIGHT)
    return LabelSources(labels, cameras, TIMES[list(frames)], torch.ones(len(TIMES), dtype=torch.bool))


def test_chain_goes_frame_by_frame_both_ways() -> None:
    points = torch.zeros(3, 3)
    start, end = torch.tensor([0, 3, 2]), torch.tensor([3, 1, 2])
    moved = chain(steady, Timeline(TIMES), points, start, end, 3)
    assert moved[:, 0].tolist() == pytest.approx([0.25, -0.2, 0.0])
    assert not points.any(), "the points themselves are left as they are"


def test_labels_come_from_where_the_flow_leads() -> None:
    """A point left of the middle moves to its right until the labelled time after it."""
    points = torch.tensor([[-0.05, 0.0, 0.0], [-0.4, 0.0, 0.0]])
    labels, sure = transport_labels(steady, Timeline(TIMES), sources(3), points, torch.tensor([0.2, 0.2]), CONFIG)
    assert labels.tolist() == [2, 0]
    assert sure.tolist() == pytest.approx([0.81, 0.81], abs=1e-4)  # two frames away
    stays, _ = transport_labels(
        lambda p, t: torch.zeros_like(p), Timeline(TIMES), sources(3), points, torch.tensor([0.2, 0.2]), CONFIG
    )
    assert stays.tolist() == [0, 0]


def test_two_sides_agree_or_cancel() -> None:
    """Frames 0 and 3 both see the point as class 2; a point that they see differently is hardly believed."""
    timeline, time = Timeline(TIMES), torch.tensor([0.2, 0.2])
    points = torch.tensor([[0.3, 0.0, 0.0], [-0.1, 0.0, 0.0]])
    labels, sure = transport_labels(steady, timeline, sources(0, 3), points, time, CONFIG)
    assert labels.tolist() == [2, 0]  # the nearer frame, one step away, says 0
    assert sure.tolist() == pytest.approx([1 - 0.1 * 0.19, 0.9 - 0.81], abs=1e-4)


def test_other_frames_answer_where_the_own_one_is_labelled_too() -> None:
    """With scribbles every frame has labels, if not of this pixel: the nearest others are asked."""
    point, seen = torch.tensor([[0.3, 0.0, 0.0]]), sources(0, 1, 2, 3)
    seen.labels[1] = IGNORE_LABEL
    labels, sure = transport_labels(steady, Timeline(TIMES), seen, point, torch.tensor([0.2]), CONFIG)
    assert labels.item() == 2 and sure.item() == pytest.approx(1 - 0.1 * 0.1, abs=1e-4)


def test_another_camera_of_the_same_time_is_asked_first() -> None:
    """With synchronised cameras the label is there without any flow, and as sure as one can be."""
    point = torch.tensor([[-0.4, 0.0, 0.0]])
    labels, sure = transport_labels(steady, Timeline(TIMES), sources(0), point, torch.zeros(1), CONFIG)
    assert labels.item() == 0 and sure.item() == pytest.approx(1.0)


def test_the_frames_of_every_labelled_time() -> None:
    labelled, frames = frames_by_time(torch.tensor([4, 1, 4, 0, 4]))
    assert labelled.tolist() == [0, 1, 4]
    assert frames.tolist() == [[3, 1, 0], [-1, -1, 2], [-1, -1, 4]]


def test_the_surest_of_several_cameras_of_a_time_answers() -> None:
    """The second and third of them see the point, and the third at a depth that it cannot have."""
    seen, point = sources(0, 0, 0), torch.tensor([[-0.4, 0.0, 0.0]])
    seen.labels[0], seen.labels[1], seen.labels[2] = IGNORE_LABEL, 1, 2
    seen.inverse_depth = torch.full((3, HEIGHT, WIDTH), math.nan)
    seen.inverse_depth[2] = 1e-3
    labels, sure = transport_labels(steady, Timeline(TIMES), seen, point, torch.zeros(1), CONFIG)
    assert labels.item() == 1 and sure.item() > 0.9


def test_out_of_reach_out_of_view_and_unlabelled() -> None:
    timeline, time = Timeline(TIMES), torch.zeros(1)
    point = torch.tensor([[-0.4, 0.0, 0.0]])
    near = LabelTransportConfig(reach=2)
    assert transport_labels(steady, timeline, sources(3), point, time, near)[1].item() == 0
    away = torch.tensor([[-9.0, 0.0, 0.0]])
    assert transport_labels(steady, timeline, sources(3), away, time, CONFIG)[1].item() == 0
    empty = sources(3)
    empty.labels.fill_(IGNORE_LABEL)
    assert transport_labels(steady, timeline, empty, point, time, CONFIG)[1].item() == 0


def test_what_a_pixel_cannot_show() -> None:
    """Another depth than the given one, or a pixel where nothing moves; an unknown depth contradicts nothing."""
    point, error = torch.zeros(1, 3), torch.zeros(1)
    seen = sources(0)
    depth = seen.cameras.project(point, torch.zeros(1, dtype=torch.long))[1].item()
    for inverse, expected in ((1 / depth, 1.0), (1 / (1.5 * depth), 0.0), (math.nan, 1.0)):
        seen.inverse_depth = torch.full((1, HEIGHT, WIDTH), inverse)
        assert read_label(seen, FIRST, point, error, CONFIG)[1].item() == expected
    seen.moving = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    assert read_label(seen, FIRST, point, error, CONFIG)[1].item() == 0


def test_flow_that_does_not_return_is_not_believed() -> None:
    """The way back is taken with the flow there: one that only drifts off loses confidence with the distance."""
    seen, point = sources(0), torch.zeros(1, 3)
    sure = [read_label(seen, FIRST, point, torch.tensor([e]), CONFIG)[1].item() for e in (0.0, 0.01, 0.05, 0.5)]
    assert sure[0] == 1 and sure[0] > sure[1] > sure[2] > sure[3] and sure[3] < 1e-3


def test_only_unlabelled_moving_rays_learn_from_others() -> None:
    """Their labels come with a confidence; those of labelled rays, of static rays and of surer ones stay."""
    scene, _ = random_scene()
    scene.velocity = steady  # type: ignore[method-assign]
    times = torch.tensor([0.2] * 6)
    with torch.no_grad():
        out = render_rays(scene, None, random_samples(times), RenderConfig(), training=True)
    seen = Observed(
        image=torch.zeros(6, 3),
        pixel=torch.zeros(6, 2),
        aspect=torch.ones(6),
        frame=torch.ones(6, dtype=torch.long),
        z_ratio=torch.ones(6),
        labels=torch.tensor([255, 1, 255, 0, 255, 255], dtype=torch.uint8),
        label_weight=torch.tensor([0.0, 1.0, 0.0, 0.99, 0.0, 0.0]),
        motion=torch.tensor([1, 1, 0, 1, 1, 255], dtype=torch.uint8),
    )
    reach = LabelTransportConfig(decay=0.9, cycle_scale=1e6)
    wide = sources(0, 3)
    wide.cameras.intrinsics[:, :2] /= 10  # sees everything
    wide.labels.fill_(2)
    found = with_transported_labels(scene, out, seen, wide, reach, 0.5)
    assert found.labels is not None and found.label_weight is not None
    assert found.labels.tolist() == [2, 1, 255, 0, 2, 255]
    sure = 0.5 * (1 - 0.1 * 0.19)
    assert found.label_weight.tolist() == pytest.approx([sure, 1.0, 0.0, 0.99, sure, 0.0], abs=1e-3)
    assert with_transported_labels(scene, out, seen, wide, reach, 0.0) is seen
    wide.wanted[1] = False
    left = with_transported_labels(scene, out, seen, wide, reach, 0.5)
    assert left.labels is not None and left.labels.equal(seen.labels), "ignored pixels of labelled frames stay ignored"
