"""Labels as a step of `semflow process`, and alone, on a scene that exists."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.transforms_json import read_transforms
from semflow_nerfstudio.data.verification import common_size
from semflow_nerfstudio.process.check import check_paths
from semflow_nerfstudio.process.labels.found import ImportedLabels, LabelSource, read_json
from semflow_nerfstudio.process.labels.importer import INSTANCES, LABELS, import_labels
from semflow_nerfstudio.process.steps import RECORDS, Progress, Step, tree_stamp, write_json
from semflow_nerfstudio.process.summary import SUMMARY, Summary

RECORD = f"{RECORDS}/labels.json"
STAGING = f"{RECORDS}/importing"
"""Where labels are written until all of them are there."""
LABEL_KEYS = ("labels_path", "instances_path")
Show = Callable[[str], AbstractContextManager[Progress]]
"""Shows the progress of a step, given its title."""


def labels_step(
    scene: Path, source: LabelSource, frames: Sequence[str], skipped: Sequence[str], size: tuple[int, int], show: Show
) -> ImportedLabels:
    """Import labels, unless that is done with the same files, options and frames.

    Args:
        scene: Folder of the scene.
        source: What to import.
        frames: Names of the images of the scene's frames.
        skipped: Names of frames that were left out.
        size: (width, height) of the images.
        show: Shows progress.

    Raises:
        SceneDataError: labels that cannot be used.
    """
    path = source.path.resolve()
    ours = [(scene / folder).resolve() for folder in (LABELS, INSTANCES)]
    if any(path == folder or folder in path.parents for folder in ours):
        raise SceneDataError(f"{source.path} lies where imported labels are written: move it out of {scene / LABELS}.")
    if not path.exists():
        raise SceneDataError(f"{source.path} does not exist: pass the file or folder that holds the labels.")
    origin = {
        "path": str(path),
        "format": source.format,
        "background": source.background,
        "foreground": list(source.foreground),
    }
    # A JSON file may name nothing but frames, but labelmap.txt and class tables speak for the images beside them.
    beside = path.parent if path.is_file() and not _stands_alone(source) else path
    inputs = {"source": tree_stamp(beside), **origin, "frames": [*frames], "skipped": [*skipped], "size": [*size]}
    step = Step(scene, "labels", inputs, folders=(LABELS, INSTANCES), version=2)
    result = step.result()
    if result is None:
        staging = scene / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        try:
            with show("Labels") as progress:
                found = import_labels(source, frames, skipped, staging, size, progress)
            step.begin()  # only now: labels that cannot be used leave those that there are alone
            found = replace(found, files=_move(found.files, staging, scene))
            found = replace(found, instances=_move(found.instances, staging, scene))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        made = {"files": _relative(found.files, scene), "instances": _relative(found.instances, scene)}
        result = {
            **made,
            "classes": [dict(entry) for entry in found.classes],
            "unused": [*found.unused],
            "origin": origin,
        }
        step.finish(result, [*found.files.values(), *found.instances.values()])
    return ImportedLabels(
        {name: scene / file for name, file in result["files"].items()},
        result["classes"],
        {name: scene / file for name, file in result["instances"].items()},
        result["unused"],
    )


def earlier_source(scene: Path) -> LabelSource | None:
    """Where the scene's labels were imported from, if they were."""
    record = read_json(scene / RECORD) if (scene / RECORD).is_file() else {}
    if not record.get("done"):
        return None
    origin = record["result"]["origin"]
    path = Path(origin["path"])
    if not path.exists():
        raise SceneDataError(
            f"{path}, from which the labels of {scene} were imported, is gone: restore it, pass --labels, or remove "
            f"{scene / RECORD} to go on without labels."
        )
    return LabelSource(path, origin["format"], origin["background"], tuple(origin["foreground"]))


def label_scene(scene: Path, source: LabelSource, show: Show) -> ImportedLabels:
    """Import labels into a scene with a transforms.json, which afterwards names them.

    Raises:
        SceneDataError: no such scene, labels that cannot be used, or labels that something else put there.
    """
    path = scene / "transforms.json"
    check_paths(path)
    file = read_transforms(scene)
    meta, size = file.meta, common_size([frame.image for frame in file.frames])
    entries: list[dict[str, Any]] = meta["frames"]
    if not (scene / RECORD).is_file():
        named = "classes" in meta or "class_table" in meta or any("labels_path" in entry for entry in entries)
        if named or any((scene / folder).exists() for folder in (LABELS, INSTANCES)):
            raise SceneDataError(
                f"{scene} has labels from elsewhere already: take them out of its transforms.json and rename "
                f"{LABELS}/ and {INSTANCES}/."
            )
    names, skipped = _frames(scene, [entry["file_path"] for entry in entries])
    labels = labels_step(scene, source, names, skipped, size, show)
    meta.pop("class_table", None)
    meta["classes"] = list(labels.classes)
    for name, entry in zip(names, entries, strict=True):
        found = dict(zip(LABEL_KEYS, (labels.files.get(name), labels.instances.get(name)), strict=True))
        for key, where in found.items():
            entry.pop(key, None)
            if where is not None:
                entry[key] = where.relative_to(scene).as_posix()
    write_json(path, meta)
    _count(scene, len(labels.files), len(names))
    return labels


def _frames(scene: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """What `labels_step` calls the frames, and those that were left out: as `semflow process` does, if it was that."""
    record = scene / RECORDS / "frames.json"
    if not record.is_file():
        return list(paths), []
    content = read_json(record)
    if not content.get("done"):
        raise SceneDataError(f"{scene} is being made, or was not finished: run `semflow process` again first.")
    result = content["result"]
    names = [Path(path).name for path in paths]
    return names, [*result["skipped"], *(f["name"] for f in result["frames"] if f["name"] not in names)]


def _count(scene: Path, labelled: int, frames: int) -> None:
    """Keep the summary of `semflow process` true."""
    path = scene / RECORDS / SUMMARY
    if not path.is_file():
        return
    summary = Summary.from_json(read_json(path))
    summary.counts["labels"] = (labelled, frames)
    write_json(path, summary.to_json())


def _stands_alone(source: LabelSource) -> bool:
    if source.path.suffix.lower() != ".json":
        return False
    content = read_json(source.path)
    return isinstance(content, dict) and ("annotations" in content or "shapes" in content)


def _move(files: Mapping[str, Path], staging: Path, scene: Path) -> dict[str, Path]:
    moved = {name: scene / path.relative_to(staging) for name, path in files.items()}
    for name, path in files.items():
        moved[name].parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, moved[name])
    return moved


def _relative(files: Mapping[str, Path], scene: Path) -> dict[str, str]:
    return {name: path.relative_to(scene).as_posix() for name, path in files.items()}
