"""`semflow process`: from a video or a folder of images to a scene."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Process:
    """Make a `semflow-data` scene from a video or a folder of images: frames, poses, optical flow, motion masks.

    Steps that are done are not done again unless their input or options changed; an interrupted run goes on.
    """

    source: tyro.conf.Positional[Path]
    """Video file, or folder of images."""
    out: tyro.conf.Positional[Path]
    """Folder of the scene."""
    poses: str = "colmap"
    """colmap; static (a camera that stands still); or a path: transforms.json, poses_bounds.npy (LLFF), JSON with 3x5
    matrices, a TUM trajectory, the folder of a COLMAP model."""
    rate: float | None = None
    """Frames per second that are taken (of a folder: 0.5 takes every second image); by default all, thinned out evenly
    to --count."""
    count: int = 100
    """Frames at most."""
    size: int = 960
    """Longer side of the images at most, pixels."""
    start: float = 0.0
    """Where to begin, seconds of the video (of a folder: images)."""
    end: float | None = None
    """Where to end, likewise."""
    keep_all: bool = False
    """Keep blurred and duplicate frames, too."""
    focal: float | None = None
    """Focal length in pixels of the source, if it is known."""
    flow: str = "dis"
    """Optical flow: dis (OpenCV, no weights), raft (weights from torch's cache), or the path of RAFT weights."""
    disparity: Path | None = None
    """Folder of any depth tool's output: inverse depth as .npy, .npz or grey images."""
    labels: Path | None = None
    """Labels of any tool, on some frames or all: a folder or file with CVAT's or Pascal VOC's colour masks, COCO JSON,
    DAVIS palette PNGs, LabelMe JSON, or id PNGs with a JSON table."""
    labels_format: str | None = None
    """masks, coco, davis, labelme or ids; by default told from the files."""
    background: str | None = None
    """Class of the pixels that nobody drew on; by default they are ignored."""
    foreground: tuple[str, ...] = ()
    """Classes that count as foreground in metrics and editing; by default those that the files call so."""
    report: bool = False
    """Write SCENE/report.html: one page with thumbnails of everything, to be opened anywhere."""
    near: float | None = None
    """Nearest camera depth of anything, in the units of the poses; by default found by triangulation."""
    far: float | None = None
    """Farthest camera depth."""
    accept_poses: bool = False
    """Go on with poses that do not fit the pictures."""
    jobs: int | None = None
    """Threads; by default one for each processor."""

    def main(self) -> None:
        """Make the scene, showing progress, and say what is in it and what is missing."""
        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.process.frames import FrameOptions
        from semflow_nerfstudio.process.labels.found import LabelSource
        from semflow_nerfstudio.process.pipeline import ProcessOptions, process_scene

        taken = FrameOptions(self.rate, self.count, self.size, self.start, self.end, self.keep_all)
        labels = None
        if self.labels is not None:
            labels = LabelSource(self.labels, self.labels_format, self.background, self.foreground)
        elif self.labels_format or self.background or self.foreground:
            raise ValueError("--labels-format, --background and --foreground say how to read --labels: give it, too.")
        options = ProcessOptions(
            poses=self.poses,
            frames=taken,
            flow=self.flow,
            disparity=self.disparity,
            labels=labels,
            focal=self.focal,
            near=self.near,
            far=self.far,
            accept_poses=self.accept_poses,
            jobs=self.jobs,
        )
        summary = process_scene(self.source, self.out, options, progress)
        if self.report:
            from semflow_nerfstudio.process.report import write_report

            summary.details["report"] = str(write_report(self.out, summary))
        print("\n".join(summary.lines()))
        print(f"train on it: ns-train semantic-flow-lite --data {self.out} semflow-data")
