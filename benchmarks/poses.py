"""Compare the poses that `semflow process --poses colmap` finds from images alone with given ones.

    python -m benchmarks.poses --scene PATH/TO/Balloon1

The scene has the Semantic Dynamic Scene layout. Both sets of poses are aligned by the similarity (rotation, translation
and scale) that brings the camera positions closest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float

from benchmarks.machine import describe
from benchmarks.scenes import RESULTS
from semflow_nerfstudio.cli.report import print_scores, progress, write_json
from semflow_nerfstudio.data.layout import read_scene_folder
from semflow_nerfstudio.process.check import read_transforms_scene
from semflow_nerfstudio.process.pipeline import ProcessOptions, process_scene


@dataclass
class PoseBenchmark:
    """Which scene."""

    scene: Path
    """Folder with images/ and poses_bounds.npy."""
    out: Path = Path("outputs/benchmarks/poses")
    """Where the processed scene goes."""

    def main(self) -> None:
        """Process the images, compare, write."""
        given = read_scene_folder(self.scene)
        process_scene(given.images[0].parent, self.out / self.scene.name, ProcessOptions(), progress)
        found = read_transforms_scene(self.out / self.scene.name)
        rows = [[image.stem for image in given.images].index(image.stem) for image in found.images]
        scores = compare(found.cameras.camera_to_worlds.numpy(), given.cameras.poses[rows])
        focal = float(found.cameras.intrinsics[:, 0].mean() / given.cameras.intrinsics[rows, 0].mean())
        scores |= {"focal_ratio": focal, "frames": len(rows), "given_frames": len(given.images)}
        result = {
            "benchmark": "poses",
            "scene": self.scene.name,
            "method": "colmap",
            "machine": describe(torch.device("cpu")),
            "scores": scores,
        }
        write_json(RESULTS / f"poses_{self.scene.name.lower()}_colmap.json", result)
        print_scores(scores, f"{self.scene.name}: COLMAP against the given poses")


def align(
    points: Float[np.ndarray, "N 3"], targets: Float[np.ndarray, "N 3"]
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Scale, rotation and translation with which `scale * rotation @ point + translation` is nearest to the targets."""
    center, goal = points.mean(0), targets.mean(0)
    left, strength, right = np.linalg.svd((targets - goal).T @ (points - center))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ sign @ right
    scale = float((strength * np.diag(sign)).sum() / ((points - center) ** 2).sum())
    return scale, rotation, goal - scale * rotation @ center


def compare(found: Float[np.ndarray, "N 3 4"], given: Float[np.ndarray, "N 3 4"]) -> dict[str, Any]:
    """Errors of camera-to-world matrices after alignment.

    Rotations in degrees, after alignment and, which needs none, from frame to frame; positions as a share of the given
    path's extent (its largest distance between cameras).
    """
    scale, rotation, translation = align(found[:, :, 3], given[:, :, 3])
    position = scale * found[:, :, 3] @ rotation.T + translation
    turn = np.einsum("ij,njk,nlk->nil", rotation, found[:, :, :3], given[:, :, :3])
    angle = _degrees(turn)
    steps = [np.einsum("nji,njk->nik", poses[:-1, :, :3], poses[1:, :, :3]) for poses in (found, given)]
    step = _degrees(np.einsum("nij,nkj->nik", *steps))
    extent = np.linalg.norm(given[:, None, :, 3] - given[None, :, :, 3], axis=-1).max()
    miss = np.linalg.norm(position - given[:, :, 3], axis=-1) / extent
    return {
        "rotation_degrees_mean": float(angle.mean()),
        "rotation_degrees_max": float(angle.max()),
        "step_rotation_degrees_mean": float(step.mean()),
        "translation_share_mean": float(miss.mean()),
        "translation_share_max": float(miss.max()),
    }


def _degrees(rotations: Float[np.ndarray, "N 3 3"]) -> Float[np.ndarray, "N"]:
    """Angles of rotation matrices."""
    return np.degrees(np.arccos(np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1)))


if __name__ == "__main__":
    tyro.cli(PoseBenchmark).main()
