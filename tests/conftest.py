"""Fixtures shared by all tests."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same random numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real test scenes: $SEMFLOW_TEST_DATA, by default `../shared/data` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEMFLOW_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test scenes at {folder}; set SEMFLOW_TEST_DATA to a folder that has them")
    return folder
