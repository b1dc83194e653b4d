"""Label files in the formats of their tools, written by hand from the formats' documentation."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 16
FRAMES = [f"shot_{k:02d}.png" for k in range(4)]


def ids(k: int) -> np.ndarray:
    """Class ids of frame k: 0, and a box of 1 (with a corner of 2) that moves to the right."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[4:12, 2 + 3 * k : 10 + 3 * k] = 1
    labels[4:7, 2 + 3 * k : 5 + 3 * k] = 2
    return labels


def voc_colors(count: int = 256) -> np.ndarray:
    """Pascal VOC's colour map: the bits of an index, spread over the channels from their top."""
    index = np.arange(count)
    bits = [[(index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)] for channel in range(3)]
    return np.array(bits).sum(axis=1).T.astype(np.uint8)


def palette_png(path: Path, values: np.ndarray, colors: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    image.putpalette((voc_colors() if colors is None else colors).ravel().tolist())
    image.save(path)


def png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_cvat(folder: Path, frames=FRAMES) -> Path:
    """CVAT's "Segmentation mask 1.1"."""
    colors = np.array([[0, 0, 0], [250, 50, 83], [50, 183, 250]], np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nhand:250,50,83::\nring:50,183,250::\n"
    )
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "ImageSets/Segmentation/default.txt").write_text("\n".join(Path(name).stem for name in frames))
    for name in frames:
        labels = ids(FRAMES.index(name))
        png(folder / "SegmentationClass" / name, colors[labels])
        palette_png(folder / "SegmentationObject" / name, labels)
    return folder


def runs(mask: np.ndarray) -> list[int]:
    """COCO's run lengths: down the columns, outside first."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return np.diff(np.concatenate([[0], edges])).tolist()


def box(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def coco(frames=FRAMES) -> dict:
    """Frame k has a polygon of `hand` and run lengths of `ring` on it."""
    images, annotations = [], []
    for number, name in enumerate(frames, start=10):
        k = FRAMES.index(name)
        images.append({"id": number, "width": WIDTH, "height": HEIGHT, "file_name": name})
        shapes = [
            (7, [box(2 + 3 * k, 4, 10 + 3 * k, 12)]),
            (9, {"counts": runs(ids(k) == 2), "size": [HEIGHT, WIDTH]}),
        ]
        for category, segmentation in shapes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "segmentation": segmentation,
                    "iscrowd": 0,
                    "attributes": {"occluded": False, "track_id": category},
                }
            )
    categories = [{"id": 3, "name": "rest"}, {"id": 7, "name": "hand"}, {"id": 9, "name": "ring"}]
    return {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}


def write_json(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_coco(path: Path, change=None, **options) -> Path:
    content = coco(**options)
    if change is not None:
        change(content)
    return write_json(path, content)


def labelme(name: str) -> dict:
    """What LabelMe 5 writes: a rectangle, and a mask on it."""
    k = FRAMES.index(name)
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 3), True)).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    left, top = 2 + 3 * k, 4
    shared = {"group_id": 5, "description": "", "flags": {}}
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": "hand", "points": [[left, top], [left + 8, 12]], "shape_type": "rectangle", **shared},
            {
                "label": "ring",
                "points": [[left, top], [left + 2, top + 2]],
                "shape_type": "mask",
                "mask": mask,
                **shared,
            },
        ],
        "imagePath": f"../images/{name}",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


def write_labelme(folder: Path, frames=FRAMES) -> Path:
    for name in frames:
        write_json(folder / f"{Path(name).stem}.json", labelme(name))
    return folder


def write_davis(folder: Path, frames=FRAMES) -> Path:
    for name in frames:
        palette_png(folder / name, ids(FRAMES.index(name)))
    return folder


def write_ids(folder: Path, frames=FRAMES) -> Path:
    """16-bit ids with gaps."""
    numbers = np.array([300, 7, 12], np.uint16)
    for name in frames:
        png(folder / name, numbers[ids(FRAMES.index(name))])
    entries = [
        {"id": 300, "name": "rest", "color": [10, 20, 30]},
        {"id": 7, "name": "hand", "color": [200, 0, 0], "foreground": True},
        {"id": 12, "name": "ring", "color": [0, 200, 0]},
    ]
    write_json(folder / "classes.json", {"classes": entries})
    return folder
