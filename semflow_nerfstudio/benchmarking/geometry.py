"""Motion and depth of what training views show, against exact ones where a scene has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semflow_nerfstudio.cameras import pixel_centers
from semflow_nerfstudio.data.layout import SceneFolder, read_scene_folder
from semflow_nerfstudio.data.modalities import decode_flow, read_depth, read_labels, resize_flow
from semflow_nerfstudio.runs import Progress, Run
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


@dataclass
class TrainingView:
    """One training frame as the model renders it, at the size of the training images. Lengths are in scene units."""

    frame: int
    """Index among the training frames."""
    place: int
    """Index among the clip's frames, by which files are named."""
    rgb: Float[Tensor, "H W 3"]
    z: Float[Tensor, "H W"]
    """Depth along the camera's z."""
    label: Int[Tensor, "H W"] | None
    induced_flow: Float[Tensor, "H W 2"] | None
    """Where what is seen goes until the next frame, as that frame's camera sees it, in pixels; None for the last."""


def render_training_views(run: Run, progress: Progress | None = None) -> list[TrainingView]:
    """Render every training frame of the run's only scene."""
    (scene,) = [run.model.scene(name) for name in run.model.scenes]
    dataset = run.pipeline.datamanager.train_dataset
    assert dataset is not None
    run.pipeline.eval()
    folder = scene_folder(run)
    places = {Path(image): k for k, image in enumerate(folder.images)} if folder else {}
    views = []
    for frame in range(len(dataset)):
        camera = dataset.cameras[frame : frame + 1].to(run.model.device)
        with torch.no_grad():
            image = run.model.ray_image(camera)
        z_ratio = camera.generate_rays(camera_indices=0).metadata["directions_norm"]
        height, width = image["rgb"].shape[:2]
        flow, following = None, int(scene.next_frame[frame])
        if following >= 0:
            target = torch.full((height, width), following, device=image["there"].device)
            pixels, _ = scene.bank.cameras.scaled_to(width, height).project(image["there"], target)
            flow = (pixels - pixel_centers(width, height, pixels.device)).cpu()
        label = image["logits"].argmax(-1).cpu() if "logits" in image else None
        z = (image["depth"] / z_ratio)[..., 0].cpu()
        place = places.get(Path(dataset.image_filenames[frame]), frame)
        views.append(TrainingView(frame, place, image["rgb"].cpu(), z, label, flow))
        if progress is not None:
            progress(frame + 1, len(dataset))
    return views


def scene_folder(run: Run) -> SceneFolder | None:
    """The files of the run's scene, where it is in the Semantic Dynamic Scene layout."""
    from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig

    parser = run.pipeline.datamanager.dataparser.config  # type: ignore[attr-defined]
    return read_scene_folder(parser.data) if isinstance(parser, DynamicSceneDataParserConfig) else None


def foreground_pixels(folder: SceneFolder, view: TrainingView) -> Bool[np.ndarray, "H W"] | None:
    """Pixels of the foreground classes by the scene's own labels, whatever training was shown; None without."""
    labels = folder.records[view.place].labels
    if labels is None or folder.classes is None:
        return None
    height, width = view.z.shape
    ids = read_labels(labels, folder.classes, width, height)
    flags = np.append(folder.classes.foreground, np.zeros(IGNORE_LABEL + 1 - len(folder.classes), bool))
    return flags[ids]


def geometry_scores(run: Run, views: list[TrainingView]) -> dict[str, float]:
    """Errors on training views, as far as the scene's folder holds exact flow (`gt_flow/`) and depth (`gt_depth/`).

    Returns:
        `flow_epe_moving`: mean end-point error of the flow to the next frame on pixels of the foreground classes that
        are visible in both, in pixels of the training images. `depth_error`, `depth_error_moving`: mean relative error
        of camera z on all pixels and on those of the foreground classes. Keys without data are left out.
    """
    folder = scene_folder(run)
    if folder is None:
        return {}
    root = folder.images[0].parent.parent
    scale = float(run.pipeline.datamanager.train_dataset._dataparser_outputs.dataparser_scale)  # type: ignore
    flow_errors: list[np.ndarray] = []
    depth_errors: list[np.ndarray] = []
    depth_errors_moving: list[np.ndarray] = []
    for view in views:
        height, width = view.z.shape
        moving = foreground_pixels(folder, view)
        flow_file, depth_file = root / f"gt_flow/{view.place:03d}_fwd.npz", root / f"gt_depth/{view.place:03d}.npz"
        if flow_file.is_file() and view.induced_flow is not None and moving is not None:
            truth, valid = resize_flow(*decode_flow(flow_file), width, height)
            error = np.linalg.norm(view.induced_flow.numpy() - truth, axis=-1)
            flow_errors.append(error[valid & moving])
        if depth_file.is_file():
            truth = read_depth(depth_file, width, height, unit=scale)
            known = np.isfinite(truth)
            error = np.abs(view.z.numpy() - truth) / np.where(known, truth, 1)
            depth_errors.append(error[known])
            if moving is not None:
                depth_errors_moving.append(error[known & moving])
    every = {"flow_epe_moving": flow_errors, "depth_error": depth_errors, "depth_error_moving": depth_errors_moving}
    return {name: float(np.concatenate(errors).mean()) for name, errors in every.items() if sum(map(len, errors))}
