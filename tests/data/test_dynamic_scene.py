"""The folder-layout dataparser: conventions, splits, missing modalities, leaks, scene units, registration."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scenes import FOCAL, HEIGHT, WIDTH, camera_to_world, write_dynamic_scene

from semflow_nerfstudio.cameras import FrameCameras, pixel_centers
from semflow_nerfstudio.data import verification
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig, held_out_frames
from semflow_nerfstudio.data.modalities import read_depth, read_flow, read_labels
from semflow_nerfstudio.data.records import scene_key


def frame_cameras(outputs) -> FrameCameras:
    cameras = outputs.cameras
    intrinsics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], dim=1)
    return FrameCameras(cameras.camera_to_worlds, intrinsics, int(cameras.width[0]), int(cameras.height[0]))


def unproject(cameras: FrameCameras, frame: int, depth: torch.Tensor) -> torch.Tensor:
    pixels = pixel_centers(cameras.width, cameras.height)
    focal, center = cameras.intrinsics[frame, :2], cameras.intrinsics[frame, 2:]
    x, y = ((pixels - center) / focal).unbind(-1)
    local = torch.stack([x, -y, -torch.ones_like(x)], dim=-1) * depth[..., None]
    pose = cameras.camera_to_worlds[frame]
    return local @ pose[:, :3].T + pose[:, 3]


def parse(folder, split="train", **options):
    return DynamicSceneDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def views(outputs, folder):
    return [path.relative_to(folder / "multiview_GT").as_posix() for path in outputs.image_filenames]


def test_training_outputs(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    outputs = parse(folder)
    assert [path.name for path in outputs.image_filenames] == ["000.png", "001.png", "002.png", "003.png"]
    cameras = outputs.cameras
    assert cameras.width.unique().tolist() == [WIDTH] and cameras.height.unique().tolist() == [HEIGHT]
    for tensor in (cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.times, cameras.camera_to_worlds):
        assert tensor.dtype == torch.float32
    torch.testing.assert_close(cameras.fx[:, 0], torch.full((4,), FOCAL))  # stated for twice the size
    torch.testing.assert_close(cameras.cy[:, 0], torch.full((4,), HEIGHT / 2))
    torch.testing.assert_close(cameras.times[:, 0], torch.arange(4) / 3)
    assert cameras.metadata is not None and cameras.metadata["scene"].tolist() == [[0]] * 4
    (scene,) = outputs.metadata["scenes"]
    assert scene.name == "Scene" and scene.bounded and scene.frame_range == (0, 4)
    assert scene.classes.names == ("background", "person", "balloon")
    assert scene.classes.foreground.tolist() == [False, True, True]
    assert scene.next_frame.tolist() == [1, 2, 3, -1] and scene.previous_frame.tolist() == [-1, 0, 1, 2]
    assert scene.distinct_times.dtype == np.float32 and scene.next_frame.dtype == np.int64
    frames = outputs.metadata["frames"]
    assert frames[1].flow_forward == folder / "flow/001_fwd.npz"
    assert frames[1].flow_backward == folder / "flow/001_bwd.npz"
    assert frames[0].flow_backward is None and frames[3].flow_forward is None and frames[0].depth is None
    assert frames[2].labels == folder / "SegmentationClass_train/002.png"
    semantics = outputs.metadata["semantics"]
    assert semantics.classes == ["background", "person", "balloon"]
    assert semantics.filenames == [frame.labels for frame in frames]
    torch.testing.assert_close(semantics.colors[2] * 255, torch.tensor([220.0, 20.0, 60.0]))


def test_poses_are_those_of_the_world(tmp_path):
    outputs = parse(write_dynamic_scene(tmp_path))
    world = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds, "opengl")
    expected = torch.tensor(np.stack([camera_to_world(k)[:3] for k in range(4)]), dtype=torch.float32)
    torch.testing.assert_close(world, expected, atol=1e-5, rtol=0)


def test_downscaling_by_exact_ratios(tmp_path):
    outputs = parse(write_dynamic_scene(tmp_path), downscale_factor=3)
    cameras = outputs.cameras
    assert (int(cameras.width[0]), int(cameras.height[0])) == (5, 3)
    torch.testing.assert_close(cameras.fx[0, 0], torch.tensor(FOCAL * 5 / WIDTH))
    torch.testing.assert_close(cameras.fy[0, 0], torch.tensor(FOCAL * 3 / HEIGHT))
    torch.testing.assert_close(cameras.cx[0, 0], torch.tensor(2.5))


def test_nerfstudio_may_force_full_size(tmp_path):
    parser = DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path), downscale_factor=2).setup()
    assert int(parser.get_dataparser_outputs("train").cameras.width[0]) == WIDTH // 2
    parser.downscale_factor = 1
    assert int(parser.get_dataparser_outputs("test").cameras.width[0]) == WIDTH


def test_frames_are_sorted_by_number(tmp_path):
    folder = write_dynamic_scene(tmp_path, test_cameras=0)
    for name in ("images", "SegmentationClass_train", "motion_masks", "disp"):
        for path in sorted((folder / name).iterdir(), reverse=True):
            path.rename(path.with_name(f"{int(path.stem) + 8}{path.suffix}"))  # 8, 9, 10, 11
    for path in sorted((folder / "flow").iterdir(), reverse=True):
        number, direction = path.stem.split("_")
        path.rename(path.with_name(f"{int(number) + 8}_{direction}.npz"))
    outputs = parse(folder, eval_protocol="train-holdout", holdout_interval=4)
    assert [path.stem for path in outputs.image_filenames] == ["8", "9", "11"]
    frames = outputs.metadata["frames"]
    assert frames[1].labels.stem == "9" and frames[1].flow_forward.stem == "9_fwd" and frames[2].disparity.stem == "11"
    torch.testing.assert_close(outputs.cameras.times[:, 0], torch.tensor([0, 1 / 3, 1]))


def test_all_views_leaves_the_training_images_out(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    outputs = parse(folder, "val")
    expected = [f"{t:08d}/cam{c:02d}.jpg" for t in range(1, 5) for c in range(1, 5) if t != c]
    assert views(outputs, folder) == expected
    assert outputs.metadata["frames"][0].labels == folder / "multiview_GT_semantic/00000001/cam02.png"
    (scene,) = outputs.metadata["scenes"]
    assert (scene.next_frame == -1).all() and len(scene.distinct_times) == 4
    training = parse(folder).cameras.camera_to_worlds
    torch.testing.assert_close(outputs.cameras.camera_to_worlds[0], training[1])
    torch.testing.assert_close(outputs.cameras.times[0, 0], torch.tensor(0.0))


def test_partial_labels_are_evaluated_on_the_other_times(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    outputs = parse(folder, "test", labelled_frames="completion-50")  # 0 and 3
    assert views(outputs, folder) == [f"{t:08d}/cam{c:02d}.jpg" for t in (2, 3) for c in range(1, 5) if t != c]
    assert len(views(parse(folder, "test", labelled_frames="none"), folder)) == 12


def test_dynnerf_protocol(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    times = range(2, 5)
    assert views(parse(folder, "test", eval_protocol="dynnerf"), folder) == [f"{t:08d}/cam01.jpg" for t in times]
    outputs = parse(folder, "test", eval_protocol="dynnerf", include_training_views=True)
    assert views(outputs, folder) == [f"{t:08d}/cam01.jpg" for t in range(1, 5)]


def test_rig_with_fewer_cameras_than_frames(tmp_path):
    folder = write_dynamic_scene(tmp_path, count=5, test_cameras=2)  # frames 0, 2, 4 are camera 0; 1, 3 camera 1
    expected = [f"{t:08d}/cam{2 - (t - 1) % 2:02d}.jpg" for t in range(1, 6)]
    assert views(parse(folder, "val"), folder) == expected


def test_holdout(tmp_path):
    folder = write_dynamic_scene(tmp_path, count=7)
    options = {"eval_protocol": "train-holdout", "holdout_interval": 4}
    train, val = parse(folder, **options), parse(folder, "val", **options)
    assert [path.stem for path in train.image_filenames] == ["000", "001", "003", "004", "005"]
    assert [path.stem for path in val.image_filenames] == ["002", "006"]
    assert train.metadata["scenes"][0].next_frame.tolist() == [1, -1, 3, 4, -1]
    assert train.metadata["scenes"][0].previous_frame.tolist() == [-1, 0, -1, 2, 3]
    assert val.metadata["scenes"][0].next_frame.tolist() == [2, -1]
    assert val.metadata["scenes"][0].previous_frame.tolist() == [1, 4]
    assert len(train.metadata["scenes"][0].distinct_times) == 7


@pytest.mark.parametrize("test_cameras", [0, 4])
def test_frames_whose_labels_are_withheld(tmp_path, test_cameras):
    """All frames are trained on, the withheld ones without labels; these are evaluated, with theirs."""
    folder = write_dynamic_scene(tmp_path, test_cameras=test_cameras)
    options = {"eval_protocol": "label-holdout", "labelled_frames": "0,2"}
    train, val = parse(folder, **options), parse(folder, "val", **options)
    assert [path.stem for path in train.image_filenames] == ["000", "001", "002", "003"]
    assert [frame.labels is not None for frame in train.metadata["frames"]] == [True, False, True, False]
    assert [path.stem for path in val.image_filenames] == ["001", "003"]
    assert [frame.labels.stem for frame in val.metadata["frames"]] == ["001", "003"]
    assert torch.equal(val.cameras.camera_to_worlds, train.cameras.camera_to_worlds[[1, 3]])
    with pytest.raises(SceneDataError, match="label-holdout has nothing to evaluate"):
        parse(folder, eval_protocol="label-holdout")


def test_held_out_frames():
    assert held_out_frames(12, 6) == [3, 9]
    assert held_out_frames(4, 10) == [2]
    assert held_out_frames(2, 6) == []


def test_without_test_views_frames_are_held_out(tmp_path, capsys):
    folder = write_dynamic_scene(tmp_path, count=12, test_cameras=0)
    parser = DynamicSceneDataParserConfig(data=folder).setup()
    assert len(parser.get_dataparser_outputs("train").image_filenames) == 10
    assert [path.stem for path in parser.get_dataparser_outputs("val").image_filenames] == ["003", "009"]
    assert capsys.readouterr().out.count("no multiview_GT/") == 1


def test_a_camera_that_stands_still_has_no_other_views(tmp_path, capsys):
    """The test views of a rig of one camera are the training images: they are no evaluation."""
    folder = write_dynamic_scene(tmp_path, count=12, test_cameras=1)
    parser = DynamicSceneDataParserConfig(data=folder).setup()
    assert len(parser.get_dataparser_outputs("train").image_filenames) == 10
    assert [path.stem for path in parser.get_dataparser_outputs("val").image_filenames] == ["003", "009"]
    assert capsys.readouterr().out.count("nothing but training images in multiview_GT/") == 1
    assert len(parse(folder, "val", include_training_views=True).image_filenames) == 12


def test_scene_units_hold_what_the_cameras_see(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    outputs = [parse(folder), parse(folder, "val", downscale_factor=2), parse(folder, eval_protocol="train-holdout")]
    for other in outputs[1:]:
        assert torch.equal(other.dataparser_transform, outputs[0].dataparser_transform)
        assert other.dataparser_scale == outputs[0].dataparser_scale
    train = outputs[0]
    cameras = frame_cameras(train)
    (scene,) = train.metadata["scenes"]
    corners = torch.tensor([[0.0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]])
    seen = []
    for frame in range(4):
        x, y = ((corners - cameras.intrinsics[frame, 2:]) / cameras.intrinsics[frame, :2]).unbind(-1)
        local = torch.stack([x, -y, -torch.ones(4)], dim=-1)
        for bound in (1.0 * 0.95, 8.0 * 1.05):  # near and far of the file, widened
            depth = bound * train.dataparser_scale
            pose = cameras.camera_to_worlds[frame]
            seen.append((local * depth) @ pose[:, :3].T + pose[:, 3])
            distance = (local * depth).norm(dim=-1)
            assert (distance >= scene.near - 1e-5).all() and (distance <= scene.far + 1e-5).all()
    seen = torch.cat(seen)
    extent = seen.max(dim=0).values - seen.min(dim=0).values
    assert abs(float(extent.max()) - 2) < 1e-4 and float(seen.abs().max()) < 1 + 1e-4
    torch.testing.assert_close(seen.max(dim=0).values, -seen.min(dim=0).values, atol=1e-4, rtol=0)
    up = cameras.camera_to_worlds[:, :, 1].mean(dim=0)
    torch.testing.assert_close(up / up.norm(), torch.tensor([0.0, 0.0, 1.0]), atol=1e-5, rtol=0)


def test_missing_modalities(tmp_path, capsys):
    folder = write_dynamic_scene(tmp_path)
    shutil.rmtree(folder / "disp")
    shutil.rmtree(folder / "SegmentationClass_train")
    (folder / "motion_masks/001.png").unlink()
    (folder / "flow/001_fwd.npz").unlink()
    parser = DynamicSceneDataParserConfig(data=folder).setup()
    outputs = parser.get_dataparser_outputs("train")
    parser.get_dataparser_outputs("val")
    frames = outputs.metadata["frames"]
    assert all(frame.labels is None and frame.disparity is None for frame in frames)
    assert frames[1].motion_mask is None and frames[1].flow_forward is None and frames[0].flow_forward is not None
    assert outputs.metadata["scenes"][0].next_frame[1] == 2
    assert outputs.metadata["semantics"].filenames == []
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("no labels, optical flow on 5 of 6, motion masks on 3 of 4, no disparity or depth") == 1


def test_colour_only_scene(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    for name in ("SegmentationClass_train", "multiview_GT_semantic", "flow", "disp", "motion_masks"):
        shutil.rmtree(folder / name)
    (tmp_path / "labelmap.txt").unlink()
    outputs = parse(folder)
    assert outputs.metadata["scenes"][0].classes is None and "semantics" not in outputs.metadata
    assert all(frame.labels is None for frame in parse(folder, "val").metadata["frames"])


def test_single_frame(tmp_path):
    folder = write_dynamic_scene(tmp_path, count=1, test_cameras=0)
    outputs = parse(folder)
    assert outputs.cameras.times.tolist() == [[0.0]] and len(parse(folder, "val").image_filenames) == 1


def test_images_in_a_half_size_folder(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    (folder / "images").rename(folder / "images_2")
    assert parse(folder).image_filenames[0] == folder / "images_2/000.png"


def test_labels_of_other_frames_are_never_opened(tmp_path, monkeypatch):
    folder = write_dynamic_scene(tmp_path)
    opened = []
    original = verification.decode_labels
    monkeypatch.setattr(verification, "decode_labels", lambda path, table: opened.append(path) or original(path, table))
    before = parse(folder, labelled_frames="0,2")
    assert sorted(path.stem for path in opened) == ["000", "002"]
    for k in (1, 3):
        (folder / f"SegmentationClass_train/{k:03d}.png").write_bytes(b"no image")
        parse(folder, labelled_frames="0,2")
        (folder / f"SegmentationClass_train/{k:03d}.png").unlink()
    after = parse(folder, labelled_frames="0,2")
    assert after.metadata["frames"] == before.metadata["frames"]
    assert [frame.labels is not None for frame in after.metadata["frames"]] == [True, False, True, False]
    assert after.metadata["semantics"].filenames == before.metadata["semantics"].filenames
    shutil.rmtree(folder / "SegmentationClass_train")
    assert all(frame.labels is None for frame in parse(folder, labelled_frames="none").metadata["frames"])


def test_files_are_decoded_once_per_parser(tmp_path, monkeypatch):
    opened = []
    original = verification.decode_flow
    monkeypatch.setattr(verification, "decode_flow", lambda path: opened.append(path) or original(path))
    parser = DynamicSceneDataParserConfig(data=write_dynamic_scene(tmp_path)).setup()
    for split in ("train", "val", "train", "test"):
        parser.get_dataparser_outputs(split)
    assert len(opened) == len(set(opened)) == 6


def test_scene_keys_fit_module_dicts():
    modules = torch.nn.ModuleDict()
    for name in ("Balloon1", "my scene-2", "3d.scan", "train", ""):
        modules[scene_key(name)] = torch.nn.Identity()
    assert list(modules) == ["Balloon1", "my_scene_2", "scene_3d_scan", "scene_train", "scene_"]


def test_real_scenes_parse(test_data):
    balloon = parse(test_data / "real/Balloon1", downscale_factor=4)
    assert len(balloon.image_filenames) == 10 and int(balloon.cameras.height[0]) == 67
    courtyard = parse(test_data / "rendered/Courtyard", "test")
    assert len(courtyard.image_filenames) == 132
    completion = parse(test_data / "rendered/Courtyard", "test", labelled_frames="completion-25")
    assert len(completion.image_filenames) == 9 * 11


def test_exact_depth_lands_where_exact_flow_says(test_data):
    """Poses, axes, pixel centres and the meaning of depth and flow, on static classes of the rendered scene."""
    folder = test_data / "rendered/Courtyard"
    outputs = parse(folder)
    cameras, (scene,) = frame_cameras(outputs), outputs.metadata["scenes"]
    static = torch.from_numpy(~scene.classes.foreground)
    errors = []
    for frame in range(11):
        size = (cameras.width, cameras.height)
        depth = read_depth(folder / f"gt_depth/{frame:03d}.npz", *size, unit=outputs.dataparser_scale)
        flow, valid = read_flow(folder / f"gt_flow/{frame:03d}_fwd.npz", *size)
        labels = read_labels(outputs.metadata["frames"][frame].labels, scene.classes, *size)
        points = unproject(cameras, frame, torch.from_numpy(depth))
        landed, _ = cameras.project(points, torch.full(points.shape[:2], int(scene.next_frame[frame])))
        difference = landed - pixel_centers(*size) - torch.from_numpy(flow)
        errors.append(difference.norm(dim=-1)[static[torch.from_numpy(labels).long()] & torch.from_numpy(valid)])
    assert float(torch.cat(errors).median()) < 0.01


def test_cameras_agree_with_nerfstudios_rays(tmp_path):
    outputs = parse(write_dynamic_scene(tmp_path))
    rays = outputs.cameras.generate_rays(1)
    cameras = frame_cameras(outputs)
    points = rays.origins + 0.7 * rays.directions
    pixels, _ = cameras.project(points, torch.ones(points.shape[:2], dtype=torch.long))
    torch.testing.assert_close(pixels, pixel_centers(WIDTH, HEIGHT), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "program",
    [
        "import semflow_nerfstudio.configs.dataparsers as d; assert d.dynamic_scene_data and d.semflow_data",
        "from nerfstudio.plugins.registry_dataparser import discover_dataparsers;"
        "found, _ = discover_dataparsers(); assert {'dynamic-scene-data', 'semflow-data'} <= set(found), found",
    ],
)
def test_registration_in_a_fresh_interpreter(program):
    check = (
        program + "\nimport sys\n"
        "bad = [m for m in sys.modules if m.startswith('semflow_nerfstudio') and "
        "any(part in m for part in ('model', 'datamanager', 'trainer', 'pipeline', 'methods'))]\n"
        "assert not bad, bad"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", check], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_labels_of_test_views_are_checked_too(tmp_path):
    folder = write_dynamic_scene(tmp_path)
    path = folder / "multiview_GT_semantic/00000002/cam01.png"
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 7, np.uint8)).save(path)
    parse(folder)
    with pytest.raises(ValueError, match=r"00000002/cam01\.png has 160 pixels whose colour is in no class"):
        parse(folder, "val")
