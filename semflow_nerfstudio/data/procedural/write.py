"""Writes the procedural scene in the Semantic Dynamic Scene layout, with exact ground truth beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image
from scipy.ndimage import gaussian_filter

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.procedural.ground_truth import optical_flow, point_tracks
from semflow_nerfstudio.data.procedural.objects import CLASS_COLORS, CLASS_NAMES, FOREGROUND_CLASSES
from semflow_nerfstudio.data.procedural.options import SceneOptions
from semflow_nerfstudio.data.procedural.removal import Removal
from semflow_nerfstudio.data.procedural.render import RenderedView, render_view
from semflow_nerfstudio.data.procedural.scene import ProceduralScene, build_scene

TRACKED_POINTS = 256
NEAR_MARGIN, FAR_MARGIN = 0.9, 1.1
DEPTH_UNIT = 1e-3
"""World units per step of the 16-bit depth images of transforms.json (nerfstudio's default)."""
COVERED = 128
"""Value in multiview_removed/ where the object that is left out would cover something that no training frame sees of
the whole scene; 255: that one of them does; 0: it would not be there."""

Progress = Callable[[int, int], None]


def make_scene(
    out: Path, options: SceneOptions | None = None, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Write a procedural scene to the folder `out`, which is both the scene and holds its class tables.

    Everything is written beside `out` and moved there at the end, so that `out` is never half a scene.

    Args:
        out: The scene's folder.
        options: What scene to make.
        overwrite: Replace what is in `out`.
        progress: Called with the number of views rendered so far and of all views.

    Returns:
        `out`.

    Raises:
        SceneDataError: `out` is not empty and `overwrite` not set, or an option makes no sense.
    """
    options = options or SceneOptions()
    out = Path(out)
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise SceneDataError(f"{out} is not empty: choose another folder, or pass --overwrite to replace it.")
    scene = build_scene(options)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        fresh = work / "scene"
        fresh.mkdir()
        _write(fresh, scene, progress or (lambda done, total: None))
        if out.exists():
            os.replace(out, work / "replaced")
        os.replace(fresh, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def _write(folder: Path, scene: ProceduralScene, progress: Progress) -> None:
    """All files of a scene, rendering every rig camera at every time once."""
    options, rig = scene.options, scene.cameras
    removal = Removal(options, options.leave_out) if options.leave_out else None
    _write_tables(folder)
    total = options.frames * len(rig)
    training: list[RenderedView] = []
    nearest, farthest = np.full(len(rig), np.inf), np.zeros(len(rig))
    synchronised = _spread(len(rig), options.synchronised)
    for time in range(options.frames):
        for k, camera in enumerate(rig):
            view = render_view(scene, camera, time)
            nearest[k] = min(nearest[k], view.depth.min())
            farthest[k] = max(farthest[k], view.depth.max())
            name = f"{time + 1:08d}/cam{k + 1:02d}"
            _save_image(folder / f"multiview_GT/{name}.jpg", view.color, quality=95, subsampling=0)
            _save_image(folder / f"multiview_GT_semantic/{name}.png", _class_colors(view.label))
            if removal is not None:
                covered, revealed = removal.masks(time, k)
                mask = np.where(revealed, 255, np.where(covered, COVERED, 0)).astype(np.uint8)
                _save_image(folder / f"multiview_removed/{name}.png", mask)
            if k == time % len(rig):
                training.append(view)
            if synchronised:
                _write_synchronised(folder / "synchronised", scene, view, k, time, k in synchronised)
            progress(time * len(rig) + k + 1, total)
    own = [k % len(rig) for k in range(options.frames)]
    _write_poses(folder, scene, own, nearest * NEAR_MARGIN, farthest * FAR_MARGIN)
    rng = np.random.default_rng([options.seed, 4])
    for time in range(len(training)):
        _write_training_frame(folder, scene, training, time, rng)
        if time + 1 < options.frames:
            _write_flow(folder, scene, training, time, time + 1, "fwd", rng)
        if time > 0:
            _write_flow(folder, scene, training, time, time - 1, "bwd", rng)
    tracks = point_tracks(
        scene, training, [rig[k] for k in own], TRACKED_POINTS, np.random.default_rng([options.seed, 5])
    )
    np.savez_compressed(
        folder / "gt_tracks.npz",
        points=tracks.points.astype(np.float32),
        visible=tracks.visible,
        positions=tracks.positions.astype(np.float32),
        query_frame=tracks.query_frame,
        instance=tracks.instance,
        rig_points=tracks.rig_points.astype(np.float32),
        rig_visible=tracks.rig_visible,
    )
    if synchronised:
        _write_transforms(folder, scene, synchronised, nearest.min() * NEAR_MARGIN, farthest.max() * FAR_MARGIN)


def _write_tables(folder: Path) -> None:
    lines = ["# label:color_rgb:parts:actions"]
    lines += [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(CLASS_NAMES, CLASS_COLORS, strict=True)]
    (folder / "labelmap.txt").write_text("\n".join(lines) + "\n")
    (folder / "foreground_object.txt").write_text("\n".join(FOREGROUND_CLASSES) + "\n")


def _write_poses(folder: Path, scene: ProceduralScene, own: list[int], near: ndarray, far: ndarray) -> None:
    """LLFF poses: per training frame [R t hwf] with R's columns down, right, backwards, then near and far."""
    rows = []
    for k in own:
        camera = scene.cameras[k]
        right, up, back, position = camera.camera_to_world.T
        hwf = np.array([camera.height, camera.width, camera.focal])
        matrix = np.stack([-up, right, back, position, hwf], axis=1)
        rows.append(np.concatenate([matrix.ravel(), [near[k], far[k]]]))
    np.save(folder / "poses_bounds.npy", np.stack(rows))


def _write_training_frame(
    folder: Path, scene: ProceduralScene, training: list[RenderedView], time: int, rng: np.random.Generator
) -> None:
    view, options = training[time], scene.options
    name = f"{time:03d}"
    _save_image(folder / f"images/{name}.png", view.color)
    _save_image(folder / f"SegmentationClass_train/{name}.png", _class_colors(view.label))
    _save_image(folder / f"motion_masks/{name}.png", view.moving.astype(np.uint8) * 255)
    _save_image(folder / f"instances/{name}.png", view.instance)
    inverse = 1 / view.depth
    scale, shift = rng.uniform(150, 400), rng.uniform(5, 40)
    error = gaussian_filter(rng.standard_normal(inverse.shape), min(inverse.shape) / 20, mode="wrap")
    inverse = inverse * (1 + options.disparity_noise * error / error.std())
    if options.disparity == "relative":
        inverse = scale * inverse + shift
    _save_array(folder / f"disp/{name}.npy", inverse.astype(np.float32))
    _save_arrays(folder / f"gt_depth/{name}.npz", depth=view.depth.astype(np.float32))


def _write_flow(
    folder: Path,
    scene: ProceduralScene,
    training: list[RenderedView],
    time: int,
    target: int,
    ending: str,
    rng: np.random.Generator,
) -> None:
    rig = scene.cameras
    flow, mask = optical_flow(scene, training[time], rig[time % len(rig)], time, rig[target % len(rig)], target)
    name = f"{time:03d}_{ending}.npz"
    _save_arrays(folder / f"gt_flow/{name}", flow=flow.astype(np.float32), mask=mask)
    noisy = flow + scene.options.flow_noise * rng.standard_normal(flow.shape)
    _save_arrays(folder / f"flow/{name}", flow=noisy.astype(np.float32), mask=mask)


def _spread(cameras: int, count: int) -> list[int]:
    """`count` rig cameras that are well apart: every camera's rank times the golden ratio, the smallest first."""
    return sorted(sorted(range(cameras), key=lambda k: (k * 0.6180339887) % 1)[:count])


def _write_synchronised(
    folder: Path, scene: ProceduralScene, view: RenderedView, k: int, time: int, trained: bool
) -> None:
    """What transforms.json names of one view beside its test view: its depth and, for a camera that is trained on, all
    the rest; there flow leads to the same camera's next and previous frame."""
    camera, name = scene.cameras[k], f"cam{k + 1:02d}_{time:03d}"
    _save_image(folder / f"depth/{name}.png", np.round(view.depth / DEPTH_UNIT).astype(np.uint16))
    if not trained:
        return
    _save_image(folder / f"images/{name}.png", view.color)
    _save_image(folder / f"labels/{name}.png", _class_colors(view.label))
    _save_image(folder / f"motion_masks/{name}.png", view.moving.astype(np.uint8) * 255)
    for target, ending in ((time + 1, "fwd"), (time - 1, "bwd")):
        if 0 <= target < scene.options.frames:
            flow, mask = optical_flow(scene, view, camera, time, camera, target)
            _save_arrays(folder / f"flow/{name}_{ending}.npz", flow=flow.astype(np.float32), mask=mask)


def _write_transforms(folder: Path, scene: ProceduralScene, trained: list[int], near: float, far: float) -> None:
    """transforms.json: the `trained` cameras' frames for training, all others for validation and testing."""
    options, first = scene.options, scene.cameras[0]
    frames, splits = [], {True: [], False: []}
    for time in range(options.frames):
        for k, camera in enumerate(scene.cameras):
            name, test_view = f"cam{k + 1:02d}_{time:03d}", f"{time + 1:08d}/cam{k + 1:02d}"
            frame = {
                "file_path": f"multiview_GT/{test_view}.jpg",
                "transform_matrix": np.vstack([camera.camera_to_world, [0.0, 0.0, 0.0, 1.0]]).tolist(),
                "time": time / (options.frames - 1),
                "camera": f"cam{k + 1:02d}",
                "labels_path": f"multiview_GT_semantic/{test_view}.png",
                "depth_file_path": f"synchronised/depth/{name}.png",
            }
            if k in trained:
                frame["file_path"] = f"synchronised/images/{name}.png"
                frame["labels_path"] = f"synchronised/labels/{name}.png"
                frame["motion_mask_path"] = f"synchronised/motion_masks/{name}.png"
                if time + 1 < options.frames:
                    frame["flow_forward_path"] = f"synchronised/flow/{name}_fwd.npz"
                if time > 0:
                    frame["flow_backward_path"] = f"synchronised/flow/{name}_bwd.npz"
            frames.append(frame)
            splits[k in trained].append(frame["file_path"])
    document = {
        "camera_model": "OPENCV",
        "fl_x": first.focal,
        "fl_y": first.focal,
        "cx": first.width / 2,
        "cy": first.height / 2,
        "w": first.width,
        "h": first.height,
        "near": near,
        "far": far,
        "depth_unit_scale_factor": DEPTH_UNIT,
        "classes": [
            {"name": name, "color": list(color), "foreground": name in FOREGROUND_CLASSES}
            for name, color in zip(CLASS_NAMES, CLASS_COLORS, strict=True)
        ],
        "train_filenames": splits[True],
        "val_filenames": splits[False],
        "test_filenames": splits[False],
        "frames": frames,
    }
    (folder / "transforms.json").write_text(json.dumps(document, indent=1) + "\n")


def _class_colors(labels: ndarray) -> ndarray:
    return np.array(CLASS_COLORS, dtype=np.uint8)[labels]


def _save_image(path: Path, image: ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def _save_array(path: Path, array: ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def _save_arrays(path: Path, **arrays: ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
