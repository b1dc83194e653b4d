"""The datamanager with this package's and nerfstudio's own parsers, in every mode."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.pixel_samplers import PatchPixelSampler
from tiny_scenes import (
    FRAMES,
    HEIGHT,
    WIDTH,
    drawn_pixels,
    edit_transforms,
    same,
    save_image,
    write_dynamic_scene,
    write_transforms,
)

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.datamanager import SemFlowDataManager, SemFlowDataManagerConfig
from semflow_nerfstudio.data.disparity_alignment import DisparityAlignment
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.frame_sampler import PixelPool, SemFlowPixelSamplerConfig
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


def manage(dataparser: DataParserConfig, test_mode: str = "val", **config) -> SemFlowDataManager:
    config.setdefault("train_num_rays_per_batch", 256)
    config.setdefault("eval_num_rays_per_batch", 256)
    return SemFlowDataManagerConfig(dataparser=dataparser, **config).setup(device="cpu", test_mode=test_mode)


def only_scene(manager: SemFlowDataManager):
    (scene,) = manager.train_dataset.metadata["scene_frames"].values()
    return scene


def write_blender(folder: Path, splits=("train", "val", "test"), times: bool = False) -> Path:
    """A few transparent frames around the origin in the layout of NeRF's and D-NeRF's synthetic scenes."""
    rng = np.random.default_rng(0)
    for number, split in enumerate(splits):
        frames = []
        for k in range(3):
            angle = 2.1 * k + number
            pose = np.eye(4)
            pose[:3, 0], pose[:3, 2] = [np.cos(angle), 0, -np.sin(angle)], [np.sin(angle), 0, np.cos(angle)]
            pose[:3, 3] = 4 * pose[:3, 2]
            save_image(folder / f"{split}/r_{k}.png", rng.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8))
            frame = {"file_path": f"./{split}/r_{k}", "transform_matrix": pose.tolist()}
            frames.append({**frame, "time": (k + 0.25 * number) / 3} if times else frame)
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    return folder


def test_batches_hold_the_pixels_that_their_rays_see(tmp_path):
    manager = manage(DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)))
    rays, batch = manager.next_train(0)
    frame, row, column = batch["indices"].unbind(-1)
    items = [manager.train_dataset[k] for k in range(FRAMES)]
    for key in set(batch) - {"indices", "image_size"}:
        expected = torch.stack([items[f][key][r, c] for f, r, c in zip(frame, row, column, strict=True)])
        assert batch[key].dtype == expected.dtype, key
        assert torch.allclose(batch[key].float(), expected.float(), atol=1e-6, equal_nan=True), key
    assert torch.equal(batch["image_size"], torch.tensor([[float(WIDTH), float(HEIGHT)]]).expand(256, 2))
    cameras = manager.train_dataset.cameras
    assert torch.equal(rays.origins, cameras.camera_to_worlds[frame, :, 3])
    assert cameras.times is not None and rays.times is not None and torch.equal(rays.times, cameras.times[frame])
    assert rays.metadata["scene"].shape == (256, 1) and (rays.metadata["scene"] == 0).all()
    assert rays.metadata["directions_norm"].shape == (256, 1)


def test_training_rays_know_whether_they_show_motion_and_others_do_not(tmp_path):
    manager = manage(DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)))
    rays, batch = manager.next_train(0)
    motion = rays.metadata["motion"]
    assert motion.dtype == torch.uint8 and torch.equal(motion, batch["motion_mask"])
    assert (motion == 1).any() and not (motion == 1).all()
    assert torch.equal(rays[:5].metadata["motion"], motion[:5])
    assert "motion" not in manager.next_eval(0)[0].metadata
    assert "motion" not in manage(BlenderDataParserConfig(data=write_blender(tmp_path))).next_train(0)[0].metadata


def test_evaluation_gives_batches_and_whole_images(tmp_path):
    manager = manage(DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)))
    _, batch = manager.next_eval(0)
    assert batch["image"].dtype == torch.float32 and batch["labels"].shape == (256, 1)
    camera, whole = manager.next_eval_image(0)
    assert camera.shape == (1,) and camera.metadata and camera.metadata["scene"].shape == (1, 1)
    assert whole["image"].shape == (HEIGHT, WIDTH, 3) and whole["image"].dtype == torch.float32
    assert len(list(manager.fixed_indices_eval_dataloader)) == len(manager.eval_dataset) == 12
    assert len(manager.eval_image_dataloader.batch()["image"]) == 8


def test_scene_frames_describe_the_training_frames(tmp_path):
    manager = manage(DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)))
    scene = only_scene(manager)
    outputs = manager.train_dataparser_outputs
    assert list(manager.train_dataset.metadata["scene_frames"]) == [scene.name] == ["Scene"]
    assert scene.images.dtype == torch.uint8
    for k in range(FRAMES):
        assert torch.equal(scene.images[k].float() / 255, manager.train_dataset[k]["image"])
    assert torch.equal(scene.times, torch.arange(FRAMES) / (FRAMES - 1))
    assert torch.equal(scene.distinct_times, scene.times) and scene.tau == pytest.approx(1 / 3)
    assert scene.next_frame.tolist() == [1, 2, 3, -1] and scene.previous_frame.tolist() == [-1, 0, 1, 2]
    assert scene.class_names == ("background", "person", "balloon")
    assert scene.foreground.tolist() == [False, True, True]
    assert torch.allclose(scene.class_colors[2], torch.tensor([220, 20, 60]) / 255)
    assert scene.has == {"labels", "flow", "motion_mask", "disparity"}
    assert scene.bounded and scene.near and scene.far and scene.near < scene.far
    assert scene.world_scale == pytest.approx(outputs.dataparser_scale)
    assert torch.equal(scene.cameras.camera_to_worlds, outputs.cameras.camera_to_worlds)
    # the scene's cameras see a pixel where nerfstudio's rays start it
    rays, batch = manager.next_train(0)
    points = rays.origins + 1.7 * rays.directions
    pixels, depth = scene.cameras.project(points, batch["indices"][:, 0])
    assert torch.allclose(pixels, batch["indices"][:, [2, 1]] + 0.5, atol=1e-3)
    assert torch.allclose(depth, 1.7 / rays.metadata["directions_norm"][:, 0], atol=1e-5)


def test_wide_frames_are_scaled_down_for_the_encoder(tmp_path):
    manager = manage(DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)), frame_width_cap=8)
    scene = only_scene(manager)
    assert scene.images.shape == (FRAMES, HEIGHT // 2, WIDTH // 2, 3)
    assert (scene.cameras.width, scene.cameras.height) == (8, 5)
    mean = manager.train_dataset[1]["image"].reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    assert (scene.images[1] / 255 - mean).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.allclose(scene.cameras.intrinsics, _intrinsics(manager) / 2)


def _intrinsics(manager: SemFlowDataManager) -> torch.Tensor:
    cameras = manager.train_dataset.cameras
    return torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], dim=-1)


def test_inference_mode_has_scene_frames_and_reads_nothing_else(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    config = DynamicSceneDataParserConfig(data=folder, downscale_factor=2)
    manager = manage(config, "inference", frame_width_cap=8)
    assert only_scene(manager).images.shape == (FRAMES, 5, 8, 3)
    assert not hasattr(manager, "train_image_dataloader") and manager.train_pixel_sampler is None
    assert manager.train_dataset.cameras.times is not None and manager.eval_dataset.cameras.times is not None


def test_test_mode_reads_training_frames_only_when_asked(tmp_path, monkeypatch):
    manager = manage(DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)), "test")
    reads = []
    original = type(manager.train_dataset).get_data
    monkeypatch.setattr(
        type(manager.train_dataset), "get_data", lambda self, i, **kw: reads.append(i) or original(self, i, **kw)
    )
    manager.next_eval_image(0)
    assert len(reads) == 1
    manager.next_train(0)
    assert len(reads) == 1 + FRAMES and "alignment" not in manager.train_dataset.metadata


def test_frames_per_batch(tmp_path):
    parser = DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path))
    for frames, minimum, expected in ((2, 1, 2), (None, 1, 4), (8, 1, 4), (None, 100, 2), (3, 1000, 1)):
        sampler = SemFlowPixelSamplerConfig(frames_per_batch=frames, min_rays_per_frame=minimum)
        manager = manage(parser, pixel_sampler=sampler, train_num_rays_per_batch=250)
        drawn = set()
        for step in range(80):  # one frame of four, 80 times: all are drawn but for one case in 10^9
            index = manager.next_train(step)[1]["indices"][:, 0]
            chosen, counts = index.unique_consecutive(return_counts=True)
            assert len(index) == 250 and len(chosen) == len(index.unique()) == expected
            assert counts.max() - counts.min() <= 1
            drawn |= set(chosen.tolist())
        assert drawn == set(range(FRAMES))


@pytest.mark.parametrize("fraction", [0.0, 0.6])
def test_dynamic_fraction_draws_that_share_from_moving_pixels(tmp_path, fraction):
    folder = write_dynamic_scene(tmp_path)
    for k in range(FRAMES):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[2:4, 3:7] = 255 * (k != 2)
        save_image(folder / f"motion_masks/{k:03d}.png", mask)
    manager = manage(
        DynamicSceneDataParserConfig(data=folder),
        pixel_sampler=SemFlowPixelSamplerConfig(frames_per_batch=None, dynamic_fraction=fraction),
        train_num_rays_per_batch=20_000,
    )
    _, batch = manager.next_train(0)
    moving = batch["motion_mask"][:, 0] == 1
    has_mover = batch["indices"][:, 0] != 2
    share = 8 / (HEIGHT * WIDTH)
    # five standard deviations of 15,000 draws
    assert moving[has_mover].float().mean() == pytest.approx(fraction + (1 - fraction) * share, abs=0.02)
    assert moving.sum() == moving[has_mover].sum()
    # uniform over all pixels of a frame without movers
    cells = batch["indices"][~has_mover][:, 1] * WIDTH + batch["indices"][~has_mover][:, 2]
    counts = torch.bincount(cells, minlength=HEIGHT * WIDTH).float()
    assert len(counts) == HEIGHT * WIDTH and counts.min() > 0
    assert counts.std() == pytest.approx((5000 / (HEIGHT * WIDTH)) ** 0.5, rel=0.3)


def test_pool_draws_every_pixel_of_the_right_frame():
    masks = [torch.rand(5, 7) < 0.4, torch.rand(3, 4) < 0.5, torch.zeros(2, 2, dtype=torch.bool)]
    pool = PixelPool.of(masks)
    frame = torch.randint(0, 2, (4000,))
    pixel = pool.draw(frame)
    for k in (0, 1):
        assert set(pixel[frame == k].tolist()) == set(masks[k].flatten().nonzero()[:, 0].tolist())


def masked_scene(tmp_path: Path, masks: list[np.ndarray]) -> NerfstudioDataParserConfig:
    folder = write_transforms(tmp_path)
    meta = json.loads((folder / "transforms.json").read_text())
    for k, mask in enumerate(masks):
        save_image(folder / f"masks/{k}.png", mask)
        meta["frames"][k]["mask_path"] = f"masks/{k}.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    return NerfstudioDataParserConfig(data=folder, eval_mode="all", downscale_factor=1)


@pytest.mark.parametrize("ignore", [False, True])
def test_pixels_outside_nerfstudios_mask_are_never_drawn(tmp_path, ignore):
    masks = [np.full((HEIGHT, WIDTH), 255 * (k != 1), np.uint8) for k in range(FRAMES)]
    masks[0][:, : WIDTH // 2] = 0
    manager = manage(masked_scene(tmp_path, masks), pixel_sampler=SemFlowPixelSamplerConfig(ignore_mask=ignore))
    seen = torch.cat([manager.next_train(step)[1]["indices"] for step in range(20)])
    first = seen[seen[:, 0] == 0]
    if ignore:
        assert (seen[:, 0] == 1).any() and first[:, 2].min() == 0
    else:
        assert not (seen[:, 0] == 1).any() and first[:, 2].min() == WIDTH // 2
        assert set(seen[:, 0].tolist()) == {0, 2, 3}


def test_masks_without_any_pixel_are_refused(tmp_path):
    manager = manage(masked_scene(tmp_path, [np.zeros((HEIGHT, WIDTH), np.uint8)] * FRAMES))
    with pytest.raises(SceneDataError, match="no pixel"):
        manager.next_train(0)


def test_resampling_reads_other_frames(tmp_path):
    manager = manage(
        DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)),
        train_num_images_to_sample_from=2,
        train_num_times_to_repeat_images=3,
    )
    steps = [set(manager.next_train(step)[1]["indices"][:, 0].tolist()) for step in range(60)]
    assert all(len(frames) == 2 for frames in steps)
    groups = [steps[i : i + 3] for i in range(0, 60, 3)]
    assert all(group[0] == group[1] == group[2] for group in groups)
    assert len({tuple(sorted(group[0])) for group in groups}) > 1


def test_patches_keep_nerfstudios_sampler(tmp_path):
    manager = manage(DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)), patch_size=4)
    assert isinstance(manager.train_pixel_sampler, PatchPixelSampler)
    _, batch = manager.next_train(0)
    assert batch["image"].dtype == torch.float32 and batch["image"].max() <= 1


def test_frames_without_times_are_equidistant_in_file_order(tmp_path, capsys):
    folder = write_transforms(tmp_path, count=7)
    meta = json.loads((folder / "transforms.json").read_text())
    for frame in meta["frames"]:  # 8, 9, 10, ...: numbers are compared as numbers
        number = int(Path(frame["file_path"]).stem)
        (folder / f"images/{number:03d}.png").rename(folder / f"images/f{number + 8}.png")
        frame["file_path"] = f"images/f{number + 8}.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    config = NerfstudioDataParserConfig(data=folder, downscale_factor=1, eval_mode="interval", eval_interval=3)
    for mode in ("val", "test", "inference"):
        manager = manage(config, mode)
        assert capsys.readouterr().out.count("no times") == 1
        for dataset in (manager.train_dataset, manager.eval_dataset):
            expected = [(int(path.stem[1:]) - 8) / 6 for path in dataset.image_filenames]
            assert dataset.cameras.times is not None and dataset.cameras.times.shape == (len(dataset), 1)
            assert torch.allclose(dataset.cameras.times[:, 0], torch.tensor(expected))
        assert torch.allclose(only_scene(manager).distinct_times, torch.arange(7) / 6)
        assert only_scene(manager).name == "scene" and not only_scene(manager).bounded


def test_neighbours_in_time_of_stock_parsers(tmp_path):
    folder = write_transforms(tmp_path, count=7)
    config = NerfstudioDataParserConfig(data=folder, downscale_factor=1, eval_mode="interval", eval_interval=3)
    scene = only_scene(manage(config, "inference"))
    order = scene.times.argsort().tolist()
    for frame, following in zip(order, [*order[1:], -1], strict=True):
        assert scene.next_frame[frame] == following
        if following >= 0:
            assert scene.previous_frame[following] == frame
    assert scene.previous_frame[order[0]] == -1


def test_times_of_all_splits_are_known(tmp_path):
    manager = manage(DNeRFDataParserConfig(data=write_blender(tmp_path, times=True)))
    expected = sorted((k + 0.25 * split) / 3 for k in range(3) for split in range(3))
    assert torch.allclose(only_scene(manager).distinct_times, torch.tensor(expected))
    assert len(only_scene(manager).times) == 3


def test_a_split_that_is_missing_does_no_harm(tmp_path):
    manager = manage(DNeRFDataParserConfig(data=write_blender(tmp_path, ("train", "val"), times=True)))
    assert len(only_scene(manager).distinct_times) == 6


def test_objects_seen_from_outside_are_bounded_on_white(tmp_path):
    manager = manage(BlenderDataParserConfig(data=write_blender(tmp_path), alpha_color="white"))
    scene = only_scene(manager)
    assert scene.bounded and scene.near is None and scene.background_color == (1.0, 1.0, 1.0)
    assert scene.images.shape[-1] == 3 and manager.next_train(0)[1]["image"].shape[-1] == 3
    manager = manage(BlenderDataParserConfig(data=write_blender(tmp_path), alpha_color="black"))
    assert only_scene(manager).background_color == (0.0, 0.0, 0.0)


def test_single_frame_is_a_static_scene(tmp_path):
    folder = write_transforms(tmp_path, count=1)
    config = NerfstudioDataParserConfig(data=folder, eval_mode="all", downscale_factor=1, auto_scale_poses=False)
    manager = manage(config)
    scene = only_scene(manager)
    assert scene.times.tolist() == [0.0] and scene.distinct_times.tolist() == [0.0] and scene.tau == 1.0
    assert scene.next_frame.tolist() == [-1]
    rays, _ = manager.next_train(0)
    assert (rays.times == 0).all()


def test_several_cameras_at_one_time(tmp_path):
    times, cameras = [0, 0, 1, 1], ["left", "right", "left", "right"]
    folder = write_transforms(tmp_path, times=times, cameras=cameras)
    manager = manage(SemFlowDataParserConfig(data=folder, eval_mode="all"))
    scene = only_scene(manager)
    assert scene.times.tolist() == [0, 0, 1, 1] and scene.distinct_times.tolist() == [0, 1]
    assert scene.next_frame.tolist() == [2, 3, -1, -1] and scene.previous_frame.tolist() == [-1, -1, 0, 1]


def test_labels_of_unlabelled_frames_of_a_transforms_file_are_never_read(tmp_path):
    """Without their files, batches are the same, carried labels among them. Frames 0 and 3 are held out."""
    batches = []
    for name in ("whole", "bare"):
        folder = write_transforms(tmp_path / name, [float(k) for k in range(6)], count=6)
        if name == "bare":
            for frame in (2, 4):
                (folder / f"SegmentationClass_train/{frame:03d}.png").unlink()
        parser = SemFlowDataParserConfig(data=folder, eval_mode="interval", eval_interval=3, labelled_frames="1,5")
        batches.append(drawn_pixels(manage(parser, pixel_sampler=SemFlowPixelSamplerConfig(frames_per_batch=None))))
    before, after = batches
    assert before.keys() == after.keys() and "carried_labels" in before
    assert all(same(before[key], after[key]) for key in before)
    labelled = before["indices"][(before["labels"] != IGNORE_LABEL)[:, 0], 0]
    assert set(labelled.tolist()) == {0, 3}, "the first and the last of the four that are trained on"


def test_disparity_is_aligned_for_training_only(test_data):
    parser = DynamicSceneDataParserConfig(data=test_data / "rendered/Courtyard", downscale_factor=8)
    manager = manage(parser)
    _, batch = manager.next_train(0)
    alignment = manager.train_dataset.metadata["alignment"]["Courtyard"]
    assert batch["inverse_depth"].dtype == torch.float16 and batch["inverse_depth"].shape == (256, 1)
    scene = only_scene(manager)
    assert scene.near and scene.far
    assert (batch["inverse_depth"] > 1 / scene.far).all() and (batch["inverse_depth"] < 1 / scene.near * 1.3).all()
    assert alignment.scale.shape == (12,) and (alignment.residual < 0.02).all()
    # What it was made of is not kept in memory for all frames.
    assert "disparity" not in batch and "inverse_depth" not in manager.next_eval_image(0)[1]
    manager = manage(parser, align_disparity=False)
    assert "inverse_depth" not in manager.next_train(0)[1] and "alignment" not in manager.train_dataset.metadata


def test_disparity_stays_where_it_is_needed(tmp_path, monkeypatch):
    """One aligned scene, or depth on one frame, takes nothing from frames whose disparity has no scale."""
    for name in ("A", "B"):
        write_dynamic_scene(tmp_path / name)
    parser = DynamicSceneDataParserConfig(data=tmp_path, scenes=("A/Scene", "B/Scene"))

    def align(dataset, scenes):
        ones, shape = np.ones(FRAMES), (FRAMES, 2, 2)
        for scene in scenes:
            dataset.alignments[scene] = DisparityAlignment(ones, ones, 0.1, np.zeros(shape), ones.astype(int), ones)

    kept = {}
    for scenes in ((0,), (0, 1)):
        monkeypatch.setattr("semflow_nerfstudio.data.datamanager.align_scenes", lambda d, s=scenes: align(d, s))
        kept[scenes] = manage(parser).next_train(0)[1]
    first = kept[(0,)]["indices"][:, 0] < FRAMES
    assert kept[(0,)]["disparity"][~first].isfinite().all() and kept[(0,)]["inverse_depth"][~first].isnan().all()
    assert kept[(0,)]["inverse_depth"][first].isfinite().all()
    assert "disparity" not in kept[(0, 1)] and "inverse_depth" in kept[(0, 1)]


def test_frames_without_depth_keep_their_disparity(tmp_path):
    folder = write_transforms(tmp_path)
    edit_transforms(folder, lambda meta: [frame.pop("depth_path") for frame in meta["frames"][1:]])
    batch = manage(SemFlowDataParserConfig(data=folder, eval_mode="all"), align_disparity=False).next_train(0)[1]
    first = batch["indices"][:, 0] == 0
    assert batch["disparity"][~first].isfinite().all() and batch["inverse_depth"][first].isfinite().all()
    assert batch["inverse_depth"][~first].isnan().all() and "depth" not in batch


def test_disparity_that_cannot_be_aligned_stays_relative(tmp_path, capsys):
    manager = manage(DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)))
    _, batch = manager.next_train(0)
    assert "disparity" in batch and "inverse_depth" not in batch
    assert "without scale" in capsys.readouterr().out


def test_dnerf_lego(test_data):
    manager = manage(DNeRFDataParserConfig(data=test_data / "dnerf_lego"), camera_res_scale_factor=0.05)
    scene = only_scene(manager)
    assert scene.images.shape == (50, 40, 40, 3) and scene.bounded and scene.background_color == (1.0, 1.0, 1.0)
    assert (scene.images[:, 0, 0] == 255).all()
    cameras = manager.train_dataset.cameras
    assert all(getattr(cameras, name).dtype == torch.float32 for name in ("fx", "fy", "cx", "cy", "times"))
    rays, batch = manager.next_train(0)
    assert rays.directions.dtype == torch.float32 and set(batch) == {"image", "indices", "image_size"}
    assert rays.times is not None and 0 <= float(rays.times.min()) and float(rays.times.max()) <= 1
