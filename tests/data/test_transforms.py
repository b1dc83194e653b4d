"""The transforms.json dataparser: times, cameras, records, options inherited from nerfstudio, the JSON schema."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scenes import COLORS, FOCAL, HEIGHT, WIDTH, camera_to_world, edit_transforms, save_image, write_transforms

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.dataset import SemFlowDataset
from semflow_nerfstudio.data.modalities import read_labels
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig

TIMES = [10.0, 12.0, 13.0, 20.0]
SCHEMA = Path(__file__).parents[2] / "docs/semflow-data.schema.json"


def parse(folder, split="train", **options):
    options = {"eval_mode": "all", **options}
    return SemFlowDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def test_training_outputs(tmp_path):
    folder = write_transforms(tmp_path, TIMES)
    outputs = parse(folder)
    assert outputs.image_filenames == [folder / f"images/{k:03d}.png" for k in range(4)]
    torch.testing.assert_close(outputs.cameras.times[:, 0], torch.tensor([0.0, 0.2, 0.3, 1.0]))
    assert outputs.cameras.fx.dtype == outputs.cameras.times.dtype == torch.float32
    assert outputs.cameras.metadata["scene"].tolist() == [[0]] * 4
    frames, (scene,) = outputs.metadata["frames"], outputs.metadata["scenes"]
    np.testing.assert_allclose(scene.distinct_times, [0, 0.2, 0.3, 1.0], rtol=1e-6)
    assert scene.next_frame.tolist() == [1, 2, 3, -1] and scene.previous_frame.tolist() == [-1, 0, 1, 2]
    assert scene.bounded is False and scene.near is None
    assert scene.classes.names == ("background", "person", "balloon")
    assert scene.classes.foreground.tolist() == [False, True, True]
    assert frames[1].labels == folder / "SegmentationClass_train/001.png"
    assert frames[1].flow_forward == folder / "flow/001_fwd.npz"
    assert frames[1].flow_backward == folder / "flow/001_bwd.npz"
    assert frames[1].motion_mask == folder / "motion_masks/001.png"
    assert frames[1].disparity == folder / "disp/001.npy" and frames[1].depth == folder / "depth/001.npy"
    assert frames[0].flow_backward is None and frames[3].flow_forward is None


def test_the_file_may_state_the_unit_of_its_depth(tmp_path):
    folder = write_transforms(tmp_path, TIMES)
    assert parse(folder).metadata["scenes"][0].depth_unit is None
    depth = [SemFlowDataset(parse(folder))[1]["depth"]]
    folder = write_transforms(tmp_path, TIMES, depth_unit_scale_factor=0.02)
    assert parse(folder).metadata["depth_unit_scale_factor"] == 0.02
    depth.append(SemFlowDataset(parse(folder))[1]["depth"])
    torch.testing.assert_close(depth[1], 20 * depth[0], equal_nan=True)  # the option's default is a thousandth


def test_the_parser_knows_time():
    assert SemFlowDataParserConfig().setup().includes_time is True


def test_frames_are_sorted_by_time(tmp_path):
    folder = write_transforms(tmp_path, [3, 1, 0, 2])
    outputs = parse(folder)
    assert [path.stem for path in outputs.image_filenames] == ["002", "001", "003", "000"]
    assert [frame.disparity.stem for frame in outputs.metadata["frames"]] == ["002", "001", "003", "000"]
    assert outputs.metadata["scenes"][0].next_frame.tolist() == [1, 2, 3, -1]
    original = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds, "opengl")
    expected = torch.tensor(np.stack([camera_to_world(k)[:3] for k in (2, 1, 3, 0)]), dtype=torch.float32)
    torch.testing.assert_close(original, expected, atol=1e-5, rtol=0)


def test_without_times_names_decide(tmp_path, capsys):
    folder = write_transforms(tmp_path)
    for k, name in enumerate(("frame_10", "frame_9", "frame_8", "frame_11")):
        (folder / f"images/{k:03d}.png").rename(folder / f"images/{name}.png")
        edit_transforms(folder, lambda meta, k=k, name=name: meta["frames"][k].update(file_path=f"images/{name}.png"))
    parser = SemFlowDataParserConfig(data=folder, eval_mode="all").setup()
    outputs, _ = [parser.get_dataparser_outputs(split) for split in ("train", "val")]
    assert [path.stem for path in outputs.image_filenames] == ["frame_8", "frame_9", "frame_10", "frame_11"]
    torch.testing.assert_close(outputs.cameras.times[:, 0], torch.arange(4) / 3)
    assert capsys.readouterr().out.count("no times") == 1


def test_several_cameras_at_one_time(tmp_path):
    folder = write_transforms(tmp_path, [0, 0, 5, 5], ["right", "left", "left", "right"])
    outputs = parse(folder)
    assert [path.stem for path in outputs.image_filenames] == ["001", "000", "002", "003"]
    (scene,) = outputs.metadata["scenes"]
    assert scene.distinct_times.tolist() == [0.0, 1.0]
    assert scene.next_frame.tolist() == [2, 3, -1, -1] and scene.previous_frame.tolist() == [-1, -1, 0, 1]


def test_splits_keep_their_meaning(tmp_path):
    folder = write_transforms(tmp_path, [0, 1, 2, 3, 4, 5], count=6)
    train, val = (
        parse(folder, eval_mode="interval", eval_interval=3),
        parse(folder, "val", eval_mode="interval", eval_interval=3),
    )
    assert [path.stem for path in train.image_filenames] == ["001", "002", "004", "005"]
    assert [path.stem for path in val.image_filenames] == ["000", "003"]
    assert train.metadata["scenes"][0].next_frame.tolist() == [1, -1, 3, -1]
    assert train.metadata["scenes"][0].previous_frame.tolist() == [-1, 0, -1, 2]
    assert val.metadata["scenes"][0].next_frame.tolist() == [0, 2]
    assert val.metadata["scenes"][0].previous_frame.tolist() == [-1, 1]
    assert len(val.metadata["scenes"][0].distinct_times) == 6
    torch.testing.assert_close(val.cameras.times[:, 0], torch.tensor([0.0, 0.6]))
    names = {
        "train_filenames": ["images/000.png", "images/004.png", "images/003.png"],
        "val_filenames": ["images/005.png"],
        "test_filenames": ["images/001.png"],
    }
    edit_transforms(folder, lambda meta: meta.update(names))
    assert [path.stem for path in parse(folder).image_filenames] == ["000", "003", "004"]
    assert [path.stem for path in parse(folder, "test").image_filenames] == ["001"]


def test_labelled_frames_count_distinct_times(tmp_path):
    folder = write_transforms(tmp_path, [0, 0, 5, 6], ["a", "b", "a", "a"])
    frames = parse(folder, labelled_frames="0,2").metadata["frames"]
    assert [frame.labels is not None for frame in frames] == [True, True, False, True]
    (folder / "SegmentationClass_train/002.png").unlink()
    assert parse(folder, labelled_frames="0,2").metadata["frames"] == frames
    assert all(frame.labels is None for frame in parse(folder, labelled_frames="none").metadata["frames"])


def test_a_labelled_frame_that_is_not_there_names_the_file(tmp_path):
    folder = write_transforms(tmp_path, [0, 0, 5, 6], ["a", "b", "a", "a"])
    with pytest.raises(SceneDataError, match=rf"'0,3' but {folder}/transforms\.json has no frame 3: .* 0 to 2"):
        parse(folder, labelled_frames="0,3")


def test_downscaling_needs_no_smaller_folders(tmp_path):
    folder = write_transforms(tmp_path, TIMES)
    cameras = parse(folder, downscale_factor=3).cameras
    assert (int(cameras.width[0]), int(cameras.height[0])) == (5, 3)
    torch.testing.assert_close(cameras.fx[0, 0], torch.tensor(FOCAL * 5 / WIDTH))
    torch.testing.assert_close(cameras.fy[0, 0], torch.tensor(FOCAL * 3 / HEIGHT))
    parser = SemFlowDataParserConfig(data=folder, eval_mode="all", downscale_factor=3).setup()
    parser.downscale_factor = 1
    assert int(parser.get_dataparser_outputs("test").cameras.width[0]) == WIDTH and parser.downscale_factor == 1
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith("images")) == ["images"]


def test_stated_size_may_differ_from_the_images(tmp_path):
    folder = write_transforms(tmp_path, TIMES, w=4 * WIDTH, h=4 * HEIGHT, fl_x=4 * FOCAL, cx=2 * WIDTH)
    cameras = parse(folder).cameras
    assert int(cameras.width[0]) == WIDTH
    torch.testing.assert_close(cameras.fx[0, 0], torch.tensor(FOCAL))
    torch.testing.assert_close(cameras.cx[0, 0], torch.tensor(WIDTH / 2))


def test_distortion_and_masks_survive(tmp_path):
    folder = write_transforms(tmp_path, [1, 0, 2, 3], k1=0.1, p2=0.02)
    for k in range(4):
        save_image(folder / f"valid/{k}.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
        edit_transforms(folder, lambda meta, k=k: meta["frames"][k].update(mask_path=f"valid/{k}.png"))
    outputs = parse(folder)
    assert [path.stem for path in outputs.mask_filenames] == ["1", "0", "2", "3"]
    torch.testing.assert_close(outputs.cameras.distortion_params[0], torch.tensor([0.1, 0, 0, 0, 0, 0.02]))


def test_per_frame_intrinsics_follow_the_sorting(tmp_path):
    folder = write_transforms(tmp_path, [1, 0, 2, 3])

    def edit(meta):
        del meta["fl_x"]
        for k, frame in enumerate(meta["frames"]):
            frame["fl_x"] = FOCAL + k

    edit_transforms(folder, edit)
    assert parse(folder).cameras.fx[:, 0].tolist() == [FOCAL + 1, FOCAL, FOCAL + 2, FOCAL + 3]


@pytest.mark.parametrize("extra", [{}, {"applied_transform": [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]}])
@pytest.mark.parametrize("orientation", ["up", "none", "pca"])
def test_near_and_far_fit_the_box(tmp_path, extra, orientation):
    folder = write_transforms(tmp_path, TIMES, near=1.0, far=6.0, **extra)
    options = {"orientation_method": orientation, "eval_mode": "interval", "eval_interval": 2}
    outputs = [parse(folder, split, **options) for split in ("train", "val")]
    assert torch.equal(outputs[0].dataparser_transform, outputs[1].dataparser_transform)
    assert outputs[0].dataparser_scale == outputs[1].dataparser_scale
    assert outputs[0].scene_box.aabb.tolist() == [[-1.0] * 3, [1.0] * 3]
    scene = outputs[0].metadata["scenes"][0]
    assert scene.bounded is True
    assert scene.near == pytest.approx(outputs[0].dataparser_scale * 1.0)
    seen = []
    for split in outputs:
        for camera in split.cameras.camera_to_worlds:
            corner = torch.tensor([WIDTH / 2 / FOCAL, HEIGHT / 2 / FOCAL, -1.0])
            assert scene.far == pytest.approx(float(corner.norm()) * 6.0 * outputs[0].dataparser_scale, rel=1e-5)
            signs = torch.tensor([[1, 1, 1], [1, -1, 1], [-1, 1, 1], [-1, -1, 1]])
            for depth in (1.0, 6.0):
                local = corner * signs * depth * outputs[0].dataparser_scale
                seen.append(local @ camera[:, :3].T + camera[:, 3])
    seen = torch.cat(seen)
    assert float((seen.max(dim=0).values - seen.min(dim=0).values).max()) == pytest.approx(2.0, abs=1e-4)
    torch.testing.assert_close(seen.max(dim=0).values, -seen.min(dim=0).values, atol=1e-4, rtol=0)
    original = outputs[0].transform_poses_to_original_space(outputs[0].cameras.camera_to_worlds, "opengl")
    applied = torch.tensor(extra.get("applied_transform", torch.eye(4)[:3].tolist()), dtype=torch.float32)
    saved = torch.tensor(np.stack([camera_to_world(k) for k in (1, 3)]), dtype=torch.float32)
    homogeneous = torch.cat([applied, torch.tensor([[0.0, 0, 0, 1]])]).inverse()
    torch.testing.assert_close(original, (homogeneous @ saved)[:, :3], atol=1e-4, rtol=0)


def test_class_table_file_and_id_labels(tmp_path):
    folder = write_transforms(tmp_path, TIMES)
    (folder / "classes.txt").write_text("background:0,0,0::\nperson:0,130,180::\nballoon:220,20,60::\n")
    (folder / "foreground_object.txt").write_text("balloon\n")
    ids = np.array(Image.open(folder / "SegmentationClass_train/000.png"))
    ids = (ids[..., None, :] == COLORS).all(-1).argmax(-1).astype(np.uint16)
    ids[0, 0] = 255
    save_image(folder / "SegmentationClass_train/000.png", ids)

    def edit(meta):
        del meta["classes"]
        meta["class_table"] = "classes.txt"

    edit_transforms(folder, edit)
    outputs = parse(folder)
    table = outputs.metadata["scenes"][0].classes
    assert table.names == ("background", "person", "balloon") and table.foreground.tolist() == [False, False, True]
    assert np.array_equal(read_labels(outputs.metadata["frames"][0].labels, table, WIDTH, HEIGHT), ids)


def test_absolute_and_single_frame_paths(tmp_path):
    folder = write_transforms(tmp_path / "scene", TIMES)
    (folder / "disp/002.npy").rename(tmp_path / "elsewhere.npy")

    def edit(meta):
        meta["frames"][2]["disparity_path"] = str(tmp_path / "elsewhere.npy")
        meta["frames"][1].pop("disparity_path")
        meta["frames"][1].pop("depth_path")

    edit_transforms(folder, edit)
    frames = parse(folder).metadata["frames"]
    assert frames[2].disparity == tmp_path / "elsewhere.npy"
    assert frames[1].disparity is None and frames[1].depth is None and frames[0].depth is not None


def test_a_json_file_may_be_named(tmp_path):
    folder = write_transforms(tmp_path, TIMES)
    (folder / "transforms.json").rename(folder / "other.json")
    assert len(parse(folder / "other.json").image_filenames) == 4


@pytest.mark.parametrize(("count", "held_out"), [(1, None), (2, None), (3, 1), (4, 2), (9, 7)])
def test_short_clips_are_evaluated_too(tmp_path, capsys, count, held_out):
    """nerfstudio's fraction of 90 % would leave nothing of clips below ten frames."""
    folder = write_transforms(tmp_path, [float(k) for k in range(count)], count=count, near=1.0, far=6.0)
    parser = SemFlowDataParserConfig(data=folder).setup()
    trained, evaluated = (
        [int(path.stem) for path in parser.get_dataparser_outputs(split).image_filenames] for split in ("train", "val")
    )
    everything = list(range(count))
    assert evaluated == (everything if held_out is None else [held_out])
    assert trained == [k for k in everything if k != held_out]
    assert ("the training frames themselves" in capsys.readouterr().out) == (held_out is None)


def test_all_frames_may_be_wanted_for_training(tmp_path):
    folder = write_transforms(tmp_path, TIMES)
    parser = SemFlowDataParserConfig(data=folder, train_split_fraction=1.0).setup()
    assert [len(parser.get_dataparser_outputs(split).image_filenames) for split in ("train", "val")] == [4, 4]


def test_too_few_frames_for_a_split(tmp_path):
    folder = write_transforms(tmp_path, [0.0], count=1, near=1.0, far=6.0)
    parser = SemFlowDataParserConfig(data=folder, eval_mode="interval").setup()
    with pytest.raises(SceneDataError, match=r"too few frames for a train split.*--eval-mode"):
        parser.get_dataparser_outputs("train")


def test_schema_describes_what_the_parser_reads(tmp_path):
    jsonschema = pytest.importorskip("jsonschema", reason="the JSON schema is checked where jsonschema is installed")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    jsonschema.Draft202012Validator.check_schema(validator.schema)
    folder = write_transforms(tmp_path, TIMES, ["a", "b", "a", "b"], near=1.0, far=6.0)
    meta = json.loads((folder / "transforms.json").read_text())
    assert validator.is_valid(meta)
    described = set(validator.schema["$defs"]["frame"]["properties"]) | set(validator.schema["properties"])
    used = set(meta) | {key for frame in meta["frames"] for key in frame}
    assert used <= described
    for change in ({"near": -1.0}, {"far": "6"}, {"frames": []}, {"class_table": "x.txt"}):
        assert not validator.is_valid({**meta, **change}), change
    documented = (SCHEMA.parent / "data-formats.md").read_text()
    example = json.loads(documented.split("```json")[1].split("```")[0])
    assert validator.is_valid(example)


def test_cameras_in_one_place_need_near_and_far(tmp_path):
    folder = write_transforms(tmp_path, TIMES, near=1.0, far=5.0)

    def stand_still(meta):
        for frame in meta["frames"]:
            frame["transform_matrix"] = meta["frames"][0]["transform_matrix"]

    edit_transforms(folder, stand_still)
    outputs = parse(folder)
    assert torch.isfinite(outputs.cameras.camera_to_worlds).all()
    (record,) = outputs.metadata["scenes"]
    assert 0 < record.near < record.far < 4
    edit_transforms(folder, lambda meta: [meta.pop(key) for key in ("near", "far")])
    with pytest.raises(SceneDataError, match="all cameras in one place"):
        parse(folder)
