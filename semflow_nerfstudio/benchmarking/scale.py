"""`semflow bench scale`: time and memory of training on longer and longer clips.

    python -m semflow_nerfstudio.benchmarking.scale SCENE RAYS STEPS SEED

trains on one scene and prints its figures; `measure` starts it as a process of its own for every clip, so that
one's memory does not count for the next.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from semflow_nerfstudio.benchmarking.memory import peak_bytes, resident_bytes
from semflow_nerfstudio.benchmarking.options import ScaleOptions
from semflow_nerfstudio.benchmarking.records import RunKey
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene

LONG_CLIP = 300
"""Frames of the clip whose memory is extrapolated."""
WARM_UP = 6
"""Steps that are not timed."""
Show = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def key_of(options: ScaleOptions, machine: dict[str, Any]) -> RunKey:
    """What a record is found by."""
    hardware = {name: machine[name] for name in ("device", "cpu", "gpu", "threads") if name in machine}
    return RunKey("scale", "lite", "built-in", options.seed, machine["commit"], asdict(options) | hardware)


def measure(options: ScaleOptions, show: Show) -> dict[str, Any]:
    """Train on the first frames of one clip, more and more of them.

    Returns:
        `rows`, one a clip: `frames`, `ms_per_step` (median of pairs of steps), `cpu_ms_per_step` (processor time of all
        cores, which other programs disturb less), `resident_mb` while training, `peak_mb` of the whole process (reading
        and aligning included), `setup_seconds`, each the least of all rounds' times and the most of their memory;
        `rounds`, the same for each round; `summary`: `time_ratio` of the longest clip to the shortest,
        `largest_time_ratio`, megabytes a frame by a straight line through all clips, and what a clip of 300 frames
        would take by it.
    """
    import torch

    from semflow_nerfstudio.benchmarking.machine import describe
    from semflow_nerfstudio.compat import default_device

    options.check()
    rounds: list[list[dict[str, Any]]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        with show("Making the scene") as update:
            scene_options = SceneOptions(frames=options.frames[-1], size=options.size, rig_cameras=2, seed=options.seed)
            scene = make_scene(folder / "scene", scene_options, progress=update)
        with show("Training") as update:
            clips = [first_frames(scene, folder / str(count), count) for count in options.frames]
            for index in range(options.rounds * len(clips)):
                turn, clip = divmod(index, len(clips))
                if clip == 0:
                    rounds.append([])
                rounds[turn].append({"frames": options.frames[clip]} | in_own_process(clips[clip], options))
                update(index + 1, options.rounds * len(clips))
    rows = [best_of(runs) for runs in zip(*rounds, strict=True)]
    return {
        "machine": describe(torch.device(default_device())),
        "options": asdict(options),
        "rows": rows,
        "rounds": rounds,
        "summary": summarize(rows),
    }


def in_own_process(scene: Path, options: ScaleOptions) -> dict[str, Any]:
    """The figures of one clip.

    Raises:
        RuntimeError: the process failed.
    """
    settings = [str(value) for value in (scene, options.rays, options.steps, options.seed)]
    run = subprocess.run([sys.executable, "-m", __name__, *settings], capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"training on {scene.name} frames failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def best_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One clip's figures from several runs on it: the least of times, the most of memory."""
    return {key: (max if key.endswith("_mb") else min)(run[key] for run in runs) for key in runs[0]}


def summarize(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Growth over the clips; see `measure`."""
    frames = np.array([row["frames"] for row in rows], float)
    times = [row["ms_per_step"] for row in rows]
    cpu = [row["cpu_ms_per_step"] for row in rows]
    summary = {"time_ratio": times[-1] / times[0], "largest_time_ratio": max(times) / min(times)}
    summary["cpu_time_ratio"] = cpu[-1] / cpu[0]
    for kind in ("resident", "peak"):
        slope, base = np.polyfit(frames, [row[f"{kind}_mb"] for row in rows], 1)
        summary[f"{kind}_mb_per_frame"] = float(slope)
        summary[f"{kind}_gb_of_{LONG_CLIP}_frames"] = float(base + slope * LONG_CLIP) / 1e3
    return {name: round(value, 3) for name, value in summary.items()}


def first_frames(scene: Path, folder: Path, count: int) -> Path:
    """The first frames of a scene in the Semantic Dynamic Scene layout, by links to its files."""
    for source in sorted(scene.rglob("*")):
        path = source.relative_to(scene)
        target = folder / path
        if source.is_dir() or source.name in ("gt_tracks.npz", "poses_bounds.npy"):
            continue
        _, *below = path.parts
        numbered = re.match(r"\d+", below[0]) if below else None
        frame = -1 if numbered is None else int(numbered[0]) - path.parts[0].startswith("multiview")
        if frame >= count or (frame == count - 1 and source.stem.endswith("_fwd")):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    np.save(folder / "poses_bounds.npy", np.load(scene / "poses_bounds.npy")[:count])
    return folder


def train_on(scene: Path, rays: int, steps: int, seed: int) -> dict[str, float]:
    """Train some steps of the full method in this process; see `measure`."""
    from semflow_nerfstudio.benchmarking import workbench

    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        trainer = workbench.lite_trainer(scene, Path(folder), rays, 24, seed, static_steps=0)
        setup = time.perf_counter() - start
        workbench.steps(trainer, workbench.LATE, WARM_UP)
        processor = time.process_time()
        seconds = workbench.steps(trainer, workbench.LATE + WARM_UP, steps)
        processor = time.process_time() - processor
    pairs = [sum(seconds[k : k + 2]) / 2 for k in range(0, steps, 2)]
    return {
        "ms_per_step": round(1e3 * statistics.median(pairs), 2),
        "cpu_ms_per_step": round(1e3 * processor / steps, 2),
        "resident_mb": round(resident_bytes() / 1e6, 1),
        "peak_mb": round(peak_bytes() / 1e6, 1),
        "setup_seconds": round(setup, 1),
    }


if __name__ == "__main__":
    print(json.dumps(train_on(Path(sys.argv[1]), *map(int, sys.argv[2:5]))))
