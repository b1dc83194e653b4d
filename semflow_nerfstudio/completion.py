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
from semflow_nerfstudio.data.label_files import encode_labels, image_mode, save_image, write_class_table
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.data.modalities import decode_labels
from semflow_nerfstudio.data.resize import resize_nearest
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Progress, Run

CONFIDENCE_FOLDER = "confidence"
STAMP = "complete.json"
"""What the images in a folder were made from."""


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


def label_files(dataset: SemFlowDataset, data: Path, folder: str) -> list[LabelFile]:
    """Every training frame's label file: named as it came in; named like the image where none did.

    Args:
        dataset: The training frames.
        data: Folder of the scene, which names are relative to.
        folder: For label images where no frame came with one.
    """
    known = [record.labels for record in dataset.frames if record.labels is not None]
    size = read_image_size(known[0]) if known else None
    stems = Counter(Path(image).stem for image in dataset.image_filenames)
    inside = [path.relative_to(data) for path in known if path.is_relative_to(data) and path.parent != data]
    parent = inside[0].parent if inside else Path(folder)
    result = []
    for frame, (image, record) in enumerate(zip(dataset.image_filenames, dataset.frames, strict=True)):
        image = Path(image)
        if record.labels is not None and record.labels.is_relative_to(data) and record.labels.parent != data:
            name = record.labels.relative_to(data)
        elif stems[image.stem] == 1:
            name = parent / f"{image.stem}.png"
        else:
            own = image.relative_to(data) if image.is_relative_to(data) else Path(*image.parts[-2:])
            name = parent / own.with_suffix(".png")
        own_size = read_image_size(record.labels) if record.labels is not None else size or read_image_size(image)
        result.append(LabelFile(frame, name, own_size, record.labels))
    return result


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
    run: Run, out: Path, keep_given: bool = True, overwrite: bool = False, progress: Progress | None = None
) -> list[LabelFile]:
    """Write a label and a confidence image for every training frame, and the class table, to a folder.

    Confidence is 255 (1 - entropy of the classes' probabilities relative to that of a guess), and 255 where a label was
    given. Frames that are there already are left, so that an interrupted call is continued.

    Args:
        run: A trained run.
        out: The folder.
        keep_given: Leave pixels that came labelled as they came.
        overwrite: Replace images that are there.
        progress: Told after every frame.

    Raises:
        ValueError: the run knows no classes, or the folder holds labels of another run or another `keep_given`.
    """
    dataset: Any = run.pipeline.datamanager.train_dataset
    parser: Any = run.pipeline.datamanager.config.dataparser  # type: ignore[attr-defined]
    assert isinstance(dataset, SemFlowDataset)
    classes = dataset.classes[0]
    if classes is None or not run.model.class_names:
        raise ValueError("the run was trained without labels: there is nothing to complete")
    _claim(out, {"run": str(run.config.get_base_dir()), "step": run.model.step, "keep_given": keep_given}, overwrite)
    data = Path(parser.data)
    data = data.parent if data.is_file() else data
    transforms = (data / "transforms.json").is_file() and not (data / "poses_bounds.npy").is_file()
    files = label_files(dataset, data, "labels" if transforms else "SegmentationClass_train")
    example = next((file.given for file in files if file.given is not None), None)
    mode = image_mode(example, classes)
    write_class_table(out, classes)
    for done, file in enumerate(files):
        if overwrite or not ((out / file.name).is_file() and (out / file.confidence).is_file()):
            ids, confidence = _frame(run, dataset, file, classes, keep_given)
            save_image(out / file.confidence, Image.fromarray(confidence))
            save_image(out / file.name, encode_labels(ids, classes, mode))
        if progress is not None:
            progress(done + 1, len(files))
    return files


def _claim(out: Path, stamp: dict[str, Any], overwrite: bool) -> None:
    """Note in the folder what its images are made from, unless they are from something else."""
    path = out / STAMP
    if path.is_file() and not overwrite and json.loads(path.read_text(encoding="utf-8")) != stamp:
        raise ValueError(f"{out} holds labels of another run or option: choose another folder, or pass --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{STAMP}.partial"
    partial.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _frame(
    run: Run, dataset: SemFlowDataset, file: LabelFile, classes: ClassTable, keep_given: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Class ids and confidence (H, W) uint8 of one frame."""
    width, height = file.size
    outputs = run.render(camera_of_size(dataset.cameras[file.frame : file.frame + 1], width, height))
    ids = outputs["label"][..., 0].to(torch.uint8).numpy()
    confidence = (255 * (1 - outputs["semantic_entropy"][..., 0]).clamp(0, 1)).round().to(torch.uint8).numpy()
    if keep_given and file.given is not None:
        if dataset.frames[file.frame].scribbles is None:
            given = decode_labels(file.given, classes)
        else:  # simulated at the size of training
            item = dataset.get_metadata({"image_idx": file.frame})
            given = resize_nearest(item["labels"][..., 0].numpy(), width, height)
        known = given != IGNORE_LABEL
        ids, confidence = np.where(known, given, ids), np.where(known, 255, confidence)
    return ids.astype(np.uint8), confidence.astype(np.uint8)
