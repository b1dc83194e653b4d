"""COLMAP as the Python package pycolmap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semflow_nerfstudio.process.poses.colmap_task import EXHAUSTIVE, INITIAL_ANGLE, OVERLAP, SEED, ColmapTask
from semflow_nerfstudio.process.steps import Progress


def load_pycolmap() -> Any:
    """The package, kept from writing its log to the terminal; None where it is not installed."""
    try:
        import pycolmap
    except ImportError:
        return None
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    return pycolmap


def run_library(pycolmap: Any, task: ColmapTask, progress: Progress) -> list[Path]:
    """Folders of the models that pycolmap finds, all in `task.work`."""
    names, threads = task.names, task.threads
    pycolmap.set_random_seed(SEED)
    reader = pycolmap.ImageReaderOptions(camera_model=task.camera_model)
    if task.masks is not None:
        reader.mask_path = task.masks
    if task.camera_params is not None:
        reader.camera_params = task.camera_params
    extraction = pycolmap.FeatureExtractionOptions(num_threads=threads, use_gpu=False)
    matching = pycolmap.FeatureMatchingOptions(num_threads=threads, use_gpu=False)
    progress(0, len(names), "features")
    pycolmap.extract_features(
        task.database, task.images, names, pycolmap.CameraMode.SINGLE, reader, extraction, pycolmap.Device.cpu
    )
    progress(0, len(names), "matches")
    if len(names) <= EXHAUSTIVE:
        pycolmap.match_exhaustive(task.database, matching, device=pycolmap.Device.cpu)
    else:
        pairing = pycolmap.SequentialPairingOptions(overlap=OVERLAP, quadratic_overlap=True)
        pycolmap.match_sequential(task.database, matching, pairing, device=pycolmap.Device.cpu)
    options = pycolmap.IncrementalPipelineOptions(
        multiple_models=False,
        min_model_size=3,
        num_threads=threads,
        random_seed=SEED,
        ba_refine_focal_length=task.camera_params is None,
        extract_colors=False,
    )
    options.mapper.init_min_tri_angle = INITIAL_ANGLE
    options.mapper.abs_pose_refine_focal_length = task.camera_params is None
    registered = 0

    def next_image() -> None:
        nonlocal registered
        registered += 1
        progress(min(registered, len(names)), len(names), "poses")

    models = pycolmap.incremental_mapping(
        task.database,
        task.images,
        task.work,
        options,
        initial_image_pair_callback=next_image,
        next_image_callback=next_image,
    )
    return [task.work / str(index) for index in models]
