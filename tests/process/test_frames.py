"""Frames of videos and folders: times, rotation, selection, what is left out, and broken input."""

import io
import struct
import zlib

import av
import cv2
import numpy as np
import pytest
from clips import HEIGHT, WIDTH, draw, turn_video, write_folder, write_video
from PIL import Image

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.frames import FrameOptions, choose, make_frames, relative_sharpness
from semflow_nerfstudio.process.sources import Moment, open_source
from semflow_nerfstudio.process.steps import claim


def take(source, scene, **options):
    claim(scene, source)
    return make_frames(scene, open_source(source), FrameOptions(**options), lambda done, total, note="": None)[1]


LUMA = np.array([0.299, 0.587, 0.114])


def unlike(picture: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of brightness: videos and JPEGs store colour at half the size."""
    return float(np.abs(picture @ LUMA - other @ LUMA).mean())


@pytest.fixture(scope="module")
def pictures():
    return [draw(k)[0] for k in range(8)]


def test_variable_frame_rate(tmp_path, pictures):
    times = [0, 40, 80, 400, 440, 900, 1000, 2000]
    video = write_video(tmp_path / "a.mp4", pictures, times)
    frames = take(video, tmp_path / "scene")
    np.testing.assert_allclose([frame.time for frame in frames.frames], np.array(times) / 1000, atol=2e-3)
    shown = np.asarray(Image.open(tmp_path / "scene/images" / frames.frames[5].name))
    assert unlike(shown, pictures[5]) < 4 < unlike(shown, pictures[4])


def test_rate_takes_the_nearest_frames_whatever_the_gaps(tmp_path, pictures):
    video = write_video(tmp_path / "a.mp4", pictures, [0, 40, 80, 400, 440, 900, 1000, 2000])
    frames = take(video, tmp_path / "scene", rate=2)
    assert [frame.source_index for frame in frames.frames] == [0, 4, 6, 7]
    assert frames.source_count == 8


def test_start_end_and_count(tmp_path, pictures):
    video = write_video(tmp_path / "a.mp4", pictures)
    frames = take(video, tmp_path / "scene", start=0.15, end=0.65, count=3)
    assert [frame.source_index for frame in frames.frames] == [2, 4, 6]


def test_a_phones_rotation_is_applied(tmp_path, pictures):
    video = write_video(tmp_path / "a.mp4", pictures)
    turn_video(video)
    frames = take(video, tmp_path / "scene")
    assert (frames.width, frames.height) == (HEIGHT, WIDTH)
    shown = np.asarray(Image.open(tmp_path / "scene/images" / frames.frames[2].name))
    assert unlike(shown, np.rot90(pictures[2], -1)) < 4 < 20 < unlike(shown, np.rot90(pictures[2], 1))


def test_exif_orientation_is_applied(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(3):
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: show it turned clockwise
        Image.fromarray(draw(k)[0]).save(folder / f"{k}.jpg", exif=exif, quality=95)
    frames = take(folder, tmp_path / "scene")
    assert (frames.source_width, frames.source_height) == (HEIGHT, WIDTH)
    shown = np.asarray(Image.open(tmp_path / "scene/images/1.png"))
    assert unlike(shown, np.rot90(draw(1)[0], -1)) < 4 < 20 < unlike(shown, np.rot90(draw(1)[0], 1))


def test_sixteen_bits_a_pixel_keep_their_greys(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(3):
        grey = draw(k)[0].mean(-1).astype(np.uint16)
        Image.fromarray(grey * 257).save(folder / f"{k}.png")
    take(folder, tmp_path / "scene")
    shown = np.asarray(Image.open(tmp_path / "scene/images/2.png"))
    assert np.abs(shown.astype(int) - grey[..., None]).max() <= 1 and len(np.unique(shown)) > 50


def test_blurred_and_duplicate_frames_are_left_out_and_named(tmp_path):
    folder = write_folder(tmp_path / "images", 8)
    for k, change in {3: lambda p: cv2.GaussianBlur(p, (0, 0), 4), 6: lambda p: draw(5)[0]}.items():
        path = folder / f"shot_{k:02d}.png"
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)
    frames = take(folder, tmp_path / "scene")
    assert [frame.source_index for frame in frames.frames] == [0, 1, 2, 4, 5, 7]
    left_out = "\n".join(frames.left_out)
    assert "shot_03.png is blurred" in left_out and "shot_06.png is the same picture" in left_out
    assert sorted(p.name for p in (tmp_path / "scene/images").iterdir()) == [f.name for f in frames.frames]
    assert len(take(folder, tmp_path / "all", keep_all=True).frames) == 8


def test_sharpness_is_compared_with_neighbours_only():
    shares = relative_sharpness([100, 98, 30, 90, 80, 70, 60, 50, 45, 44])
    assert shares[2] < 0.35 and min(shares[:2] + shares[3:]) > 0.6


def test_images_are_scaled_down_never_up(tmp_path):
    folder = write_folder(tmp_path / "images", 3)
    frames = take(folder, tmp_path / "scene", size=96)
    assert (frames.width, frames.height, frames.source_width) == (96, 72, WIDTH)
    assert take(folder, tmp_path / "large", size=4000).width == WIDTH


def test_folders_are_ordered_by_number_and_names_that_are_times_are_times(tmp_path):
    folder = write_folder(tmp_path / "a", 11, name="f{}.png")
    assert [f.name for f in take(folder, tmp_path / "one").frames][-2:] == ["f9.png", "f10.png"]
    stamped = tmp_path / "b"
    stamped.mkdir()
    for k, time in enumerate(("12.25", "12.75", "13.50")):
        Image.fromarray(draw(k)[0]).save(stamped / f"{time}.png")
    assert [f.time for f in take(stamped, tmp_path / "two").frames] == [12.25, 12.75, 13.5]


def test_choose_keeps_first_and_last():
    moments = [Moment(k, k / 30, k / 30, str(k), str(k)) for k in range(100)]
    chosen = choose(moments, FrameOptions(count=7))
    assert len(chosen) == 7 and chosen[0].index == 0 and chosen[-1].index == 99


def bomb(side: int) -> bytes:
    """A PNG that states side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_huge_images_are_refused_before_they_are_decoded(tmp_path):
    folder = write_folder(tmp_path / "images", 3)
    (folder / "shot_09.png").write_bytes(bomb(100_000))
    with pytest.raises(SceneDataError, match=r"shot_09.png .*100,000,000 pixels"):
        take(folder, tmp_path / "scene")
    assert not (tmp_path / "scene/images").exists()


def empty_mp4() -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        container.mux(video.encode())
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be read as a video"),
        (b"not a video at all" * 50, "cannot be read"),
        (None, "no picture|cannot be"),
    ],
)
def test_broken_videos_are_one_sentence(tmp_path, content, told):
    video = tmp_path / "a.mp4"
    video.write_bytes(empty_mp4() if content is None else content)
    with pytest.raises(SceneDataError, match=told) as error:
        take(video, tmp_path / "scene")
    assert "\n" not in str(error.value) and str(video) in str(error.value)


def test_a_video_that_ends_too_early_gives_the_frames_before(tmp_path, pictures):
    video = write_video(tmp_path / "a.mkv", pictures * 3)
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    frames = take(video, tmp_path / "scene")
    assert 3 <= len(frames.frames) < 24


@pytest.mark.parametrize("options", [{"rate": 0}, {"count": 2}, {"size": 3}, {"start": 5.0, "end": 2.0}])
def test_senseless_options(options):
    with pytest.raises(ValueError, match="--"):
        FrameOptions(**options)


def test_sources_that_cannot_be(tmp_path, clip):
    with pytest.raises(SceneDataError, match="does not exist"):
        open_source(tmp_path / "none.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneDataError, match="holds no images"):
        open_source(tmp_path / "empty")
    with pytest.raises(SceneDataError, match="which is to hold the new scene"):
        claim(clip, clip / "images")
    with pytest.raises(SceneDataError, match="did not make"):
        claim(clip / "images", tmp_path / "other")
    Image.fromarray(draw(0)[0]).save(tmp_path / "empty/a.png")
    Image.fromarray(draw(0)[0]).save(tmp_path / "empty/a.jpg")
    with pytest.raises(SceneDataError, match="several images named a"):
        open_source(tmp_path / "empty")
