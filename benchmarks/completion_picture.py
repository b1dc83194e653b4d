"""Draw what `semflow complete` wrote: `python -m benchmarks.completion_picture SCENE COMPLETED OUT.png [FRAMES]`.

SCENE is the folder that the run was trained on, COMPLETED what `semflow complete RUN COMPLETED` wrote. A column for
each of some frames (default 5, evenly spread): the image, the labels, and the confidence; frames whose labels were
given have a white edge.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from semflow_nerfstudio.data.label_files import CONFIDENCE_FOLDER
from semflow_nerfstudio.data.layout import read_scene_folder

WIDTH = 240
"""Of a panel."""
EDGE = 3
"""Pixels between panels, white around frames whose labels were given."""


def panel(path: Path, height: int, mode: Image.Resampling) -> UInt8[ndarray, "h w 3"]:
    """An image at a panel's size."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((WIDTH, height), mode))


def column(paths: tuple[Path, Path, Path], height: int) -> UInt8[ndarray, "H W 3"]:
    """Image, labels and confidence of a frame below each other; a white edge where no pixel is in doubt."""
    image, labels, confidence = paths
    parts = [
        panel(image, height, Image.Resampling.BICUBIC),
        panel(labels, height, Image.Resampling.NEAREST),
        panel(confidence, height, Image.Resampling.NEAREST),
    ]
    with Image.open(confidence) as values:
        given = bool((np.asarray(values) == 255).all())
    edge = ((EDGE, EDGE), (EDGE, EDGE), (0, 0))
    return np.concatenate([np.pad(part, edge, constant_values=255 * given) for part in parts])


def main(scene: Path, completed: Path, out: Path, count: int = 5) -> None:
    """Draw and save."""
    images = read_scene_folder(scene).images
    with Image.open(images[0]) as first:
        height = round(WIDTH * first.height / first.width)
    confidences = sorted((completed / CONFIDENCE_FOLDER).glob("*.png"))
    (folder,) = [path for path in completed.iterdir() if path.is_dir() and path.name != CONFIDENCE_FOLDER]
    if len(confidences) != len(images):
        raise SystemExit(f"{completed} has {len(confidences)} frames and {scene} {len(images)}: run semflow complete")
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    frames = [(images[i], folder / confidences[i].name, confidences[i]) for i in chosen]
    picture = np.concatenate([column(paths, height) for paths in frames], axis=1)
    Image.fromarray(picture).save(out, optimize=True)


if __name__ == "__main__":
    scene_folder, completed_folder, picture_file, *frames_shown = sys.argv[1:5]
    main(Path(scene_folder), Path(completed_folder), Path(picture_file), *map(int, frames_shown))
