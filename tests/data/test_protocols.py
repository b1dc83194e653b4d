"""Named label protocols for any length of clip."""

import pytest

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.protocols import NAMED_PROTOCOLS, labelled_frames


@pytest.mark.parametrize(
    ("spec", "frames"),
    [
        ("all", list(range(12))),
        ("none", []),
        ("completion-75", [0, 1, 2, 3, 4, 8, 9, 10, 11]),
        ("completion-50", [0, 1, 2, 9, 10, 11]),
        ("completion-25", [0, 1, 11]),
        ("tracking-75", list(range(9))),
        ("tracking-50", list(range(6))),
        ("tracking-25", [0, 1, 2]),
        ("0,5,11", [0, 5, 11]),
        (" 5, 0 ", [0, 5]),
        ("3", [3]),
    ],
)
def test_twelve_frames(spec, frames):
    assert labelled_frames(spec, 12) == tuple(frames)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 30, 86, 301])
def test_any_length(count):
    for name in NAMED_PROTOCOLS:
        task, percent = name.split("-")
        frames = labelled_frames(name, count)
        number = int(int(percent) / 100 * count + 0.5)
        assert len(frames) == len(set(frames)) == number
        first = number if task == "tracking" else -(-number // 2)
        assert frames == (*range(first), *range(count - number + first, count))


@pytest.mark.parametrize("spec", ["", "some", "0,x", "12", "-1", "0,0", "completion-60", "0;5", "1.5"])
def test_bad_specification(spec):
    with pytest.raises(SceneDataError, match="--labelled-frames"):
        labelled_frames(spec, 12)
