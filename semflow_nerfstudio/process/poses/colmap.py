"""Poses from COLMAP, with movers masked out of its features."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.frames import IMAGES, Frames
from semflow_nerfstudio.process.poses.track import FLIP, PoseTrack, scaled_intrinsics
from semflow_nerfstudio.process.steps import RECORDS, Progress

WORK = "colmap"
LEAST_SHARE = 0.6
"""Share of the frames that must get a pose."""
SEED = 0
EXHAUSTIVE = 40
"""Up to this many frames every pair is matched; beyond that neighbours, and powers of two apart."""
OVERLAP = 12
MISSING = (
    "--poses colmap needs the Python package pycolmap: install it with `pip install pycolmap`, or run COLMAP yourself "
    "and pass its model's folder (the one with cameras.bin) as --poses."
)
ADVICE = (
    "film with the camera moving sideways past things with texture, take more frames (--rate, --count), or give poses "
    "from elsewhere with --poses FILE"
)


def colmap_poses(
    scene: Path, frames: Frames, masks: Path | None, focal: float | None, jobs: int | None, progress: Progress
) -> PoseTrack:
    """Run COLMAP on scene/images: one camera with radial distortion, features outside `masks` alone.

    Its database and model are left in scene/process/colmap, for COLMAP's own tools.

    Args:
        scene: Folder of the scene.
        frames: Its frames.
        masks: Folder with NAME.png for image NAME, black where no features are wanted.
        focal: Focal length in pixels of the source, kept as it is; None: COLMAP estimates it.
        jobs: Threads; None: all.
        progress: Told how many frames have a pose.

    Raises:
        SceneDataError: pycolmap is missing, or too few frames got a pose.
    """
    pycolmap = load_pycolmap()
    work = scene / RECORDS / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    database, threads = work / "database.db", jobs or -1
    progress(0, len(frames.frames), "features")
    pycolmap.set_random_seed(SEED)
    reader = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL")
    if masks is not None:
        reader.mask_path = masks
    if focal is not None:
        scaled = focal * frames.width / frames.source_width
        reader.camera_params = f"{scaled},{frames.width / 2},{frames.height / 2},0"
    extraction = pycolmap.FeatureExtractionOptions(num_threads=threads, use_gpu=False)
    matching = pycolmap.FeatureMatchingOptions(num_threads=threads, use_gpu=False)
    names = [frame.name for frame in frames.frames]
    pycolmap.extract_features(
        database, scene / IMAGES, names, pycolmap.CameraMode.SINGLE, reader, extraction, pycolmap.Device.cpu
    )
    progress(0, len(names), "matches")
    if len(names) <= EXHAUSTIVE:
        pycolmap.match_exhaustive(database, matching, device=pycolmap.Device.cpu)
    else:
        pairing = pycolmap.SequentialPairingOptions(overlap=OVERLAP, quadratic_overlap=True)
        pycolmap.match_sequential(database, matching, pairing, device=pycolmap.Device.cpu)
    options = pycolmap.IncrementalPipelineOptions(
        multiple_models=False,
        min_model_size=3,
        num_threads=threads,
        random_seed=SEED,
        ba_refine_focal_length=focal is None,
        extract_colors=False,
    )
    # A clip's cameras stand closer together than the photographs that COLMAP's defaults are made for.
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.abs_pose_refine_focal_length = focal is None
    registered = 0

    def next_image() -> None:
        nonlocal registered
        registered += 1
        progress(min(registered, len(names)), len(names), "poses")

    models = pycolmap.incremental_mapping(
        database, scene / IMAGES, work, options, initial_image_pair_callback=next_image, next_image_callback=next_image
    )
    best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
    found = 0 if best is None else best.num_reg_images()
    if best is None or found < max(2, LEAST_SHARE * len(names)):
        raise SceneDataError(f"COLMAP found poses for {found} of {len(names)} frames of {scene / IMAGES}: {ADVICE}.")
    track = track_of_model(best, {name: index for index, name in enumerate(names)}, frames)
    error = best.compute_mean_reprojection_error()
    return PoseTrack(
        **{**vars(track), "method": f"COLMAP ({found} of {len(names)} frames, {error:.2f} px reprojection error)"}
    )


def load_pycolmap() -> Any:
    """COLMAP's library, kept from writing its log to the terminal.

    Raises:
        SceneDataError: it is not installed.
    """
    try:
        import pycolmap
    except ImportError:
        raise SceneDataError(MISSING) from None
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    return pycolmap


def read_model(folder: Path, places: Mapping[str, int], frames: Frames) -> PoseTrack:
    """A model folder (cameras, images, points3D, as .bin or .txt) that COLMAP made elsewhere.

    `places` are the frames' indices by the names of images: the source's own, or those of the scene.

    Raises:
        SceneDataError: no model, or one of other images.
    """
    pycolmap = load_pycolmap()
    try:
        model = pycolmap.Reconstruction(folder)
    except Exception as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SceneDataError(f"{folder} cannot be read as a COLMAP model ({detail}): export it again.") from None
    return track_of_model(model, places, frames)


def track_of_model(model: Any, places: Mapping[str, int], frames: Frames) -> PoseTrack:
    """The cameras of a reconstruction (OpenCV axes, world-to-camera) as ours."""
    count = len(frames.frames)
    poses, known = np.tile(np.eye(4)[:3], (count, 1, 1)), np.zeros(count, bool)
    intrinsics, stated, distortion = np.ones((count, 4)), np.ones((count, 2)), np.zeros((count, 6))
    for image in model.images.values():
        place = places.get(Path(image.name).name)
        if place is None or not image.has_pose:
            continue
        matrix = image.cam_from_world().inverse().matrix()
        poses[place] = np.concatenate([matrix[:, :3] @ FLIP, matrix[:, 3:]], axis=1)
        known[place] = True
        camera = model.cameras[image.camera_id]
        intrinsics[place], distortion[place] = camera_parameters(camera.model_name, list(camera.params))
        stated[place] = camera.width, camera.height
    if not known.any():
        raise SceneDataError("The COLMAP model has poses for none of the frames: pass the model of these images.")
    return PoseTrack(
        method="a COLMAP model",
        poses=poses,
        intrinsics=scaled_intrinsics(intrinsics, stated, frames.width, frames.height),
        width=frames.width,
        height=frames.height,
        known=known,
        distortion=distortion if distortion[known].any() else None,
    )


def camera_parameters(model: str, params: list[float]) -> tuple[list[float], list[float]]:
    """fx, fy, cx, cy and k1, k2, k3, k4, p1, p2 of COLMAP's camera models.

    Raises:
        SceneDataError: for fisheye and other models that OpenCV's polynomial cannot express.
    """
    if model == "SIMPLE_PINHOLE":
        (f, cx, cy), tail = params, []
        fx = fy = f
    elif model == "PINHOLE":
        (fx, fy, cx, cy), tail = params, []
    elif model in ("SIMPLE_RADIAL", "RADIAL"):
        f, cx, cy, *tail = params
        fx = fy = f
    elif model == "OPENCV":
        fx, fy, cx, cy, k1, k2, p1, p2 = params
        return [fx, fy, cx, cy], [k1, k2, 0.0, 0.0, p1, p2]
    else:
        raise SceneDataError(f"COLMAP's camera model {model} is not supported: undistort the images to PINHOLE.")
    return [fx, fy, cx, cy], [*tail, *[0.0] * (6 - len(tail))]
