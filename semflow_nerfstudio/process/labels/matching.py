"""Which frame a label file belongs to: by name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.labels.found import LISTED, LabelImage
from semflow_nerfstudio.process.sources import IMAGE_SUFFIXES


def bare(name: str) -> tuple[str, ...]:
    """The parts of a file name, without an image's ending."""
    path = PurePosixPath(name)
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).parts


class FrameNames:
    """Finds frames by their names, endings aside; folders count only where file names alone are not unique.

    The frames of a video are named by their numbers, so CVAT's `frame_000012` is found, too.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self._by_stem[bare(name)[-1]].append(name)
        numbered = all(stem.isdecimal() for stem in self._by_stem)
        self._numbers = {int(stem): stem for stem in self._by_stem} if numbered else {}

    def find(self, name: str) -> list[str]:
        """All frames that may be meant."""
        parts = bare(name)
        stem = parts[-1] if parts else ""
        counted = re.fullmatch(r"frame_(\d{1,9})", stem)
        if stem not in self._by_stem and counted:
            stem = self._numbers.get(int(counted[1]), stem)
        found = self._by_stem.get(stem, [])
        for depth in range(2, len(parts) + 1):
            nearer = [frame for frame in found if bare(frame)[-depth:-1] == parts[-depth:-1]]
            found = nearer or found
        return found


def match(
    source: str, images: Sequence[LabelImage], frames: Sequence[str], skipped: Sequence[str]
) -> tuple[list[tuple[str, LabelImage]], list[str]]:
    """The labels of every frame that has some, in the order of the frames, and the names of labels of skipped frames.

    Raises:
        SceneDataError: labels of frames that do not exist, of several frames, or several labels of a frame.
    """
    known, left_out = FrameNames(frames), FrameNames(skipped)
    matched: dict[str, LabelImage] = {}
    unknown: list[str] = []
    unused: list[str] = []
    for image in images:
        found = known.find(image.name)
        if len(found) > 1:
            raise SceneDataError(
                f"{image.origin} may belong to {found[0]} or to {found[1]}: name its folder, too, or give the images "
                "different names."
            )
        if not found:
            (unused if left_out.find(image.name) else unknown).append(image.name)
            continue
        other = matched.setdefault(found[0], image)
        if other is not image:
            raise SceneDataError(f"{other.origin} and {image.origin} both label {found[0]}: remove one of them.")
    if unknown:
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        raise SceneDataError(
            f"{source} labels frames that do not exist: {', '.join(unknown[:LISTED])}{more}; rename or remove them; "
            f"they need the names of the scene's images, such as {frames[0]}."
        )
    if not matched:
        raise SceneDataError(f"{source} has no labels for any frame of the scene: draw something on one of its images.")
    return [(name, matched[name]) for name in frames if name in matched], unused
