"""Points files of every kind say the same, wrong ones are named, and tracks come back as they were written."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.tracking.files import read_points, read_tracks, write_tracks
from semflow_nerfstudio.tracking.points import Queries, Tracks, grid_queries

TIMES = np.array([0.0, 0.5, 1.0])
FRAMES, X, Y = [0, 2, 1], [1.5, 2.25, 3.0], [4.5, 5.0, 6.75]


def write_every_kind(folder: Path) -> list[Path]:
    rows = list(zip(FRAMES, X, Y, strict=True))
    (folder / "a.csv").write_text("frame, x, y\n" + "".join(f"{f}, {x}, {y}\n" for f, x, y in rows))
    (folder / "b.csv").write_text("y,time,x\n" + "".join(f"{y},{TIMES[f] + 0.1 * (f < 2)},{x}\n" for f, x, y in rows))
    points = [{"frame": f, "x": x, "y": y, "name": "p"} for f, x, y in rows]
    (folder / "c.json").write_text(json.dumps(points))
    (folder / "d.json").write_text(json.dumps({"points": points}))
    np.savez(folder / "e.npz", frame=FRAMES, x=X, y=Y)
    (folder / "f.txt").write_text("# frame x y\n" + "".join(f"{f} {x} {y}\n\n" for f, x, y in rows))
    return sorted(folder.iterdir())


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    files = write_every_kind(tmp_path)
    assert len(files) == 6
    for file in files:
        queries = read_points(file, TIMES)
        assert queries.frames.tolist() == FRAMES, file
        assert queries.pixels.tolist() == [[x, y] for x, y in zip(X, Y, strict=True)], file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "frame,x\n0,1\n", "needs frame or time, x, y"),
        ("a.csv", "frame,x,y\n0,one,2\n", "no number"),
        ("a.csv", "frame,x,y\n0.5,1,2\n", "whole numbers"),
        ("a.csv", "time,x,y\n1.5,1,2\n", "0 to 1"),
        ("a.csv", "frame,x,y\n0,nan,2\n", "not finite"),
        ("a.json", "{", "JSON"),
        ("a.json", '{"points": 3}', "list of points"),
        ("a.json", "[[0, 1, 2]]", "names no columns"),
        ("a.txt", "0 1\n", "three numbers"),
        ("a.npz", "PK", "a.npz"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SceneDataError, match=message) as error:
        read_points(path, TIMES)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SceneDataError, match="does not exist"):
        read_points(tmp_path / "none.csv", TIMES)


def test_queries_outside_the_clip_or_the_image() -> None:
    def check(frame: int, u: float, v: float) -> None:
        Queries(np.array([frame]), np.array([[u, v]])).check(3, 16, 9)

    check(2, 16, 0)
    for frame, u, v, message in ((3, 1, 1, "frame 3"), (0, 16.5, 1, "outside"), (0, 1, -0.1, "outside")):
        with pytest.raises(ValueError, match=message):
            check(frame, u, v)
    with pytest.raises(ValueError, match="no point"):
        Queries(np.zeros(0, np.int64), np.zeros((0, 2))).check(3, 16, 9)


def test_grid_cells_are_square_and_centred() -> None:
    queries = grid_queries(4, 1, 16, 8)
    assert len(queries) == 8 and set(queries.frames) == {1}
    assert queries.pixels.mean(0).tolist() == [8, 4] and queries.pixels[0].tolist() == [2, 2]
    with pytest.raises(ValueError, match="at least 1"):
        grid_queries(0, 0, 16, 8)


def test_tracks_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(size=(2, 3, 2)).astype(np.float32)
    pixels[1, 2] = np.nan
    tracks = Tracks(
        query_frames=np.array([0, 1]),
        query_pixels=rng.uniform(size=(2, 2)),
        times=TIMES,
        positions=rng.uniform(size=(2, 3, 3)),
        moving=np.array([True, False]),
        view_cameras=np.array([0, 1, 1]),
        view_times=np.array([2, 0, 1]),
        pixels=pixels,
        visible=rng.uniform(size=(2, 3)) > 0.5,
        image_size=(16, 9),
    )
    npz, table = write_tracks(tmp_path / "deep" / "tracks.npz", tracks)
    assert sorted(path.name for path in npz.parent.iterdir()) == ["tracks.csv", "tracks.npz"]
    again = read_tracks(npz)
    for name in Tracks.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(tracks, name))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 6 and rows[5]["x"] == rows[5]["y"] == ""
    assert float(rows[0]["time"]) == 1.0 and float(rows[0]["world_y"]) == pytest.approx(tracks.positions[0, 2, 1], 1e-5)
    assert rows[3]["moving"] == "0" and int(rows[3]["point"]) == 1
