"""Points to follow, read from CSV, JSON, NPZ or text; tracks, written as NPZ and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.files import load_arrays
from semflow_nerfstudio.tracking.points import Queries, Tracks
from semflow_nerfstudio.whole_file import whole_file

COLUMNS = ("frame or time", "x", "y")


def read_points(path: Path, frame_times: Float[np.ndarray, "F"]) -> Queries:
    """Points of a file, each a frame (or a time) and its pixel x (right), y (down), pixel centres at +.5.

    * `.csv`: a header with `frame` (0-based index of the training frame) or `time` (in [0, 1]), `x` and `y`;
    * `.json`: a list of objects with those keys, or an object whose `points` is that list;
    * `.npz`: arrays of those names;
    * anything else: three numbers a line, `frame x y`; `#` starts a comment.

    A time means the training frame that was taken nearest to it.

    Args:
        path: The file.
        frame_times: Times of the training frames.

    Raises:
        SceneDataError: missing or broken file, a column that lacks, a value that is no number, a time outside [0, 1].
    """
    if not path.is_file():
        raise SceneDataError(f"{path} does not exist: write a file with columns {', '.join(COLUMNS)}.")
    readers: dict[str, Callable[[Path], dict[str, list]]] = {".csv": _read_csv, ".json": _read_json, ".npz": _read_npz}
    columns = readers.get(path.suffix.lower(), _read_text)(path)
    if not {"x", "y"} <= columns.keys() or not {"frame", "time"} & columns.keys():
        raise SceneDataError(f"{path} has the columns {sorted(columns)}: it needs {', '.join(COLUMNS)}.")
    try:
        values = {name: np.array(columns[name], dtype=np.float64) for name in columns if name in _NAMES}
    except (TypeError, ValueError):
        raise SceneDataError(
            f"{path} holds a value that is no number: write {', '.join(COLUMNS)} as numbers."
        ) from None
    if len({value.shape for value in values.values()}) != 1 or values["x"].ndim != 1:
        raise SceneDataError(f"{path} holds columns of different lengths: give every point {', '.join(COLUMNS)}.")
    if not all(np.isfinite(value).all() for value in values.values()):
        raise SceneDataError(f"{path} holds a value that is not finite: remove that point.")
    if "frame" in values:
        frames = values["frame"]
        if (frames != np.round(frames)).any():
            raise SceneDataError(f"{path} names frame {frames[frames != np.round(frames)][0]:g}: use whole numbers.")
    else:
        times = values["time"]
        if ((times < 0) | (times > 1)).any():
            raise SceneDataError(f"{path} holds a time outside 0 to 1: the clip runs from 0 to 1.")
        frames = np.abs(times[:, None] - frame_times).argmin(1)
    return Queries(frames.astype(np.int64), np.stack([values["x"], values["y"]], axis=-1))


_NAMES = ("frame", "time", "x", "y")


def _columns(path: Path, rows: list[dict]) -> dict[str, list]:
    names = [name for name in _NAMES if rows and all(isinstance(r, dict) and r.get(name) is not None for r in rows)]
    if rows and not names:
        raise SceneDataError(f"{path} names no columns: every point needs {', '.join(COLUMNS)}.")
    return {name: [row[name] for row in rows] for name in names or ("frame", "x", "y")}


def _read_csv(path: Path) -> dict[str, list]:
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise SceneDataError(f"{path} cannot be read as CSV ({error}): save it again as plain text.") from None
    return _columns(path, rows)


def _read_json(path: Path) -> dict[str, list]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SceneDataError(f"{path} cannot be read as JSON ({error}): mend or write it again.") from None
    rows = content.get("points") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise SceneDataError(f'{path} holds no list of points: write [{{"frame": 0, "x": 12.5, "y": 30.5}}, ...].')
    return _columns(path, rows)


def _read_npz(path: Path) -> dict[str, list]:
    return {name: array.tolist() for name, array in load_arrays(path).items()}


def _read_text(path: Path) -> dict[str, list]:
    try:
        lines = [line.partition("#")[0].split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise SceneDataError(f"{path} is no text: use .csv, .json, .npz, or lines of `frame x y`.") from None
    rows = [line for line in lines if line]
    if any(len(row) != 3 for row in rows):
        raise SceneDataError(f"{path} has a line that is not three numbers: write `frame x y` on every line.")
    return {name: [row[i] for row in rows] for i, name in enumerate(("frame", "x", "y"))}


def write_tracks(path: Path, tracks: Tracks) -> tuple[Path, Path]:
    """Write PATH.npz and PATH.csv (whatever suffix `path` has), neither ever half-written.

    The arrays are those of `Tracks`. The CSV has one row for every point in every view: point, camera, time, x, y,
    visible, moving, world_x, world_y, world_z (x and y empty where the point is behind the camera).
    """
    stem = path.with_suffix("") if path.suffix.lower() in (".npz", ".csv") else path
    npz, table = stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}.csv")
    npz.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(getattr(tracks, name)) for name in Tracks.__dataclass_fields__}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # pyright: ignore[reportArgumentType]
    _write(npz, packed.getvalue())
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow("point camera time x y visible moving world_x world_y world_z".split())
    for point in range(len(tracks.query_frames)):
        for view, (camera, time) in enumerate(zip(tracks.view_cameras, tracks.view_times, strict=True)):
            pixel = ["" if np.isnan(value) else f"{value:.3f}" for value in tracks.pixels[point, view]]
            seen = [int(tracks.visible[point, view]), int(tracks.moving[point])]
            world = [f"{value:.6g}" for value in tracks.positions[point, time]]
            rows.writerow([point, camera, f"{tracks.times[time]:.6g}", *pixel, *seen, *world])
    _write(table, text.getvalue().encode())
    return npz, table


def read_tracks(path: Path) -> Tracks:
    """Read what `write_tracks` wrote.

    Raises:
        SceneDataError: missing or broken file, or arrays that lack.
    """
    arrays = load_arrays(path)
    missing = set(Tracks.__dataclass_fields__) - arrays.keys()
    if missing:
        raise SceneDataError(f"{path} lacks the arrays {sorted(missing)}: write it again with `semflow track`.")
    width, height = (int(side) for side in arrays.pop("image_size"))
    return Tracks(**arrays, image_size=(width, height))


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)
