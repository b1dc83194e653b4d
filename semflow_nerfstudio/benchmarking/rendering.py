"""What rendering costs, how exact the choice of samples that get semantics is, and how much memory an image takes."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.trainer import Trainer
from torch import Tensor

from semflow_nerfstudio.benchmarking.workbench import changed, model_of, synchronize

FULL_HD = (1920, 1080)
MEMORY_SIZES = ((480, 270), (960, 540))
"""Image sizes that are rendered to see how memory grows with the number of pixels: both of many chunks."""
COUNTS = (1, 2, 4, 6, 8)
"""Samples that get semantics, whose error is measured."""


def held_out_rays(trainer: Trainer, count: int, between: bool = False) -> RayBundle:
    """About `count` rays spread evenly over held-out views, at frame times or halfway between two."""
    model, dataset = model_of(trainer), trainer.pipeline.datamanager.eval_dataset  # type: ignore[union-attr]
    cameras: Cameras = dataset.cameras.to(model.device)  # type: ignore[union-attr]
    views = torch.linspace(0, len(cameras) - 1, min(4, len(cameras))).round().long().tolist()
    bundles = []
    for view in views:
        rays = cameras.generate_rays(camera_indices=view, keep_shape=True).flatten()
        every = max(1, len(rays) * len(views) // count)
        bundles.append(rays[torch.arange(every // 2, len(rays), every, device=rays.origins.device)])
    joined = RayBundle(
        origins=torch.cat([b.origins for b in bundles]),
        directions=torch.cat([b.directions for b in bundles]),
        pixel_area=torch.cat([b.pixel_area for b in bundles]),
        times=torch.cat([b.times for b in bundles]),  # type: ignore[misc]
    )
    if between:
        scene = model.scene(next(iter(model.scenes)))
        half = scene.timeline.tau / 2
        assert joined.times is not None
        joined.times = torch.where(joined.times + half > 1, joined.times - half, joined.times + half)
    return joined


@torch.no_grad()
def render_seconds(trainer: Trainer, rays: RayBundle, repeats: int) -> list[float]:
    """Seconds of rendering rays with all outputs, semantics among them, in the chunks that images are rendered in."""
    model = model_of(trainer)
    trainer.pipeline.eval()
    chunk = model.config.eval_num_rays_per_chunk
    seconds = []
    for _ in range(repeats + 1):
        synchronize(model.device)
        start = time.perf_counter()
        for first in range(0, len(rays), chunk):
            model(rays[first : first + chunk])
        synchronize(model.device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


@torch.no_grad()
def logits(trainer: Trainer, rays: RayBundle, **render: Any) -> Float[Tensor, "R C"]:
    """Composited logits of rays, with other rendering settings."""
    model = model_of(trainer)
    trainer.pipeline.eval()
    with changed(model.config, render=replace(model.config.render, **render)):
        parts = [model(rays[i : i + 1024])["logits"] for i in range(0, len(rays), 1024)]
    return torch.cat(parts)


def sample_errors(trainer: Trainer, rays: RayBundle) -> list[dict[str, Any]]:
    """Differences of logits and labels between semantics on the heaviest samples and on all of them.

    `samples` is the number for both fields; the last row has the defaults, and early stopping with them.
    """
    defaults = model_of(trainer).config.render
    everything = {"static_samples": 10**6, "flow_samples": 10**6, "min_dynamicness": 0.0, "min_semantic_weight": 0.0}
    reference = logits(trainer, rays, **everything)
    settings = {str(k): everything | {"static_samples": k, "flow_samples": k} for k in COUNTS}
    settings[f"{defaults.static_samples} static, {defaults.flow_samples} moving"] = {}
    rows = []
    for name, setting in settings.items():
        found = logits(trainer, rays, **setting)
        error = (found - reference).abs()
        rows.append(
            {
                "samples": name,
                "logit_error_mean": error.mean().item(),
                "logit_error_max": error.max().item(),
                "labels_changed": (found.argmax(-1) != reference.argmax(-1)).float().mean().item(),
            }
        )
    return rows


def frame_memory(checkpoint: Path, scene: Path) -> dict[str, Any]:
    """Peak memory of a process that renders one image, at two sizes, and what a full-HD image takes by a straight line.

    Both images are larger than a chunk, so that what grows with the pixels is the image's outputs.
    """
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-m", __name__, str(checkpoint), str(scene), str(width), str(height)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()[-1]
        )
        for width, height in MEMORY_SIZES
    ]
    pixels = [math.prod(size) for size in MEMORY_SIZES]
    slope = (peaks[1] - peaks[0]) / (pixels[1] - pixels[0])
    whole = peaks[0] + max(0.0, slope) * (math.prod(FULL_HD) - pixels[0])
    return {
        "sizes": [f"{width}x{height}" for width, height in MEMORY_SIZES],
        "peak_mb": [round(peak / 1e6) for peak in peaks],
        "full_hd_gb_extrapolated": round(whole / 1e9, 2),
    }


def render_one_image(checkpoint: Path, scene: Path, width: int, height: int) -> None:
    """Load a trained model and render one image of a given size: the process whose memory is measured."""
    from tempfile import TemporaryDirectory

    from semflow_nerfstudio.benchmarking.memory import peak_bytes
    from semflow_nerfstudio.benchmarking.workbench import lite_trainer

    with TemporaryDirectory() as folder:
        trainer = lite_trainer(scene, Path(folder), rays=64, samples=24, evaluate_only=True)
        trainer.pipeline.load_state_dict(torch.load(checkpoint))
        model = model_of(trainer)
        trainer.pipeline.eval()
        camera: Cameras = trainer.pipeline.datamanager.eval_dataset.cameras[:1]  # type: ignore[union-attr]
        camera.rescale_output_resolution(width / camera.width.item())
        camera.height[:], camera.width[:] = height, width
        model.get_outputs_for_camera(camera.to(model.device))
    print(peak_bytes())


def milliseconds_per_ray(seconds: list[float], rays: int) -> float:
    """Median."""
    return round(1e3 * statistics.median(seconds) / rays, 4)


if __name__ == "__main__":
    render_one_image(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
