"""Writers of scenes of a few small frames, for tests of the dataparsers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

COLORS = np.array([[0, 0, 0], [0, 130, 180], [220, 20, 60]], np.uint8)
LABEL_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nperson:0,130,180::\nballoon:220,20,60::\n"
WIDTH, HEIGHT, FRAMES = 16, 10, 4
FOCAL = 14.0


def camera_to_world(index: int) -> np.ndarray:
    """4x4 OpenGL pose of a camera that looks along -z and stands a little further right each time."""
    pose = np.eye(4)
    angle = 0.05 * (index - 1.5)
    pose[0, :3], pose[2, :3] = [np.cos(angle), 0, np.sin(angle)], [-np.sin(angle), 0, np.cos(angle)]
    pose[:3, 3] = [0.3 * index, 0.1, 2.0]
    return pose


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_frame_files(folder: Path, count: int, width: int, height: int, rng: np.random.Generator) -> None:
    """Images, labels, masks, disparity, depth and flow under the names of the folder layout."""
    for name in ("flow", "disp", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for k in range(count):
        save_image(folder / f"images/{k:03d}.png", rng.integers(0, 256, (height, width, 3), np.uint8))
        ids = rng.integers(0, 3, (height, width))
        save_image(folder / f"SegmentationClass_train/{k:03d}.png", COLORS[ids])
        save_image(folder / f"motion_masks/{k:03d}.png", (255 * (ids > 0)).astype(np.uint8))
        np.save(folder / f"disp/{k:03d}.npy", rng.random((height, width)).astype(np.float32))
        np.save(folder / f"depth/{k:03d}.npy", 1 + rng.random((height, width)).astype(np.float32))
        for step, name in ((1, "fwd"), (-1, "bwd")):
            if 0 <= k + step < count:
                flow = rng.normal(size=(height, width, 2)).astype(np.float32)
                np.savez(folder / f"flow/{k:03d}_{name}.npz", flow=flow, mask=rng.random((height, width)) < 0.8)


def write_dynamic_scene(
    root: Path, count: int = FRAMES, width: int = WIDTH, height: int = HEIGHT, test_cameras: int = FRAMES
) -> Path:
    """A scene in the Semantic Dynamic Scene layout; returns its folder."""
    folder = root / "Scene"
    rng = np.random.default_rng(0)
    write_frame_files(folder, count, width, height, rng)
    (root / "labelmap.txt").write_text(LABEL_MAP)
    (root / "foreground_object.txt").write_text("balloon\nperson\n")
    rows = []
    for k in range(count):
        right, up, backwards, position = camera_to_world(k % test_cameras if test_cameras else k)[:3].T
        # Stated for images of twice the size, as in releases that ship images_2.
        hwf = np.array([2.0 * height, 2.0 * width, 2 * FOCAL])
        matrix = np.stack([-up, right, backwards, position, hwf], axis=1)
        rows.append(np.concatenate([matrix.ravel(), [1.0, 5.0 + k]]))
    np.save(folder / "poses_bounds.npy", np.array(rows))
    for time in range(count):
        for camera in range(test_cameras):
            name = f"{time + 1:08d}/cam{camera + 1:02d}"
            save_image(folder / f"multiview_GT/{name}.jpg", rng.integers(0, 256, (height, width, 3), np.uint8))
            save_image(folder / f"multiview_GT_semantic/{name}.png", COLORS[rng.integers(0, 3, (height, width))])
    return folder


def write_transforms(
    folder: Path, times: list | None = None, cameras: list | None = None, count: int = FRAMES, **top_level
) -> Path:
    """A transforms.json scene with every optional key; returns its folder. `top_level` adds or replaces keys."""
    write_frame_files(folder, count, WIDTH, HEIGHT, np.random.default_rng(0))
    frames = []
    for k in range(count):
        entry = {
            "file_path": f"images/{k:03d}.png",
            "transform_matrix": camera_to_world(k).tolist(),
            "labels_path": f"SegmentationClass_train/{k:03d}.png",
            "motion_mask_path": f"motion_masks/{k:03d}.png",
            "disparity_path": f"disp/{k:03d}.npy",
            "depth_path": f"depth/{k:03d}.npy",
        }
        if times is not None:
            entry["time"] = times[k]
        if cameras is not None:
            entry["camera"] = cameras[k]
        for name in ("forward", "backward"):
            flow = f"flow/{k:03d}_{name[0]}wd.npz"
            if (folder / flow).is_file():
                entry[f"flow_{name}_path"] = flow
        frames.append(entry)
    meta = {
        "fl_x": FOCAL,
        "fl_y": FOCAL,
        "cx": WIDTH / 2,
        "cy": HEIGHT / 2,
        "w": WIDTH,
        "h": HEIGHT,
        "classes": [
            {"name": name, "color": color.tolist(), "foreground": name != "background"}
            for name, color in zip(("background", "person", "balloon"), COLORS, strict=True)
        ],
        "frames": frames,
    }
    (folder / "transforms.json").write_text(json.dumps({**meta, **top_level}))
    return folder


def edit_transforms(folder: Path, edit) -> None:
    """Apply a function to the parsed transforms.json, in place."""
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    edit(meta)
    path.write_text(json.dumps(meta))


def drawn_pixels(manager: Any, steps: int = 5) -> dict[str, torch.Tensor]:
    """The batches of a data manager's first steps in one, the same whenever the same is drawn from."""
    torch.manual_seed(0)
    batches = [manager.next_train(step)[1] for step in range(steps)]
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether tensors are equal, unknown values included."""
    return torch.allclose(one.float(), other.float(), rtol=0, atol=0, equal_nan=True)
