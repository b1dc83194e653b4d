"""Fixtures of the tests of `semflow process`."""

from pathlib import Path

import pytest
from clips import poses, write_folder, write_llff
from processing import make


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A folder with images/, and the true poses as poses_bounds.npy."""
    folder = tmp_path_factory.mktemp("clip")
    write_folder(folder / "images")
    write_llff(folder / "poses_bounds.npy", poses())
    return folder


@pytest.fixture(scope="session")
def scene(clip, tmp_path_factory) -> Path:
    """The clip, processed with its true poses."""
    out = tmp_path_factory.mktemp("processed") / "scene"
    make(clip / "images", out, poses=str(clip / "poses_bounds.npy"), jobs=1)
    return out
