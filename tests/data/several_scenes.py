"""Small scenes that differ in everything in which scenes of one data set may differ."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_scenes import COLORS, save_image, write_dynamic_scene

DOG = (1, 2, 3)
SIZES = {"A": (16, 10), "B": (22, 12)}
FRAMES = {"A": 4, "B": 3}
MERGED = ("background", "person", "balloon", "dog")


def write_scenes(root: Path) -> Path:
    """A, and B: of another size and length, without motion masks, with a class table in another order and a dog in
    place of the person."""
    for name, (width, height) in SIZES.items():
        made = write_dynamic_scene(root / f"making_{name}", FRAMES[name], width, height, FRAMES[name])
        shutil.move(made, root / name)
        for file in ("labelmap.txt", "foreground_object.txt"):
            shutil.move(made.parent / file, root / name / file)
        made.parent.rmdir()
    shutil.rmtree(root / "B" / "motion_masks")
    (root / "B" / "labelmap.txt").write_text("balloon:220,20,60::\ndog:1,2,3::\nbackground:0,0,0::\n")
    (root / "B" / "foreground_object.txt").write_text("balloon\ndog\n")
    for file in (*root.glob("B/SegmentationClass_train/*.png"), *root.glob("B/multiview_GT_semantic/*/*.png")):
        pixels = np.array(Image.open(file).convert("RGB"))
        pixels[(pixels == COLORS[1]).all(-1)] = DOG
        save_image(file, pixels)
    return root
