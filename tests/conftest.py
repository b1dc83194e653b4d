"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real test scenes: $SEMFLOW_TEST_DATA, by default `../shared/data` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEMFLOW_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test scenes at {folder}; set SEMFLOW_TEST_DATA to a folder that has them")
    return folder
