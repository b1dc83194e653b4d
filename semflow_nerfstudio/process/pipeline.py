"""All steps from a video or a folder to a `semflow-data` scene."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from semflow_nerfstudio.data.checks import SceneDataError, check_near_far
from semflow_nerfstudio.process import motion
from semflow_nerfstudio.process.depth_range import depth_range
from semflow_nerfstudio.process.disparity import make_disparity
from semflow_nerfstudio.process.frames import IMAGES, FrameOptions, Frames, consecutive, make_frames
from semflow_nerfstudio.process.labels.found import ImportedLabels, LabelSource
from semflow_nerfstudio.process.labels.importer import read_labels_of
from semflow_nerfstudio.process.labels.step import Show, earlier_source, labels_step
from semflow_nerfstudio.process.optical_flow import DIS, RAFT, Flows, flow_method, make_flows, read_rgb
from semflow_nerfstudio.process.pose_check import PoseCheck, check_poses
from semflow_nerfstudio.process.poses.colmap import colmap_poses, find_colmap
from semflow_nerfstudio.process.poses.files import file_poses, find_file
from semflow_nerfstudio.process.poses.static import WARNING, static_poses
from semflow_nerfstudio.process.poses.track import PoseTrack
from semflow_nerfstudio.process.sources import open_source
from semflow_nerfstudio.process.steps import RECORDS, Progress, Step, claim, each, file_stamp, write_json
from semflow_nerfstudio.process.summary import SUMMARY, Summary, pose_errors
from semflow_nerfstudio.process.write import transforms

ROUGH_MASKS = "process/feature_masks"


@dataclass(frozen=True)
class ProcessOptions:
    """How a scene is made."""

    poses: str = "colmap"
    """`colmap`, `static`, or a path: transforms.json, poses_bounds.npy (LLFF), JSON with 3x5 matrices, a TUM
    trajectory, or the folder of a COLMAP model."""
    frames: FrameOptions = field(default_factory=FrameOptions)
    flow: str = "dis"
    """`dis` (OpenCV, no weights), `raft` (weights from torch's cache), or the path of RAFT weights."""
    disparity: Path | None = None
    """Folder of a depth tool's output, inverse depth as .npy, .npz or grey images."""
    labels: LabelSource | None = None
    """Labels of any tool; None: those that were imported earlier, if any."""
    focal: float | None = None
    """Focal length in pixels of the source, if it is known."""
    near: float | None = None
    far: float | None = None
    """Nearest and farthest camera depth of anything, in the units of the poses; None: found by triangulation."""
    accept_poses: bool = False
    """Go on with poses that do not fit the pictures."""
    jobs: int | None = None
    """Threads; None: one for each processor."""

    def __post_init__(self) -> None:
        if (self.near is None) != (self.far is None):
            raise ValueError("--near and --far go together: give both camera depths or none.")
        if self.near is not None and self.far is not None:
            check_near_far(Path("--near"), self.near, self.far, "the scene")
        if self.focal is not None and not 0 < self.focal < float("inf"):
            raise ValueError(f"--focal is {self.focal}: use the focal length in pixels of the video.")


def process_scene(
    source: Path,
    scene: Path,
    options: ProcessOptions,
    show: Show,
) -> Summary:
    """Make a scene, or finish one that was begun; steps that are done with the same input and options are not redone.

    Args:
        source: Video file or folder of images.
        scene: Folder of the scene, new or made by an earlier call.
        options: How.
        show: Shows progress.

    Raises:
        SceneDataError: input that cannot be used, poses that do not fit the pictures.
    """
    opened, method = open_source(source), flow_method(options.flow)
    if options.poses == "colmap":
        find_colmap()
    elif options.poses != "static":
        find_file(Path(options.poses))
    if options.disparity is not None and not options.disparity.is_dir():
        raise SceneDataError(f"--disparity {options.disparity} is no folder: pass the folder of a depth tool's output.")
    if options.labels is not None:
        read_labels_of(options.labels)
    claim(scene, source)
    return _Work(scene, options, method, show).run(opened)


class _Work:
    """The steps, in order, with what they share."""

    def __init__(self, scene: Path, options: ProcessOptions, method: DIS | RAFT, show: Show) -> None:
        self.scene, self.options, self.method, self.show = scene, options, method, show

    def run(self, source: Any) -> Summary:
        scene, options = self.scene, self.options
        with self.show("Frames") as progress:
            frames_step, taken = make_frames(scene, source, options.frames, progress)
        with self.show("Optical flow") as progress:
            flow_step = self.make_flows(taken, frames_step, progress)
        poses_step, track = self.poses(taken, frames_step, flow_step)
        frames, track = _posed(taken, track)
        if len(frames.frames) < len(taken.frames):
            with self.show("Optical flow across gaps") as progress:
                flow_step = self.make_flows(frames, flow_step, progress, "flow_across_gaps")
        images = [scene / IMAGES / frame.name for frame in frames.frames]
        flows = Flows(scene, [image.name for image in images])
        pairs = list(consecutive(frames.frames))
        check_step, check = self.check(track, flows, pairs, [poses_step, flow_step])
        names = [(images[error.frame].name, images[error.other].name) for error in check.errors]
        errors, warnings = pose_errors(check, names, f"The poses ({track.method})")
        if errors and not options.accept_poses:
            table = "\n".join(f"  {a} {b}: {e.error:.2f} px" for e, (a, b) in zip(check.errors, names, strict=True))
            raise SceneDataError(f"{errors[0]} Mend them, or go on all the same with --accept-poses.\n{table}")
        masks_step, masks, moving = self.masks(images, flows, track, [check_step])
        bounds = self.bounds(images, track, masks, masks_step)
        disparity: Sequence[Path | None] = [None] * len(images)
        if options.disparity is not None:
            with self.show("Disparity") as progress:
                _, disparity = make_disparity(
                    scene, options.disparity, frames, [frames_step, poses_step], options.jobs, progress
                )
        lost = [frame for frame in taken.frames if frame not in frames.frames]
        labels = self.labels(frames, [frame.name for frame in lost])
        content = transforms(scene, frames, track, flows, masks, disparity, bounds, labels)
        write_json(scene / "transforms.json", content)
        if options.poses == "static":
            warnings.append(WARNING)
        if labels is not None:
            warnings += labels.warnings
        summary = Summary(
            scene=str(scene),
            frames=len(images),
            size=(frames.width, frames.height),
            poses=track.method,
            counts={
                "labels": (len(labels.files) if labels is not None else 0, len(images)),
                "optical flow": (2 * len(pairs), 2 * len(pairs)),
                "motion masks": (sum(mask is not None for mask in masks), len(images)),
                "disparity or depth": (sum(path is not None for path in disparity), len(images)),
                "near and far": (int(bounds is not None), 1),
            },
            pose_check=check,
            pair_names=names,
            left_out=[*frames.left_out, *(f"{frame.source} got no pose" for frame in lost)],
            warnings=warnings + errors,
            details={"moving pixels": f"{moving:.1%}"}
            | ({"near and far": f"{bounds[0]:.4g} to {bounds[1]:.4g}"} if bounds is not None else {}),
        )
        write_json(scene / RECORDS / SUMMARY, summary.to_json())
        return summary

    def make_flows(self, frames: Frames, after: Step, progress: Progress, name: str = "flow") -> Step:
        images = [self.scene / IMAGES / frame.name for frame in frames.frames]
        pairs = list(consecutive(frames.frames))
        return make_flows(self.scene, images, pairs, self.method, after, self.options.jobs, progress, name)

    def poses(self, frames: Frames, frames_step: Step, flow_step: Step) -> tuple[Step, PoseTrack]:
        """Poses of all frames, from where the options say."""
        kind, focal = self.options.poses, self.options.focal
        inputs: dict[str, Any] = {"poses": kind, "focal": focal}
        if kind not in ("colmap", "static"):
            found = find_file(Path(kind))
            files = sorted(found.iterdir()) if found.is_dir() else [found]
            inputs["files"] = [file_stamp(file) for file in files if file.is_file()]
        after = [frames_step, flow_step] if kind == "colmap" else [frames_step]
        step = Step(self.scene, "poses", inputs, after=after)
        result = step.result()
        if result is not None:
            return step, PoseTrack.from_json(result)
        step.begin()
        if kind == "static":
            track = static_poses(frames, focal)
        elif kind == "colmap":
            masks = self.feature_masks(frames, flow_step)
            with self.show("COLMAP") as progress:
                track = colmap_poses(self.scene, frames, masks, focal, self.options.jobs, progress)
        else:
            track = file_poses(Path(kind), frames, focal)
        if not track.known.sum() >= 3:
            raise SceneDataError(f"{kind} has poses for {track.known.sum()} frames: at least 3 are needed.")
        return step, PoseTrack.from_json(step.finish(track.to_json()))

    def feature_masks(self, frames: Frames, flow_step: Step) -> Path:
        """White where COLMAP may look for features: everywhere but on movers, found from the flow alone."""
        images = [self.scene / IMAGES / frame.name for frame in frames.frames]
        flows = Flows(self.scene, [image.name for image in images])
        folder = self.scene / ROUGH_MASKS
        targets = [folder / f"{image.name}.png" for image in images]
        step = Step(self.scene, "feature_masks", {}, after=[flow_step], folders=(ROUGH_MASKS,))
        if step.result() is None:
            step.begin()

            def work(index: int) -> None:
                if not step.has(targets[index]):
                    mask = motion.rough_mask(images, flows, index, _around(index, len(images)))
                    shape = (frames.height, frames.width)
                    motion.write_mask(targets[index], np.ones(shape, bool) if mask is None else ~mask)

            with self.show("Masks for COLMAP") as progress:
                each(range(len(images)), work, self.options.jobs, progress)
            step.finish({}, targets)
        return folder

    def check(
        self, track: PoseTrack, flows: Flows, pairs: Sequence[tuple[int, int]], after: Sequence[Step]
    ) -> tuple[Step, PoseCheck]:
        """Whether the poses fit the flow."""
        step = Step(self.scene, "pose_check", {}, after=after)
        result = step.result()
        if result is None:
            step.begin()
            with self.show("Checking poses") as progress:
                found = check_poses(track.cameras(), pairs, flows.read, progress)
            result = step.finish(found.to_json())
        return step, PoseCheck.from_json(result)

    def masks(
        self, images: Sequence[Path], flows: Flows, track: PoseTrack, after: Sequence[Step]
    ) -> tuple[Step, list[Path | None], float]:
        """Motion masks, and the share of pixels that move."""
        kept = self.scene / motion.EVIDENCE
        step = Step(self.scene, "motion_masks", {}, after=after, folders=(motion.MASKS, motion.EVIDENCE), version=2)
        targets = [self.scene / motion.MASKS / image.name for image in images]
        result = step.result()
        if result is None:
            step.begin()
            found = motion.PosedMotion(images, flows, track.cameras())

            def work(index: int) -> None:
                mask = found.mask(index)
                if mask is not None:
                    motion.write_mask(targets[index], mask)

            def look(index: int) -> None:
                found.look(index, kept / f"{index:05d}.npz")

            with self.show("What moves") as progress:
                each(range(len(images)), look, self.options.jobs, progress)
            with self.show("Motion masks") as progress:
                each(range(len(images)), work, self.options.jobs, progress)
            made = [target for target in targets if target.is_file()]
            share = float(np.mean([motion.read_mask(target).mean() for target in made])) if made else 0.0
            result = step.finish({"moving": share}, made)
            shutil.rmtree(kept, ignore_errors=True)
        return step, [target if target.is_file() else None for target in targets], result["moving"]

    def bounds(
        self, images: Sequence[Path], track: PoseTrack, masks: Sequence[Path | None], after: Step
    ) -> tuple[float, float] | None:
        """Near and far depth: given, or stated with the poses, or triangulated."""
        if self.options.near is not None and self.options.far is not None:
            return self.options.near, self.options.far
        if track.depth_range is not None:
            return track.depth_range
        step = Step(self.scene, "depth_range", {"flow": self.method.stamp}, after=[after])
        result = step.result()
        if result is None:
            step.begin()

            def moving(index: int) -> np.ndarray | None:
                mask = masks[index]
                return None if mask is None else motion.read_mask(mask)

            with self.show("Depth range") as progress:
                found = depth_range(
                    track.cameras(), lambda index: read_rgb(images[index]), self.method, moving, progress
                )
            result = step.finish({"bounds": found})
        return None if result["bounds"] is None else (result["bounds"][0], result["bounds"][1])

    def labels(self, frames: Frames, unposed: Sequence[str]) -> ImportedLabels | None:
        """Labels, if there are any."""
        source = self.options.labels or earlier_source(self.scene)
        if source is None:
            return None
        names = [frame.name for frame in frames.frames]
        size = (frames.width, frames.height)
        return labels_step(self.scene, source, names, [*frames.skipped, *unposed], size, self.show)


def _posed(frames: Frames, track: PoseTrack) -> tuple[Frames, PoseTrack]:
    """Only the frames that have a pose."""
    keep = np.nonzero(track.known)[0]
    distortion = None if track.distortion is None else track.distortion[keep]
    kept = replace(
        track,
        poses=track.poses[keep],
        intrinsics=track.intrinsics[keep],
        known=track.known[keep],
        distortion=distortion,
    )
    return replace(frames, frames=[frames.frames[index] for index in keep]), kept


def _around(index: int, count: int) -> list[int]:
    return [other for other in (index - 1, index + 1) if 0 <= other < count]
