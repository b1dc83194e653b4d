"""The whole way: from frames to a scene that the parser reads; resumed, changed, refused."""

import json

import numpy as np
import pytest
import torch
from clips import FRAMES, HEIGHT, WIDTH, draw, poses, write_folder, write_llff, write_video
from processing import make

from semflow_nerfstudio.cli.process import Process
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.clip_motion import ClipMotion
from semflow_nerfstudio.data.modalities import read_disparity, read_flow, read_mask
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
from semflow_nerfstudio.process.optical_flow import DIS


def parse(scene):
    return SemFlowDataParserConfig(data=scene, eval_mode="all").setup().get_dataparser_outputs("train")


@pytest.fixture
def flows_made(monkeypatch):
    """Counts the flow fields that are computed; set `stop` to interrupt after that many."""
    made = {"count": 0, "stop": None}
    real = DIS.__call__

    def counted(self, image, other):
        if made["count"] == made["stop"]:
            raise KeyboardInterrupt
        made["count"] += 1
        return real(self, image, other)

    monkeypatch.setattr(DIS, "__call__", counted)
    return made


def test_the_parser_reads_what_was_made(scene):
    outputs = parse(scene)
    (record,) = outputs.metadata["scenes"]
    assert record.bounded and len(outputs.image_filenames) == FRAMES
    assert record.next_frame.tolist() == [1, 2, 3, 4, 5, -1]
    assert outputs.cameras.width[0] == WIDTH and outputs.cameras.height[0] == HEIGHT
    torch.testing.assert_close(outputs.cameras.times[:, 0], torch.linspace(0, 1, FRAMES))
    for k, frame in enumerate(outputs.metadata["frames"]):
        assert (frame.flow_forward is None) == (k == FRAMES - 1) and (frame.flow_backward is None) == (k == 0)
        truth = draw(k)[1]
        mask = read_mask(frame.motion_mask, WIDTH, HEIGHT) == 1
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6
    flow, valid = read_flow(outputs.metadata["frames"][0].flow_forward, WIDTH, HEIGHT)
    assert valid.mean() > 0.7 and 1 < np.median(np.linalg.norm(flow[valid], axis=-1)) < 12


def test_the_scene_holds_the_depths_that_there_are(scene):
    content = json.loads((scene / "transforms.json").read_text())
    assert 2 < content["near"] < 3.9 and 7 < content["far"] < 12
    assert all(not name.startswith("/") and ".." not in name for f in content["frames"] for name in [f["file_path"]])


def test_the_summary_says_what_is_missing(scene):
    summary = json.loads((scene / "process/summary.json").read_text())
    assert summary["errors"] == [] and summary["pose_check"]["error"] < 0.2
    assert len(summary["pair_names"]) == FRAMES - 1
    assert set(summary["missing"]) == {"no labels", "no disparity or depth"}


def test_nothing_is_done_twice_and_only_what_changed_is_done_again(clip, tmp_path, flows_made):
    options = {"poses": str(clip), "jobs": 1, "near": 3.0, "far": 9.0}
    make(clip / "images", tmp_path / "s", **options)
    assert flows_made["count"] == 2 * (FRAMES - 1)
    written = [path for folder in ("images", "flow") for path in (tmp_path / "s" / folder).iterdir()]
    stamps = {path: path.stat().st_mtime_ns for path in written}
    make(clip / "images", tmp_path / "s", **options)
    make(clip / "images", tmp_path / "s", **{**options, "far": 12.0})
    assert flows_made["count"] == 2 * (FRAMES - 1)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert json.loads((tmp_path / "s/transforms.json").read_text())["far"] == 12.0
    make(clip / "images", tmp_path / "s", **options, count=4)
    assert flows_made["count"] == 2 * (FRAMES - 1) + 2 * 3
    assert len(parse(tmp_path / "s").image_filenames) == 4


def test_an_interrupted_run_goes_on_and_ends_with_the_same_scene(clip, scene, tmp_path, flows_made):
    flows_made["stop"] = 5
    with pytest.raises(KeyboardInterrupt):
        make(clip / "images", tmp_path / "s", poses=str(clip), jobs=1)
    assert not (tmp_path / "s/transforms.json").exists()
    whole = sorted((tmp_path / "s/flow").glob("*.npz"))
    assert len(whole) == 4 and not list((tmp_path / "s/flow").glob(".partial*"))
    flows_made.update(stop=None, count=0)
    make(clip / "images", tmp_path / "s", poses=str(clip), jobs=1, near=3.0, far=9.0)
    assert flows_made["count"] == 2 * (FRAMES - 1) - 4
    make(clip / "images", tmp_path / "s", poses=str(clip), jobs=1)
    again, reference = (json.loads((folder / "transforms.json").read_text()) for folder in (tmp_path / "s", scene))
    assert again == reference


def test_wrong_poses_are_refused_and_accepted_when_told(clip, tmp_path):
    flipped = poses()
    flipped[:, :, 1:3] *= -1
    wrong = write_llff(tmp_path / "wrong.npy", flipped)
    with pytest.raises(SceneDataError, match=r"do not fit the pictures(.|\n)*OpenCV's(.|\n)*--accept-poses"):
        make(clip / "images", tmp_path / "s", poses=str(wrong), near=3.0, far=9.0)
    assert not (tmp_path / "s/transforms.json").exists()
    summary = make(clip / "images", tmp_path / "s", poses=str(wrong), near=3.0, far=9.0, accept_poses=True)
    assert any("do not fit" in warning for warning in summary.warnings)
    assert len(parse(tmp_path / "s").image_filenames) == FRAMES


def test_frames_without_a_pose_are_left_out_and_flow_leads_across(clip, tmp_path):
    from clips import write_transforms

    keep = [0, 1, 3, 4, 5]
    path = write_transforms(tmp_path / "t.json", poses()[keep], [f"shot_{k:02d}.png" for k in keep])
    summary = make(clip / "images", tmp_path / "s", poses=str(path), near=3.0, far=9.0)
    assert summary.frames == 5 and any("shot_02.png got no pose" in sentence for sentence in summary.left_out)
    content = json.loads((tmp_path / "s/transforms.json").read_text())
    assert content["frames"][1]["flow_forward_path"] == "flow/shot_01_to_shot_03.npz"
    assert parse(tmp_path / "s").metadata["scenes"][0].next_frame.tolist() == [1, 2, 3, 4, -1]


def test_a_camera_on_a_tripod(tmp_path):
    folder = write_folder(tmp_path / "images", 4, still=True)
    summary = make(folder, tmp_path / "s", poses="static", focal=170.0)
    assert any("no parallax" in warning for warning in summary.warnings) and not summary.errors
    outputs = parse(tmp_path / "s")
    assert torch.isfinite(outputs.cameras.camera_to_worlds).all()
    mask = read_mask(outputs.metadata["frames"][1].motion_mask, WIDTH, HEIGHT) == 1
    truth = draw(1, still=True)[1]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.6


def test_a_camera_that_moves_is_no_tripod(clip, tmp_path):
    with pytest.raises(SceneDataError, match="does not stand still"):
        make(clip / "images", tmp_path / "s", poses="static")


def test_disparity_of_any_size_by_name_or_by_place(clip, tmp_path):
    folder = tmp_path / "depth"
    folder.mkdir()
    values = [np.linspace(k, k + 1, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.float32) for k in range(FRAMES)]
    for k in range(FRAMES):
        np.save(folder / f"out{k}.npy", np.kron(values[k], np.ones((2, 2), np.float32)))
    options = {"poses": str(clip), "near": 3.0, "far": 9.0}
    make(clip / "images", tmp_path / "s", disparity=folder, count=3, **options)
    record = parse(tmp_path / "s").metadata["frames"][2]
    np.testing.assert_allclose(read_disparity(record.disparity, WIDTH, HEIGHT) * 6, values[5], atol=0.01)
    for path in sorted(folder.iterdir())[:-1]:
        path.unlink()
    (folder / "out5.npy").rename(folder / "shot_02.npy")
    with pytest.raises(SceneDataError, match="1 disparities"):
        make(clip / "images", tmp_path / "s", disparity=folder, **options)
    broken = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    for k in range(FRAMES):
        np.save(folder / f"shot_{k:02d}.npy", broken)
    with pytest.raises(SceneDataError, match="no finite disparity"):
        make(clip / "images", tmp_path / "s", disparity=folder, **options)


def test_a_video_from_the_command_line(tmp_path, capsys):
    video = write_video(tmp_path / "clip.mp4", [draw(k)[0] for k in range(5)])
    write_llff(tmp_path / "poses_bounds.npy", poses(5))
    Process(source=video, out=tmp_path / "s", poses=str(tmp_path / "poses_bounds.npy"), near=3.0, far=9.0).main()
    told = capsys.readouterr().out
    assert "5 frames of 192x144" in told and "ns-train semantic-flow-lite" in told and "epipolar error" in told
    np.testing.assert_allclose(parse(tmp_path / "s").cameras.times[:, 0], np.linspace(0, 1, 5), atol=1e-3)


def test_options_are_checked_before_any_work(clip, tmp_path):
    for options in ({"poses": "nowhere.json"}, {"flow": "nothing"}, {"disparity": tmp_path / "none"}):
        with pytest.raises(ValueError):
            make(clip / "images", tmp_path / "s", **{"poses": str(clip), **options})
    for options in ({"near": 1.0}, {"near": 3.0, "far": 2.0}, {"focal": -1.0}):
        with pytest.raises(ValueError):
            make(clip / "images", tmp_path / "s", poses=str(clip), **options)
    assert not (tmp_path / "s").exists()


def test_what_frames_told_of_motion_is_kept_until_the_masks_are_made(clip, scene, tmp_path, monkeypatch):
    looked, look = [], ClipMotion.look

    def counted(self, frame):
        if len(looked) == 3:
            raise KeyboardInterrupt
        looked.append(frame)
        return look(self, frame)

    monkeypatch.setattr(ClipMotion, "look", counted)
    with pytest.raises(KeyboardInterrupt):
        make(clip / "images", tmp_path / "s", poses=str(clip), jobs=1)
    kept = tmp_path / "s/process/motion_evidence"
    assert len(list(kept.glob("*.npz"))) == 3 and not list(kept.glob(".partial*"))
    monkeypatch.setattr(ClipMotion, "look", lambda self, frame: looked.append(frame) or look(self, frame))
    make(clip / "images", tmp_path / "s", poses=str(clip), jobs=1)
    assert sorted(looked) == list(range(FRAMES)) and not kept.exists()
    for mask in (scene / "motion_masks").iterdir():
        assert (tmp_path / "s/motion_masks" / mask.name).read_bytes() == mask.read_bytes()
