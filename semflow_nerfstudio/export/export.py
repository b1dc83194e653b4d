"""Exports of a trained run: one rendering of every view feeds all files that are asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy import ndarray

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.find_instances import fingerprint_of, instances_of, scene_name
from semflow_nerfstudio.editing.instances import Instances
from semflow_nerfstudio.editing.scene_state import SceneState, check_known
from semflow_nerfstudio.export.cameras import write_cameras
from semflow_nerfstudio.export.files import write_array, write_flo, write_image, write_json
from semflow_nerfstudio.export.masks import write_classes, write_coco, write_masks
from semflow_nerfstudio.export.meshes import Mesh, MeshOptions, instance_mesh, write_mesh
from semflow_nerfstudio.export.options import ExportOptions, What
from semflow_nerfstudio.export.points import point_table, write_points
from semflow_nerfstudio.export.views import ExportView, Seen, Units3D, export_views, see

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Progress, Run

PER_VIEW: tuple[What, ...] = ("points", "images", "masks", "depth", "flow")
"""What is made of renderings."""
NOTE = "export.json"
"""Says what the export in a folder is of."""

Step = Callable[[], None]


def export_run(
    run: Run,
    out: Path,
    options: ExportOptions | None = None,
    state: SceneState | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Export a run into a folder.

    Every file appears when it is complete. An export that was interrupted goes on where it was when it is started
    again with the same run and options.

    Args:
        run: A trained run.
        out: The folder.
        options: What, and how.
        state: Edits to apply; None: those that the run shows, none unless `semflow select` chose some.
        progress: Told (done, total) after every view, mesh and table.

    Returns:
        The folders that were written, and for cameras a file.

    Raises:
        ValueError: options that make no sense or name what is not there.
        SceneDataError: `out` holds something else.
    """
    options = options or ExportOptions()
    if not options.what:
        raise ValueError("say what to export: points, meshes, images, masks, depth, flow, tracks or cameras")
    if not 0 <= options.confidence <= 1:
        raise ValueError(f"the confidence is {options.confidence:g}: use a number from 0 to 1")
    if options.mesh_resolution < 4 or not 0 < options.mesh_opacity < 1:
        raise ValueError("meshes need a resolution of at least 4 cells and an opacity between 0 and 1")
    shown = run.model.scene_state
    name = scene_name(run.model, options.scene or (None if state is None else state.scene) or run.model.shown_scene)
    if state is None and run.model.edited_scene(shown) == name:
        state = shown
    state = SceneState() if state is None else state
    if "tracks" in options.what and state.edits_scene:
        raise ValueError("tracks are those of the scene as it was captured: export them without edits of it")
    if state.scene not in (None, name):
        raise ValueError(f"the edits are of scene '{state.scene}', but scene '{name}' is to be exported: choose one")
    state = replace(state, scene=name)
    check_known(state, run.model.class_names, None, list(run.model.scenes))
    views = export_views(run, name, options.times, options.camera_path, options.scale)
    note = _check_free(out, run, name, options, state)
    job = _Job(run, out, name, options, views, Units3D.of(run, name, options.units), instances_of(run, name))
    with run.model.showing(state, job.instances):
        write_json(out / NOTE, note)
        steps = list(job.steps())
        for done, step in enumerate(steps):
            step()
            if progress is not None:
                progress(done + 1, len(steps))
    return [out / ("transforms.json" if kind == "cameras" else kind) for kind in options.what]


def _check_free(out: Path, run: Run, scene: str, options: ExportOptions, state: SceneState) -> dict[str, Any]:
    """What an export's folder says of it; the folder must be empty, or say just this."""
    from semflow_nerfstudio.editing.scene_state_file import to_json

    own: dict[str, Any] = {
        "semflow_export": 1,
        "scene": scene,
        "fingerprint": fingerprint_of(run.model, scene),
        "options": asdict(options),
        "scene_state": to_json(state),
        "units": options.units,
    }
    own = json.loads(json.dumps(own, default=str))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        try:
            known = json.loads((out / NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        # An export that failed before its first file leaves its note alone.
        begun = known is not None and "semflow_export" in known and len(list(out.iterdir())) == 1
        if known != own and not begun:
            raise SceneDataError(f"{out} holds something else than this export: choose another folder or empty it.")
    return own


@dataclass
class _Job:
    run: Run
    out: Path
    scene: str
    options: ExportOptions
    views: list[ExportView]
    units: Units3D
    instances: Instances

    def steps(self) -> list[Step]:
        """What is to be done, in order; a step whose files are there does nothing."""
        what, result = self.options.what, []
        if any(kind in PER_VIEW for kind in what):
            result += [partial(self.view, index) for index in range(len(self.views))]
        if "masks" in what:
            result.append(self.tables)
        if "meshes" in what:
            result += [partial(self.mesh, *group) for group in self.mesh_groups()]
        if "tracks" in what:
            result.append(self.tracks)
        if "cameras" in what:
            result.append(self.cameras)
        return result

    # ------------------------------------------------------------------ views

    def files(self, name: str) -> dict[str, Path]:
        """The last file of each kind that a view gets."""
        o = self.options
        every = {
            "points": self.out / "points" / f"{name}.{o.point_format}",
            "images": self.out / "images" / f"{name}.png",
            "masks": self.out / "masks" / "instances" / f"{name}.png",
            "depth": self.out / "depth" / f"{name}.{o.depth_format}",
            "flow": self.out / "flow" / f"{name}.flo",
        }
        return {kind: path for kind, path in every.items() if kind in o.what}

    def view(self, index: int) -> None:
        """All files of one view that are not there yet."""
        entry, o = self.views[index], self.options
        following = self.views[index + 1] if index + 1 < len(self.views) else None
        missing = {kind: path for kind, path in self.files(entry.name).items() if not path.exists()}
        if following is None:
            missing.pop("flow", None)
        if not missing:
            return
        seen = see(self.run, self.scene, entry.view, self.instances)
        if "points" in missing:
            write_points(missing["points"], point_table(seen, self.units, o.confidence), o.units)
        if "images" in missing:
            write_image(missing["images"], self.picture(seen))
        if "depth" in missing:
            self.depth(missing["depth"], seen)
        if "flow" in missing and following is not None:
            tau = float(self.run.model.scene(self.scene).timeline.tau)
            write_flo(missing["flow"], seen.flow_to(following.view, tau))
        if "masks" in missing:
            write_masks(self.out / "masks", entry.name, seen, self.instances)

    def picture(self, seen: Seen) -> ndarray:
        """The rendered colours on the background's."""
        edits, scene = self.run.model.edits(self.scene), self.run.model.scene(self.scene)
        background = scene.background_color if edits is None or edits.background is None else edits.background
        opaque = seen.points.accumulation[:, None]
        rgb = (opaque * seen.points.rgb + (1 - opaque) * torch.tensor(background)).clamp(0, 1)
        return (rgb * 255).round().byte().view(*seen.shape, 3).numpy()

    def depth(self, path: Path, seen: Seen) -> None:
        """Camera z in the export's units."""
        depth = seen.depth() / self.units.scale
        if path.suffix == ".npy":
            write_array(path, depth.astype(np.float32))
        else:
            steps = np.nan_to_num(depth / self.depth_unit()).round()
            steps = np.where(steps > 65535, 0, steps.clip(0))  # farther than 16 bits reach: unknown
            write_image(path, steps.astype(np.uint16))
            write_json(path.parent / "depth.json", {"unit": self.depth_unit(), "unknown": 0})

    def depth_unit(self) -> float:
        """Units per step of 16-bit depth: a power of ten that reaches the scene's far end, and four times farther."""
        scene = self.run.model.scene(self.scene)
        reach = scene.far or float((scene.space.aabb[1] - scene.space.aabb[0]).norm())
        return float(10.0 ** np.ceil(np.log10(4 * reach / self.units.scale / 65535)))

    # ------------------------------------------------------------------ the rest

    def tables(self) -> None:
        """Class table and COCO JSON."""
        model = self.run.model
        colors, _ = model.shown_classes()
        if model.class_names:
            front = [bool(value) for value in model.foreground]
            write_classes(self.out / "masks", model.class_names, colors.cpu().numpy(), front)
        images = [
            {"id": int(v.name), "file_name": f"{v.name}.png", "width": v.view.width, "height": v.view.height}
            for v in self.views
        ]
        write_coco(self.out / "masks", images, model.class_names)

    def mesh_groups(self) -> list[tuple[Path, list[int], float]]:
        """(file, instances, time) of every mesh: static ones once, movers at every time of the views."""
        classes, groups = self.run.model.class_names, []
        times = sorted({entry.view.time for entry in self.views})
        names: dict[tuple[bool, str], list[int]] = {}
        for number in self.instances.ids:
            label = self.instances.label(number)
            kind = classes[label] if label < len(classes) else "object"
            name = kind if self.options.mesh_per == "class" else f"{number:03d}_{kind}"
            names.setdefault((self.instances.is_moving(number), safe_name(name)), []).append(number)
        for (moving, name), numbers in names.items():
            for index, time in enumerate(times if moving else times[:1]):
                folder = self.out / "meshes" / (f"{index:05d}" if moving else "static")
                groups.append((folder / f"{name}.{self.options.mesh_format}", numbers, time))
        return groups

    def mesh(self, path: Path, numbers: list[int], time: float) -> None:
        """One mesh; no file where there is nothing to show."""
        if path.exists():
            return
        mesh = MeshOptions(self.options.mesh_resolution, self.options.mesh_opacity)
        parts = [instance_mesh(self.run, self.scene, self.instances, n, time, mesh) for n in numbers]
        meshes = [part for part in parts if part is not None]
        if meshes:
            write_mesh(path, Mesh.join(meshes), self.units)

    def tracks(self) -> None:
        """Tracks of a grid of points, as NPZ and CSV."""
        from semflow_nerfstudio.tracking.files import write_tracks
        from semflow_nerfstudio.tracking.points import grid_queries
        from semflow_nerfstudio.tracking.tracker import Tracker, track_points

        path = self.out / "tracks" / "tracks"
        if path.with_suffix(".csv").exists():
            return
        tracker = Tracker(self.run, self.scene)
        queries = grid_queries(self.options.track_grid, self.options.track_frame, *tracker.image_size)
        tracks = track_points(self.run, queries, scene=self.scene)
        if self.options.units == "scene":
            positions = tracker.from_world(torch.from_numpy(tracks.positions)).numpy()
            tracks = replace(tracks, positions=positions)
        write_tracks(path, tracks)

    def cameras(self) -> None:
        """Cameras, and in transforms.json what else was exported of every view."""
        files, extra, o = {}, {}, self.options
        if "masks" in o.what and self.run.model.class_names:
            files["labels_path"] = "masks/labels/NAME.png"
            extra["classes"] = [
                {key: entry[key] for key in ("name", "color", "foreground")}
                for entry in json.loads((self.out / "masks" / "classes.json").read_text())
            ]
        if "depth" in o.what and o.depth_format == "png":
            files["depth_file_path"] = "depth/NAME.png"
            extra["depth_unit_scale_factor"] = self.depth_unit()
        write_cameras(self.out, self.views, self.units, files, extra)


def safe_name(name: str) -> str:
    """A class name as part of a file's name."""
    return re.sub(r"[^\w.-]", "_", name)
