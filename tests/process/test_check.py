"""`semflow check` on scenes in both layouts, whole, poor, broken and hostile."""

import json
import shutil

import numpy as np
import pytest
from clips import FRAMES, HEIGHT, WIDTH, poses, write_llff
from PIL import Image

from semflow_nerfstudio.cli.check import Check
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.process.check import check_scene


@pytest.fixture
def copy(scene, tmp_path):
    return shutil.copytree(scene, tmp_path / "scene")


def edit(scene, change):
    path = scene / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def test_a_processed_scene_is_fine(scene, capsys):
    Check(scene).main()
    told = capsys.readouterr().out
    assert f"{FRAMES} frames of {WIDTH}x{HEIGHT}" in told and "no labels: no semantics" in told
    summary = check_scene(scene)
    recorded = json.loads((scene / "process/summary.json").read_text())["pose_check"]["error"]
    assert not summary.errors and summary.pose_check.error == pytest.approx(recorded, abs=0.02)


def test_the_other_layout(clip, scene, tmp_path):
    folder = tmp_path / "Scene"
    shutil.copytree(clip, folder)
    (folder / "flow").mkdir()
    for k in range(FRAMES - 1):
        shutil.copy(scene / f"flow/shot_{k:02d}_to_shot_{k + 1:02d}.npz", folder / f"flow/shot_{k:02d}_fwd.npz")
    summary = check_scene(folder)
    assert not summary.errors and len(summary.pose_check.errors) == FRAMES - 1 and summary.pose_check.error < 0.2
    assert summary.counts["optical flow"] == (FRAMES - 1, 2 * (FRAMES - 1))
    write_llff(folder / "poses_bounds.npy", poses()[::-1].copy())
    assert "do not fit the pictures" in check_scene(folder).errors[0]


def test_errors_end_with_exit_code_1(copy, capsys):
    edit(copy, lambda meta: meta["frames"][2].update(transform_matrix=np.zeros((4, 4)).tolist()))
    with pytest.raises(SystemExit) as stop:
        Check(copy).main()
    assert stop.value.code == 1 and "no rotation" in capsys.readouterr().out


def test_held_out_views_are_looked_at(tmp_path):
    folder = make_scene(tmp_path / "Yard", SceneOptions(frames=4, size="64x36", rig_cameras=4))
    assert not check_scene(folder).errors
    view = next((folder / "multiview_GT/00000002").glob("*"))
    view.write_bytes(view.read_bytes()[:300])
    (error,) = check_scene(folder).errors
    assert str(view) in error and "as an image" in error


def test_masks_of_nerfstudio_are_looked_at(copy):
    def name_masks(meta):
        for entry in meta["frames"]:
            entry["mask_path"] = "mask.png"

    edit(copy, name_masks)
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(copy / "mask.png")
    assert not check_scene(copy).errors
    (copy / "mask.png").write_bytes((copy / "mask.png").read_bytes()[:60])
    (error,) = check_scene(copy).errors
    assert "mask.png" in error


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "images/../../x.png", "C:\\x.png", "..\\x.png"])
@pytest.mark.parametrize("key", ["file_path", "flow_forward_path", "motion_mask_path", "depth_file_path"])
def test_files_outside_of_the_scene_are_not_touched(copy, name, key):
    edit(copy, lambda meta: meta["frames"][1].update({key: name}))
    (error,) = check_scene(copy).errors
    assert "outside of the scene" in error and key in error


def test_nan_flow_is_told(copy):
    path = next((copy / "flow").glob("shot_01_to_*.npz"))
    content = dict(np.load(path))
    flow = content["flow"].copy()
    flow[content["mask"]] = np.nan
    np.savez(path, flow=flow, mask=content["mask"])
    assert any(path.name in error and "NaN" in error for error in check_scene(copy).errors)


def test_flow_that_holds_nowhere_cannot_judge_poses(copy):
    for path in (copy / "flow").glob("*.npz"):
        flow = np.load(path)["flow"]
        np.savez(path, flow=flow, mask=np.zeros(flow.shape[:2], bool))
    summary = check_scene(copy)
    assert not summary.errors and any("too few places" in warning for warning in summary.warnings)


def test_a_file_of_another_shape_is_told(copy):
    path = copy / "motion_masks/shot_03.png"
    Image.fromarray(np.zeros((WIDTH, HEIGHT), np.uint8)).save(path)
    assert any("shot_03.png" in error and "aspect" in error for error in check_scene(copy).errors)


def test_labels_are_counted_and_unused_classes_named(copy):
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[:, : WIDTH // 4] = 255
    Image.fromarray(ids).save(copy / "l.png")

    def label(meta):
        meta["classes"] = [{"name": "rest"}, {"name": "cat"}]
        meta["frames"][0]["labels_path"] = "l.png"

    edit(copy, label)
    summary = check_scene(copy)
    assert summary.counts["labels"] == (1, FRAMES) and "rest 75.0%" in summary.details["classes"]
    assert any("No label shows cat" in warning for warning in summary.warnings)


def test_a_scene_without_anything_but_colours(copy):
    def strip(meta):
        for key in ("near", "far"):
            del meta[key]
        for frame in meta["frames"]:
            for key in [key for key in frame if key.endswith("_path") and key != "file_path"]:
                del frame[key]

    edit(copy, strip)
    summary = check_scene(copy)
    assert not summary.errors and set(summary.missing) == {f"no {what}" for what in summary.counts}


def test_no_scene_at_all(tmp_path):
    assert check_scene(tmp_path).errors and check_scene(tmp_path / "none").errors
