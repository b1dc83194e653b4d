"""Deliberate damage to training data: as much as asked for, the same every time, and in training data only."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny_scenes import FRAMES, HEIGHT, WIDTH, write_dynamic_scene

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.corruption import CorruptionConfig, dis_flow
from semflow_nerfstudio.data.datamanager import SemFlowDataManager, SemFlowDataManagerConfig
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.evaluation.carried_labels import LabelCarrying
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

RNG = np.random.default_rng(0)
FLOW = RNG.normal(3, 1, (90, 160, 2)).astype(np.float32)
VALID = RNG.random((90, 160)) < 0.8
LABELS = np.repeat(np.repeat(RNG.integers(0, 5, (9, 16)), 10, 0), 10, 1).astype(np.uint8)


def manage(folder: Path, test_mode: str = "val", **corruption) -> SemFlowDataManager:
    config = SemFlowDataManagerConfig(
        dataparser=DynamicSceneDataParserConfig(data=folder),
        train_num_rays_per_batch=64,
        eval_num_rays_per_batch=64,
        corruption=CorruptionConfig(**corruption),
        derive_motion_masks=False,
    )
    return config.setup(device="cpu", test_mode=test_mode)


def test_nothing_by_default() -> None:
    assert CorruptionConfig().nothing and CorruptionConfig(seed=3).nothing
    flow, valid = CorruptionConfig().flow(0, True, FLOW, VALID)
    assert np.array_equal(flow, FLOW) and np.array_equal(valid, VALID)
    assert np.array_equal(CorruptionConfig().labels(0, LABELS), LABELS)


@pytest.mark.parametrize("kind", ["sudden", "smooth"])
def test_flow_noise_is_a_share_of_the_flows_length(kind) -> None:
    damage = CorruptionConfig(flow_noise=0.1, flow_noise_kind=kind)
    noisy, valid = damage.flow(2, True, FLOW, VALID)
    error = noisy - FLOW
    length = np.sqrt((FLOW[VALID] ** 2).sum(-1).mean())
    assert np.sqrt((error**2).sum(-1).mean()) == pytest.approx(0.1 * length, rel=0.05)
    assert np.array_equal(valid, VALID)
    assert np.array_equal(noisy, damage.flow(2, True, FLOW, VALID)[0])
    assert not np.array_equal(noisy, damage.flow(2, False, FLOW, VALID)[0])
    assert not np.array_equal(noisy, damage.flow(3, True, FLOW, VALID)[0])
    step = np.abs(np.diff(error[..., 0], axis=1)).mean() / np.abs(error[..., 0]).mean()
    assert step < 0.3 if kind == "smooth" else step > 1


def test_flow_masks_off() -> None:
    flow, valid = CorruptionConfig(flow_masks=False).flow(0, True, FLOW, VALID)
    assert valid.all() and np.array_equal(flow, FLOW)


@pytest.mark.parametrize("share", [0.05, 0.1, 1.0])
def test_wrong_labels(share: float) -> None:
    labels = LABELS.copy()
    labels[:10] = IGNORE_LABEL
    wrong = CorruptionConfig(wrong_labels=share).labels(1, labels)
    known = labels != IGNORE_LABEL
    assert (wrong[~known] == IGNORE_LABEL).all() and set(np.unique(wrong[known])) <= set(np.unique(labels[known]))
    assert (wrong != labels)[known].mean() == pytest.approx(share, abs=0.003)
    assert np.array_equal(wrong, CorruptionConfig(wrong_labels=share).labels(1, labels))
    if share < 1:
        assert not np.array_equal(wrong, CorruptionConfig(wrong_labels=share, seed=1).labels(1, labels))


def test_an_image_of_one_class_cannot_be_wrong() -> None:
    one = np.full((90, 160), 3, np.uint8)
    assert np.array_equal(CorruptionConfig(wrong_labels=0.5).labels(0, one), one)


def test_labels_of_a_quarter_of_the_resolution() -> None:
    fine = RNG.integers(0, 5, (80, 160)).astype(np.uint8)
    coarse = CorruptionConfig(label_scale=0.25).labels(0, fine)
    blocks = coarse.reshape(20, 4, 40, 4)
    assert (blocks == blocks[:, :1, :, :1]).all() and len(np.unique(coarse)) == 5


def test_dis_flow_of_a_shifted_image() -> None:
    big = gaussian_filter(RNG.random((120, 200, 3)), (2, 2, 0))
    big = ((big - big.min()) / np.ptp(big) * 255).astype(np.uint8)
    flow, valid = dis_flow(big[20:110, 20:180], big[22:112, 15:175])
    assert flow.shape == (90, 160, 2) and valid.mean() > 0.8
    inside = valid[10:-10, 10:-10]
    assert np.abs(flow[10:-10, 10:-10][inside] - (5, -2)).mean() < 0.3
    assert not dis_flow(big[20:110, 20:180], RNG.integers(0, 255, (90, 160, 3)).astype(np.uint8))[1].mean() > 0.5


def test_training_data_are_damaged_and_no_others(tmp_path: Path) -> None:
    folder = write_dynamic_scene(tmp_path)
    clean, damaged = manage(folder), manage(folder, flow_noise=0.5, wrong_labels=0.3)
    for key in ("labels", "flow_forward"):
        ours = [dataset[1][key] for dataset in (clean.train_dataset, damaged.train_dataset)]
        assert not torch.equal(*ours)
    theirs = [dataset[1] for dataset in (clean.eval_dataset, damaged.eval_dataset)]
    assert all(torch.equal(theirs[0][key], theirs[1][key]) for key in ("image", "labels"))
    seen = damaged.train_dataset.observation(1)
    assert seen.flow_forward is not None
    given = damaged.train_dataset[1]["flow_forward"].float().numpy()
    np.testing.assert_allclose(seen.flow_forward, given, atol=5e-3, rtol=1e-2)


def test_labels_are_carried_along_the_damaged_flow(tmp_path: Path) -> None:
    """In training as in the baseline that is measured beside it."""
    folder = write_dynamic_scene(tmp_path)
    reached = []
    for damage in (CorruptionConfig(), CorruptionConfig(flow_masks=False), CorruptionConfig(flow_noise=2.0)):
        config = SemFlowDataManagerConfig(
            dataparser=DynamicSceneDataParserConfig(data=folder, labelled_frames="0"),
            corruption=damage,
            align_disparity=False,
        )
        manager = config.setup(device="cpu", test_mode="val")
        run = SimpleNamespace(pipeline=SimpleNamespace(datamanager=manager))
        carrying = LabelCarrying(run)  # type: ignore[arg-type]
        carried = [manager.train_dataset.carried[k].labels for k in range(FRAMES)]
        reached.append((np.stack(carried), np.stack(carrying.complete)))
    (exact, measured), *damaged = reached
    assert (exact != IGNORE_LABEL).any()
    for labels, complete in damaged:
        assert not np.array_equal(labels, exact) and not np.array_equal(complete, measured)


@pytest.mark.parametrize("modality", ["flow", "disparity", "motion_mask", "labels"])
def test_dropped_modalities_are_as_if_there_were_no_files(tmp_path: Path, modality) -> None:
    manager = manage(write_dynamic_scene(tmp_path), drop=(modality,))
    keys = {key.removesuffix("_mask") if key.startswith("flow") else key for key in manager.train_dataset[0]}
    everything = {"labels", "flow_forward", "flow_backward", "disparity", "motion_mask", "image", "image_idx"}
    gone = {"flow_forward", "flow_backward"} if modality == "flow" else {modality}
    assert keys - {"inverse_depth"} == everything - gone
    (frames,) = manager.train_dataset.metadata["scene_frames"].values()
    assert frames.has == {"flow", "disparity", "motion_mask", "labels"} - {modality}
    assert "labels" in manager.eval_dataset[0]


def test_dis_flow_takes_the_place_of_the_given_one(tmp_path: Path) -> None:
    folder = write_dynamic_scene(tmp_path)
    for k in range(FRAMES):  # the same picture, two pixels further right in each frame
        wave = (
            127
            + 120 * np.sin((np.arange(WIDTH) - 2 * k) / 3)[None, :, None] * np.cos(np.arange(HEIGHT) / 2)[:, None, None]
        )
        Image.fromarray(np.repeat(wave, 3, -1).astype(np.uint8)).save(folder / f"images/{k:03d}.png")
    given = manage(folder).train_dataset
    dataset = manage(folder, flow_source="dis").train_dataset
    assert not dataset[FRAMES - 1]["flow_forward_mask"].any() and dataset[0]["flow_forward_mask"].any()
    assert not torch.equal(dataset[0]["flow_forward"], given[0]["flow_forward"])
    (frames,) = dataset.metadata["scene_frames"].values()
    assert "flow" in frames.has


@pytest.mark.parametrize("settings", [{"flow_noise": -1}, {"wrong_labels": 1.5}, {"label_scale": 0}])
def test_senseless_damage_is_refused(tmp_path: Path, settings) -> None:
    with pytest.raises(SceneDataError, match="corruption"):
        manage(write_dynamic_scene(tmp_path), **settings)
