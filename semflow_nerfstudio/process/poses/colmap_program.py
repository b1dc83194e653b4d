"""COLMAP as the program `colmap`, for platforms without pycolmap: Debian's package, which has no CUDA, is enough."""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.process.poses.colmap_task import EXHAUSTIVE, INITIAL_ANGLE, OVERLAP, ColmapTask
from semflow_nerfstudio.process.steps import Progress

REGISTERING = re.compile(r"Initializing with image pair|Registering image #")


def run_program(program: str, task: ColmapTask, progress: Progress) -> list[Path]:
    """Folders of the models that the program finds, all in `task.work`; its output is kept there in log.txt.

    Raises:
        SceneDataError: it fails.
    """
    count, registered = len(task.names), 0
    listed = task.work / "images.txt"
    listed.write_text("".join(f"{name}\n" for name in task.names), encoding="utf-8")
    known_focal = task.camera_params is not None
    common = {"database_path": task.database}
    reader = {
        "image_path": task.images,
        "image_list_path": listed,
        "ImageReader.single_camera": 1,
        "ImageReader.camera_model": task.camera_model,
    }
    if task.masks is not None:
        reader["ImageReader.mask_path"] = task.masks
    if task.camera_params is not None:
        reader["ImageReader.camera_params"] = task.camera_params

    def run(command: str, options: dict, told: Callable[[str], object] = lambda line: None) -> None:
        _run(program, command, {**common, **options}, task.work / "log.txt", told)

    def registering(line: str) -> None:
        nonlocal registered
        if REGISTERING.search(line):
            registered += 1
            progress(min(registered, count), count, "poses")

    progress(0, count, "features")
    run("feature_extractor", reader | _on_cpu(program, "feature_extractor", task.threads))
    progress(0, count, "matches")
    matcher, pairing = "exhaustive_matcher", {}
    if count > EXHAUSTIVE:
        matcher = "sequential_matcher"
        pairing = {"SequentialMatching.overlap": OVERLAP, "SequentialMatching.quadratic_overlap": 1}
    run(matcher, pairing | _on_cpu(program, matcher, task.threads))
    mapping = {
        "image_path": task.images,
        "output_path": task.work,
        "Mapper.multiple_models": 0,
        "Mapper.min_model_size": 3,
        "Mapper.num_threads": task.threads,
        "Mapper.ba_refine_focal_length": int(not known_focal),
        "Mapper.extract_colors": 0,
        "Mapper.init_min_tri_angle": INITIAL_ANGLE,
    }
    run("mapper", mapping, registering)
    return sorted(folder.parent for folder in task.work.glob("*/cameras.bin"))


def _on_cpu(program: str, command: str, threads: int) -> dict[str, object]:
    """The options for threads and against GPUs, whose names differ from version to version."""
    told = subprocess.run([program, command, "-h"], capture_output=True, text=True, env=_environment(), check=False)
    found = re.findall(r"--(\w+)\.(use_gpu|num_threads)\b", told.stdout + told.stderr)
    return {f"{group}.{name}": 0 if name == "use_gpu" else threads for group, name in found}


def _environment() -> dict[str, str]:
    """Its window system is never needed; without a screen it would end the program."""
    return {**os.environ, "QT_QPA_PLATFORM": "offscreen"}


def _run(program: str, command: str, options: dict, log: Path, told: Callable[[str], object]) -> None:
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    last: deque[str] = deque(maxlen=20)
    with log.open("a", encoding="utf-8") as file:
        running = subprocess.Popen(
            [program, command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(),
        )
        try:
            assert running.stdout is not None
            for line in running.stdout:
                file.write(line)
                last.append(line.strip())
                told(line)
            code = running.wait()
        finally:
            running.kill()
    if code != 0 and not (command == "mapper" and any("failed to create sparse model" in line for line in last)):
        detail = next((line for line in reversed(last) if line), f"exit code {code}")
        raise SceneDataError(f"`{program} {command}` failed ({detail}): see {log}, or install pycolmap.")
