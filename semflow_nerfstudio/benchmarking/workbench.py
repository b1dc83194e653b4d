"""A trainer on the built-in scene that steps can be timed on, with settings changed on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.trainer import Trainer, TrainerConfig

from semflow_nerfstudio.configs.methods import lite
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.encodings.hash_grid import HashGrid
from semflow_nerfstudio.model import SemanticFlowModel, SemanticFlowModelConfig
from semflow_nerfstudio.runs import seed_everything

LATE = 1000
"""A step at which all schedules are done: the full method, proposal fields updated now and then."""


def lite_trainer(
    scene: Path,
    folder: Path,
    rays: int,
    samples: int,
    seed: int = 0,
    static_steps: int = 250,
    evaluate_only: bool = False,
) -> Trainer:
    """nerfstudio's trainer of `semantic-flow-lite`, ready to train; it logs into `folder`, without viewer.

    Args:
        scene: The data, in the Semantic Dynamic Scene layout.
        folder: Where it logs.
        rays: Rays a step.
        samples: Final samples of a ray.
        seed: Seed.
        static_steps: Steps of the first stage.
        evaluate_only: Do not read training frames nor align their disparity.
    """
    config: TrainerConfig = lite()
    model, manager = config.pipeline.model, config.pipeline.datamanager
    assert isinstance(model, SemanticFlowModelConfig) and isinstance(manager, SemFlowDataManagerConfig)
    model.sampling.samples, model.static_steps = samples, static_steps
    manager.train_num_rays_per_batch = manager.eval_num_rays_per_batch = rays
    manager.dataparser = DynamicSceneDataParserConfig(data=scene)
    manager.data, config.output_dir, config.vis = scene, folder, "tensorboard"
    config.logging.local_writer.enable = False
    config.set_timestamp()
    seed_everything(seed)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup("test" if evaluate_only else "val")
    return trainer


def model_of(trainer: Trainer) -> SemanticFlowModel:
    """The trainer's model."""
    model = trainer.pipeline.model
    assert isinstance(model, SemanticFlowModel)
    return model


def synchronize(device: torch.device) -> None:
    """Wait for a device."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)


def step(trainer: Trainer, number: int) -> float:
    """One training step; returns its seconds."""
    model = model_of(trainer)
    trainer.pipeline.train()
    synchronize(model.device)
    start = time.perf_counter()
    model.set_step(number)
    trainer.train_iteration(number)
    synchronize(model.device)
    return time.perf_counter() - start


def steps(trainer: Trainer, first: int, count: int, progress: Callable[[int, int], None] | None = None) -> list[float]:
    """Seconds of consecutive training steps."""
    seconds = []
    for k in range(count):
        seconds.append(step(trainer, first + k))
        if progress is not None:
            progress(k + 1, count)
    return seconds


@contextmanager
def changed(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes of an object with other values for a while."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def final_samples(trainer: Trainer, count: int) -> Iterator[None]:
    """Another number of samples that the fields are evaluated at."""
    samplers: list[Any] = [module.sampler for module in model_of(trainer).samplers.values()]
    before = [sampler.num_nerf_samples_per_ray for sampler in samplers]
    for sampler in samplers:
        sampler.num_nerf_samples_per_ray = count
    try:
        yield
    finally:
        for sampler, old in zip(samplers, before, strict=True):
            sampler.num_nerf_samples_per_ray = old


@contextmanager
def rays_per_batch(trainer: Trainer, count: int) -> Iterator[None]:
    """Another number of rays a step."""
    sampler: Any = trainer.pipeline.datamanager.train_pixel_sampler  # type: ignore[union-attr]
    with changed(sampler, num_rays_per_batch=count):
        yield


@contextmanager
def plain_and_dense(trainer: Trainer, samples: int) -> Iterator[None]:
    """The method without what makes it fast: semantics and flows on all samples, the dynamic field and the advected
    pass on all rays, all frames encoded in every step, plain torch grids."""
    model = model_of(trainer)
    grids: list[Any] = [module for module in model.modules() if isinstance(module, HashGrid)]
    backends = [grid.backend for grid in grids]
    render = replace(model.config.render, static_samples=samples, flow_samples=samples)
    everything = {"mover_ray_share": 1.0, "advected_rays": 2**31 - 1, "encoder_every": 1}
    for grid in grids:
        grid.backend = "torch"
    try:
        with changed(model.config, render=render, **everything):
            yield
    finally:
        for grid, backend in zip(grids, backends, strict=True):
            grid.backend = backend
