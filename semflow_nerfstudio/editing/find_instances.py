"""Finds the instances of a trained scene: rendered surfaces -> connected components -> volumes of the densities."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.components import (
    Voxels,
    absorb_satellites,
    centers,
    fragments,
    moving_objects,
    voxelise,
)
from semflow_nerfstudio.editing.instances import IdGrid, Instance, Instances
from semflow_nerfstudio.editing.scene_state import SceneState, check_known
from semflow_nerfstudio.editing.shadows import Shadows
from semflow_nerfstudio.editing.targets import MOVING_MARGIN, needs_instances
from semflow_nerfstudio.editing.volumes import Solids, fill
from semflow_nerfstudio.flow.trajectories import Velocity, integrate
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.surface_points import SurfacePoints, bank_camera, surface_points

if TYPE_CHECKING:
    from semflow_nerfstudio.model import SemanticFlowModel
    from semflow_nerfstudio.runs import Progress, Run


@dataclass(frozen=True)
class FindOptions:
    """How instances are found."""

    rays_per_view: int = 16_384
    """Frames are rendered with at most this many rays each."""
    rays: int = 2_000_000
    """Rays in all; long clips are rendered smaller."""
    views_per_time: int = 3
    """Cameras, of those that took a frame at a time, that are rendered at it."""
    confidence: float = 0.5
    """Points of less confidence are left out: silhouettes, thin air, uncertain labels."""
    footprint: float = 1.25
    """Edge of a voxel in pixels, as far away as most of what is seen."""
    cells: int = 4_000_000
    """Voxels of a grid at one time at most."""
    cells_over_time: int = 24_000_000
    """Voxels of the movers' grid at all times together at most."""
    least_voxels: int = 12
    """Smaller components, by the mean of the frames at which they are there, are no instances."""
    least_share: float = 0.02
    """Nor are components of less than this share of the largest one of their label."""


def instances_of(run: Run, scene: str | None = None, progress: Progress | None = None) -> Instances:
    """The instances of a scene of a run: read from beside its config.yml, or found and kept there.

    Args:
        run: A trained run.
        scene: Which scene; None: the first.
        progress: Told after every rendered view.
    """
    return instances_beside(run.model, run.config.get_base_dir(), scene, progress)


def instances_beside(
    model: SemanticFlowModel, folder: Path, scene: str | None = None, progress: Progress | None = None
) -> Instances:
    """The same for a model whose run is in a folder."""
    name = scene_name(model, scene)
    path = instances_file(model, folder, name)
    fingerprint = fingerprint_of(model, name)
    try:
        found = Instances.load(path)
    except SceneDataError:
        found = None
    if found is None or found.fingerprint != fingerprint:
        found = find_instances(model, name, progress=progress)
        found.save(path)
    return with_flow(found, model.scene(name))


def show_state(model: SemanticFlowModel, folder: Path, state: SceneState, progress: Progress | None = None) -> None:
    """Show a scene of a run as a state says, with its instances where the state needs them.

    Args:
        model: The run's model.
        folder: The run's folder, where instances are kept.
        state: The edits.
        progress: Told while instances are looked for.

    Raises:
        ValueError: the state names what the run does not have.
    """
    check_known(state, model.class_names, None, list(model.scenes))
    named = any(needs_instances(target) for target in state.targets)
    found = instances_beside(model, folder, model.edited_scene(state), progress) if named else None
    model.set_scene_state(state, found)


def instances_file(model: SemanticFlowModel, folder: Path, scene: str) -> Path:
    """Where the instances of a scene are kept."""
    alone = len(model.scenes) == 1
    return folder / ("instances.npz" if alone else f"instances_{scene}.npz")


def scene_name(model: SemanticFlowModel, name: str | None) -> str:
    """A scene of the model by name, None for the first.

    Raises:
        ValueError: there is none of that name.
    """
    names = list(model.scenes)
    if name is None:
        return names[0]
    if name not in names:
        raise ValueError(f"there is no scene '{name}' in this run; it has {', '.join(names)}")
    return name


def fingerprint_of(model: SemanticFlowModel, scene: str) -> str:
    """A digest of all weights that a scene is rendered with."""
    digest = hashlib.blake2b(digest_size=16)
    other = tuple(f"{kind}.{name}." for name in model.scenes if name != scene for kind in ("scenes", "samplers"))
    for key, value in sorted(model.state_dict().items()):
        if not key.startswith(other):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def velocity_anywhere(scene: Scene) -> Velocity:
    """A scene's flow at points on any device."""

    def velocity(points: Float[Tensor, "P 3"], times: Float[Tensor, "P 1"]) -> Float[Tensor, "P 3"]:
        return scene.velocity(points.to(scene.device), times.to(scene.device)).to(points.device)

    return velocity


def with_flow(instances: Instances, scene: Scene) -> Instances:
    """The same instances, which follow the scene's flow between frames."""
    instances.velocity, instances.tau = velocity_anywhere(scene), float(scene.timeline.tau)
    return instances


@torch.no_grad()
def find_instances(
    model: SemanticFlowModel,
    scene: str | None = None,
    options: FindOptions | None = None,
    progress: Progress | None = None,
) -> Instances:
    """Find the instances of a scene by rendering its frames.

    Surfaces come from the frames' own cameras at their own times. What lies behind them is filled in from the
    densities: every voxel that stops light belongs to the nearest surface within the object's reach (`volumes.REACH`).
    """
    options = options or FindOptions()
    name = scene_name(model, scene)
    place = model.scene(name)
    times = place.bank.timeline.times.cpu().double().numpy()
    views = render_frames(model, name, options, progress)
    moving = _movers(place, views, len(times), options)
    static = _statics(place, views, options)
    found = _collect(moving, static, times, fingerprint_of(model, name))
    return with_flow(found.with_shadows(_shadows(found, place, views)), place)


@dataclass
class _View:
    """Confident points of one rendered frame."""

    time: int
    frame: int
    size: tuple[int, int]
    """Width and height."""
    everything: SurfacePoints
    """Points of all pixels, row by row."""
    points: SurfacePoints
    footprint: Float[Tensor, "P"]
    """Scene units that a pixel covers at each point's distance."""


def render_frames(
    model: SemanticFlowModel, scene: str, options: FindOptions, progress: Progress | None = None
) -> list[_View]:
    """Confident surface points of a scene's frames."""
    place = model.scene(scene)
    chosen: list[tuple[int, int]] = []
    for time, row in enumerate(place.bank.views.cpu()):
        frames = row[row >= 0].tolist()
        picked = np.linspace(0, len(frames) - 1, min(len(frames), options.views_per_time)).round().astype(int)
        chosen += [(time, frames[i]) for i in picked]
    limit = min(options.rays_per_view, max(1, options.rays // len(chosen)))
    views = []
    for done, (time, frame) in enumerate(chosen):
        camera = bank_camera(model, scene, frame, limit)
        with model.unedited():
            everything = surface_points(model, camera)
        points = everything.pick(everything.confidence >= options.confidence)
        distance = (points.points - camera.camera_to_worlds[0, :, 3].cpu()).norm(dim=-1)
        size = int(camera.width), int(camera.height)
        views.append(_View(time, frame, size, everything, points, distance / float(camera.fx)))
        if progress is not None:
            progress(done + 1, len(chosen))
    return views


def _lattice(
    points: Float[ndarray, "P 3"], footprint: Float[ndarray, "P"], cells: int, options: FindOptions
) -> tuple[ndarray, float, tuple[int, int, int]]:
    """Corner, edge and size of a lattice around points; outliers of far backgrounds stay outside."""
    low, high = np.quantile(points, [0.002, 0.998], axis=0)
    size = options.footprint * float(np.quantile(footprint, 0.75))
    pad = 4 * size
    extent = high - low + 2 * pad
    size = max(size, float(np.cbrt(np.prod(extent) / cells)))
    shape = np.ceil(extent / size).astype(int)
    return low - pad, size, (int(shape[0]), int(shape[1]), int(shape[2]))


def _inside(voxels: Voxels, shape: tuple[int, int, int]) -> Voxels:
    kept = ((voxels.index >= 0) & (voxels.index < shape)).all(axis=1)
    return Voxels(voxels.index[kept], voxels.label[kept], voxels.object[kept])


def _movers(scene: Scene, views: list[_View], num_times: int, options: FindOptions) -> Solids | None:
    """The objects of the dynamic field, at every frame time."""
    rows = [(view.time, view.points.pick(view.points.moving), view.footprint[view.points.moving]) for view in views]
    points = torch.cat([p.points for _, p, _ in rows]).numpy()
    if len(points) < options.least_voxels:
        return None
    cells = min(options.cells, max(1, options.cells_over_time // num_times))
    origin, size, shape = _lattice(points, torch.cat([f for *_, f in rows]).numpy(), cells, options)
    frames = []
    for k in range(num_times):
        seen = [p for time, p, _ in rows if time == k]
        own = (
            SurfacePoints.cat(seen) if seen else SurfacePoints.cat([p for _, p, _ in rows]).pick(torch.zeros(0).long())
        )
        frames.append(_inside(voxelise(own.points.numpy(), own.label.numpy(), origin, size), shape))
    times = scene.bank.timeline.times

    def advect(at: ndarray, start: int, end: int) -> ndarray:
        return flow_to(scene, at, float(times[start]), float(times[end]))

    moving_objects(frames, origin, size, advect)
    labels = _objects(frames, options)
    if not labels:
        return None

    def opacity(at: Tensor, k: int) -> Tensor:
        directions = torch.zeros_like(at)[None]
        directions[..., 2] = -1.0
        out = scene.dynamic(at[None], times[k].reshape(1, 1), directions)
        return -torch.expm1(-out.density[0] * size) * out.blend[0]

    hints = [[n for n in (k - 1, k + 1) if 0 <= n < num_times] for k in range(num_times)]
    seeds = []
    for k, frame in enumerate(frames):
        carried = [(advect(centers(frames[n], origin, size), n, k), frames[n].object) for n in hints[k]]
        soft = [np.column_stack([np.floor((at - origin) / size).astype(np.int64), ids]) for at, ids in carried]
        seeds.append((frame, np.concatenate([np.zeros((0, 4), dtype=np.int64), *soft])))
    return fill(seeds, labels, origin, size, 2 * options.cells_over_time, opacity, scene.device)


def _shadows(found: Instances, scene: Scene, views: list[_View]) -> Shadows | None:
    """What the movers hide from the frames that were rendered."""
    if found.moving is None:
        return None
    width, height = views[0].size
    frames = torch.tensor([view.frame for view in views])
    cameras = scene.bank.cameras.to("cpu").scaled_to(width, height)
    distortion = None if cameras.distortion is None else cameras.distortion[frames]
    cameras = FrameCameras(cameras.camera_to_worlds[frames], cameras.intrinsics[frames], width, height, distortion)
    times = torch.as_tensor(found.times, dtype=torch.float32)
    ids, distance = [], []
    for view, pose in zip(views, cameras.camera_to_worlds, strict=True):
        seen = view.everything
        owner = found.membership(seen.points, times[view.time].expand(len(seen)), MOVING_MARGIN, "moving")
        ids.append(owner.masked_fill(~seen.moving, -1).view(height, width).short())
        distance.append((seen.points - pose[:, 3]).norm(dim=-1).view(height, width))
    rows = [[i for i, view in enumerate(views) if view.time == k] for k in range(len(times))]
    most = max(len(row) for row in rows)
    at = torch.tensor([row + [-1] * (most - len(row)) for row in rows])
    return Shadows.of(cameras, torch.stack(ids), torch.stack(distance), at)


def _statics(scene: Scene, views: list[_View], options: FindOptions) -> Solids | None:
    """The objects of the static field."""
    still = [(~view.points.moving) for view in views]
    points = SurfacePoints.cat([view.points.pick(mask) for view, mask in zip(views, still, strict=True)])
    if len(points) < options.least_voxels:
        return None
    footprint = torch.cat([view.footprint[mask] for view, mask in zip(views, still, strict=True)])
    origin, size, shape = _lattice(points.points.numpy(), footprint.numpy(), options.cells, options)
    voxels = _inside(voxelise(points.points.numpy(), points.label.numpy(), origin, size), shape)
    voxels.object[:] = fragments(voxels)[1]
    labels = _objects([voxels], options)
    if not labels:
        return None

    def opacity(at: Tensor, k: int) -> Tensor:
        directions = torch.zeros_like(at)
        directions[:, 2] = -1.0
        return -torch.expm1(-scene.static_field(scene.space(at), directions).density * size)

    return fill(
        [(voxels, np.zeros((0, 4), dtype=np.int64))], labels, origin, size, 4 * options.cells, opacity, scene.device
    )


def _objects(frames: list[Voxels], options: FindOptions) -> list[int]:
    """Leave only objects worth an id, numbered by falling size; returns their labels."""
    _keep_large(frames, options)  # satellites are looked for among few
    absorb_satellites(frames)
    return _keep_large(frames, options)


def _keep_large(frames: list[Voxels], options: FindOptions) -> list[int]:
    """Renumber objects by falling size, give up small ones, and return the labels of those kept."""
    count = 1 + max((int(f.object.max(initial=-1)) for f in frames), default=-1)
    volume, seen = np.zeros(count), np.zeros(count)
    votes: list[dict[int, int]] = [{} for _ in range(count)]
    for frame in frames:
        own = frame.object >= 0
        sizes = np.bincount(frame.object[own], minlength=count)
        volume += sizes
        seen += sizes > 0
        pairs, counts = np.unique(np.column_stack([frame.object[own], frame.label[own]]), axis=0, return_counts=True)
        for (number, label), n in zip(pairs.tolist(), counts.tolist(), strict=True):
            votes[number][label] = votes[number].get(label, 0) + n
    labels = np.array([max(v, key=lambda label: v[label]) if v else -1 for v in votes], dtype=np.int64)
    largest = {label: volume[labels == label].max() for label in set(labels.tolist())}
    kept = [
        number
        for number in np.argsort(-volume, kind="stable")
        if seen[number]
        and volume[number] / seen[number] >= options.least_voxels
        and volume[number] >= options.least_share * largest[int(labels[number])]
        and (seen[number] > 1 or len(frames) == 1)
    ]
    renumber = np.full(count + 1, -1)
    renumber[kept] = np.arange(len(kept))
    for frame in frames:
        frame.object[:] = renumber[frame.object]
    return [int(labels[number]) for number in kept]


def flow_to(scene: Scene, points: Float[ndarray, "P 3"], start: float, end: float) -> Float[ndarray, "P 3"]:
    """Where the flow takes points from one time to another, in one step of the midpoint rule."""
    at = torch.from_numpy(np.ascontiguousarray(points)).float().to(scene.device)
    column = torch.ones(len(at), 1, device=scene.device)
    moved = integrate(scene.velocity, at, column * start, column * (end - start), scene.timeline.tau)
    return moved.cpu().double().numpy()


def _collect(moving: Solids | None, static: Solids | None, times: ndarray, fingerprint: str) -> Instances:
    """Number movers first."""
    instances = []
    for solids, moves in ((moving, True), (static, False)):
        if solids is None:
            continue
        for number, label in enumerate(solids.labels):
            there = solids.volumes[number] > 0
            instances.append(
                Instance(
                    label=label,
                    moving=moves,
                    size=float(solids.volumes[number][there].mean()) * solids.grid.voxel**3,
                    centers=_bridge(solids.centers[number], there, times),
                    bounds=_bridge(solids.bounds[number], there, times),
                    present=there,
                )
            )
    first = 0 if moving is None else len(moving.labels)
    grid = None if static is None else static.grid
    if grid is not None:
        grid = IdGrid(
            grid.origin, grid.voxel, torch.where(grid.nearest >= 0, grid.nearest + first, -1).short(), grid.distance
        )
    return Instances(instances, times, None if moving is None else moving.grid, grid, fingerprint)


def _bridge(values: ndarray, there: Bool[ndarray, "T"], times: ndarray) -> ndarray:
    """Values at times at which there are none: interpolated, or the nearest at the ends."""
    if len(values) == 1 or there.all():
        return values
    flat = values.reshape(len(values), -1)
    filled = [np.interp(times, times[there], column[there]) for column in flat.T]
    return np.stack(filled, axis=-1).reshape(values.shape)
