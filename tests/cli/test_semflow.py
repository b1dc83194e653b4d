"""The `semflow` command from its command line: demo, eval and render on what the demo trained, and wrong input."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from semflow_nerfstudio.cli import main
from semflow_nerfstudio.cli.demo import SUMMARY
from semflow_nerfstudio.runs import load_run

WIDTH, HEIGHT, FRAMES = 48, 27, 4
DEMO = f"demo --size {WIDTH}x{HEIGHT} --frames {FRAMES} --steps 4 --views 3 --video-frames 4 --seed 5 --out"


def semflow(*arguments: object) -> None:
    """Run the command in this process; text is split at spaces, paths are not."""
    words = [[argument] if isinstance(argument, Path) else str(argument).split() for argument in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["semflow", *(str(word) for group in words for word in group)])
        main.entrypoint()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "demo"
    semflow(DEMO, folder)
    return folder


@pytest.fixture(scope="module")
def run(demo: Path) -> Path:
    (config,) = demo.rglob("config.yml")
    return config.parent


def video_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


# ---------------------------------------------------------------- demo


def test_demo_sums_up(demo: Path) -> None:
    summary = json.loads((demo / "summary.json").read_text(), parse_constant=pytest.fail)
    assert list(summary)[: len(SUMMARY)] == list(SUMMARY)
    finite = set(SUMMARY) - {"device"}
    assert all(summary[name] is None or math.isfinite(summary[name]) for name in finite)
    for name in ("psnr", "ssim", "miou", "miou_dataset", "copy_psnr", "copy_miou", "train_seconds", "rays_per_second"):
        assert summary[name] is not None, name
    assert summary["seed"] == 5 and summary["device"].split(":")[0] in ("cpu", "cuda") and summary["eval_views"] == 3


def test_demo_shows_a_picture(demo: Path) -> None:
    """Three rows of six panels, with names and times beside them."""
    with Image.open(demo / "overview.png") as image:
        assert image.mode == "RGB" and image.width >= 6 * WIDTH and image.height >= 3 * HEIGHT
        assert np.asarray(image).std() > 10


def test_demo_makes_a_video(demo: Path) -> None:
    """Two panels beside each other and a legend; first a fixed camera, then a moving one."""
    frames = video_frames(demo / "semantics.mp4")
    assert len(frames) == 4
    height, width, _ = frames[0].shape
    assert width >= 2 * WIDTH and height > HEIGHT and width % 2 == height % 2 == 0
    assert not np.array_equal(frames[0], frames[-1])


def test_demo_uses_the_scene_again_and_says_where_everything_is(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    again = tmp_path / "demo"
    shutil.copytree(demo / "scene", again / "scene")
    shutil.copy(demo / "scene.json", again)
    made = {path: path.stat().st_mtime_ns for path in (again / "scene").rglob("*")}
    semflow(DEMO.replace("--steps 4", "--steps 1").replace("--video-frames 4", "--video-frames 2"), again)
    assert {path: path.stat().st_mtime_ns for path in (again / "scene").rglob("*")} == made
    printed = capsys.readouterr().out
    for name in ("summary.json", "overview.png", "semantics.mp4"):
        assert str(again / name) in printed
    for name in ("psnr", "miou_dataset", "copy_miou", "train_seconds"):
        assert name in printed
    assert "ns-viewer --load-config" in printed


def test_demo_of_a_scene_of_ones_own_without_labels(demo: Path, tmp_path: Path) -> None:
    scene, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(demo / "scene", scene)
    for name in ("SegmentationClass_train", "multiview_GT_semantic"):
        shutil.rmtree(scene / name)
    semflow(f"demo --data {scene} --downscale-factor 2 --steps 2 --views 3 --video-frames 2 --out", out)
    summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["psnr"] > 0 and summary.get("miou") is None and not (out / "scene").exists()
    assert video_frames(out / "semantics.mp4")[0].shape[1] < WIDTH * 2  # two panels at half size
    with Image.open(out / "overview.png") as image:
        assert image.width > 4 * (WIDTH // 2)


# ---------------------------------------------------------------- eval


def test_eval(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "scores" / "few.json"
    semflow("eval", run, "--views 2 --out", out)
    scores = json.loads(out.read_text())
    assert scores["eval_views"] == 2 and math.isfinite(scores["psnr"]) and "miou_dataset" in scores
    assert "psnr" in capsys.readouterr().out and not list(out.parent.glob(".*"))


def test_eval_of_the_foreground_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """All static classes count as one: confusing them is no error any more."""
    results = []
    for name, option in (("all", ""), ("foreground", "--foreground-only")):
        semflow("eval", run, f"--views 2 --out {tmp_path / name}.json {option}")
        results.append(json.loads((tmp_path / f"{name}.json").read_text()))
    every, merged = results
    model = load_run(run).model
    static = [name for name, moves in zip(model.class_names, model.foreground, strict=True) if not moves]
    assert len(static) > 2 and merged[f"iou_{static[0]}"] > 0
    assert all(merged[f"iou_{name}"] is None for name in static[1:])
    assert merged["total_accuracy"] > every["total_accuracy"] and merged["copy_miou"] > every["copy_miou"]
    moving = [name for name in model.class_names if name not in static]
    assert all(merged[f"iou_{name}"] == every[f"iou_{name}"] for name in moving)
    assert merged["psnr"] == every["psnr"]


def test_eval_beside_the_run(run: Path) -> None:
    semflow("eval", run / "config.yml")
    assert json.loads((run / "evaluation.json").read_text())["eval_views"] == FRAMES * FRAMES - FRAMES


# ---------------------------------------------------------------- render


@pytest.mark.parametrize("path", ["fixed", "orbit", "frames", "stabilised", "interpolate"])
def test_render_along_every_path(path: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "video.mp4"
    semflow("render", run, out, f"--path {path} --num-frames 5 --outputs rgb depth --no-legend --no-captions")
    frames = video_frames(out)
    assert len(frames) == (FRAMES if path == "frames" else 5)
    height, width, _ = frames[0].shape
    assert width >= 2 * WIDTH and height >= HEIGHT


@pytest.mark.parametrize("ending", [".gif", ".webm"])
def test_render_other_formats(ending: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / f"video{ending}"
    semflow("render", run, out, "--num-frames 3 --outputs semantics flow dynamicness")
    assert len(video_frames(out)) == 3


def test_render_at_another_size(run: Path, tmp_path: Path) -> None:
    """Frames are even in size, whatever the scale."""
    for scale, size in ((0.5, (24, 14)), (1, (48, 28)), (2, (96, 54))):
        options = f"--num-frames 1 --scale {scale} --outputs rgb --no-legend --no-captions"
        semflow("render", run, tmp_path / str(size[0]), options)
        with Image.open(tmp_path / str(size[0]) / "00000.png") as image:
            assert image.size == size


def test_render_to_a_folder_goes_on_where_it_stopped(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    semflow("render", run, folder, "--num-frames 3")
    files = sorted(folder.glob("*.png"))
    assert sorted(file.name for file in folder.iterdir()) == ["00000.png", "00001.png", "00002.png", "render.json"]
    pictures = [np.asarray(Image.open(file)) for file in files]
    files[1].unlink()
    kept = {file: file.stat().st_mtime_ns for file in (files[0], files[2])}
    semflow("render", run, folder, "--num-frames 3")
    assert np.array_equal(np.asarray(Image.open(files[1])), pictures[1])
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_render_at_one_time(run: Path, tmp_path: Path) -> None:
    semflow("render", run, tmp_path / "still", "--num-frames 2 --time 0.5")
    first, second = (np.asarray(Image.open(tmp_path / "still" / f"0000{k}.png")) for k in range(2))
    assert np.array_equal(first, second)


def test_render_a_camera_path(run: Path, tmp_path: Path) -> None:
    pose = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    camera = {"camera_to_world": pose, "fov": 50, "aspect": 1.5}
    path = {
        "camera_type": "perspective",
        "render_height": 20,
        "render_width": 30,
        "camera_path": [{**camera, "render_time": time} for time in (0.0, 1.1)],
        "fps": 2,
        "seconds": 1,
    }
    (tmp_path / "path.json").write_text(json.dumps(path))
    semflow("render", run, tmp_path / "out.mp4", "--outputs rgb --camera-path", tmp_path / "path.json")
    assert len(video_frames(tmp_path / "out.mp4")) == 2
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert video.streams.video[0].average_rate == 2, "the file's own rate"


# ---------------------------------------------------------------- wrong input


def complaint(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """What the command says last as it ends with exit code 1: a line of its own, no traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        semflow(*arguments)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    if isinstance(stop.value.code, str):  # Python prints it and exits with 1
        assert "\n" not in stop.value.code
        return stop.value.code
    assert stop.value.code == 1
    line = captured.err.splitlines()[-1]
    assert line.startswith("semflow: ") and captured.err.count("semflow: ") == 1
    return line


def test_no_run_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    nowhere = tmp_path / "a folder [with] brackets, and with a name so long that no terminal has room for it" / "run"
    for command in (["eval", nowhere], ["render", nowhere, tmp_path / "out.mp4"]):
        line = complaint(capsys, *command)
        assert str(nowhere) in line and "there is no trained run here" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--outputs rgb colour", "no output 'colour'; it has rgb"),
        ("--frame 9", "no training frame 9"),
        ("--path file", "--camera-path"),
        ("--camera-path missing.json", "missing.json"),
        ("--num-frames 0", "at least one frame"),
        ("--time 1.5", "1.5"),
        ("--fps 0", "fps"),
        ("--scale 0", "scale"),
    ],
)
def test_render_refuses(options: str, words: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out.mp4"
    assert words in complaint(capsys, "render", run, out, options)
    assert list(tmp_path.iterdir()) == []


def test_render_refuses_unknown_formats(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "out.avi" in complaint(capsys, "render", run, tmp_path / "out.avi")


@pytest.mark.parametrize("views", [0, -1])
def test_eval_refuses(views: int, run: Path, capsys: pytest.CaptureFixture) -> None:
    assert "views" in complaint(capsys, "eval", run, f"--views {views}")


def test_make_scene_refuses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "frames must be at least 2" in complaint(capsys, "make-scene", tmp_path / "scene", "--frames 1")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert str(tmp_path / "mine") in complaint(capsys, "make-scene", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").is_file()


@pytest.mark.parametrize("option", ["--size 12", "--frames 1", "--steps 0", "--views 0", "--video-frames 0"])
def test_demo_refuses(option: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Before it makes or trains anything."""
    assert option.split(maxsplit=1)[0].strip("-") in complaint(capsys, f"demo {option} --out", tmp_path / "demo")
    assert not list(tmp_path.rglob("*.png"))


def test_a_damaged_checkpoint(run: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    (checkpoint,) = run.rglob("*.ckpt")
    content = checkpoint.read_bytes()
    try:
        checkpoint.write_bytes(content[:1000])
        line = complaint(capsys, "eval", run)
        assert str(run) in line and "corrupted" in line
    finally:
        checkpoint.write_bytes(content)


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        semflow("--help")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("demo", "make-scene", "eval", "render"))


# ---------------------------------------------------------------- export


def test_export_makes_a_data_set_that_can_be_trained_on(run: Path, tmp_path: Path) -> None:
    from semflow_nerfstudio.data.transforms_json import read_transforms

    out = tmp_path / "out"
    semflow("export", run, out, "--what images masks depth tracks cameras --depth-format png --track-grid 3")
    file = read_transforms(out)
    assert len(file.frames) == FRAMES and file.timed
    assert [frame.time for frame in file.frames] == pytest.approx(np.linspace(0, 1, FRAMES))
    assert file.classes is not None and file.classes.names[0] == "floor"
    truth = np.load(run.parents[3] / "scene" / "poses_bounds.npy")[0, :15].reshape(3, 5)
    np.testing.assert_allclose(file.frames[0].pose[:, 3], truth[:, 3], atol=1e-4)
    for frame in file.frames:
        assert Image.open(frame.image).size == frame.size == (WIDTH, HEIGHT)
        assert frame.record.labels is not None and frame.record.depth is not None
        assert Image.open(frame.record.labels).size == (WIDTH, HEIGHT)
    assert np.load(out / "tracks" / "tracks.npz")["positions"].shape == (3 * 2, FRAMES, 3)


def test_export_says_what_is_wrong(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        semflow("export", run, tmp_path / "out", "--times 2.0")
    assert "the clip runs from 0 to 1" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        semflow("export", run, tmp_path)
    assert "holds something else than this export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
