"""`semflow render` with edits and all its modes, from its command line."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image
from test_semflow import HEIGHT, WIDTH, demo, run, semflow, video_frames  # noqa: F401  (fixtures)

from semflow_nerfstudio.editing.scene_state import SceneState, hide, with_background, with_class_visible
from semflow_nerfstudio.editing.scene_state_file import save_scene_state
from semflow_nerfstudio.visuals.display import Display
from semflow_nerfstudio.visuals.render_video import Look, VideoRenderer, render_video
from semflow_nerfstudio.visuals.trajectories import RenderView

FEW = "--num-frames 2 --no-legend --no-captions"


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_scene_state_is_shown(run: Path, tmp_path: Path) -> None:  # noqa: F811
    state = with_background(hide(SceneState(), "static"), (0.0, 1.0, 0.0))
    save_scene_state(hide(state, "moving"), tmp_path / "state.json")
    semflow("render", run, tmp_path / "frames", FEW, "--outputs rgb --scene-state", tmp_path / "state.json")
    for name in ("00000.png", "00001.png"):
        assert (picture(tmp_path / "frames" / name)[:8] == [0, 255, 0]).all()  # below is the time


def test_classes_that_are_not_shown_leave_the_legend(run: Path, tmp_path: Path) -> None:  # noqa: F811
    state = SceneState()
    for name in ("floor", "wall", "crate", "pillar", "plant", "person", "ball"):
        state = with_class_visible(state, name, False)
    save_scene_state(state, tmp_path / "state.json")
    options = "--num-frames 1 --outputs semantics --no-captions"
    semflow("render", run, tmp_path / "all", options)
    semflow("render", run, tmp_path / "one", options, "--scene-state", tmp_path / "state.json")
    assert picture(tmp_path / "one/00000.png").shape[0] < picture(tmp_path / "all/00000.png").shape[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"version": 1, "objects": {"class:car": {"hidden": true}}}', "no class 'car'"), ("{", "no readable JSON")],
)
def test_wrong_states_are_named(run: Path, tmp_path: Path, content: str, message: str, capsys) -> None:  # noqa: F811
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(SystemExit):
        semflow("render", run, tmp_path / "out.mp4", FEW, "--scene-state", path)
    error = capsys.readouterr().err
    assert message in error and str(path) in error and not (tmp_path / "out.mp4").exists()


def test_split_screens_are_cut_where_they_should_be(run: Path, tmp_path: Path) -> None:  # noqa: F811
    semflow("render", run, tmp_path / "split", FEW, "--outputs static_rgb semantics --split 0.25 0.75")
    semflow("render", run, tmp_path / "left", FEW, "--outputs static_rgb")
    semflow("render", run, tmp_path / "right", FEW, "--outputs semantics")
    for index, cut in enumerate((WIDTH // 4, 3 * WIDTH // 4)):
        split, left, right = (picture(tmp_path / name / f"{index:05d}.png")[:8] for name in ("split", "left", "right"))
        assert split.shape == left.shape
        np.testing.assert_array_equal(split[:, : cut - 1], left[:, : cut - 1])
        np.testing.assert_array_equal(split[:, cut + 1 :], right[:, cut + 1 :])
        assert (split[:, cut - 1 : cut + 1] == 240).all()


def test_movers_alone_with_alpha(run: Path, tmp_path: Path) -> None:  # noqa: F811
    options = "--num-frames 2 --only moving --alpha"
    semflow("render", run, tmp_path / "frames", options)
    semflow("render", run, tmp_path / "movers.webm", options)
    first = picture(tmp_path / "frames/00000.png")
    assert first.shape == (HEIGHT, WIDTH, 4)
    with av.open(str(tmp_path / "movers.webm")) as video:
        tags = {name.lower(): value for name, value in video.streams.video[0].metadata.items()}  # FFmpeg 8: capitals
        assert tags.get("alpha_mode") == "1"
    # FFmpeg's own VP9 decoder drops the alpha, libvpx' keeps it.
    with av.open(str(tmp_path / "movers.webm")) as video:
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        decoder.extradata = video.streams.video[0].codec_context.extradata
        frames = [frame for packet in video.demux(video=0) for frame in decoder.decode(packet)]
    assert len(frames) == 2 and frames[0].format.name == "yuva420p"
    alpha = frames[0].to_ndarray(format="rgba")[:HEIGHT, :WIDTH, 3].astype(float)
    assert abs(alpha - first[..., 3]).mean() < 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("out.mp4 --alpha", ".mp4 has no alpha channel; write a .webm, or a folder"),
        ("out.gif --alpha", ".gif has no alpha channel"),
        ("out.webm --alpha --outputs rgb depth", "alpha takes one output"),
        ("out.mp4 --split 0.5 --outputs rgb", "a split screen shows two outputs"),
        ("out.mp4 --split 0.5 1.5", "from 0 to 1"),
        ("out.mp4 --split 0.1 0.2 0.3", "--split takes one number"),
        ("out.mp4 --only person", "'person' is no target"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_loaded(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        semflow("render", tmp_path / "none", *[tmp_path / options.split(maxsplit=1)[0]], " ".join(options.split()[1:]))
    assert message in " ".join(capsys.readouterr().err.split())


def test_instances_that_are_not_there_are_not_highlighted(run: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    with pytest.raises(SystemExit):
        semflow("render", run, tmp_path / "out.mp4", FEW, "--highlight instance:999")
    assert "there is no instance 999; the scene has" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_on_with_the_same_settings_only(run: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    out = tmp_path / "frames"
    semflow("render", run, out, FEW, "--outputs rgb")
    kept, lost = out / "00000.png", out / "00001.png"
    lost.unlink()
    before = kept.stat().st_mtime_ns
    semflow("render", run, out, FEW, "--outputs rgb")
    assert kept.stat().st_mtime_ns == before and lost.is_file()
    assert json.loads((out / "render.json").read_text())["outputs"] == ["rgb"]
    with pytest.raises(SystemExit):
        semflow("render", run, out, FEW, "--outputs depth")
    error = " ".join(capsys.readouterr().err.split())
    assert "its 2 frames were rendered with other settings (outputs)" in error and "--overwrite" in error
    assert kept.stat().st_mtime_ns == before
    semflow("render", run, out, FEW, "--outputs depth --overwrite")
    assert kept.stat().st_mtime_ns != before
    (out / "render.json").unlink()
    with pytest.raises(SystemExit):
        semflow("render", run, out, FEW, "--outputs depth")
    assert "no readable render.json" in " ".join(capsys.readouterr().err.split())


class FakeRun:
    """Renders flat pictures and knows how many of them are still held."""

    def __init__(self) -> None:
        self.alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
        self.most = 0
        frustum = SimpleNamespace(near=1.0, far=2.0)
        self.model = SimpleNamespace(
            class_names=("a", "b"),
            shown_classes=lambda: (torch.eye(2, 3), torch.ones(2, dtype=torch.bool)),
            shown_scene="s",
            scene=lambda name: frustum,
            scene_state=SceneState(),
            display=Display(),
            step=0,
        )
        self.config = SimpleNamespace(get_base_dir=lambda: Path("run"))

    def render(self, camera, crop=None, background=None) -> dict[str, torch.Tensor]:
        gc.collect()
        self.most = max(self.most, len(self.alive))
        outputs = {name: torch.rand(18, 32, 3) for name in ("rgb", "semantics")}
        for value in outputs.values():
            self.alive.add(value)
        return outputs


@pytest.mark.parametrize("out", ["out.mp4", "out.gif", "out.webm", "frames"])
def test_memory_does_not_grow_with_the_length(tmp_path: Path, out: str) -> None:
    """As many pictures are held at once for 20 frames as for 2."""
    held = []
    for count in (2, 20):
        fake = FakeRun()
        view = RenderView(torch.eye(4)[:3], 30.0, 30.0, 16.0, 9.0, 32, 18)
        render_video(fake, [view] * count, tmp_path / str(count) / out)  # type: ignore[arg-type]
        held.append(fake.most)
    assert held[0] == held[1] <= 2


def test_settings_tell_views_apart() -> None:
    first = RenderView(torch.eye(4)[:3], 30.0, 30.0, 16.0, 9.0, 32, 18)
    later = RenderView(torch.eye(4)[:3], 30.0, 30.0, 16.0, 9.0, 32, 18, time=0.5)
    fake = FakeRun()
    settings = [VideoRenderer(fake, [view], Look()).settings() for view in (first, later, first)]  # type: ignore[arg-type]
    assert settings[0] == settings[2] and settings[0]["views"] != settings[1]["views"]
    assert json.loads(json.dumps(settings[0]))["scene_state"]["version"] == 1


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".webm"])
def test_an_interrupted_video_goes_on(tmp_path: Path, ending: str) -> None:
    """With the frames that it has, if they show the same; afterwards there is nothing beside the video."""
    views = [RenderView(torch.eye(4)[:3], 30.0, 30.0, 16.0, 9.0, 32, 18, time=t / 4) for t in range(5)]
    out, rendered = tmp_path / f"out{ending}", []

    class Counting(FakeRun):
        def render(self, camera, crop=None, background=None):
            rendered.append(float(camera.times))
            return super().render(camera, crop, background)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_video(Counting(), views, out, progress=stop)  # type: ignore[arg-type]
    assert not out.exists() and rendered == [0.0, 0.25, 0.5]
    render_video(Counting(), views, out)  # type: ignore[arg-type]
    assert rendered == [0.0, 0.25, 0.5, 0.75, 1.0] and len(video_frames(out)) == 5
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    with pytest.raises(KeyboardInterrupt):
        render_video(Counting(), views, out, progress=stop)  # type: ignore[arg-type]
    rendered.clear()
    render_video(Counting(), views, out, Look(outputs=("rgb",)))  # type: ignore[arg-type]
    assert len(rendered) == 5, "frames that show something else do not count"


@pytest.mark.parametrize(("name", "message"), [("out.mp4", "this is a folder"), ("frames", "this is a file")])
def test_what_stands_in_the_way_is_named_first(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "out.mp4").mkdir()
    (tmp_path / "frames").write_text("")
    with pytest.raises(ValueError, match=f"{tmp_path / name}: {message}"):
        Look().check(tmp_path / name)
