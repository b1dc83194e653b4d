"""Poses from COLMAP, with movers masked out of its features."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.frames import IMAGES, Frames
from semflow_nerfstudio.process.poses.colmap_library import load_pycolmap, run_library
from semflow_nerfstudio.process.poses.colmap_model import read_model
from semflow_nerfstudio.process.poses.colmap_program import run_program
from semflow_nerfstudio.process.poses.colmap_task import ColmapTask
from semflow_nerfstudio.process.poses.track import PoseTrack
from semflow_nerfstudio.process.steps import RECORDS, Progress

WORK = "colmap"
LEAST_SHARE = 0.6
"""Share of the frames that must get a pose."""
MISSING = (
    "--poses colmap needs COLMAP: install it with `pip install pycolmap` or `apt-get install colmap`, or run it "
    "elsewhere and pass its model's folder (the one with cameras.bin) as --poses."
)
ADVICE = (
    "film with the camera moving sideways past things with texture, take more frames (--rate, --count), or give poses "
    "from elsewhere with --poses FILE"
)

RunColmap = Callable[[ColmapTask, Progress], list[Path]]
"""Finds models and returns their folders."""


def find_colmap() -> RunColmap:
    """The Python package, or else the program on the PATH.

    Raises:
        SceneDataError: neither is installed.
    """
    pycolmap = load_pycolmap()
    if pycolmap is not None:
        return partial(run_library, pycolmap)
    program = shutil.which("colmap")
    if program is None:
        raise SceneDataError(MISSING)
    return partial(run_program, program)


def colmap_poses(
    scene: Path, frames: Frames, masks: Path | None, focal: float | None, jobs: int | None, progress: Progress
) -> PoseTrack:
    """Run COLMAP on scene/images: one camera with radial distortion, features outside `masks` alone.

    Its database and model are left in scene/process/colmap, for COLMAP's own tools.

    Args:
        scene: Folder of the scene.
        frames: Its frames.
        masks: Folder with NAME.png for image NAME, black where no features are wanted.
        focal: Focal length in pixels of the source, kept as it is; None: COLMAP estimates it.
        jobs: Threads; None: all.
        progress: Told how many frames have a pose.

    Raises:
        SceneDataError: COLMAP is missing or fails, or too few frames got a pose.
    """
    run = find_colmap()
    work = scene / RECORDS / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    params = None
    if focal is not None:
        params = f"{focal * frames.width / frames.source_width},{frames.width / 2},{frames.height / 2},0"
    names = [frame.name for frame in frames.frames]
    models = run(ColmapTask(scene / IMAGES, names, masks, params, work, jobs or -1), progress)
    places = {name: index for index, name in enumerate(names)}
    tracks = [read_model(model, places, frames) for model in models]
    best = max(tracks, key=lambda track: track.known.sum(), default=None)
    found = 0 if best is None else int(best.known.sum())
    if best is None or found < max(2, LEAST_SHARE * len(names)):
        raise SceneDataError(f"COLMAP found poses for {found} of {len(names)} frames of {scene / IMAGES}: {ADVICE}.")
    return replace(best, method=f"COLMAP ({found} of {len(names)} frames)")
