"""Writing files that are never half there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""What the names of unfinished files begin with."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file at `path` when the block ends; an error leaves what was there before.

    The place is hidden, with the same ending, and the process's own: two that write the same file do not write into
    each other's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
