"""What `process_scene` hands to label importers and to the writer of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from semflow_nerfstudio.process.frames import Frame
from semflow_nerfstudio.process.steps import Progress


@dataclass(frozen=True)
class ImportedLabels:
    """Label images of a scene, and the classes in them."""

    files: Mapping[str, Path]
    """Label image by the name of the frame (`Frame.name`); frames without labels are missing."""
    classes: Sequence[Mapping[str, Any]]
    """`classes` of transforms.json: name, color and foreground of every class, in order of their ids."""


class LabelImporter(Protocol):
    """Reads labels of any tool and writes them into a scene: a function."""

    def __call__(
        self,
        source: Path,
        frames: Sequence[Frame],
        skipped: Sequence[str],
        out: Path,
        size: tuple[int, int],
        progress: Progress,
    ) -> ImportedLabels:
        """Import labels.

        Args:
            source: File or folder that the user named.
            frames: The scene's frames, in order. Labels belong to the frame whose `name` has their file's name, endings
                aside.
            skipped: Such names of the frames that the video or folder has but the scene has not: their labels are not
                needed. Labels of any other name are an error that names them.
            out: Folder of the scene; label images go to out/labels.
            size: (width, height) of the scene's images.
            progress: Told how many frames are done.

        Raises:
            SceneDataError: anything in the source that cannot be used.
        """
        ...


class ReportWriter(Protocol):
    """Writes the report of a finished scene: a function, called last, with everything else in its place.

    The scene's transforms.json names all files; scene/process/summary.json (see `summary.Summary`) says what was left
    out, the epipolar errors of all pairs of frames, what is missing and what that costs.
    """

    def __call__(self, scene: Path) -> Path:
        """Write the report of the scene in a folder; returns its file."""
        ...
