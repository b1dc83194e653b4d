"""Batches of single frames: keys, types and sizes, missing modalities, other parsers' metadata, leaks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs, Semantics
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image
from tiny_scenes import FRAMES, HEIGHT, WIDTH, save_image, write_dynamic_scene, write_transforms

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.dataset import SemFlowDataset
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig


def scene_dataset(folder: Path, split: str = "train", scale_factor: float = 1.0, **config) -> SemFlowDataset:
    parser = DynamicSceneDataParserConfig(data=folder, **config).setup()
    return SemFlowDataset(parser.get_dataparser_outputs(split), scale_factor)


def plain_outputs(images: list[Path], sizes: list[tuple[int, int]], **fields) -> DataparserOutputs:
    """What a parser without this package's metadata gives."""
    count = len(images)
    widths, heights = torch.tensor(sizes).T[..., None]
    cameras = Cameras(torch.eye(4)[:3].expand(count, 3, 4).clone(), 20.0, 20.0, 8.0, 5.0, widths, heights)
    return DataparserOutputs(image_filenames=images, cameras=cameras, **fields)


def write_image(path: Path, width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> Path:
    save_image(path, np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8))
    return path


def test_items_have_every_key_at_the_size_of_the_camera(tmp_path):
    dataset = scene_dataset(write_dynamic_scene(tmp_path), downscale_factor=2)
    shapes = {
        "image": (3, torch.float32),
        "labels": (1, torch.uint8),
        "flow_forward": (2, torch.float16),
        "flow_forward_mask": (1, torch.bool),
        "flow_backward": (2, torch.float16),
        "flow_backward_mask": (1, torch.bool),
        "motion_mask": (1, torch.uint8),
        "disparity": (1, torch.float32),
    }
    for index in range(FRAMES):
        item = dataset[index]
        assert {key: (*item[key].shape, item[key].dtype) for key in item if key != "image_idx"} == {
            key: (HEIGHT // 2, WIDTH // 2, channels, dtype) for key, (channels, dtype) in shapes.items()
        }


def test_contents_are_those_of_the_files(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    item = scene_dataset(folder)[1]
    image = np.asarray(Image.open(folder / "images/001.png"))
    flow = np.load(folder / "flow/001_fwd.npz")
    assert np.array_equal((item["image"].numpy() * 255).round(), image)
    assert np.array_equal(item["flow_forward_mask"][..., 0].numpy(), flow["mask"])
    valid = flow["mask"]
    assert np.allclose(item["flow_forward"].numpy()[valid], flow["flow"][valid], atol=2e-3)
    assert np.array_equal(item["disparity"][..., 0].numpy(), np.load(folder / "disp/001.npy"))
    moving = np.asarray(Image.open(folder / "motion_masks/001.png")) > 0
    assert np.array_equal(item["motion_mask"][..., 0].numpy(), moving)


def test_frames_without_a_file_are_unknown(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    for name in ("flow/001_fwd.npz", "motion_masks/001.png", "disp/001.npy", "SegmentationClass_train/001.png"):
        (folder / name).unlink()
    item = scene_dataset(folder)[1]
    assert (item["labels"] == 255).all() and (item["motion_mask"] == 255).all()
    assert not item["flow_forward_mask"].any() and (item["flow_forward"] == 0).all()
    assert item["flow_backward_mask"].any()
    assert item["disparity"].isnan().all()


def test_modalities_that_no_frame_has_are_absent(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    for k in range(FRAMES):
        (folder / f"motion_masks/{k:03d}.png").unlink()
        (folder / f"disp/{k:03d}.npy").unlink()
    dataset = scene_dataset(folder)
    assert not {"motion_mask", "disparity", "depth", "inverse_depth"} & set(dataset[0])
    assert set(scene_dataset(folder, "val")[0]) == {"image_idx", "image", "labels"}


def test_flow_and_intrinsics_follow_camera_res_scale_factor_exactly(tmp_path):
    """16x10 at 0.7 is 11x7: both axes scale by what was rounded to, not by 0.7."""
    folder = write_dynamic_scene(tmp_path)
    full, scaled = scene_dataset(folder), scene_dataset(folder, scale_factor=0.7)
    ratio = torch.tensor([11 / WIDTH, 7 / HEIGHT])
    assert scaled.size(0) == (11, 7)
    cameras, source = scaled.cameras, full.cameras
    for name, factor in (("fx", ratio[0]), ("cx", ratio[0]), ("fy", ratio[1]), ("cy", ratio[1])):
        assert torch.allclose(getattr(cameras, name), getattr(source, name) * factor)
    flow = np.load(folder / "flow/000_fwd.npz")
    uniform = {"flow": np.full_like(flow["flow"], 4.0), "mask": np.ones_like(flow["mask"])}
    np.savez(folder / "flow/000_fwd.npz", **uniform)
    assert torch.allclose(scene_dataset(folder, scale_factor=0.7)[0]["flow_forward"].float(), 4 * ratio, rtol=1e-3)


def test_labels_of_unlabelled_frames_leak_into_nothing(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    before = [scene_dataset(folder, labelled_frames="0,3")[k] for k in range(FRAMES)]
    for k in (1, 2):
        (folder / f"SegmentationClass_train/{k:03d}.png").unlink()
    dataset = scene_dataset(folder, labelled_frames="0,3")
    for k, old in enumerate(before):
        new = dataset[k]
        assert old.keys() == new.keys()
        for key in old:
            assert np.array_equal(np.asarray(old[key]), np.asarray(new[key])), key
    assert all((before[k]["labels"] == 255).all() for k in (1, 2)) and (before[0]["labels"] < 3).all()


def test_depth_is_in_scene_units_and_gives_inverse_depth(tmp_path):
    folder = write_transforms(tmp_path, times=[0, 1, 2, 3])
    config = SemFlowDataParserConfig(data=folder, eval_mode="all", depth_unit_scale_factor=1.0)
    outputs = config.setup().get_dataparser_outputs("train")
    item = SemFlowDataset(outputs)[2]
    expected = np.load(folder / "depth/002.npy") * outputs.dataparser_scale
    assert outputs.dataparser_scale != 1
    assert np.allclose(item["depth"][..., 0].numpy(), expected, rtol=1e-5)
    rounded = 2.0**-11  # half of the last bit of half precision
    assert item["inverse_depth"].dtype == torch.float16
    assert np.allclose(item["inverse_depth"][..., 0].numpy(), 1 / expected, rtol=rounded + 1e-5, atol=0)


def test_cameras_of_different_size_are_refused_with_both_names(tmp_path):
    images = [write_image(tmp_path / "a.png"), write_image(tmp_path / "b.png", 8, 5)]
    with pytest.raises(SceneDataError, match=r"a\.png.*b\.png"):
        SemFlowDataset(plain_outputs(images, [(WIDTH, HEIGHT), (8, 5)]))


def test_image_of_another_shape_than_its_camera_is_refused(tmp_path):
    dataset = SemFlowDataset(plain_outputs([write_image(tmp_path / "a.png", 10, 10)], [(WIDTH, HEIGHT)]))
    with pytest.raises(SceneDataError, match=r"a\.png"):
        dataset[0]


@pytest.mark.parametrize("color", [None, (1.0, 1.0, 1.0), (0.2, 0.4, 0.6)])
def test_transparency_is_blended(tmp_path, color):
    path = write_image(tmp_path / "a.png", channels=4)
    rgba = np.asarray(Image.open(path)) / 255.0
    alpha_color = None if color is None else torch.tensor(color)
    opaque = tmp_path / "b.png"
    Image.open(path).convert("RGB").convert("RGBA").save(opaque)
    outputs = plain_outputs([path, opaque], [(WIDTH, HEIGHT)] * 2, alpha_color=alpha_color)
    dataset = SemFlowDataset(outputs)
    expected = rgba[..., :3] * rgba[..., 3:] + np.array(color or (0, 0, 0)) * (1 - rgba[..., 3:])
    assert np.allclose(dataset[0]["image"].numpy(), expected, atol=1e-6)
    assert dataset[1]["image"].shape == (HEIGHT, WIDTH, 3) and dataset.see_through == {0}
    rounded = dataset.get_data(0, image_type="uint8")["image"]
    assert rounded.dtype == torch.uint8
    assert np.abs(rounded.numpy() / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_semantics_of_other_parsers_become_labels_and_never_a_mask(tmp_path):
    images = [write_image(tmp_path / "a.png")]
    ids = np.random.default_rng(1).integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)
    save_image(tmp_path / "labels.png", ids)
    semantics = Semantics(
        filenames=[tmp_path / "labels.png"],
        classes=["wall", "floor", "person"],
        colors=torch.rand(3, 3),
        mask_classes=["person"],
    )
    dataset = SemFlowDataset(plain_outputs(images, [(WIDTH, HEIGHT)], metadata={"semantics": semantics}))
    item = dataset[0]
    assert np.array_equal(item["labels"][..., 0].numpy(), ids)
    assert "mask" not in item
    table = dataset.classes[0]
    assert table is not None and table.names == ("wall", "floor", "person")


def test_depth_of_other_parsers_uses_their_unit(tmp_path):
    images = [write_image(tmp_path / "a.png")]
    millimetres = np.random.default_rng(1).integers(500, 4000, (HEIGHT, WIDTH)).astype(np.uint16)
    Image.fromarray(millimetres).save(tmp_path / "depth.png")
    metadata = {"depth_filenames": [tmp_path / "depth.png"], "depth_unit_scale_factor": 1e-3}
    outputs = plain_outputs(images, [(WIDTH, HEIGHT)], metadata=metadata, dataparser_scale=0.5)
    item = SemFlowDataset(outputs)[0]
    assert np.allclose(item["depth"][..., 0].numpy(), millimetres * 0.5e-3, rtol=1e-5)


def test_nerfstudios_mask_is_kept_at_the_images_size(tmp_path):
    folder = write_transforms(tmp_path, times=[0, 1, 2, 3])
    outputs = NerfstudioDataParserConfig(data=folder, eval_mode="all", downscale_factor=1).setup()
    outputs = outputs.get_dataparser_outputs("train")
    mask = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
    mask[:, WIDTH:] = 255
    save_image(tmp_path / "mask.png", mask)
    outputs.mask_filenames = [tmp_path / "mask.png"] * FRAMES
    item = SemFlowDataset(outputs)[0]
    expected = torch.arange(WIDTH).expand(HEIGHT, WIDTH)[..., None] >= WIDTH // 2
    assert item["mask"].dtype == torch.bool and torch.equal(item["mask"], expected)
