"""Disparity that a depth tool wrote: matched with the frames, checked, stored as the parsers read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semflow_nerfstudio.data.checks import SceneDataError, check_aspect
from semflow_nerfstudio.data.modalities import decode_disparity, downscaled_size, read_disparity
from semflow_nerfstudio.process.frames import Frames
from semflow_nerfstudio.process.poses.files import rows_of_frames
from semflow_nerfstudio.process.sources import natural
from semflow_nerfstudio.process.steps import Progress, Step, each, file_stamp
from semflow_nerfstudio.whole_file import whole_file

DISPARITIES = "disp"
SUFFIXES = (".npy", ".npz", ".png", ".tif", ".tiff")


def disparity_files(folder: Path, frames: Frames) -> list[Path | None]:
    """The file of every frame: by name, else by place in the video or folder, else in order.

    Raises:
        SceneDataError: no folder, no files, or neither their names nor their number fit the frames.
    """
    found = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES] if folder.is_dir() else []
    if not found:
        raise SceneDataError(f"{folder} holds no disparity ({', '.join(SUFFIXES)}): pass the folder of a depth tool.")
    files = sorted(found, key=lambda file: natural(file.name))
    rows = rows_of_frames(folder, frames, len(files), [file.name for file in files], "disparities")
    return [files[row] if row >= 0 else None for row in rows]


def make_disparity(
    scene: Path, folder: Path, frames: Frames, after: Sequence[Step], jobs: int | None, progress: Progress
) -> tuple[Step, list[Path | None]]:
    """The step that writes scene/disp: inverse depth of any scale, no larger than the images, half precision."""
    files = disparity_files(folder, frames)
    given = {frame.name: file for frame, file in zip(frames.frames, files, strict=True) if file is not None}
    targets = {name: scene / DISPARITIES / f"{Path(name).stem}.npy" for name in given}
    inputs = {name: file_stamp(file) for name, file in given.items()}
    step = Step(scene, "disparity", inputs, after=after, folders=(DISPARITIES,))
    places = [targets.get(frame.name) for frame in frames.frames]
    if step.result() is not None:
        return step, places
    step.begin()

    def work(name: str) -> None:
        if step.has(targets[name]):
            return
        values = decode_disparity(given[name])
        height, width = values.shape
        check_aspect(given[name], (width, height), (frames.width, frames.height))
        shrink = max(1.0, width / frames.width)
        if shrink > 1:
            values = read_disparity(given[name], *downscaled_size(width, height, shrink))
        scale = float(np.nanmax(np.abs(values)))
        with whole_file(targets[name]) as hidden:
            np.save(hidden, (values / (scale if scale > 0 else 1.0)).astype(np.float16))

    each(list(given), work, jobs, progress)
    step.finish({"frames": len(given)}, targets.values())
    return step, places
