"""Fixtures shared by all tests."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _alone() -> None:
    """Every test draws the same random numbers, and logs to nothing that another one opened, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    writer = sys.modules.get("nerfstudio.utils.writer")  # which keeps the loggers of a process's former runs
    if writer is not None:
        writer.EVENT_WRITERS.clear()
        writer.EVENT_STORAGE.clear()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real test scenes: $SEMFLOW_TEST_DATA, by default `../shared/data` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEMFLOW_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test scenes at {folder}; set SEMFLOW_TEST_DATA to a folder that has them")
    return folder
