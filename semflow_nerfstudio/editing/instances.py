"""Instances of a trained scene: connected components of a label in space and along their motion.

`Instances` says which instance a point at a time belongs to, fast enough for every sample of every ray. It is found by
`find_instances` and knows nothing but its own voxels, the times of the frames and, between frames, the flow.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.shadows import Shadows
from semflow_nerfstudio.editing.targets import Kind
from semflow_nerfstudio.flow.trajectories import Velocity
from semflow_nerfstudio.whole_file import whole_file

STEPS_PER_VOXEL = 4
"""Distances to the nearest instance are kept in this fraction of a voxel; up to 255 of them."""
FORMAT = 2


@dataclass(frozen=True)
class Instance:
    """What is known about one instance."""

    label: int
    """Class id; 255 where the run has no classes."""
    moving: bool
    size: float
    """Mean volume over the frames at which it is there, in cubic scene units."""
    centers: Float[np.ndarray, "T 3"]
    """Middle of its volume at every frame time (static ones: one row); interpolated where it is not there."""
    bounds: Float[np.ndarray, "T 2 3"]
    """Its box at every frame time, likewise."""
    present: np.ndarray
    """(T,) bool: whether it is there at a frame time."""


@dataclass(frozen=True)
class IdGrid:
    """For each voxel of a lattice, at one or several times: the nearest instance, and how far away it is."""

    origin: Float[Tensor, "3"]
    """Corner of the first voxel, scene units."""
    voxel: float
    """Edge of a voxel, scene units."""
    nearest: Int[Tensor, "T X Y Z"]
    """Instance ids, int16."""
    distance: UInt8[Tensor, "T X Y Z"]
    """In quarters of a voxel, 0 inside the instance, 255: that far or farther."""

    def lookup(self, points: Float[Tensor, "N 3"], frames: Int[Tensor, "N"] | int, margin: float) -> Int[Tensor, "N"]:
        """Ids of the instances that points are in or at most `margin` away from, -1 where there is none."""
        index = ((points - self.origin) / self.voxel).floor().long()
        size = torch.tensor(self.nearest.shape[1:], device=points.device)
        inside = ((index >= 0) & (index < size)).all(-1).nonzero()[:, 0]
        x, y, z = index[inside].unbind(-1)
        frame = frames[inside] if isinstance(frames, Tensor) else frames
        flat = ((frame * size[0] + x) * size[1] + y) * size[2] + z
        limit = min(int(margin / self.voxel * STEPS_PER_VOXEL + 1e-6), 254)
        near = self.distance.view(-1)[flat] <= limit
        result = torch.full(points.shape[:1], -1, dtype=torch.long, device=points.device)
        result[inside[near]] = self.nearest.view(-1)[flat[near]].long()
        return result

    def to(self, device: torch.device) -> IdGrid:
        """The same grid on another device."""
        return replace(
            self,
            origin=self.origin.to(device),
            nearest=self.nearest.to(device),
            distance=self.distance.to(device),
        )


class Instances:
    """The instances of one scene, with ids 0, 1, ...: first what moves, then what does not, each by falling size."""

    def __init__(
        self,
        instances: list[Instance],
        times: Float[np.ndarray, "T"],
        moving: IdGrid | None,
        static: IdGrid | None,
        fingerprint: str = "",
        shadows: Shadows | None = None,
    ) -> None:
        """
        Args:
            instances: What is known about each, by id.
            times: Times of the frames in [0, 1], ascending: those of the grid of what moves.
            moving: Where the movers are at every frame time.
            static: Where the rest is.
            fingerprint: Of the parameters that they were found in.
            shadows: What the movers hide from the frames.
        """
        self.instances = instances
        self.times = np.asarray(times, dtype=np.float64)
        self.moving, self.static, self.shadows = moving, static, shadows
        self.fingerprint = fingerprint
        self.velocity: Velocity | None = None
        """The flow field. Without it a point between frame times is looked up at the nearest frame."""
        self.tau = 1.0
        """Time step of the velocity."""
        self._on: dict[torch.device, tuple[IdGrid | None, IdGrid | None, Shadows | None]] = {}

    def with_shadows(self, shadows: Shadows | None) -> Instances:
        """The same instances, and what they hide."""
        return Instances(self.instances, self.times, self.moving, self.static, self.fingerprint, shadows)

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def ids(self) -> tuple[int, ...]:
        """All instance ids."""
        return tuple(range(len(self.instances)))

    def label(self, number: int) -> int:
        """Class id of an instance; 255 where the run has no classes."""
        return self._get(number).label

    def is_moving(self, number: int) -> bool:
        """Whether an instance belongs to the dynamic field."""
        return self._get(number).moving

    def size(self, number: int) -> float:
        """Mean volume of an instance in cubic scene units."""
        return self._get(number).size

    def is_present(self, number: int, time: float) -> bool:
        """Whether an instance is there at the frame time nearest to `time`."""
        present = self._get(number).present
        return bool(present[self._row(present, time)])

    def center(self, number: int, time: float) -> Float[Tensor, "3"]:
        """Middle of an instance at a time in [0, 1], scene units; the last known one where it is not there."""
        return self._at(self._get(number).centers, time)

    def bounds(self, number: int, time: float) -> Float[Tensor, "2 3"]:
        """Box (lowest, highest corner) of an instance at a time, scene units."""
        return self._at(self._get(number).bounds, time)

    @torch.no_grad()
    def membership(
        self,
        points: Float[Tensor, "N 3"],
        times: Float[Tensor, "N"],
        margin: float = 0.0,
        kind: Kind | None = None,
    ) -> Int[Tensor, "N"]:
        """Which instance points at times belong to.

        Between frame times a point belongs to a mover if the flow brings it there from the frame before, or to it at
        the frame after: as the dynamic field itself is rendered.

        Args:
            points: Scene units.
            times: In [0, 1]; (N,) or (N, 1).
            margin: Points at most this far from an instance belong to it, too (scene units, up to 60 voxels).
            kind: Look at movers or at static instances only. Samples of the dynamic field should ask for "moving",
                those of the static field for "static"; by default movers come first.

        Returns:
            Ids (N,), -1 where there is none.
        """
        moving, static, _ = self._grids(points.device)
        result = torch.full(points.shape[:1], -1, dtype=torch.long, device=points.device)
        if moving is not None and kind != "static":
            result = self._mover(moving, points, times.reshape(-1).to(points), margin)
        if static is not None and kind != "moving":
            rest = (result < 0).nonzero()[:, 0] if kind is None else None
            if rest is None:
                return static.lookup(points, 0, margin)
            result[rest] = static.lookup(points[rest], 0, margin)
        return result

    @torch.no_grad()
    def hidden_by(self, points: Float[Tensor, "N 3"], times: Float[Tensor, "N"], margin: float) -> Int[Tensor, "N"]:
        """Which mover hides points at times from all training frames of that time (`Shadows.lookup`), -1: none.

        Between frame times a point is hidden if it is at the frame before or at the one after, where it stands.
        """
        shadows = self._grids(points.device)[2]
        if shadows is None:
            return torch.full(points.shape[:1], -1, dtype=torch.long, device=points.device)
        known = torch.as_tensor(self.times, dtype=torch.float32, device=points.device)
        index = frame_index(known, times.reshape(-1).to(points))
        before, after = (index + 1e-3).floor().long(), (index - 1e-3).ceil().long()
        result = shadows.lookup(points, before, margin)
        rest = ((after != before) & (result < 0)).nonzero()[:, 0]
        result[rest] = shadows.lookup(points[rest], after[rest], margin)
        return result

    def _mover(
        self, grid: IdGrid, points: Float[Tensor, "N 3"], times: Float[Tensor, "N"], margin: float
    ) -> Int[Tensor, "N"]:
        known = torch.as_tensor(self.times, dtype=torch.float32, device=points.device)
        index = frame_index(known, times)
        nearest = index.round().long()
        between = (index - nearest).abs() > 1e-3
        if self.velocity is None or not bool(between.any()):
            return grid.lookup(points, nearest, margin)
        result = torch.full(points.shape[:1], -1, dtype=torch.long, device=points.device)
        exact = (~between).nonzero()[:, 0]
        result[exact] = grid.lookup(points[exact], nearest[exact], margin)
        # Far from all movers of both frames nothing has to be carried along the flow, which is the costly part.
        rows = between.nonzero()[:, 0]
        highest = grid.origin + grid.voxel * torch.tensor(grid.nearest.shape[1:], device=points.device)
        rows = rows[((points[rows] >= grid.origin) & (points[rows] <= highest)).all(-1)]
        lower = index[rows].floor().long()
        other = torch.where(nearest[rows] == lower, lower + 1, lower)
        for frame in (nearest[rows], other):
            carried = self.carry(points[rows], times[rows], known[frame])
            found = grid.lookup(carried, frame, margin)
            result[rows] = torch.where(result[rows] < 0, found, result[rows])
        return result

    def carry(
        self, points: Float[Tensor, "N 3"], times: Float[Tensor, "N"], targets: Float[Tensor, "N"], iterations: int = 2
    ) -> Float[Tensor, "N 3"]:
        """Where points at times are at other times, by inverting the flow of those times as `Scene` does."""
        assert self.velocity is not None
        steps = ((targets - times) / self.tau)[:, None]
        there = points
        for _ in range(iterations):
            there = points + steps * self.velocity(there, targets[:, None])
        return there

    # ------------------------------------------------------------------ on disk

    def save(self, path: Path) -> None:
        """Write everything but the flow to an .npz file."""
        count, frames = len(self.instances), len(self.times)
        arrays: dict[str, np.ndarray] = {
            "format": np.array(FORMAT),
            "fingerprint": np.array(self.fingerprint),
            "times": self.times,
            "label": np.array([i.label for i in self.instances], dtype=np.int64),
            "is_moving": np.array([i.moving for i in self.instances], dtype=bool),
            "size": np.array([i.size for i in self.instances], dtype=np.float64),
        }
        shapes = {"centers": (3,), "bounds": (2, 3), "present": ()}
        for name, shape in shapes.items():
            rows = [np.broadcast_to(getattr(i, name), (frames, *shape)) for i in self.instances]
            arrays[name] = np.stack(rows) if rows else np.zeros((count, frames, *shape))
        for name, grid in (("moving", self.moving), ("static", self.static)):
            if grid is not None:
                arrays |= {f"{name}_{key}": np.asarray(value) for key, value in vars(grid).items()}
        if self.shadows is not None:
            arrays |= _arrays_of(self.shadows)
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    @staticmethod
    def load(path: Path) -> Instances:
        """Read what `save` wrote.

        Raises:
            SceneDataError: the file is missing, damaged or of another version.
        """
        remedy = "delete it, and the instances are found again"
        if not path.is_file():
            raise SceneDataError(f"{path} does not exist: find the instances of the run first.")
        try:
            with np.load(path, allow_pickle=False) as archive:
                data = {name: archive[name] for name in archive.files}
            if int(data["format"]) != FORMAT:
                raise SceneDataError(f"{path} is of another version: {remedy}.")
            instances = [
                Instance(int(label), bool(moving), float(size), centers, bounds, present.astype(bool))
                for label, moving, size, centers, bounds, present in zip(
                    *(data[k] for k in ("label", "is_moving", "size", "centers", "bounds", "present")), strict=True
                )
            ]
            grids = [_grid_from(data, name) for name in ("moving", "static")]
            shadows = _shadows_from(data)
            return Instances(instances, data["times"], *grids, fingerprint=str(data["fingerprint"]), shadows=shadows)
        except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
            if isinstance(error, SceneDataError):
                raise
            raise SceneDataError(f"{path} cannot be read as instances ({error}): {remedy}.") from error

    # ------------------------------------------------------------------ pieces

    def _get(self, number: int) -> Instance:
        if not 0 <= number < len(self.instances):
            last = f"0 to {len(self.instances) - 1}" if self.instances else "none"
            raise ValueError(f"there is no instance {number}; the ids are {last}")
        return self.instances[number]

    def _row(self, rows: np.ndarray, time: float) -> int:
        return int(np.abs(self.times - time).argmin()) if len(rows) > 1 else 0

    def _at(self, values: np.ndarray, time: float) -> Tensor:
        if len(values) == 1:
            return torch.as_tensor(values[0], dtype=torch.float32)
        upper = int(np.clip(np.searchsorted(self.times, time), 1, len(self.times) - 1))
        low, high = self.times[upper - 1], self.times[upper]
        share = float(np.clip((time - low) / (high - low), 0, 1))
        return torch.as_tensor((1 - share) * values[upper - 1] + share * values[upper], dtype=torch.float32)

    def _grids(self, device: torch.device) -> tuple[IdGrid | None, IdGrid | None, Shadows | None]:
        if device not in self._on:
            moving, static = (None if grid is None else grid.to(device) for grid in (self.moving, self.static))
            self._on[device] = (moving, static, None if self.shadows is None else self.shadows.to(device))
        return self._on[device]


def frame_index(known: Float[Tensor, "T"], times: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Fractional index of times among the frames' times, clamped to the clip."""
    if known.numel() < 2:
        return torch.zeros_like(times)
    times = times.clamp(known[0], known[-1])
    upper = torch.searchsorted(known, times.contiguous()).clamp(1, known.numel() - 1)
    return upper - 1 + (times - known[upper - 1]) / (known[upper] - known[upper - 1])


def _grid_from(data: dict[str, np.ndarray], name: str) -> IdGrid | None:
    if f"{name}_voxel" not in data:
        return None
    origin, nearest, distance = (torch.from_numpy(data[f"{name}_{k}"]) for k in ("origin", "nearest", "distance"))
    return IdGrid(origin, float(data[f"{name}_voxel"]), nearest, distance)


def _arrays_of(shadows: Shadows) -> dict[str, np.ndarray]:
    cameras = shadows.cameras
    values = {
        "poses": cameras.camera_to_worlds,
        "intrinsics": cameras.intrinsics,
        "ids": shadows.ids,
        "distance": shadows.distance,
        "views": shadows.views,
    }
    if cameras.distortion is not None:
        values["distortion"] = cameras.distortion
    return {f"shadows_{name}": value.numpy() for name, value in values.items()}


def _shadows_from(data: dict[str, np.ndarray]) -> Shadows | None:
    if "shadows_ids" not in data:
        return None
    prefix = "shadows_"
    own = {name.removeprefix(prefix): torch.from_numpy(v) for name, v in data.items() if name.startswith(prefix)}
    _, height, width = own["ids"].shape
    cameras = FrameCameras(own["poses"], own["intrinsics"], width, height, own.get("distortion"))
    return Shadows(cameras, own["ids"], own["distance"], own["views"])
