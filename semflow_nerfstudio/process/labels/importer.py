"""Finds out what labels are in, and writes them into a scene as id images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semflow_nerfstudio.data.checks import SceneDataError, check_aspect
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.process.labels.coco import is_coco, read_coco
from semflow_nerfstudio.process.labels.found import ImportedLabels, LabelSet, LabelSource, read_json
from semflow_nerfstudio.process.labels.images import LABEL_MAP, png_files, read_davis, read_ids, read_masks
from semflow_nerfstudio.process.labels.labelme import is_labelme, read_labelme
from semflow_nerfstudio.process.labels.matching import bare, match
from semflow_nerfstudio.process.steps import Progress
from semflow_nerfstudio.whole_file import whole_file

FORMATS = ("masks", "coco", "davis", "labelme", "ids")
"""Colour masks with labelmap.txt (CVAT, Pascal VOC), COCO, DAVIS palette PNGs, LabelMe, id PNGs with a table."""
LABELS, INSTANCES = "labels", "instances"
"""Folders of the scene."""


def import_labels(
    source: LabelSource,
    frames: Sequence[str],
    skipped: Sequence[str],
    out: Path,
    size: tuple[int, int],
    progress: Progress,
) -> ImportedLabels:
    """Write labels of any tool into a scene.

    Args:
        source: What to read.
        frames: Names of the images of the scene's frames, in order. Labels belong to the frame whose name they have,
            endings aside.
        skipped: Such names of frames that were left out of the scene: their labels are not needed.
        out: Folder of the scene; label images go to out/labels, instance ids to out/instances.
        size: (width, height) of the scene's images. Labels of other sizes are scaled.
        progress: Told how many frames are done.

    Raises:
        SceneDataError: anything that cannot be used: also labels of frames that do not exist.
    """
    found = read_labels_of(source)
    table = _with_foreground(source, found.classes)
    matched, unused = match(str(source.path), found.images, frames, skipped)
    for _, image in matched:
        check_aspect(Path(image.origin), image.size, size)
    files: dict[str, Path] = {}
    instances: dict[str, Path] = {}
    progress(0, len(matched))
    for done, (name, image) in enumerate(matched, start=1):
        ids, numbers = image.paint(*size)
        file = "/".join(bare(name)) + ".png"
        files[name] = _write(out / LABELS / file, ids)
        if numbers is not None and numbers.any():
            instances[name] = _write(out / INSTANCES / file, numbers)
        progress(done, len(matched))
    return ImportedLabels(files, class_entries(table), instances, unused)


def read_labels_of(source: LabelSource) -> LabelSet:
    """Read labels in whatever format they are."""
    kind, path = source.format, source.path
    if kind is not None and kind not in FORMATS:
        raise SceneDataError(f"--labels-format is {kind}: use one of {', '.join(FORMATS)}.")
    if not path.exists():
        raise SceneDataError(f"{path} does not exist: pass the file or folder that holds the labels.")
    folder = path if path.is_dir() else path.parent
    tables = _json_files(path)
    kind = kind or _detect(path, folder, tables)
    if kind == "masks":
        found = read_masks(folder, source)
    elif kind == "davis":
        found = read_davis(folder, source)
    elif kind == "labelme":
        _need(tables, path, "LabelMe JSON files")
        found = read_labelme(tables, path, source)
    else:
        chosen = _one(_need(tables, path, "a JSON file"), path)
        found = read_coco(chosen, source) if kind == "coco" else read_ids(folder, chosen, source)
    if not found.images:
        raise SceneDataError(f"{path} holds no labels that could be read as {kind}: pass the folder that does.")
    return found


def class_entries(table: ClassTable) -> list[dict[str, Any]]:
    """`classes` of transforms.json."""
    # In a table of greys alone, single-channel images would be read by grey value instead of by id.
    colored = not (table.colors == table.colors[:, :1]).all()
    return [
        {"name": name}
        | ({"color": [int(value) for value in table.colors[index]]} if colored else {})
        | ({"foreground": True} if table.foreground[index] else {})
        for index, name in enumerate(table.names)
    ]


def _detect(path: Path, folder: Path, tables: Sequence[Path]) -> str:
    if path.is_file() and path.suffix.lower() == ".zip":
        raise SceneDataError(f"{path} is an archive: unpack it and pass the folder.")
    if path.is_file() and path.name != LABEL_MAP and path.suffix.lower() != ".json":
        raise SceneDataError(f"{path} is no label file: pass a JSON file, {LABEL_MAP} or the folder with the labels.")
    if (folder / LABEL_MAP).is_file() and path.suffix.lower() != ".json":
        return "masks"
    if tables:
        content = read_json(tables[0])
        if is_coco(content):
            return "coco"
        if is_labelme(content):
            return "labelme"
        if png_files(folder):
            return "ids"
        raise SceneDataError(f"{tables[0]} is neither COCO nor LabelMe, and no PNGs lie beside it: pass another file.")
    if png_files(folder):
        return "davis"
    raise SceneDataError(
        f"{path} holds neither {LABEL_MAP} nor JSON files nor PNGs: pass the folder that an annotation tool exported."
    )


def _json_files(path: Path) -> list[Path]:
    """The JSON files that may hold labels: also in CVAT's annotations/."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    found = [file for folder in (path, path / "annotations") if folder.is_dir() for file in folder.iterdir()]
    return sorted(file for file in found if file.suffix.lower() == ".json" and file.name[0] != ".")


def _need(files: list[Path], path: Path, what: str) -> list[Path]:
    if not files:
        raise SceneDataError(f"{path} holds no {what}: pass the folder or file that does.")
    return files


def _one(files: Sequence[Path], path: Path) -> Path:
    if len(files) > 1:
        raise SceneDataError(f"{path} holds {files[0].name} and {files[1].name}: pass the JSON file that is meant.")
    return files[0]


def _with_foreground(source: LabelSource, table: ClassTable) -> ClassTable:
    for name in source.foreground:
        if name not in table.names:
            raise SceneDataError(
                f"{source.path} has no class {name}, only {', '.join(table.names)}: correct --foreground."
            )
    if not source.foreground:
        return table
    return replace(table, foreground=np.array([name in source.foreground for name in table.names]))


def _write(path: Path, values: np.ndarray) -> Path:
    with whole_file(path) as hidden:
        Image.fromarray(values).save(hidden)
    return path
