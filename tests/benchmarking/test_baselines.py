"""Frames copied and warped, and labels warped along the flow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import arc_cameras
from PIL import Image

from semflow_nerfstudio.benchmarking.baselines import (
    kept_labels,
    splat,
    unproject,
    warped_neighbour_labels,
    withheld_frames,
)
from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


def camera(x: float = 0.0, width: int = 8, height: int = 6) -> FrameCameras:
    """Looks along -z from (x, 0, 0) with a focal length of 4 pixels."""
    pose = torch.eye(4)[None, :3].clone()
    pose[0, 0, 3] = x
    return FrameCameras(pose, torch.tensor([[4.0, 4.0, width / 2, height / 2]]), width, height)


def test_unprojected_pixels_project_to_where_they_were() -> None:
    cameras = arc_cameras(3)
    z = 1 + torch.rand(cameras.height, cameras.width)
    points = unproject(cameras, 1, z)
    pixels, depth = cameras.project(points, torch.ones(cameras.height, cameras.width, dtype=torch.long))
    torch.testing.assert_close(depth, z, atol=1e-5, rtol=0)
    assert pixels[2, 5].tolist() == pytest.approx([5.5, 2.5], abs=1e-3)


def test_splatting_into_the_same_camera_changes_nothing() -> None:
    image, label = torch.rand(6, 8, 3), torch.randint(0, 4, (6, 8))
    points = unproject(camera(), 0, 1 + torch.rand(6, 8))
    shown, ids = splat(points, image, label, camera())
    assert torch.equal(shown, image) and torch.equal(ids, label)


def test_near_points_hide_far_ones_and_holes_take_the_nearest_pixel() -> None:
    """A near column moves two pixels to the left before a far wall that stays; what it uncovers is filled."""
    z = torch.full((6, 8), 1e4)
    z[:, 4] = 4.0
    label = torch.arange(8).expand(6, 8).contiguous()
    image = label[..., None].expand(6, 8, 3) / 8.0
    shown, ids = splat(unproject(camera(), 0, z), image, label, camera(x=2.0))
    assert ids[0].tolist() in ([0, 1, 4, 3, 3, 5, 6, 7], [0, 1, 4, 3, 5, 5, 6, 7])
    assert torch.equal(shown[..., 0], ids / 8.0)


def test_nothing_in_view_is_unlabelled() -> None:
    behind = camera()
    turned = FrameCameras(behind.camera_to_worlds * torch.tensor([-1.0, 1.0, -1.0, 1.0]), behind.intrinsics, 8, 6)
    shown, ids = splat(unproject(behind, 0, torch.ones(6, 8)), torch.rand(6, 8, 3), torch.zeros(6, 8).long(), turned)
    assert not shown.any() and (ids == IGNORE_LABEL).all()


def test_every_third_label_is_withheld() -> None:
    assert withheld_frames(12) == [1, 4, 7, 10]


def write_clip(folder: Path, count: int = 5) -> Path:
    """A square that moves three pixels a frame, with exact flow; labels of its pixels and of the rest."""
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nrest:0,0,0::\nsquare:255,0,0::\n")
    for name in ("images", "SegmentationClass_train", "flow"):
        (folder / name).mkdir()
    rows = []
    for k in range(count):
        square = np.zeros((20, 40), bool)
        square[6:12, 5 + 3 * k : 13 + 3 * k] = True
        picture = Image.fromarray((square[..., None] * np.array([255, 0, 0])).astype(np.uint8))
        picture.save(folder / f"images/{k:03d}.png")
        picture.save(folder / f"SegmentationClass_train/{k:03d}.png")
        for step, name in ((1, "fwd"), (-1, "bwd")):
            if 0 <= k + step < count:
                flow = np.where(square[..., None], [3.0 * step, 0.0], 0.0).astype(np.float32)
                np.savez(folder / f"flow/{k:03d}_{name}.npz", flow=flow, mask=np.ones((20, 40), bool))
        columns = [[0, -1, 0], [1, 0, 0], [0, 0, 1], [0.1 * k, 0, 0], [20, 40, 30]]  # down, right, backwards, t, hwf
        matrix = np.array(columns, float).T
        rows.append(np.concatenate([matrix.ravel(), [1.0, 9.0]]))
    np.save(folder / "poses_bounds.npy", np.stack(rows))
    return folder


def test_labels_warped_along_the_flow(tmp_path: Path) -> None:
    """The square's pixels find it in both neighbours; beside it, those that it covers there are taken for it, too."""
    scene = write_clip(tmp_path)
    scores = warped_neighbour_labels(scene, [1, 4])
    square, rest = 6 * 8, 20 * 40 - 6 * 8
    wrong = 6 * 3  # the square's place in the neighbour that is not its place here
    assert scores["iou_square"] == pytest.approx(square / (square + wrong))
    assert scores["iou_rest"] == pytest.approx((rest - wrong) / rest)
    assert scores["miou_dataset"] == pytest.approx((scores["iou_square"] + scores["iou_rest"]) / 2)
    assert kept_labels(scene) == "0,2,3"


def test_balloon1_gives_the_figures_that_are_known_of_it(test_data: Path) -> None:
    """Over all pixels of all frames: .92 background, .67 person, .72 balloon."""
    (scene,) = [path.parent for path in (test_data / "real").rglob("poses_bounds.npy")]
    scores = warped_neighbour_labels(scene, range(12))
    found = sorted(value for name, value in scores.items() if name.startswith("iou_"))
    assert found == pytest.approx([0.67, 0.72, 0.92], abs=0.006)
