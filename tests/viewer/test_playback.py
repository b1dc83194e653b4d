"""The cursor over frames, with a clock that the tests turn."""

from __future__ import annotations

import pytest

from semflow_nerfstudio.viewer.playback import Playback

TIMES = (0.0, 0.25, 0.5, 1.0)


def played(playback: Playback, *moments: float) -> list[int]:
    """Frames at moments after pressing play."""
    playback.play(100.0)
    frames = []
    for moment in moments:
        playback.tick(100.0 + moment)
        frames.append(playback.frame)
    return frames


def test_time_is_exactly_a_frames() -> None:
    playback = Playback(TIMES)
    for frame, time in enumerate(TIMES):
        playback.seek(frame)
        assert (playback.frame, playback.time) == (frame, time)
    playback.seek(17)
    assert playback.frame == 3
    with pytest.raises(ValueError, match="at least one frame"):
        Playback(())


def test_every_frame_of_a_loop_lasts_equally_long() -> None:
    playback = Playback(TIMES)
    playback.speed = 2.0
    assert played(playback, *(0.25 + 0.5 * k for k in range(9))) == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_there_and_back_shows_the_ends_once() -> None:
    playback = Playback(TIMES)
    playback.speed, playback.ending = 1.0, "there and back"
    assert played(playback, *(float(k) for k in range(8))) == [0, 1, 2, 3, 2, 1, 0, 1]


def test_a_clip_that_stops_stays_at_its_end_and_starts_again() -> None:
    playback = Playback(TIMES)
    playback.speed, playback.ending = 1.0, "stop"
    assert played(playback, 1.5, 3.5, 9.0) == [1, 3, 3]
    assert not playback.playing
    assert played(playback, 0.5) == [0] and playback.playing


def test_tick_tells_whether_anything_changed() -> None:
    playback = Playback(TIMES)
    playback.speed = 1.0
    playback.play(0.0)
    assert not playback.tick(0.4) and playback.tick(1.1)
    playback.smooth = True
    assert playback.tick(1.2) and playback.time == pytest.approx(0.25 + 0.2 * 0.25)
    playback.pause()
    assert not playback.tick(2.0) and playback.cursor == pytest.approx(1.2)
    playback.smooth = False
    playback.pause()
    assert playback.cursor == 1.0


def test_steps_go_round_the_ends_and_pause() -> None:
    playback = Playback(TIMES)
    playback.play(0.0)
    playback.step(-1)
    assert playback.frame == 3 and not playback.playing
    playback.step(1)
    assert playback.frame == 0


def test_seeking_a_time_takes_the_nearest_frame_unless_smooth() -> None:
    playback = Playback(TIMES)
    playback.seek_time(0.7)
    assert playback.frame == 2 and playback.time == 0.5 and playback.nearest_frame(0.8) == 3
    playback.smooth = True
    playback.seek_time(0.75)
    assert playback.cursor == pytest.approx(2.5) and playback.time == pytest.approx(0.75)


@pytest.mark.parametrize("ending", ["loop", "there and back", "stop"])
def test_a_clip_of_one_frame_plays(ending: str) -> None:
    playback = Playback((0.3,))
    playback.ending = ending  # type: ignore[assignment]
    assert played(playback, 0.1, 5.0) == [0, 0] and playback.time == 0.3
    playback.step(1)
    assert playback.frame == 0


def test_another_clip_goes_on_at_its_nearest_frame() -> None:
    playback = Playback(TIMES)
    playback.seek(3)
    playback.set_times((0.0, 0.9))
    assert playback.frame == 1 and playback.time == 0.9 and playback.last == 1
    playback.set_times(TIMES)
    assert playback.frame == 3
