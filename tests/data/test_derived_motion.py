"""Motion masks that are missing come from optical flow and poses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig

from semflow_nerfstudio.data.corruption import CorruptionConfig
from semflow_nerfstudio.data.datamanager import SemFlowDataManager, SemFlowDataManagerConfig
from semflow_nerfstudio.data.dataset import UNKNOWN_MOTION
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.modalities import read_mask
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig

FRAMES, WIDTH, HEIGHT = 4, 128, 72


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = SceneOptions(frames=FRAMES, size=f"{WIDTH}x{HEIGHT}", rig_cameras=FRAMES, synchronised=1, speed=2.0)
    return make_scene(tmp_path_factory.mktemp("made") / "scene", options)


@pytest.fixture
def scene(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "scene"))


def manage(data: Path | DataParserConfig, test_mode: str = "val", **config) -> SemFlowDataManager:
    parser = DynamicSceneDataParserConfig(data=data) if isinstance(data, Path) else data
    config = {"train_num_rays_per_batch": 256, "eval_num_rays_per_batch": 64, "align_disparity": False} | config
    return SemFlowDataManagerConfig(dataparser=parser, **config).setup(device="cpu", test_mode=test_mode)


def masks(manager: SemFlowDataManager) -> np.ndarray:
    return np.stack([manager.train_dataset[k]["motion_mask"][..., 0].numpy() for k in range(FRAMES)])


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / (found | true).sum())


def given_masks(folder: Path) -> np.ndarray:
    return np.stack([read_mask(file, WIDTH, HEIGHT) for file in sorted(folder.glob("*.png"))])


def test_they_show_what_moves_and_nothing_is_known_without_flow(made, scene, capsys):
    shutil.rmtree(scene / "motion_masks")
    manager = manage(scene)
    found, true = masks(manager), given_masks(made / "motion_masks") == 1
    assert "moves in its frames is derived from optical flow and poses" in capsys.readouterr().out
    known = found != UNKNOWN_MOTION
    assert overlap((found == 1)[known], true[known]) > 0.6
    assert (found == 1)[~true & (found != UNKNOWN_MOTION)].mean() < 0.03
    for k, mask in enumerate(found):
        item = manager.train_dataset[k]
        seen = (item["flow_forward_mask"] | item["flow_backward_mask"])[..., 0].numpy()
        assert (mask[~seen] != 0).all() and (mask[seen] != UNKNOWN_MOTION).all()
        assert not seen.all()
    (frames,) = manager.train_dataset.metadata["scene_frames"].values()
    assert "motion_mask" in frames.has
    rays, batch = manager.next_train(0)
    assert (rays.metadata["motion"] == 1).any() and (batch["motion_mask"] == 0).any()


def test_labels_do_not_matter(scene):
    shutil.rmtree(scene / "motion_masks")
    found = masks(manage(scene))
    shutil.rmtree(scene / "SegmentationClass_train")
    assert np.array_equal(masks(manage(scene)), found)


def test_only_frames_without_a_mask_get_one(made, scene, capsys):
    kept = given_masks(made / "motion_masks")
    (scene / "motion_masks" / "002.png").unlink()
    found = masks(manage(scene))
    assert f"moves in 1 of its {FRAMES} frames" in " ".join(capsys.readouterr().out.split())
    for k in (0, 1, 3):
        assert np.array_equal(found[k], kept[k])
    assert (found[2] == 1).any() and (found[2] == 0).any() and (found[2] == UNKNOWN_MOTION).any()


def test_a_camera_that_stands_still(made):
    parser = SemFlowDataParserConfig(data=made)
    true = masks(manage(parser))
    found = masks(manage(parser, corruption=CorruptionConfig(drop=("motion_mask",))))
    assert overlap(found == 1, true == 1) > 0.6


def test_the_benchmark_without_masks_derives_them_from_the_flow_that_is_left(made):
    without = masks(manage(made, corruption=CorruptionConfig(drop=("motion_mask",))))
    assert (without == 1).any() and not np.array_equal(without, masks(manage(made)))
    noisy = masks(manage(made, corruption=CorruptionConfig(drop=("motion_mask",), flow_noise=0.5)))
    assert not np.array_equal(without, noisy)


@pytest.mark.parametrize(
    ("dropped", "derive", "mode"),
    [(("motion_mask", "flow"), True, "val"), (("motion_mask",), False, "val"), (("motion_mask",), True, "test")],
)
def test_without_flow_or_when_switched_off_or_only_looked_at_there_are_none(made, dropped, derive, mode, capsys):
    manager = manage(made, mode, corruption=CorruptionConfig(drop=dropped), derive_motion_masks=derive)
    assert "derived" not in capsys.readouterr().out
    assert "motion_mask" not in manager.train_dataset[0]
    (frames,) = manager.train_dataset.metadata["scene_frames"].values()
    assert "motion_mask" not in frames.has
