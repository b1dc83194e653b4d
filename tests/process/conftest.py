"""Fixtures of the tests of `semflow process`."""

from contextlib import contextmanager
from pathlib import Path

import pytest
from clips import poses, write_folder, write_llff

from semflow_nerfstudio.process.frames import FrameOptions
from semflow_nerfstudio.process.pipeline import ProcessOptions, process_scene


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A folder with images/, and the true poses as poses_bounds.npy."""
    folder = tmp_path_factory.mktemp("clip")
    write_folder(folder / "images")
    write_llff(folder / "poses_bounds.npy", poses())
    return folder


@contextmanager
def silent(title):
    yield lambda done, total, note="": None


def make(source, scene, **options):
    """process_scene without showing progress; `count` and `size` go to the frame options."""
    frames = {key: options.pop(key) for key in list(options) if key in FrameOptions.__dataclass_fields__}
    return process_scene(source, scene, ProcessOptions(frames=FrameOptions(**frames), **options), silent)


@pytest.fixture(scope="session")
def scene(clip, tmp_path_factory) -> Path:
    """The clip, processed with its true poses."""
    out = tmp_path_factory.mktemp("processed") / "scene"
    make(clip / "images", out, poses=str(clip / "poses_bounds.npy"), jobs=1)
    return out
