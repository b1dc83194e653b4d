"""`semflow bench speed`: what a training step and rendering cost a ray, beside baselines timed in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from nerfstudio.engine.trainer import Trainer

from semflow_nerfstudio.benchmarking import encodings
from semflow_nerfstudio.benchmarking.machine import describe
from semflow_nerfstudio.benchmarking.nerfacto import nerfacto_seconds
from semflow_nerfstudio.benchmarking.options import SpeedOptions
from semflow_nerfstudio.benchmarking.records import RunKey
from semflow_nerfstudio.benchmarking.rendering import (
    frame_memory,
    held_out_rays,
    milliseconds_per_ray,
    render_seconds,
    sample_errors,
)
from semflow_nerfstudio.benchmarking.stages import slowest_operators, timed_stages
from semflow_nerfstudio.benchmarking.workbench import (
    LATE,
    final_samples,
    lite_trainer,
    model_of,
    plain_and_dense,
    rays_per_batch,
    steps,
    synchronize,
)
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene

Update = Callable[[int, int], None]
"""(done, total)."""
Show = Callable[[str], AbstractContextManager[Update]]
"""Title of a part -> what shows its progress."""


MAIN_FIGURES = (
    "hash_ratio_8x15",
    "hash_ratio_16x19",
    "train_ms_per_ray",
    "dense_ms_per_ray",
    "nerfacto_ms_per_ray",
    "render_ms_per_ray",
    "render_between_ms_per_ray",
)
"""What is printed."""


def key_of(options: SpeedOptions, machine: dict[str, Any]) -> RunKey:
    """What a record is found by."""
    hardware = {name: machine[name] for name in ("device", "cpu", "gpu", "threads") if name in machine}
    return RunKey("speed", "lite", "built-in", options.seed, machine["commit"], asdict(options) | hardware)


def measure(options: SpeedOptions, show: Show) -> dict[str, Any]:
    """Time everything, one thing after the other, in this process.

    Returns:
        The keys `hash_ratio_8x15` and `hash_ratio_16x19` (nerfstudio's time over ours), `train_ms_per_ray`,
        `render_ms_per_ray` (at frame times), `render_between_ms_per_ray`, `nerfacto_ms_per_ray` and
        `dense_ms_per_ray`; `ratios` of these; `stages` (share of a training step), `operators`, `semantic_samples`
        (errors), `frame_memory`, `encodings` and `machine`.
    """
    options.check()
    with TemporaryDirectory() as name:
        folder = Path(name)
        with show("Making the scene") as update:
            scene_options = SceneOptions(frames=options.frames, size=options.size, rig_cameras=4, seed=options.seed)
            scene = make_scene(folder / "scene", scene_options, progress=update)
        trainer = lite_trainer(scene, folder, options.rays, options.samples, options.seed, options.steps // 4)
        device = model_of(trainer).device
        with show("Hash encodings") as update:
            points = options.points if device.type == "cpu" else 16 * options.points
            hashes = encodings.measure(device, points, 3, options.configurations, (3,), update)
        result: dict[str, Any] = {"machine": describe(device), "options": asdict(options)}
        result |= {key: value for key, value in hashes.items() if key.startswith("hash_ratio_")}
        with show("Training") as update, final_samples(trainer, 24):
            steps(trainer, 0, options.steps, update)
        result |= training_figures(trainer, options, show)
        result |= rendering_figures(trainer, options, show)
        with show("Memory of an image") as update:
            checkpoint = folder / "model.pt"
            torch.save(trainer.pipeline.state_dict(), checkpoint)
            result["frame_memory"] = frame_memory(checkpoint, scene)
            update(1, 1)
    ours = result["train_ms_per_ray"]
    result["ratios"] = {
        "dense_to_ours": round(result["dense_ms_per_ray"] / ours, 2),
        "nerfacto_to_ours": round(result["nerfacto_ms_per_ray"] / ours, 2),
    }
    result["encodings"] = hashes["rows"]
    return result


def training_figures(trainer: Trainer, options: SpeedOptions, show: Show) -> dict[str, Any]:
    """Times of the step, of its stages, of the plain and dense step, and of nerfacto's."""
    late = max(LATE, options.steps)
    model = model_of(trainer)
    with show("Training step") as update:
        steps(trainer, late, 2)
        own = steps(trainer, late + 2, options.repeats, update)
    with show("Stages of the step") as update:
        with timed_stages(trainer, lambda: synchronize(model.device)) as timer:
            steps(trainer, late + 2, options.repeats, update)
        operators = slowest_operators(lambda: steps(trainer, late + 2, 2))
    proposals = model.config.sampling.proposal_samples[0]
    with show("nerfacto's step") as update:
        nerfacto = nerfacto_seconds(trainer, options.samples, proposals, 3, update)
    with show("Plain and dense step") as update, plain_and_dense(trainer, options.samples):
        with rays_per_batch(trainer, options.dense_rays):
            steps(trainer, late, 1)
            dense = steps(trainer, late + 2, 2, update)
    total = sum(timer.seconds.values())
    stages = sorted(timer.seconds.items(), key=lambda item: -item[1])
    # The mean of whole periods: steps that update the frame encoder or the proposal fields cost more than others.
    return {
        "train_ms_per_ray": round(1e3 * statistics.fmean(own) / options.rays, 4),
        "train_steps_ms": [round(1e3 * second, 1) for second in own],
        "dense_ms_per_ray": round(1e3 * statistics.fmean(dense) / options.dense_rays, 4),
        "nerfacto_ms_per_ray": milliseconds_per_ray(nerfacto, options.rays),
        "stages": {name: round(seconds / total, 4) for name, seconds in stages},
        "operators": operators,
    }


def rendering_figures(trainer: Trainer, options: SpeedOptions, show: Show) -> dict[str, Any]:
    """Times of rendering with semantics, and what leaving samples out changes."""
    with show("Rendering") as update:
        at_frames = held_out_rays(trainer, options.render_rays)
        own = render_seconds(trainer, at_frames, 3)
        update(1, 2)
        between = render_seconds(trainer, held_out_rays(trainer, options.render_rays, between=True), 3)
        update(2, 2)
    with show("Semantics on all samples") as update:
        errors = sample_errors(trainer, held_out_rays(trainer, options.error_rays))
        update(1, 1)
    return {
        "render_ms_per_ray": milliseconds_per_ray(own, len(at_frames)),
        "render_between_ms_per_ray": milliseconds_per_ray(between, len(at_frames)),
        "semantic_samples": errors,
    }
