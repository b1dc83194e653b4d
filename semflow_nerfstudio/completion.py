"""Label and confidence images of all training frames, in the layout that the labels came in."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image

from semflow_nerfstudio.data.dataset import SemFlowDataset
from semflow_nerfstudio.data.files import read_image_size
from semflow_nerfstudio.data.label_files import (
    COMPLETION_STAMP,
    CONFIDENCE_FOLDER,
    encode_labels,
    image_mode,
    save_image,
    with_ignored_color,
    write_class_table,
)
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.data.modalities import decode_labels
from semflow_nerfstudio.data.multi_scene import scene_folder
from semflow_nerfstudio.data.resize import resize_nearest
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.whole_file import whole_file

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Progress, Run


@dataclass(frozen=True)
class LabelFile:
    """Where a training frame's labels go."""

    frame: int
    name: Path
    """Relative to the output folder."""
    size: tuple[int, int]
    """Width and height: those of the label files that came in, else of the image file."""
    given: Path | None
    """The label file that training could use."""

    @property
    def confidence(self) -> Path:
        """Of the confidence image, relative to the output folder."""
        return Path(CONFIDENCE_FOLDER) / self.name.relative_to(self.name.parts[0])


def label_files(dataset: SemFlowDataset, frames: range, data: Path, folder: str) -> list[LabelFile]:
    """Label files of training frames of one scene: named as they came in; named like the image where none did.

    Args:
        dataset: The training frames.
        frames: Those of the scene.
        data: Folder of the scene, which names are relative to.
        folder: For label images where no frame came with one.
    """
    given = {frame: dataset.frames[frame].labels for frame in frames}
    known = [path for path in given.values() if path is not None]
    size = read_image_size(known[0]) if known else None
    images = {frame: Path(dataset.image_filenames[frame]) for frame in frames}
    stems = Counter(image.stem for image in images.values())
    places = {path: _place(path, data) for path in known}
    inside = [place for place in places.values() if place is not None]
    parent = inside[0].parent if inside else Path(folder)
    result = []
    for frame, image in images.items():
        own = given[frame]
        place = None if own is None else places[own]
        if place is not None:
            name = place
        elif stems[image.stem] == 1:
            name = parent / f"{image.stem}.png"
        else:
            name = parent / (_place(image, data) or Path(*image.parts[-2:])).with_suffix(".png")
        own_size = read_image_size(own) if own is not None else size or read_image_size(image)
        result.append(LabelFile(frame, name, own_size, own))
    return result


def _place(path: Path, data: Path) -> Path | None:
    """Where a file lies in a folder below that of the scene; None where it lies elsewhere ("../labels/000.png")."""
    absolute, folder = (Path(os.path.abspath(p)) for p in (path, data))
    inside = absolute.is_relative_to(folder) and absolute.parent != folder
    return absolute.relative_to(folder) if inside else None


def camera_of_size(camera: Cameras, width: int, height: int) -> Cameras:
    """A camera (shape (1,)) for images of another size."""
    across, down = width / camera.width, height / camera.height
    return Cameras(
        camera_to_worlds=camera.camera_to_worlds,
        fx=camera.fx * across,
        fy=camera.fy * down,
        cx=camera.cx * across,
        cy=camera.cy * down,
        width=width,
        height=height,
        distortion_params=camera.distortion_params,
        camera_type=camera.camera_type,
        times=camera.times,
        metadata=camera.metadata,
    )


def complete(
    run: Run,
    out: Path,
    keep_given: bool = True,
    overwrite: bool = False,
    scene: str | None = None,
    progress: Progress | None = None,
) -> list[LabelFile]:
    """Write a label and a confidence image for every training frame of a scene, and the class table, to a folder.

    Confidence is 255 (1 - entropy of the classes' probabilities relative to that of a guess), and 255 where a label was
    given. Frames that are there already are left, so that an interrupted call is continued. Pixels of classes that the
    scene's table lacks (another scene of the run may have them) are ignored; nothing but what an earlier call wrote is
    ever replaced.

    Args:
        run: A trained run.
        out: The folder.
        keep_given: Leave pixels that came labelled as they came.
        overwrite: Replace images that are there.
        scene: Name of the scene; None: the default one.
        progress: Told after every frame.

    Raises:
        ValueError: the run knows no classes, or not this scene, or the folder is the scene's own, or holds something
            else, or labels of another run or another `keep_given`.
    """
    dataset: Any = run.pipeline.datamanager.train_dataset
    assert isinstance(dataset, SemFlowDataset) and dataset.scenes is not None
    number = _scene_number(run, dataset, scene)
    # Of a scene without a class table of its own (zero-shot, or unlabelled among others), the run's classes.
    classes = dataset.classes[number] or dataset.table
    if classes is None or not run.model.class_names:
        raise ValueError("the run was trained without labels: there is nothing to complete")
    if not set(run.model.class_names) <= set(classes.names):
        classes = with_ignored_color(classes)
    data, folder = _layout(run, number)
    if out.resolve() == data.resolve():
        raise ValueError(f"{out} is the scene's own folder, whose labels would be replaced: choose another one")
    files = label_files(dataset, range(*dataset.scenes[number].frame_range), data, folder)
    mode = image_mode(next((file.given for file in files if file.given is not None), None), classes)
    stamp = {"run": str(run.config.get_base_dir()), "step": run.model.step, "keep_given": keep_given}
    names = [path.as_posix() for file in files for path in (file.name, file.confidence)]
    _claim(out, stamp | {"scene": dataset.scenes[number].name}, names, overwrite)
    write_class_table(out, classes)
    for done, file in enumerate(files):
        if overwrite or not ((out / file.name).is_file() and (out / file.confidence).is_file()):
            ids, confidence = _frame(run, dataset, file, classes, keep_given)
            save_image(out / file.confidence, Image.fromarray(confidence))
            save_image(out / file.name, encode_labels(ids, classes, mode))
        if progress is not None:
            progress(done + 1, len(files))
    return files


def _scene_number(run: Run, dataset: SemFlowDataset, scene: str | None) -> int:
    assert dataset.scenes is not None
    names = [record.name for record in dataset.scenes]
    wanted = scene or run.model.shown_scene
    if wanted not in names:
        raise ValueError(f"the run has no scene '{wanted}': its scenes are {', '.join(names)}")
    return names.index(wanted)


def _layout(run: Run, number: int) -> tuple[Path, str]:
    """Folder of a scene, and where in it label images belong."""
    data = scene_folder(run.pipeline.datamanager.config.dataparser, number)  # type: ignore[attr-defined]
    return data, "SegmentationClass_train" if (data / "poses_bounds.npy").is_file() else "labels"


def _claim(out: Path, stamp: dict[str, Any], files: list[str], overwrite: bool) -> None:
    """Note in the folder what its images, `files`, are made from, unless they are from something else."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: this is a file; choose another name for the folder of labels")
    path = out / COMPLETION_STAMP
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        earlier = before.pop("files", files)
        if before != stamp:
            if not overwrite:
                raise ValueError(
                    f"{out} holds labels of another run or option: choose another folder, or pass --overwrite"
                )
            for name in earlier:  # or a call that goes on later would take them for its own
                (out / name).unlink(missing_ok=True)
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} holds something that `semflow complete` did not write: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(json.dumps(stamp | {"files": files}, indent=1) + "\n", encoding="utf-8")


def _frame(
    run: Run, dataset: SemFlowDataset, file: LabelFile, classes: ClassTable, keep_given: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Class ids and confidence (H, W) uint8 of one frame."""
    width, height = file.size
    with run.model.unedited():
        outputs = run.render(camera_of_size(dataset.cameras[file.frame : file.frame + 1], width, height))
    # A run may know more classes than the scene's table, and in another order: those stay unlabelled.
    names = list(classes.names)
    own = [names.index(name) if name in names else IGNORE_LABEL for name in run.model.class_names]
    ids = np.array(own, np.uint8)[outputs["label"][..., 0].long().numpy()]
    confidence = (255 * (1 - outputs["semantic_entropy"][..., 0]).clamp(0, 1)).round().to(torch.uint8).numpy()
    confidence = np.where(ids == IGNORE_LABEL, 0, confidence)
    if keep_given and file.given is not None:
        if dataset.frames[file.frame].scribbles is None:
            given = decode_labels(file.given, classes)
        else:  # simulated at the size of training
            shown = resize_nearest(dataset.label_image(file.frame), width, height) != IGNORE_LABEL
            given = np.where(shown, decode_labels(file.given, classes), IGNORE_LABEL)
        known = given != IGNORE_LABEL
        ids, confidence = np.where(known, given, ids), np.where(known, 255, confidence)
    return ids.astype(np.uint8), confidence.astype(np.uint8)
