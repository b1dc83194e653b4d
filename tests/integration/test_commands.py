"""nerfstudio's own commands on a trained run: ns-eval and ns-render."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
import torch
from nerfstudio.scripts import render as ns_render
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.utils import install_checks
from nerfstudio.utils.colormaps import ColormapOptions, apply_colormap, apply_depth_colormap
from PIL import Image
from tiny_runs import FRAMES, HEIGHT, OUTPUTS, WIDTH, TrainedRun, render

from semflow_nerfstudio.runs import load_run

SCORES = ("psnr", "ssim", "miou", "miou_dataset", "miou_moving", "boundary_f", "total_accuracy", "class_accuracy")
SHOWN = ["rgb", "semantics", "depth", "flow", "dynamicness"]
"""Colour pictures, a depth, and a plain number."""

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ns-render writes videos with the ffmpeg command, which is not installed"
)


@pytest.fixture
def images_need_no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """ns-render asks for ffmpeg even where it writes images, for which it does not use it."""
    monkeypatch.setattr(install_checks, "check_ffmpeg_installed", lambda: None)


def pictures(folder: Path, count: int, panels: int = 1, width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    """The images in a folder, of which there are that many, of that size."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    images = [np.asarray(Image.open(path)) for path in files]
    assert [image.shape for image in images] == [(height, panels * width, 3)] * count
    return images


def camera_path(run: TrainedRun, folder: Path, times: list[float | None], **top_level) -> Path:
    """What the viewer's Render tab writes: a training camera that stands still; None: a camera without time."""
    pose = load_run(run.folder, "inference").frames.camera_to_worlds[1]
    matrix = [*pose.flatten().tolist(), 0.0, 0.0, 0.0, 1.0]
    cameras = []
    for time in times:
        camera = {"camera_to_world": matrix, "fov": 50.0, "aspect": WIDTH / HEIGHT}
        cameras.append(camera if time is None else {**camera, "render_time": time})
    content = {
        "camera_type": "perspective",
        "render_height": HEIGHT,
        "render_width": WIDTH,
        "camera_path": cameras,
        "fps": 4,
        "seconds": len(times) / 4,
        "is_cycle": False,
        "smoothness_value": 0.5,
        **top_level,
    }
    file = folder / "camera_path.json"
    file.write_text(json.dumps(content))
    return file


# ---------------------------------------------------------------- ns-eval


def test_eval_writes_all_scores(tiny_run: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    ComputePSNR(tiny_run.config_file, out, render_output_path=tmp_path / "pictures").main()

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    written = json.loads(out.read_text(), parse_constant=refuse)
    assert written["method_name"] == "semantic-flow-lite" and Path(written["checkpoint"]) == tiny_run.checkpoint
    results = written["results"]
    for name in (*SCORES, "dynamic_psnr", "num_rays_per_sec", "fps"):
        assert name in results and (results[name] is None or math.isfinite(results[name])), name
    for name in ("psnr", "ssim", "miou", "miou_dataset", "total_accuracy", "num_rays_per_sec", "fps"):
        assert results[name] is not None, name
    assert {f"{name}_std" for name in ("psnr", "ssim", "miou")} <= set(results)
    assert 0 <= results["miou_dataset"] <= 1 and results["fps"] * WIDTH * HEIGHT > results["num_rays_per_sec"]
    saved = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {f"eval_{name}_{k:04d}.png" for name in ("img", "depth", "semantics") for k in range(12)} == saved


def test_eval_agrees_with_our_own_evaluation(tiny_run: TrainedRun, tmp_path: Path) -> None:
    from semflow_nerfstudio.runs import evaluate

    ComputePSNR(tiny_run.config_file, tmp_path / "scores.json").main()
    theirs = json.loads((tmp_path / "scores.json").read_text())["results"]
    ours = evaluate(load_run(tiny_run.folder))
    for name in (*SCORES, "dynamic_psnr"):
        assert theirs[name] == pytest.approx(ours[name], nan_ok=True) or (theirs[name] is None and ours[name] is None)
    assert ours["eval_views"] == 12 and math.isfinite(ours["copy_psnr"]) and 0 < ours["copy_miou"] < 1


# ---------------------------------------------------------------- what ns-render and the viewer can show


def test_every_output_can_be_displayed(tiny_run: TrainedRun) -> None:
    outputs = render(load_run(tiny_run.folder))
    assert set(outputs) >= OUTPUTS and next(iter(outputs)) == "rgb"
    for name, value in outputs.items():
        assert value.dtype == torch.float32 and value.shape[:2] == (HEIGHT // 2, WIDTH // 2), name
        assert value.shape[2] in (1, 3) and value.isfinite().all(), name
        assert value.min() >= 0 and (value.shape[2] == 1 or value.max() <= 1), name
        shown = apply_colormap(value)
        assert shown.shape == (HEIGHT // 2, WIDTH // 2, 3) and shown.min() >= 0 and shown.max() <= 1, name
    for name in ("accumulation", "dynamicness", "semantic_entropy"):
        assert outputs[name].max() <= 1 + 1e-5, name
    assert apply_depth_colormap(outputs["depth"], outputs["accumulation"]).shape[2] == 3
    assert [name for name in outputs if "depth" in name] == ["depth"]


def test_semantics_are_the_colours_of_the_labels(tiny_run: TrainedRun) -> None:
    run = load_run(tiny_run.folder)
    outputs = render(run)
    assert torch.equal(outputs["semantics"], run.model.class_colors[outputs["label"][..., 0].long()])


# ---------------------------------------------------------------- ns-render dataset


def test_dataset_renders_every_output(tiny_run: TrainedRun, tmp_path: Path) -> None:
    ns_render.DatasetRender(tiny_run.config_file, tmp_path, split="train").main()
    assert {path.name for path in (tmp_path / "train").iterdir()} >= OUTPUTS | {"gt-rgb"}
    for name in (*OUTPUTS, "gt-rgb"):
        pictures(tmp_path / "train" / name, FRAMES, width=WIDTH // 2, height=HEIGHT // 2)


def test_dataset_renders_held_out_views_and_raw_values(tiny_run: TrainedRun, tmp_path: Path) -> None:
    names = ["rgb", "raw-depth", "raw-gt-labels", "rgba"]
    ns_render.DatasetRender(
        tiny_run.config_file, tmp_path, split="test", rendered_output_names=names, image_format="png"
    ).main()
    pictures(tmp_path / "test" / "rgb", 12, width=WIDTH // 2, height=HEIGHT // 2)
    assert len(list((tmp_path / "test" / "rgba").rglob("*.png"))) == 12
    for name in ("raw-depth", "raw-gt-labels"):
        files = list((tmp_path / "test" / name).rglob("*.npy.gz"))
        with gzip.open(files[0]) as file:
            assert len(files) == 12 and np.load(file).shape == (HEIGHT // 2, WIDTH // 2, 1)


# ---------------------------------------------------------------- ns-render camera-path, interpolate, spiral


@pytest.mark.usefixtures("images_need_no_ffmpeg")
@pytest.mark.parametrize("times", [[0.0, 0.37, 1.0], [-0.2, 0.5, 1.3], [None, None], [0.5, None]], ids=str)
def test_camera_path(times: list[float | None], tiny_run: TrainedRun, tmp_path: Path) -> None:
    ns_render.RenderCameraPath(
        tiny_run.config_file,
        tmp_path / "out.mp4",
        rendered_output_names=SHOWN,
        camera_path_filename=camera_path(tiny_run, tmp_path, times),
        output_format="images",
    ).main()
    pictures(tmp_path / "out", len(times), len(SHOWN))


@pytest.mark.usefixtures("images_need_no_ffmpeg")
def test_times_of_a_camera_path_are_the_models(tiny_run: TrainedRun, tmp_path: Path, monkeypatch) -> None:
    """They reach the model, which clamps them to the clip: those before and after it look like its first and last."""
    seen = []
    original = ns_render.media.write_image
    monkeypatch.setattr(
        ns_render.media, "write_image", lambda path, image, **kw: seen.append(image) or original(path, image, **kw)
    )
    ns_render.RenderCameraPath(
        tiny_run.config_file,
        tmp_path / "out.mp4",
        rendered_output_names=["dynamicness"],
        colormap_options=ColormapOptions(normalize=True),
        camera_path_filename=camera_path(tiny_run, tmp_path, [-1.0, 0.0, 0.5, 1.0, 2.0]),
        output_format="images",
        image_format="png",
    ).main()
    assert np.array_equal(seen[0], seen[1]) and np.array_equal(seen[3], seen[4])
    assert not np.array_equal(seen[1], seen[2]) and not np.array_equal(seen[2], seen[3])


@pytest.mark.usefixtures("images_need_no_ffmpeg")
@pytest.mark.parametrize("center", [[0, 0, 0], [50, 50, 50]], ids=["some", "nothing"])
def test_cropped_camera_path(center: list[float], tiny_run: TrainedRun, tmp_path: Path) -> None:
    crop = {"crop_center": center, "crop_scale": [1, 1, 1], "crop_bg_color": {"r": 250, "g": 0, "b": 250}}
    ns_render.RenderCameraPath(
        tiny_run.config_file,
        tmp_path / "out.mp4",
        rendered_output_names=SHOWN,
        camera_path_filename=camera_path(tiny_run, tmp_path, [0.0, 0.5], crop=crop),
        output_format="images",
        image_format="png",
    ).main()
    first = pictures(tmp_path / "out", 2, len(SHOWN))[0][:, :WIDTH]
    if center[0] == 50:
        assert np.abs(first.astype(int) - (250, 0, 250)).max() <= 2


@pytest.mark.usefixtures("images_need_no_ffmpeg")
@pytest.mark.parametrize("source", ["eval", "train"])
def test_interpolate(source: Literal["eval", "train"], tiny_run: TrainedRun, tmp_path: Path) -> None:
    ns_render.RenderInterpolated(
        tiny_run.config_file,
        tmp_path / "out.mp4",
        rendered_output_names=SHOWN,
        pose_source=source,
        interpolation_steps=2,
        order_poses=source == "train",
        output_format="images",
    ).main()
    cameras = FRAMES if source == "train" else 12
    pictures(tmp_path / "out", 2 * (cameras - 1), len(SHOWN), WIDTH // 2, HEIGHT // 2)


@pytest.mark.usefixtures("images_need_no_ffmpeg")
def test_spiral(tiny_run: TrainedRun, tmp_path: Path) -> None:
    ns_render.SpiralRender(
        tiny_run.config_file,
        tmp_path / "out.mp4",
        rendered_output_names=SHOWN,
        seconds=1.0,
        frame_rate=5,
        output_format="images",
    ).main()
    pictures(tmp_path / "out", 5, len(SHOWN), WIDTH // 2, HEIGHT // 2)


@pytest.mark.usefixtures("images_need_no_ffmpeg")
def test_nearest_training_image_beside_the_rendering(tiny_run: TrainedRun, tmp_path: Path) -> None:
    ns_render.RenderCameraPath(
        tiny_run.config_file,
        tmp_path / "out.mp4",
        camera_path_filename=camera_path(tiny_run, tmp_path, [0.0, 1.0]),
        output_format="images",
        render_nearest_camera=True,
        check_occlusions=True,
    ).main()
    pictures(tmp_path / "out", 2, 2)


@needs_ffmpeg
@pytest.mark.parametrize("command", ["camera-path", "interpolate", "spiral"])
def test_videos(command: str, tiny_run: TrainedRun, tmp_path: Path) -> None:
    common = (tiny_run.config_file, tmp_path / "out.mp4")
    if command == "camera-path":
        path = camera_path(tiny_run, tmp_path, [0.0, 0.5, 1.0])
        ns_render.RenderCameraPath(*common, rendered_output_names=SHOWN[:2], camera_path_filename=path).main()
    elif command == "interpolate":
        ns_render.RenderInterpolated(*common, rendered_output_names=SHOWN[:2], interpolation_steps=1).main()
    else:
        ns_render.SpiralRender(*common, rendered_output_names=SHOWN[:2], seconds=0.5, frame_rate=6).main()
    with av.open(str(tmp_path / "out.mp4")) as video:
        frames = list(video.decode(video=0))
    assert len(frames) == {"camera-path": 3, "interpolate": 11, "spiral": 3}[command]
