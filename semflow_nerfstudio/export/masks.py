"""Masks of classes and instances: PNGs, and COCO JSON with run-length encoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from semflow_nerfstudio.editing.instances import Instances
from semflow_nerfstudio.export.files import write_bytes, write_image, write_json
from semflow_nerfstudio.export.views import Seen
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


def write_masks(folder: Path, name: str, seen: Seen, instances: Instances) -> None:
    """Masks of one view.

    labels/NAME.png: class ids, 255 where nothing is seen. instances/ID/NAME.png: 255 where instance ID shows.
    annotations/NAME.json: the view's COCO annotations, gathered by `write_coco`. instances/NAME.png, written last:
    instance ids plus one as 16 bits, 0 where there is none.
    """
    label = np.where(seen.points.concentration.numpy() > 0, seen.points.label.numpy(), IGNORE_LABEL)
    write_image(folder / "labels" / f"{name}.png", label.astype(np.uint8).reshape(seen.shape))
    ids = seen.instance.reshape(seen.shape)
    annotations = []
    for number in sorted(set(ids.ravel().tolist()) - {-1}):
        mask = ids == number
        write_image(folder / "instances" / f"{number:03d}" / f"{name}.png", mask.astype(np.uint8) * 255)
        annotations.append(annotation(mask, int(name), number, instances))
    write_json(folder / "annotations" / f"{name}.json", annotations)
    write_image(folder / "instances" / f"{name}.png", (ids + 1).astype(np.uint16))


def annotation(mask: Bool[ndarray, "H W"], image: int, number: int, instances: Instances) -> dict[str, Any]:
    """COCO's description of one instance in one image. Category ids are class ids plus one, as COCO has no 0."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "image_id": image,
        "category_id": instances.label(number) + 1,
        "instance_id": number,
        "moving": instances.is_moving(number),
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
        "area": int(mask.sum()),
        "bbox": [int(value) for value in box],
        "iscrowd": 0,
    }


def run_lengths(mask: Bool[ndarray, "H W"]) -> str:
    """COCO's compressed run-length encoding: lengths of runs of 0 and 1 in turn down the columns, starting with 0,
    each minus the one two before it from the fourth on, five bits a character, least significant first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat[0]:
        counts.insert(0, 0)
    text = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr(bits + (32 if more else 0) + 48))
    return "".join(text)


def write_coco(folder: Path, images: list[dict[str, Any]], class_names: tuple[str, ...]) -> None:
    """Gather the views' annotations in `coco.json`."""
    annotations = []
    for image in images:
        for entry in json.loads((folder / "annotations" / f"{image['id']:05d}.json").read_text()):
            annotations.append({"id": len(annotations) + 1, **entry})
    names = dict(enumerate(class_names)) or {IGNORE_LABEL: "object"}
    write_json(
        folder / "coco.json",
        {
            "info": {"description": "instances of a semantic flow field"},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number + 1, "name": name} for number, name in names.items()],
        },
    )


def write_classes(folder: Path, class_names: tuple[str, ...], colors: ndarray, foreground: list[bool]) -> None:
    """The class table as `classes.json`, and as the labelmap.txt that `dynamic-scene-data` reads."""
    rgb = (np.asarray(colors) * 255).round().astype(int).tolist()
    entries = [
        {"id": number, "name": name, "color": color, "foreground": front}
        for number, (name, color, front) in enumerate(zip(class_names, rgb, foreground, strict=True))
    ]
    write_json(folder / "classes.json", entries)
    lines = [f"{entry['name']}:{','.join(str(v) for v in entry['color'])}::" for entry in entries]
    write_bytes(folder / "labelmap.txt", ("\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n").encode())
