"""What COLMAP is asked to do, whichever way it is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SEED = 0
EXHAUSTIVE = 40
"""Up to this many frames every pair is matched; beyond that neighbours, and powers of two apart."""
OVERLAP = 12
INITIAL_ANGLE = 4.0
"""Degrees between the rays of the first pair, at least: a clip's cameras stand closer together than the photographs
that COLMAP's defaults are made for."""


@dataclass(frozen=True)
class ColmapTask:
    """Find the poses of images that one camera took."""

    images: Path
    """Folder of the images."""
    names: list[str]
    masks: Path | None
    """Folder with NAME.png for image NAME, black where no features are wanted."""
    camera_params: str | None
    """Parameters of the camera where the focal length is known and to be kept; None: COLMAP estimates them."""
    work: Path
    """Empty folder for its database and models."""
    threads: int
    """-1: all."""
    camera_model: str = "SIMPLE_RADIAL"

    @property
    def database(self) -> Path:
        """Features and matches, for COLMAP's own tools, too."""
        return self.work / "database.db"
