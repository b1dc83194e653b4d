"""Rays that commands and viewers come up with: without times, outside the clip, cropped, without direction."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.model_components.renderers import background_color_override_context
from tiny_runs import OUTPUTS, TrainedRun, model_of
from torch import Tensor

from semflow_nerfstudio.model import SemanticFlowModel
from semflow_nerfstudio.runs import Run, load_run

GREEN = torch.tensor([0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def run(tiny_run: TrainedRun) -> Run:
    return load_run(tiny_run.folder, "inference")


@pytest.fixture(scope="module")
def model(run: Run) -> SemanticFlowModel:
    return model_of(run)


def camera(run: Run, time: float | None = 0.4) -> Cameras:
    """A small picture of the second training frame's camera, as the viewer makes cameras: no scene, maybe no time."""
    frame = run.frames[1:2]
    times = None if time is None else torch.tensor([[time]])
    small = Cameras(frame.camera_to_worlds, frame.fx / 4, frame.fy / 4, frame.cx / 4, frame.cy / 4, 12, 7, times=times)
    small.metadata = {"cam_idx": 1}
    return small


@torch.no_grad()
def render(model: SemanticFlowModel, camera: Cameras, box: OrientedBox | None = None) -> dict[str, Tensor]:
    outputs = model.get_outputs_for_camera(camera, box)
    assert set(outputs) >= OUTPUTS and all(value.isfinite().all() for value in outputs.values())
    assert all(value.shape[:2] == (7, 12) for value in outputs.values())
    return outputs


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def box_around(center: tuple[float, float, float], size: float) -> OrientedBox:
    return OrientedBox.from_params(center, (0.1, 0.2, 0.3), (size, size, size))


def test_rays_without_times_show_the_first_frame(model: SemanticFlowModel, run: Run, monkeypatch) -> None:
    first, later = render(model, camera(run, 0.0)), render(model, camera(run, 0.6))
    assert equal(render(model, camera(run, None)), first) and not equal(first, later)
    monkeypatch.setattr(model, "config", replace(model.config, default_time=0.6))
    assert equal(render(model, camera(run, None)), later)


def test_times_outside_the_clip_are_clamped(model: SemanticFlowModel, run: Run) -> None:
    assert equal(render(model, camera(run, -0.3)), render(model, camera(run, 0.0)))
    assert equal(render(model, camera(run, 1.2)), render(model, camera(run, 1.0)))


def test_a_bare_ray_bundle_is_enough(model: SemanticFlowModel, run: Run) -> None:
    """As `ns-export` and `--render-nearest-camera` make them."""
    frame = run.frames[0]
    one = torch.ones(3, 1)
    bundle = RayBundle(
        origins=frame.camera_to_worlds[:, 3].expand(3, 3),
        directions=-frame.camera_to_worlds[:, 2].expand(3, 3),
        pixel_area=one,
        nears=0.05 * one,
        fars=100 * one,
        camera_indices=torch.zeros(3, 1, dtype=torch.long),
        metadata={},
    )
    with torch.no_grad():
        outputs = model.get_outputs(bundle)
    assert {"rgb", "accumulation", "depth"} <= set(outputs)
    assert all(len(value) == 3 and value.isfinite().all() for value in outputs.values())


def test_rays_without_direction_do_no_harm(model: SemanticFlowModel) -> None:
    """nerfstudio makes them where a rendered camera stands at a training camera's place."""
    nothing = torch.full((2, 3), torch.nan)
    nothing[0] = torch.tensor([0.0, 1.0, 0.0])
    index = torch.zeros(2, 1, dtype=torch.long)
    with torch.no_grad():
        outputs = model.get_outputs(RayBundle(torch.zeros(2, 3), nothing, torch.ones(2, 1), index, metadata={}))
    assert outputs["rgb"][0].isfinite().all()


@pytest.mark.parametrize("center", [(50.0, 0.0, 0.0), (0.0, 0.0, -50.0)])
def test_a_crop_without_anything_in_it_shows_the_background(
    center: tuple[float, float, float], model: SemanticFlowModel, run: Run
) -> None:
    with background_color_override_context(GREEN):
        outputs = render(model, camera(run), box_around(center, 1.0))
    assert not outputs["accumulation"].any() and not outputs["dynamicness"].any()
    for name in ("rgb", "static_rgb", "dynamic_rgb"):
        assert torch.equal(outputs[name], GREEN.expand(7, 12, 3)), name


def test_a_crop_around_everything_changes_nothing_much(model: SemanticFlowModel, run: Run) -> None:
    """The camera stands in the box."""
    whole, cropped = render(model, camera(run)), render(model, camera(run), box_around((0.0, 0.0, 0.0), 100.0))
    assert torch.equal(whole["rgb"], cropped["rgb"]) and torch.equal(whole["depth"], cropped["depth"])


def test_a_crop_keeps_what_is_in_it(model: SemanticFlowModel, run: Run) -> None:
    frame = run.frames[1]
    x, y, z = (frame.camera_to_worlds[:, 3] - 0.9 * frame.camera_to_worlds[:, 2]).tolist()
    outputs = render(model, camera(run), box_around((x, y, z), 0.3))
    depth, accumulation = outputs["depth"], outputs["accumulation"]
    assert (accumulation[3, 6] > 0).all() and 0.9 - 0.3 < depth[3, 6].item() < 0.9 + 0.3
    assert not accumulation[0, 0].any()


def test_an_image_is_the_same_in_whatever_chunks_it_is_rendered(
    model: SemanticFlowModel, run: Run, monkeypatch
) -> None:
    whole = render(model, camera(run))
    for size in (1, 7, 50):
        monkeypatch.setattr(model, "config", replace(model.config, eval_num_rays_per_chunk=size))
        pieces = render(model, camera(run))
        for name in OUTPUTS - {"semantics", "semantics_overlay"}:
            torch.testing.assert_close(pieces[name], whole[name], atol=1e-5, rtol=1e-4)


def test_a_camera_far_outside_the_scene(model: SemanticFlowModel, run: Run) -> None:
    for distance in (3.0, 1e4):
        away = camera(run)
        away.camera_to_worlds[0, :, 3] += distance * away.camera_to_worlds[0, :, 2]
        render(model, away)


def test_cameras_at_the_very_place_of_a_frame_and_behind_it(model: SemanticFlowModel, run: Run) -> None:
    turned = camera(run)
    turned.camera_to_worlds[0, :, [0, 2]] *= -1
    render(model, turned)


@pytest.mark.parametrize("opacity", [0.0, 0.5, 1.0])
def test_the_overlay_lies_between_colours_and_classes(
    opacity: float, model: SemanticFlowModel, run: Run, monkeypatch
) -> None:
    monkeypatch.setattr(model, "config", replace(model.config, overlay_opacity=opacity))
    outputs = render(model, camera(run))
    mixed = (1 - opacity) * outputs["rgb"] + opacity * outputs["semantics"]
    torch.testing.assert_close(outputs["semantics_overlay"], mixed)
