"""A folder of frames remembers what they show, so that an interrupted render goes on and never mixes two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semflow_nerfstudio.visuals.video import VideoWriter, frame_files, frame_name
from semflow_nerfstudio.whole_file import whole_file

SETTINGS = "render.json"
"""File in a folder of PNGs that says what they show."""


def encode_folder(frames: str | Path, out: str | Path, fps: float = 24.0, alpha: bool = False) -> int:
    """Encode a folder of `00000.png`, `00001.png`, ... as a video, one frame in memory at a time.

    Returns:
        The number of frames.

    Raises:
        FileNotFoundError: if the folder holds no frames.
        ValueError: if a frame is missing in between, or for what VideoWriter refuses.
    """
    folder = Path(frames)
    files = frame_files(folder)
    if not files:
        raise FileNotFoundError(f"{folder}: no frames (00000.png, 00001.png, ...) here.")
    missing = next((i for i in range(max(files) + 1) if i not in files), None)
    if missing is not None:
        raise ValueError(f"{folder}: frame {frame_name(missing)} is missing; render it (resume) before encoding.")
    with VideoWriter(out, fps, alpha=alpha) as writer:
        for index in range(len(files)):
            with Image.open(files[index]) as image:
                writer.add(np.asarray(image.convert("RGBA" if alpha else "RGB")))
    return len(files)


def claim_folder(folder: Path, settings: dict[str, Any], overwrite: bool = False) -> None:
    """Make a folder ready for frames of these settings; those that it has of the same are kept.

    Args:
        folder: Where the frames go.
        settings: JSON values: all that decides what they show.
        overwrite: Delete frames of other settings.

    Raises:
        ValueError: the folder has frames of other settings, and `overwrite` is off.
    """
    file, settings = folder / SETTINGS, json.loads(json.dumps(settings))
    frames = frame_files(folder)
    if frames:
        other = _difference(file, settings)
        if other is None:
            return
        if not overwrite:
            raise ValueError(
                f"{folder}: its {len(frames)} frames were rendered with other settings ({other}); choose another "
                "folder, or pass --overwrite to render them anew"
            )
        for frame in frames.values():
            frame.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        partial.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _difference(file: Path, settings: dict[str, Any]) -> str | None:
    """Which settings differ from the folder's, None where none does."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"there is no readable {file.name} with them"
    if not isinstance(known, dict):
        return f"{file.name} holds no settings"
    names = [name for name in settings if known.get(name) != settings[name]]
    return ", ".join(names) or None
