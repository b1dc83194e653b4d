"""`semflow track`: points followed through the clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Track:
    """Follow points of the training frames through the clip: in 3-D, in every view, and whether they are seen there."""

    run: tyro.conf.Positional[Path]
    """The run's folder, or its config.yml."""
    points: Path | None = None
    """Points to follow: CSV, JSON or NPZ with columns frame (or time), x, y; other files hold lines of `frame x y`.
    Pixels of the frames at the size they were trained at, pixel centres at +.5."""
    grid: int | None = None
    """Follow a grid of points instead, this many across."""
    frame: int = 0
    """Training frame of the grid."""
    camera: int | None = None
    """Look with the camera of this training frame at all times; by default with every training frame."""
    scene: str | None = None
    """Scene of the run; by default the one that `semflow select` chose for it, or else its first."""
    score: bool = False
    """Follow the points of the scene's own exact tracks (`semflow make-scene` writes them) and score them."""
    out: Path | None = None
    """What to write: OUT.npz and OUT.csv (with --score OUT.json besides); by default `tracks` beside config.yml."""
    video: Path | None = None
    """Also draw the tracks over the rendered views: .mp4, .gif, .webm, or a new folder for PNGs."""
    tail: int = 5
    """Frames that the trails of the video go back."""
    scale: float = 1.0
    """Size of the video relative to the training frames."""
    fps: float = 6.0
    """Its frames per second."""

    def main(self) -> None:
        """Follow, write, and print where; with --score also the table."""
        from semflow_nerfstudio.cli.report import finite, print_scores, progress, write_json
        from semflow_nerfstudio.data.multi_scene import scene_folder
        from semflow_nerfstudio.runs import load_run
        from semflow_nerfstudio.tracking.files import read_points, write_tracks
        from semflow_nerfstudio.tracking.points import grid_queries
        from semflow_nerfstudio.tracking.scoring import WHOLE_CLIP, read_true_tracks, score_tracks
        from semflow_nerfstudio.tracking.tracker import Tracker, track_points
        from semflow_nerfstudio.tracking.video import track_video
        from semflow_nerfstudio.visuals.video import check_target, frame_rate

        if sum([self.points is not None, self.grid is not None, self.score]) != 1:
            raise ValueError("say what to follow: one of --points FILE, --grid N and --score")
        if self.score and self.camera is not None:
            raise ValueError("exact tracks are in the training frames: use --score without --camera")
        if self.video is not None:
            check_target(self.video)
            frame_rate(self.fps)
        run = load_run(self.run)
        tracker, truth = Tracker(run, self.scene), None
        if self.points is not None:
            queries = read_points(self.points, tracker.frame_times.cpu().numpy())
        elif self.grid is not None:
            queries = grid_queries(self.grid, self.frame, *tracker.image_size)
        else:
            number = list(run.model.scenes).index(tracker.name)
            parser = run.pipeline.datamanager.config.dataparser  # type: ignore[attr-defined]
            truth = read_true_tracks(scene_folder(parser, number))
            if len(tracker.frame_times) != truth.pixels.shape[1]:  # or a point in a missing frame is all that is said
                raise ValueError(WHOLE_CLIP)
            queries = truth.queries(tracker.image_size)
        tracks = track_points(run, queries, self.camera, self.scene)
        out = self.out or run.config.get_base_dir() / "tracks"
        files = list(write_tracks(out, tracks))
        if truth is not None:
            scores = finite(score_tracks(tracks, truth))
            files.append(files[0].with_suffix(".json"))
            write_json(files[-1], scores)
            print_scores(scores, f"{len(queries)} exact tracks")
        if self.video is not None:
            with progress("Drawing tracks") as update:
                track_video(run, tracks, self.video, self.scene, self.tail, self.scale, self.fps, update)
            files.append(self.video)
        for file in files:
            print(file)
