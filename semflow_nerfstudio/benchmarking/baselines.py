"""What a field must beat: training frames copied, or moved by geometry, in place of renderings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt, map_coordinates
from torch import Tensor

from semflow_nerfstudio.benchmarking.geometry import TrainingView
from semflow_nerfstudio.cameras import PIXEL_CENTER, FrameCameras, pixel_centers
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.data.layout import read_scene_folder
from semflow_nerfstudio.data.modalities import downscaled_size, read_flow, read_labels
from semflow_nerfstudio.data.scene_assembly import frame_cameras
from semflow_nerfstudio.evaluation.image_metrics import ImageEvaluation
from semflow_nerfstudio.evaluation.segmentation import confusion_matrix, segmentation_scores
from semflow_nerfstudio.runs import Run
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.visuals.colors import colorize_labels


def baseline_scores(run: Run, training: list[TrainingView], views: Iterable[int]) -> dict[str, dict[str, float]]:
    """Scores of the training frame of the nearest time, shown as it is and moved to the view.

    Args:
        run: Whose training frames and model.
        training: The rendered training views, whose depth moves the frames.
        views: Indices of the evaluation views.

    Returns:
        `copy`: image and labels as they are. `warp`: splatted with the model's own depth, holes filled with the nearest
        pixel. Each with the scores of `ImageEvaluation`.
    """
    train, held_out = run.pipeline.datamanager.train_dataset, run.pipeline.datamanager.eval_dataset
    assert train is not None and held_out is not None
    names = run.model.class_names
    foreground = torch.as_tensor(run.model.foreground).cpu()
    scores = {name: ImageEvaluation(names, foreground) for name in ("copy", "warp")}
    colors = run.model.class_colors.cpu()
    cameras = frame_cameras(train, 0, len(train))  # type: ignore[arg-type]
    for index in views:
        truth = held_out.get_data(index)
        assert train.cameras.times is not None and held_out.cameras.times is not None
        frame = int((train.cameras.times[:, 0] - held_out.cameras.times[index, 0]).abs().argmin())
        item = train.get_data(frame)
        label = item["labels"][..., 0].long() if "labels" in item else torch.zeros(item["image"].shape[:2]).long()
        shown = {"copy": (item["image"][..., :3], label)}
        target = frame_cameras(held_out, index, index + 1)  # type: ignore[arg-type]
        points = unproject(cameras, frame, training[frame].z)
        shown["warp"] = splat(points, item["image"][..., :3], label, target)
        for name, (image, ids) in shown.items():
            if image.shape[:2] != truth["image"].shape[:2]:
                continue
            outputs = {"rgb": image, "depth": torch.ones_like(image[..., :1]), "label": ids[..., None]}
            if names:
                outputs["semantics"] = colorize_labels(ids, colors)
            scores[name].add(outputs, truth, colors)
    return {name: evaluation.result() for name, evaluation in scores.items() if evaluation.images}


def unproject(cameras: FrameCameras, frame: int, z: Float[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
    """Points of a frame's pixels at depths along the camera's z, without lens distortion."""
    height, width = z.shape
    fx, fy, cx, cy = cameras.scaled_to(width, height).intrinsics[frame]
    pixels = pixel_centers(width, height)
    local = torch.stack([(pixels[..., 0] - cx) / fx * z, -(pixels[..., 1] - cy) / fy * z, -z], dim=-1)
    pose = cameras.camera_to_worlds[frame]
    return local @ pose[:, :3].T + pose[:, 3]


def splat(
    points: Float[Tensor, "H W 3"],
    image: Float[Tensor, "H W 3"],
    label: Int[Tensor, "H W"],
    camera: FrameCameras,
) -> tuple[Float[Tensor, "h w 3"], Int[Tensor, "h w"]]:
    """Show coloured, labelled points in another camera: nearest pixel, nearest point, holes from the nearest pixel."""
    width, height = camera.width, camera.height
    flat = points.reshape(-1, 3)
    pixels, depth = camera.project(flat, torch.zeros(len(flat), dtype=torch.long))
    column, row = pixels.floor().long().unbind(-1)
    seen = (depth > 1e-6) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = seen.nonzero()[:, 0]
    # far points first, so that near ones are written over them
    source = source[depth[source].argsort(descending=True)].numpy()
    winner = np.full(height * width, -1)
    winner[(row * width + column).numpy()[source]] = source
    winner = winner.reshape(height, width)
    if (winner < 0).all():
        return torch.zeros(height, width, 3), torch.full((height, width), IGNORE_LABEL)
    nearest = distance_transform_edt(winner < 0, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    filled = torch.from_numpy(winner[tuple(nearest)])
    return image.reshape(-1, 3)[filled], label.reshape(-1)[filled]


def warped_neighbour_labels(scene: Path, frames: Iterable[int], downscale_factor: float = 1.0) -> dict[str, float]:
    """IoU of the labels of neighbouring frames, warped along the given flow, on frames of a clip.

    A frame's flow tells where each of its pixels lies in a neighbour, whose label there it takes. Both neighbours
    count, over all pixels whether the flow's mask holds or not.

    Args:
        scene: Folder in the Semantic Dynamic Scene layout.
        frames: Indices in the clip.
        downscale_factor: Of the images, as in training.

    Returns:
        `iou_<class>` of the summed confusion matrix and `miou_dataset`, their mean.
    """
    folder = read_scene_folder(scene)
    classes = folder.classes
    if classes is None:
        return {}
    width, height = downscaled_size(*folder.size, downscale_factor)
    total = np.zeros((len(classes), len(classes) + 1), np.int64)
    for frame in frames:
        record = folder.records[frame]
        for step, file in ((-1, record.flow_backward), (1, record.flow_forward)):
            inside = 0 <= frame + step < len(folder.records)
            neighbour = folder.records[frame + step].labels if inside else None
            if file is None or neighbour is None or record.labels is None:
                continue
            truth = read_labels(record.labels, classes, width, height)
            flow, _ = read_flow(file, width, height)
            total += confusion_matrix(_follow(neighbour, flow, classes), truth, len(classes))
    scores = segmentation_scores(total)
    ious = {f"iou_{name}": float(iou) for name, iou in zip(classes.names, scores.iou, strict=True)}
    return {"miou_dataset": scores.miou, **ious}


def _follow(neighbour: Path, flow: Float[np.ndarray, "H W 2"], classes: ClassTable) -> Int[np.ndarray, "H W"]:
    """Labels of the neighbour where the flow leads, the nearest pixel's, clamped at the image's border."""
    height, width = flow.shape[:2]
    centers = pixel_centers(width, height).numpy() - PIXEL_CENTER
    end = centers + flow
    labels = read_labels(neighbour, classes, width, height)
    return map_coordinates(labels, [end[..., 1], end[..., 0]], order=0, mode="nearest")


def withheld_frames(count: int) -> list[int]:
    """Frames whose labels are withheld in the completion of a real clip: every third one from the second on."""
    return list(range(1, count, 3))


def kept_labels(scene: Path) -> str:
    """All other frames of a scene's clip, as `--labelled-frames` takes them."""
    count = len(read_scene_folder(scene).images)
    return ",".join(str(k) for k in range(count) if k not in withheld_frames(count))
