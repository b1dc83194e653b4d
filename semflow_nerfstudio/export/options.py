"""What can be chosen about an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Units = Literal["world", "scene"]
MeshFormat = Literal["ply", "obj", "glb"]
What = Literal["points", "meshes", "images", "masks", "depth", "flow", "tracks", "cameras"]


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how."""

    what: tuple[What, ...] = ("points", "masks", "depth", "cameras")
    """Kinds of files."""
    times: tuple[float, ...] | None = None
    """Times in [0, 1], each seen by the training camera nearest to it; None: all training frames as they are."""
    camera_path: Path | None = None
    """Camera-path JSON in place of the training cameras."""
    scene: str | None = None
    """Scene of the run; None: the one that is shown."""
    units: Units = "world"
    """Coordinates of the data set, or scene units."""
    scale: float = 1.0
    """Size of the pictures relative to the training frames."""
    confidence: float = 0.5
    """Points of less confidence are left out."""
    point_format: Literal["ply", "las"] = "ply"
    """Format of point clouds."""
    depth_format: Literal["npy", "png"] = "npy"
    """float32 with NaN where nothing is seen, or 16-bit with 0 there, whose unit is in depth/depth.json."""
    mesh_per: Literal["instance", "class"] = "instance"
    """One mesh for each instance, or for each class."""
    mesh_format: MeshFormat = "ply"
    """Format of meshes."""
    mesh_resolution: int = 96
    """Cells along the longest side of an instance."""
    mesh_opacity: float = 0.5
    """A mesh's surface is where a layer of an instance voxel's thickness stops this much light."""
    track_grid: int = 40
    """Tracks start from a grid of this many points across a training frame."""
    track_frame: int = 0
    """Which training frame."""
