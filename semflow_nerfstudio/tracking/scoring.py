"""Tracks against the exact ones that the built-in scene comes with (`gt_tracks.npz`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.files import load_arrays, read_image_size
from semflow_nerfstudio.evaluation.tracking import tapvid_metrics, to_tapvid_raster
from semflow_nerfstudio.tracking.points import Queries, Tracks

TRUTH_FILE = "gt_tracks.npz"
WHOLE_CLIP = (
    "exact tracks are in the training frames of the whole clip, one a time: follow them there, in a run that holds no "
    "frame out"
)


@dataclass(frozen=True)
class TrueTracks:
    """Exact tracks of P points in N training frames, one a time."""

    query_frames: Int[np.ndarray, "P"]
    pixels: Float[np.ndarray, "P N 2"]
    """(u, v) as shares of the image's width and height."""
    visible: Bool[np.ndarray, "P N"]
    positions: Float[np.ndarray, "P N 3"]
    """World units."""

    @property
    def moving(self) -> Bool[np.ndarray, "P"]:
        """Points that do not stay where they are."""
        return np.abs(self.positions - self.positions[:, :1]).max((1, 2)) > 1e-4

    def queries(self, size: tuple[int, int]) -> Queries:
        """The points in the frames they were picked in, in pixels of a width x height image."""
        rows = np.arange(len(self.query_frames))
        return Queries(self.query_frames, self.pixels[rows, self.query_frames] * np.array(size))


def read_true_tracks(scene: Path) -> TrueTracks:
    """Read `gt_tracks.npz` of a scene's folder.

    Raises:
        SceneDataError: there is none, or it is not what `semflow make-scene` writes.
    """
    path = scene / TRUTH_FILE
    if not path.is_file():
        raise SceneDataError(
            f"{path} does not exist: exact tracks come with scenes made by `semflow make-scene`; follow points of "
            "other scenes with --grid or --points."
        )
    arrays = load_arrays(path)
    missing = {"points", "visible", "positions", "query_frame"} - arrays.keys()
    if missing:
        raise SceneDataError(f"{path} lacks the arrays {sorted(missing)}: make the scene again.")
    images = sorted((scene / "images").iterdir())
    if len(images) != arrays["points"].shape[1]:
        raise SceneDataError(f"{path} has {arrays['points'].shape[1]} frames but there are {len(images)} images.")
    return TrueTracks(
        arrays["query_frame"].astype(np.int64),
        arrays["points"] / np.array(read_image_size(images[0]), np.float64),
        arrays["visible"].astype(bool),
        arrays["positions"],
    )


def score_tracks(tracks: Tracks, truth: TrueTracks) -> dict[str, float]:
    """TAP-Vid metrics (strided: all frames but the query's own) of all points, `moving_` and `static_` ones, and the
    median 3-D distance in world units of the moving ones.

    Tracks must be those of `truth.queries`, seen in the training frames, one a time.

    Raises:
        ValueError: they are not.
    """
    if tracks.pixels.shape != truth.pixels.shape or not np.array_equal(tracks.view_times, tracks.view_cameras):
        raise ValueError(WHOLE_CLIP)
    width, height = tracks.image_size
    true = to_tapvid_raster(truth.pixels * np.array(tracks.image_size), height, width)
    predicted = to_tapvid_raster(np.nan_to_num(tracks.pixels, nan=-1e4), height, width)
    result: dict[str, float] = {}
    everything = np.ones(len(true), bool)
    for prefix, rows in (("", everything), ("moving_", truth.moving), ("static_", ~truth.moving)):
        scores = tapvid_metrics(
            truth.query_frames[rows],
            ~truth.visible[rows],
            true[rows],
            ~tracks.visible[rows],
            predicted[rows],
            "strided",
        )
        result |= {
            f"{prefix}{name}": scores[name]
            for name in ("average_jaccard", "average_pts_within_thresh", "occlusion_accuracy")
        }
    error = np.linalg.norm(tracks.positions - truth.positions, axis=-1)[truth.moving]
    return result | {"moving_median_error_world": float(np.median(error)) if error.size else float("nan")}
