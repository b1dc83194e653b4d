import gc
import os
import sys
import weakref
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from semflow_nerfstudio.visuals.frame_folder import encode_folder
from semflow_nerfstudio.visuals.video import VideoWriter

FLAT = [(220, 20, 60), (0, 130, 180), (128, 64, 128)]


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth gradient, a flat class colour, and a bright bar that moves one pixel a frame."""
    frame = np.zeros((height, width, 3), np.uint8)
    half = height // 4 * 2  # even: videos keep one colour for two rows
    frame[:half, :, 1] = np.linspace(40, 200, width).astype(np.uint8)
    frame[half:] = FLAT[index % len(FLAT)]
    frame[2:8, 4 + index : 8 + index] = 255
    return frame


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        if path.suffix == ".gif":
            return [frame.to_ndarray(format="rgb24") for frame in frames]
        # Older PyAV converts with BT.601 whatever the stream says.
        return [
            frame.reformat(format="rgb24", src_colorspace="ITU709", dst_colorspace="DEFAULT").to_ndarray()
            for frame in frames
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_video_reads_back(tmp_path, suffix):
    path = tmp_path / "new" / f"video{suffix}"
    frames = [picture(index) for index in range(10)]
    with VideoWriter(path, fps=12.5) as writer:
        for frame in frames:
            writer.add(frame)
        assert not path.exists(), "the video must not be there before it is complete"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(12.5, abs=0.01)
        assert (stream.width, stream.height) == (64, 48)
        if suffix != ".gif":
            assert stream.codec_context.name in ("h264", "libvpx-vp9", "vp9")
            assert stream.codec_context.pix_fmt == "yuv420p"
    decoded = decode(path)
    assert len(decoded) == 10
    for frame, result in zip(frames, decoded, strict=True):
        difference = np.abs(frame.astype(int) - result.astype(int))
        assert difference.mean() < 4
        # Away from edges class colours come back; with the wrong colour matrix they would be off by 12 and more.
        assert difference[30:44, 4:60].max() <= 9


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_odd_sizes_are_padded_by_a_pixel(tmp_path, suffix):
    path = tmp_path / f"odd{suffix}"
    with VideoWriter(path, fps=24) as writer:
        for index in range(3):
            writer.add(picture(index, 47, 63))
    (first, *_) = decode(path)
    assert first.shape == (48, 64, 3)
    assert np.abs(first[:47, :63].astype(int) - picture(0, 47, 63)).mean() < 4


def test_gif_keeps_odd_sizes_loops_for_ever_and_has_its_duration(tmp_path):
    path = tmp_path / "odd.gif"
    with VideoWriter(path, fps=10) as writer:
        for index in range(6):
            writer.add(picture(index, 47, 63))
    with Image.open(path) as image:
        assert image.size == (63, 47) and image.n_frames == 6 and image.info["loop"] == 0
        assert image.info["duration"] == 100


def test_gif_keeps_what_stands_still_identical(tmp_path):
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (12, 16, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    path = tmp_path / "still.gif"
    with VideoWriter(path) as writer:
        for index in range(4):
            frame = ground.copy()
            frame[40:, index * 10 : index * 10 + 10] = (255, 0, index * 60)
            writer.add(frame)
    decoded = decode(path)
    assert all(np.array_equal(frame[:40], decoded[0][:40]) for frame in decoded)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_an_error_while_rendering_leaves_nothing_and_keeps_the_old_video(tmp_path, suffix):
    path = tmp_path / f"video{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), VideoWriter(path) as writer:
        writer.add(picture(0))
        writer.add(picture(1))
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_a_video_without_frames_is_an_error_and_leaves_nothing(tmp_path, suffix):
    path = tmp_path / f"empty{suffix}"
    with pytest.raises(ValueError, match="no frames were added"), VideoWriter(path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_at_the_end_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"), VideoWriter(tmp_path / "video.mp4") as writer:
        writer.add(picture(0))
    assert not list(tmp_path.iterdir())


def test_wrong_frames_are_named(tmp_path):
    path = tmp_path / "video.mp4"
    with pytest.raises(ValueError, match=r"video.mp4: all frames must be 64x48, but frame 1 is 32x48"):
        with VideoWriter(path) as writer:
            writer.add(picture(0))
            writer.add(picture(1, width=32))
    assert not list(tmp_path.iterdir())
    writer = VideoWriter(path, size=(64, 48))
    with pytest.raises(ValueError, match="uint8 arrays"):
        writer.add(picture(0).astype(np.float32))
    with pytest.raises(ValueError, match="expected frame 0, got frame 3"):
        writer.add(picture(0), index=3)
    with pytest.raises(ValueError, match="must be 64x48"):
        writer.add(picture(0, 50, 64))
    writer.add(picture(0))
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="finished"):
        writer.add(picture(1))
    assert len(decode(path)) == 1


def test_unknown_formats_and_rates_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot write '.avi' videos; use one of .mp4, .webm, .gif"):
        VideoWriter(tmp_path / "video.avi")
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps must be a positive number"):
            VideoWriter(tmp_path / "video.mp4", fps)
    with pytest.raises(ValueError, match="only a folder of PNGs can be resumed"):
        VideoWriter(tmp_path / "video.mp4", resume=True)


def test_png_folder_is_lossless_and_resumes_after_an_interruption(tmp_path):
    folder = tmp_path / "frames"
    with pytest.raises(RuntimeError, match="killed"), VideoWriter(folder) as writer:
        for index in range(3):
            assert not writer.done(index)
            writer.add(picture(index))
        raise RuntimeError("killed")
    (folder / "00001.png").unlink()

    rendered = []
    with VideoWriter(folder, resume=True) as writer:
        for index in range(5):
            if not writer.done(index):
                rendered.append(index)
                writer.add(picture(index), index)
    assert rendered == [1, 3, 4] and writer.count == 3
    assert sorted(file.name for file in folder.iterdir()) == [f"{index:05d}.png" for index in range(5)]
    for index in range(5):
        with Image.open(folder / f"{index:05d}.png") as image:
            assert np.array_equal(np.asarray(image), picture(index))


def test_png_folder_with_frames_is_neither_mixed_nor_resumed_at_another_size(tmp_path):
    folder = tmp_path / "frames"
    with VideoWriter(folder) as writer:
        writer.add(picture(0))
    with pytest.raises(FileExistsError, match="holds frames already"):
        VideoWriter(folder)
    with pytest.raises(ValueError, match="must be 64x48, but frame 1 is 32x48"):
        VideoWriter(folder, resume=True).add(picture(1, width=32), 1)


def test_a_folder_is_encoded_in_order_and_gaps_are_named(tmp_path):
    folder = tmp_path / "frames"
    with VideoWriter(folder) as writer:
        for index in reversed(range(4)):
            writer.add(picture(index), index)
    (folder / "notes.txt").write_text("not a frame")
    assert encode_folder(folder, tmp_path / "video.mp4", fps=5) == 4
    for index, frame in enumerate(decode(tmp_path / "video.mp4")):
        assert np.abs(frame.astype(int) - picture(index)).mean() < 4
    (folder / "00002.png").unlink()
    with pytest.raises(ValueError, match=r"frame 00002.png is missing"):
        encode_folder(folder, tmp_path / "other.mp4")
    with pytest.raises(FileNotFoundError, match="no frames"):
        encode_folder(tmp_path / "nowhere", tmp_path / "other.mp4")
    assert not (tmp_path / "other.mp4").exists()


@pytest.mark.parametrize("name", ["video.mp4", "video.webm", "video.gif", "frames"])
def test_the_writer_holds_no_frame(tmp_path, name):
    with VideoWriter(tmp_path / name) as writer:
        references = []
        for index in range(8):
            frame = picture(index)
            references.append(weakref.ref(frame))
            writer.add(frame)
            del frame
        gc.collect()
        assert not any(reference() is not None for reference in references)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident set size from /proc")
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path, suffix):
    height, width, more = 270, 480, 150
    frame = np.random.default_rng(0).integers(0, 255, (height // 10, width // 10, 3)).astype(np.uint8)
    frame = frame.repeat(10, 0).repeat(10, 1)
    with VideoWriter(tmp_path / f"video{suffix}") as writer:
        for index in range(70):  # the encoder's look-ahead is full after about 60 frames
            writer.add(np.roll(frame, index, axis=1))
        before = resident_bytes()
        for index in range(more):
            writer.add(np.roll(frame, index, axis=1))
        grown = resident_bytes() - before
    assert grown < more * frame.nbytes / 4
