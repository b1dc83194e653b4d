"""Draw what `semflow export` wrote, from its files: `python -m benchmarks.export_picture EXPORT OUT.png`.

EXPORT holds points, cameras and the meshes of one time. Left to right: the points in their colours, the same in a
colour for each instance, and the meshes; all from beside and above the path of the camera.
"""

from __future__ import annotations

import colorsys
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from plyfile import PlyData

SIZE = (300, 220)
"""Width and height of a panel."""
FINER = 3
"""Panels are drawn this much larger and averaged."""
BACKGROUND = 24
LIGHT = np.array([0.3, -0.5, 0.8])


def cloud(path: Path) -> ndarray:
    """The rows of a point cloud."""
    return PlyData.read(str(path))["vertex"].data


def columns(rows: ndarray, names: str) -> ndarray:
    """Some columns of a table as (N, len)."""
    return np.stack([rows[name] for name in names.split()], axis=-1)


def instance_colors(ids: ndarray) -> UInt8[ndarray, "N 3"]:
    """A colour for each instance, grey for none; neighbours in number are far apart in hue."""
    table = [colorsys.hsv_to_rgb(0.62 * k % 1, 0.65, 0.95) for k in range(int(ids.max(initial=0)) + 1)]
    return (np.array([*table, (0.3, 0.3, 0.3)])[ids] * 255).astype(np.uint8)


def viewpoint(at: Float[ndarray, "N 3"], target: ndarray, aside: float, above: float) -> Float[ndarray, "3 4"]:
    """World-to-camera of a place beside and above a camera's, looking at a target; OpenCV axes, world z up."""
    middle = at.mean(0)
    away = middle - target
    distance = np.linalg.norm(away)
    side = np.cross(away, [0.0, 0.0, 1.0])
    place = middle + distance * (aside * side / np.linalg.norm(side) + above * np.array([0.0, 0.0, 1.0]))
    forward = (target - place) / np.linalg.norm(target - place)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.column_stack([rotation, -rotation @ place])


def drawn(at: Float[ndarray, "N 3"], colors: ndarray, camera: Float[ndarray, "3 4"], focal: float) -> ndarray:
    """Points as squares of two pixels, the nearest one in front."""
    width, height = SIZE[0] * FINER, SIZE[1] * FINER
    local = at @ camera[:, :3].T + camera[:, 3]
    local, colors = local[local[:, 2] > 1e-3], colors[local[:, 2] > 1e-3]
    pixel = (local[:, :2] / local[:, 2:] * focal * width + [width / 2, height / 2]).astype(int)
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    order = np.argsort(-local[:, 2], kind="stable")  # what is written last is nearest
    for shift in np.ndindex(FINER + 1, FINER + 1):
        place = pixel[order] + shift
        inside = ((place >= 0) & (place < [width, height])).all(axis=1)
        image[place[inside, 1], place[inside, 0]] = colors[order][inside]
    return np.asarray(Image.fromarray(image).resize(SIZE, Image.Resampling.BOX))


def surface(folder: Path) -> tuple[Float[ndarray, "N 3"], ndarray]:
    """Points on all meshes of one time, in their colours, lit."""
    parts = []
    for path in sorted(folder.rglob("*.ply")):
        mesh = trimesh.load(path, process=False)
        assert isinstance(mesh, trimesh.Trimesh)
        at, face = trimesh.sample.sample_surface_even(mesh, 60_000, seed=0)
        vertices: Any = mesh.visual
        rgb = vertices.vertex_colors[mesh.faces[face], :3].mean(axis=1)
        light = 0.55 + 0.45 * np.clip(mesh.face_normals[face] @ LIGHT / np.linalg.norm(LIGHT), 0, 1)
        parts.append((at, (rgb * light[:, None]).astype(np.uint8)))
    return np.concatenate([p for p, _ in parts]), np.concatenate([c for _, c in parts])


def main(export: Path, out: Path) -> None:
    """Draw and save."""
    tables = [cloud(path) for path in sorted((export / "points").glob("*.ply"))]
    middle = tables[len(tables) // 2]
    # What stands still from all frames, what moves from one.
    rows = np.concatenate([middle, *(t[(columns(t, "vx vy vz") == 0).all(axis=1)] for t in tables)])
    at = columns(rows, "x y z").astype(np.float64)
    frames = json.loads((export / "transforms.json").read_text())["frames"]
    places = np.array([frame["transform_matrix"] for frame in frames])[:, :3, 3]
    camera = viewpoint(places, np.median(at, axis=0), 0.45, 0.35)
    panels = [
        drawn(at, columns(rows, "red green blue"), camera, 0.8),
        drawn(at, instance_colors(rows["instance"]), camera, 0.8),
        drawn(*surface(export / "meshes"), camera, 0.8),
    ]
    Image.fromarray(np.concatenate(panels, axis=1)).save(out, optimize=True)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:3]))
