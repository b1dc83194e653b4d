"""Meshes of instances: marching cubes on the density that belongs to each, coloured by its field."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from semflow_nerfstudio.editing.edits import Edits, Layer
from semflow_nerfstudio.editing.instances import Instances
from semflow_nerfstudio.editing.targets import MOVING_MARGIN, STATIC_MARGIN, bounds_of, center_of
from semflow_nerfstudio.export.files import write_bytes, write_ply
from semflow_nerfstudio.export.views import Units3D
from semflow_nerfstudio.scene import Scene

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Run

CHUNK = 2**17


@dataclass(frozen=True)
class MeshOptions:
    """How meshes are made."""

    resolution: int = 96
    """Cells along the longest side of an instance."""
    opacity: float = 0.5
    """The surface is where a layer of an instance voxel's thickness stops this much light."""
    least_share: float = 0.02
    """Loose pieces with less than this share of the vertices of the largest one are left out."""


@dataclass
class Mesh:
    """Triangles of one instance, or of several, in scene units."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    """Counter-clockwise seen from outside."""
    rgb: Float[ndarray, "V 3"]
    """In [0, 1]."""
    label: Int[ndarray, "V"]
    instance: Int[ndarray, "V"]

    @staticmethod
    def join(meshes: list[Mesh]) -> Mesh:
        """Several meshes as one."""
        first = np.cumsum([0, *(len(m.vertices) for m in meshes)])
        return Mesh(
            np.concatenate([m.vertices for m in meshes]),
            np.concatenate([m.faces + start for m, start in zip(meshes, first, strict=False)]),
            np.concatenate([m.rgb for m in meshes]),
            np.concatenate([m.label for m in meshes]),
            np.concatenate([m.instance for m in meshes]),
        )


@torch.no_grad()
def instance_mesh(
    run: Run, scene: str, instances: Instances, number: int, time: float, options: MeshOptions | None = None
) -> Mesh | None:
    """The mesh of an instance at a time, in scene units; None where it is not there or hidden.

    A scene state set on the model counts as it does in pictures: what is hidden is left out, what is moved stands
    elsewhere, and copies are there, too. Tints and opacities are not baked in.
    """
    options, place, edits = options or MeshOptions(), run.model.scene(scene), run.model.edits(scene)
    run.pipeline.eval()
    layers: list[Layer | None] = [None, *(edits.layers if edits is not None else ())]
    meshes = []
    for layer in layers:
        at = time if layer is None else min(max(time - layer.time_offset, 0.0), 1.0)
        if not instances.is_present(number, at):
            continue
        mesh = _of_layer(place, instances, number, at, options, edits, layer)
        if mesh is None:
            continue
        if layer is not None:
            box = bounds_of(layer.target, instances, at, place.space.aabb)
            if box is None:
                continue
            center = center_of(layer.target, instances, at, box).cpu().double().numpy()
            turn, shift = layer.turn.double().numpy(), layer.shift.double().numpy()
            mesh.vertices = (mesh.vertices - center) @ turn.T + center + shift
        meshes.append(mesh)
    return Mesh.join(meshes) if meshes else None


def _of_layer(
    scene: Scene,
    instances: Instances,
    number: int,
    time: float,
    options: MeshOptions,
    edits: Edits | None,
    layer: Layer | None,
) -> Mesh | None:
    from skimage.measure import marching_cubes

    moving = instances.is_moving(number)
    grid = instances.moving if moving else instances.static
    assert grid is not None
    low, high = instances.bounds(number, time).double().numpy()
    low, high = low - 2 * grid.voxel, high + 2 * grid.voxel
    size = float((high - low).max()) / options.resolution
    # An object is what the edits take for it: of a moved one, a wider shell would stay behind where it was.
    margin = MOVING_MARGIN if moving else STATIC_MARGIN
    shape = np.maximum(np.ceil((high - low) / size).astype(int) + 1, 2)
    lattice = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    values = []
    for at in _chunks(low + lattice * size, scene.device):
        times = torch.full_like(at[:, 0], time)
        kind = "moving" if moving else "static"
        own = instances.membership(at, times, margin, kind) == number
        if edits is not None:
            shown = edits.kept(edits.owners(at, times), layer)
            own &= shown.dynamic if moving else shown.static
        opacity = torch.zeros_like(at[:, 0])
        opacity[own] = _opacity(scene, at[own], time, moving, grid.voxel)
        values.append(opacity.cpu().numpy())
    volume = np.concatenate(values).reshape(shape)
    # What reaches the border of the box is closed there.
    volume = np.pad(volume, 1)
    if not volume.max() > options.opacity:
        return None
    vertices, faces, _, _ = marching_cubes(volume, options.opacity, gradient_direction="ascent")
    vertices, faces = _large_pieces(vertices, faces, options.least_share)
    vertices = low + (vertices - 1) * size
    rgb = np.concatenate([_colors(scene, at, time, moving) for at in _chunks(vertices, scene.device)])
    label = np.full(len(vertices), instances.label(number))
    return Mesh(vertices, faces, rgb, label, np.full(len(vertices), number))


def _opacity(scene: Scene, points: Float[Tensor, "P 3"], time: float, moving: bool, thickness: float) -> Tensor:
    """Light that a layer of one field stops."""
    ahead = torch.zeros_like(points)
    ahead[:, 2] = -1.0
    if not moving:
        return -torch.expm1(-scene.static_field(scene.space(points), ahead).density * thickness)
    out = scene.dynamic_between_frames(points[None], points.new_tensor([[time]]), ahead[None])
    return -torch.expm1(-out.density[0] * thickness) * out.blend[0]


def _colors(scene: Scene, points: Float[Tensor, "P 3"], time: float, moving: bool) -> Float[ndarray, "P 3"]:
    """Colours as the cameras' middle sees them."""
    ahead = torch.nn.functional.normalize(points - scene.bank.camera_to_worlds[:, :, 3].mean(0), dim=-1)
    if not moving:
        return scene.static_field(scene.space(points), ahead).rgb.cpu().numpy()
    return scene.dynamic_between_frames(points[None], points.new_tensor([[time]]), ahead[None]).rgb[0].cpu().numpy()


def _chunks(points: ndarray, device: torch.device) -> Iterator[Float[Tensor, "P 3"]]:
    for start in range(0, len(points), CHUNK):
        yield torch.from_numpy(points[start : start + CHUNK]).float().to(device)


def _large_pieces(vertices: ndarray, faces: ndarray, least_share: float) -> tuple[ndarray, ndarray]:
    """The connected pieces of a mesh that are not small beside the largest one."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    ones = np.ones(len(edges), dtype=bool)
    graph = coo_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(len(vertices), len(vertices)))
    _, piece = connected_components(graph, directed=False)
    sizes = np.bincount(piece)
    kept = sizes[piece] >= least_share * sizes.max()
    renumber = np.cumsum(kept) - 1
    return vertices[kept], renumber[faces[kept[faces[:, 0]]]]


def write_mesh(path: Path, mesh: Mesh, units: Units3D) -> None:
    """Write a mesh as .ply (with label and instance of every vertex), .obj or .glb (with vertex colours)."""
    vertices = units.points(mesh.vertices)
    color = (mesh.rgb * 255).round().clip(0, 255).astype(np.uint8)
    if path.suffix == ".ply":
        columns = {
            **dict(zip("xyz", vertices.T.astype(np.float32), strict=True)),
            **dict(zip(("red", "green", "blue"), color.T, strict=True)),
            "label": mesh.label.astype(np.uint8),
            "instance": mesh.instance.astype(np.int32),
        }
        write_ply(path, columns, mesh.faces)
        return
    import trimesh

    shape = trimesh.Trimesh(vertices, mesh.faces, vertex_colors=color, process=False)
    stream = io.BytesIO()
    content = shape.export(file_type=path.suffix[1:])
    stream.write(content if isinstance(content, bytes) else str(content).encode())
    write_bytes(path, stream.getvalue())
