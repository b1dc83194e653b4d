"""Training on what there is: missing modalities, other parsers, one time only; and no label that may not be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig
from nerfstudio.data.dataparsers.dycheck_dataparser import DycheckDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.trainer import Trainer
from PIL import Image
from tiny_runs import (
    CLASSES_OUTPUTS,
    FRAMES,
    OUTPUTS,
    WIDTH,
    dataset_of,
    model_of,
    parameters,
    render,
    scene_of,
    set_up,
    tiny_config,
    train,
    without,
)

from semflow_nerfstudio.cli.render import Render
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
from semflow_nerfstudio.runs import evaluate, load_run

LABEL_FILES = ("SegmentationClass_train", "multiview_GT_semantic")


def train_and_render(data: Path | DataParserConfig, out: Path, **model: Any) -> tuple[Trainer, dict[str, float]]:
    """Train two steps, of which one with movers; load, render and score. Returns trainer and scores."""
    config = tiny_config(data, out, steps=2, **{"static_steps": 1, **model})
    config.steps_per_eval_image = config.steps_per_eval_batch = config.steps_per_eval_all_images = 1
    trainer = train(config)
    assert all(value.isfinite().all() for value in parameters(trainer).values())
    run = load_run(trainer.base_dir)
    expected = OUTPUTS if model_of(run).class_names else OUTPUTS - CLASSES_OUTPUTS
    outputs = render(run)
    assert set(outputs) - {"label"} == expected
    assert all(value.isfinite().all() for value in outputs.values())
    return trainer, evaluate(run, [0])


def losses_of(trainer: Trainer) -> set[str]:
    """Names of the losses of one more step."""
    trainer.pipeline.train()
    return set(trainer.pipeline.get_train_loss_dict(step=2)[1])


# ---------------------------------------------------------------- missing modalities


SEMANTIC = {"semantic", "static_semantic", "dynamic_semantic", "consistency"}
NOT_OF_DEPTH = {"color", "optical_flow", "blend_static", "dynamicness"} | SEMANTIC


@pytest.fixture(scope="module")
def all_losses(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Losses where nothing is missing."""
    losses = losses_of(train_and_render(scene, tmp_path_factory.mktemp("runs"))[0])
    assert NOT_OF_DEPTH < losses
    return losses


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        (("SegmentationClass_train",), SEMANTIC),
        (("flow",), {"optical_flow"}),
        (("motion_masks",), set()),  # derived from the flow
        (("motion_masks", "flow"), {"optical_flow", "blend_static", "dynamicness"}),
        (("disp",), set()),
        (("flow", "disp"), {"optical_flow"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_without(missing: tuple[str, ...], lost: set[str], all_losses: set[str], scene: Path, tmp_path: Path) -> None:
    """Training goes on without the losses that need what is missing, and with all others."""
    trainer, scores = train_and_render(without(scene, tmp_path / "scene", *missing), tmp_path / "runs")
    gone = all_losses - losses_of(trainer)
    assert gone & NOT_OF_DEPTH == lost
    if {"disp", "flow"} & set(missing):  # disparity is aligned by flow
        assert gone - NOT_OF_DEPTH
    assert np.isfinite(scores["psnr"])


def test_without_everything_but_images_and_poses(scene: Path, tmp_path: Path) -> None:
    bare = ("labelmap.txt", "foreground_object.txt", *LABEL_FILES, "motion_masks", "disp", "flow", "multiview_GT")
    trainer, scores = train_and_render(without(scene, tmp_path / "scene", *bare), tmp_path / "runs")
    assert not model_of(trainer).class_names and model_of(trainer).shared is None
    assert np.isfinite(scores["psnr"]) and "miou" not in scores
    groups = trainer.pipeline.get_param_groups()
    assert set(groups) == {"fields", "flow", "proposals"}
    Render(trainer.base_dir, tmp_path / "video", num_frames=2, legend=False, captions=False).main()
    with Image.open(tmp_path / "video" / "00001.png") as picture:
        assert picture.width >= 2 * WIDTH  # colour and motion, without having to ask for them


@pytest.mark.parametrize("folder", ["SegmentationClass_train", "motion_masks", "disp", "flow"])
def test_missing_on_some_frames(folder: str, scene: Path, tmp_path: Path) -> None:
    partial = without(scene, tmp_path / "scene", f"{folder}/001*", f"{folder}/002*")
    train_and_render(partial, tmp_path / "runs")


def test_flow_without_its_masks(scene: Path, tmp_path: Path) -> None:
    copied = without(scene, tmp_path / "scene")
    for path in (copied / "flow").glob("*.npz"):
        np.savez(path, flow=np.load(path)["flow"])
    trainer, _ = train_and_render(copied, tmp_path / "runs")
    assert "optical_flow" in losses_of(trainer)


# ---------------------------------------------------------------- no label leak


def test_labels_that_may_not_be_used_change_nothing(scene: Path, tmp_path: Path) -> None:
    """With and without the label files of the other frames, of views as of training frames: the very same network."""
    results = []
    for name, deleted in (("all", ()), ("few", ("SegmentationClass_train/00[12].*", "multiview_GT_semantic"))):
        folder = without(scene, tmp_path / name / "scene", *deleted)
        losses: list[dict[str, float]] = []

        def look(trainer: Trainer, step: int, losses: list = losses) -> None:
            original = type(trainer.pipeline).get_train_loss_dict
            if step == 0:

                def record(step: int) -> Any:
                    result = original(trainer.pipeline, step)
                    losses.append({key: float(value) for key, value in result[1].items()})
                    return result

                trainer.pipeline.get_train_loss_dict = record

        parser = DynamicSceneDataParserConfig(data=folder, labelled_frames="0,3")
        trainer = train(tiny_config(parser, tmp_path / name, steps=5), look)
        results.append((losses, parameters(trainer), render(trainer, "train", 1)))
    (losses, networks, images), (other_losses, other_networks, other_images) = results
    assert len(losses) == 5 and losses == other_losses
    assert all(torch.equal(networks[name], other_networks[name]) for name in networks)
    assert all(torch.equal(images[name], other_images[name]) for name in images)


def test_labels_that_may_be_used_change_something(scene: Path, tmp_path: Path) -> None:
    """The test above can fail."""
    networks = []
    for frames in ("0,3", "0,1,3"):
        parser = DynamicSceneDataParserConfig(data=scene, labelled_frames=frames)
        networks.append(parameters(train(tiny_config(parser, tmp_path / frames, steps=5))))
    assert any(not torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


# ---------------------------------------------------------------- other parsers


def test_several_cameras_at_a_time(scene: Path, tmp_path: Path) -> None:
    trainer, scores = train_and_render(SemFlowDataParserConfig(data=scene), tmp_path)
    bank = scene_of(trainer).bank
    assert bank.views.shape == (FRAMES, 2) and (bank.views >= 0).all()
    assert np.isfinite(scores["miou"])


def edited_transforms(scene: Path, folder: Path, edit) -> Path:
    copied = without(scene, folder)
    meta = json.loads((copied / "transforms.json").read_text())
    edit(meta)
    (copied / "transforms.json").write_text(json.dumps(meta))
    return copied


def test_several_transforms_files_and_a_new_one_without_labels(scene: Path, tmp_path: Path) -> None:
    """Trained, scored by scene, and adapted from: what a third transforms.json says of labels is never read."""

    def reorder(meta: dict) -> None:
        meta["classes"] = list(reversed(meta["classes"]))

    def forget(meta: dict) -> None:
        del meta["classes"]
        for frame in meta["frames"]:
            frame["labels_path"] = "nowhere.png"

    without(scene, tmp_path / "A")
    edited_transforms(scene, tmp_path / "B", reorder)
    both = tiny_config(SemFlowDataParserConfig(data=tmp_path, scenes=("A", "B")), tmp_path / "runs", 4, static_steps=1)
    trainer = train(both)
    classes = model_of(trainer).class_names
    assert set(model_of(trainer).scenes) == {"A", "B"}
    scores = load_run(trainer.base_dir).pipeline.get_average_eval_image_metrics()
    assert np.isfinite([scores[f"{name}/miou"] for name in "AB"]).all()
    assert scores["psnr"] == pytest.approx(np.mean([scores[f"{name}/psnr"] for name in "AB"]))
    networks = []
    for name, edit in (("whole", reorder), ("bare", forget)):
        parser = SemFlowDataParserConfig(data=edited_transforms(scene, tmp_path / name / "C", edit))
        settings = {"adapt_from": trainer.base_dir, "adapt_field_steps": 3, "adapt_label_steps": 0, "static_steps": 1}
        adapted = train(tiny_config(parser, tmp_path / name, 3, **settings))
        assert model_of(adapted).class_names == classes
        networks.append(parameters(adapted))
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())


def test_a_single_time(scene: Path, tmp_path: Path) -> None:
    """Several pictures of something that stands still: no flow, no movers, but semantics."""

    def edit(meta: dict) -> None:
        first = meta["frames"][0]["time"]
        meta["frames"] = [frame for frame in meta["frames"] if frame["time"] == first]
        for frame in meta["frames"]:
            frame.pop("flow_forward_path", None)
        for key in ("train_filenames", "val_filenames", "test_filenames"):
            meta.pop(key, None)

    folder = edited_transforms(scene, tmp_path / "scene", edit)
    trainer, _ = train_and_render(SemFlowDataParserConfig(data=folder, eval_mode="all"), tmp_path / "runs")
    assert len(scene_of(trainer).timeline) == 1


def test_a_single_image(scene: Path, tmp_path: Path) -> None:
    folder = without(scene, tmp_path / "scene", "*/00[123]*", "multiview_GT*", "*/000_fwd.npz", "transforms.json")
    poses = np.load(folder / "poses_bounds.npy")
    np.save(folder / "poses_bounds.npy", poses[:1])
    train_and_render(folder, tmp_path / "runs")


def test_nerfstudio_data_without_times(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Frames in the order of their files are taken as equidistant in time."""

    def edit(meta: dict) -> None:
        keep = ("file_path", "transform_matrix", "fl_x", "fl_y", "cx", "cy", "w", "h")
        meta["frames"] = [{k: v for k, v in frame.items() if k in keep} for frame in meta["frames"]]
        meta["frames"] = [frame for frame in meta["frames"] if (folder / frame["file_path"]).is_file()]

    folder = tmp_path / "scene"
    edited_transforms(scene, folder, edit)
    parser = NerfstudioDataParserConfig(data=folder, downscale_factor=1, eval_mode="interval", eval_interval=4)
    trainer, scores = train_and_render(parser, tmp_path / "runs")
    assert "equidistant" in capsys.readouterr().out
    frames = scene_of(trainer).bank.frame_times
    assert len(frames.unique()) == len(frames) > 3 and np.isfinite(scores["psnr"])


def small_copy(source: Path, folder: Path, counts: dict[str, int], size: int) -> Path:
    """Some frames of a NeRF-synthetic data set, smaller."""
    for split, count in counts.items():
        meta = json.loads((source / f"transforms_{split}.json").read_text())
        step = max(1, len(meta["frames"]) // count)
        meta["frames"] = meta["frames"][::step][:count]
        for frame in meta["frames"]:
            target = folder / f"{frame['file_path']}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(source / f"{frame['file_path']}.png") as image:
                image.resize((size, size)).save(target)
        (folder / f"transforms_{split}.json").write_text(json.dumps(meta))
    return folder


def test_dnerf_data(test_data: Path, tmp_path: Path) -> None:
    if not (test_data / "dnerf_lego").is_dir():
        pytest.skip(f"there is no dnerf_lego in {test_data}")
    folder = small_copy(test_data / "dnerf_lego", tmp_path / "lego", {"train": 5, "val": 2, "test": 2}, 32)
    trainer, scores = train_and_render(DNeRFDataParserConfig(data=folder), tmp_path / "runs")
    assert np.isfinite(scores["psnr"]) and not model_of(trainer).class_names
    assert scene_of(trainer).background_color == (1, 1, 1) and not scene_of(trainer).opaque
    cameras = dataset_of(trainer, "train").cameras
    assert cameras.times is not None and cameras.fx.dtype == cameras.times.dtype == torch.float32


def test_blender_data_stands_still(test_data: Path, tmp_path: Path) -> None:
    if not (test_data / "dnerf_lego").is_dir():
        pytest.skip(f"there is no dnerf_lego in {test_data}")
    folder = small_copy(test_data / "dnerf_lego", tmp_path / "lego", {"train": 4, "val": 2, "test": 2}, 32)
    train_and_render(BlenderDataParserConfig(data=folder), tmp_path / "runs")


def write_dycheck(folder: Path, frames: int = 5, width: int = 48, height: int = 36) -> Path:
    """A clip in DyCheck's layout: a camera that moves sideways before noise."""
    names = [f"0_{k:05d}" for k in range(frames)]
    for part in ("rgb/1x", "processed_depth/1x", "camera", "splits"):
        (folder / part).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for k, name in enumerate(names):
        picture = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"rgb/1x/{name}.png")
        np.save(folder / f"processed_depth/1x/{name}.npy", np.full((height, width, 1), 2, np.float32))
        camera = {
            "orientation": np.eye(3).tolist(),
            "position": [0.1 * k, 0.0, -2.0],
            "focal_length": 50.0,
            "pixel_aspect_ratio": 1.0,
            "principal_point": [width / 2, height / 2],
            "image_size": [width, height],
        }
        (folder / f"camera/{name}.json").write_text(json.dumps(camera))
    times = list(range(frames))
    split = {"frame_names": names, "camera_ids": [0] * frames, "time_ids": times}
    (folder / "splits/train.json").write_text(json.dumps(split))
    (folder / "dataset.json").write_text(json.dumps({"ids": names}))
    frame_of = {name: {"warp_id": k, "appearance_id": k, "camera_id": 0} for k, name in enumerate(names)}
    (folder / "metadata.json").write_text(json.dumps(frame_of))
    (folder / "scene.json").write_text(json.dumps({"center": [0.0, 0.0, 0.0], "scale": 0.2, "near": 0.1, "far": 1.0}))
    box = [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    extra = {"factor": 1, "fps": 30, "bbox": box, "lookat": [0.0, 0.0, 0.0], "up": [0.0, -1.0, 0.0]}
    (folder / "extra.json").write_text(json.dumps(extra))
    return folder


def test_dycheck_data(tmp_path: Path) -> None:
    trainer, scores = train_and_render(
        DycheckDataParserConfig(data=write_dycheck(tmp_path / "clip")), tmp_path / "runs"
    )
    assert np.isfinite(scores["psnr"]) and not model_of(trainer).class_names
    assert scene_of(trainer).bank.frame_times.tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_dycheck_data_fills_the_fields(tmp_path: Path) -> None:
    """The parser's box is many times as large as what is seen between near and far."""
    scene = scene_of(set_up(tiny_config(DycheckDataParserConfig(data=write_dycheck(tmp_path / "clip")), tmp_path)))
    assert scene.bounded and scene.near is not None and scene.far is not None
    cameras = scene.bank.cameras
    pixels = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([48.0, 36.0])
    frame = torch.arange(2000) % len(cameras)
    rays = torch.stack([(pixels[:, 0] - 24) / 50, -(pixels[:, 1] - 18) / 50, -torch.ones(2000)], dim=-1)
    rays = torch.nn.functional.normalize(rays, dim=-1)
    directions = (cameras.camera_to_worlds[frame, :, :3] @ rays[..., None])[..., 0]
    distance = torch.where(frame % 2 == 0, scene.near, scene.far)
    places = scene.space(cameras.camera_to_worlds[frame, :, 3] + distance[:, None] * directions)
    assert places.min() >= 0 and places.max() <= 1
    assert (places.amax(0) - places.amin(0)).max() > 0.7  # the box is of frusta, whose far ends stick out
