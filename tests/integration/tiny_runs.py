"""Tiny scenes, a method small enough to train in a second, and nerfstudio's trainer in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import writer
from torch import Tensor

from semflow_nerfstudio.configs.methods import lite
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.dataset import SemFlowDataset
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.fields.dynamic_field import DynamicFieldConfig
from semflow_nerfstudio.fields.flow_field import FlowFieldConfig
from semflow_nerfstudio.fields.proposal_field import ProposalFieldConfig
from semflow_nerfstudio.fields.static_field import GridConfig, StaticFieldConfig
from semflow_nerfstudio.model import SemanticFlowModel, SemanticFlowModelConfig
from semflow_nerfstudio.renderer import RenderConfig
from semflow_nerfstudio.runs import seed_everything
from semflow_nerfstudio.sampling.proposal import ProposalSamplingConfig
from semflow_nerfstudio.scene import Scene, SceneConfig
from semflow_nerfstudio.shared import SharedConfig

FRAMES, WIDTH, HEIGHT = 4, 48, 27
CLASSES_OUTPUTS = {
    "semantics",
    "semantics_overlay",
    "semantic_entropy",
    "semantic_confidence",
    "class_probability",
}
OUTPUTS = {"rgb", "accumulation", "depth", "static_rgb", "dynamic_rgb", "dynamicness", "flow"} | CLASSES_OUTPUTS
"""What every run shows."""
STATIC_STEPS = 3
STEPS = 6
"""Of the run that tests share."""


@dataclass
class TrainedRun:
    """What `ns-train` left on disk."""

    folder: Path
    config: TrainerConfig

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yml"

    @property
    def checkpoint(self) -> Path:
        (file,) = (self.folder / "nerfstudio_models").glob("*.ckpt")
        return file


def tiny_model(**changes: Any) -> SemanticFlowModelConfig:
    """The model with few and small layers."""
    grid = GridConfig(2, 2, 10, 4, 16)
    settings: dict[str, Any] = {
        "scene": SceneConfig(
            static=StaticFieldConfig(grid, hidden_dim=16),
            dynamic=DynamicFieldConfig(grid, hidden_dim=16),
            flow=FlowFieldConfig(grid, hidden_dim=8),
            proposals=(ProposalFieldConfig(grid, hidden_dim=8),),
            semantic_grid=grid,
        ),
        "render": RenderConfig(label_gradient=0.2),
        "shared": SharedConfig(encoder_width=8, encoder_hidden=8, attention_width=8, hidden_dim=16),
        "sampling": ProposalSamplingConfig(proposal_samples=(12,), samples=8),
        "static_steps": STATIC_STEPS,
        "advected_rays": 32,
    }
    return SemanticFlowModelConfig(**{**settings, **changes})


def tiny_config(data: Path | DataParserConfig, out: Path, steps: int = 4, **model: Any) -> TrainerConfig:
    """`semantic-flow-lite`, much reduced; of a folder in the Semantic Dynamic Scene layout, or of any parser's data."""
    config = lite(steps)
    config.pipeline.model = tiny_model(**model)
    shrink(config)
    parser = DynamicSceneDataParserConfig(data=data) if isinstance(data, Path) else data
    manager_config(config).dataparser = parser
    manager_config(config).data = parser.data
    config.output_dir, config.experiment_name = out, "tiny"
    return config


def shrink(config: TrainerConfig) -> None:
    """Few rays, and no console output at every step."""
    manager = manager_config(config)
    manager.train_num_rays_per_batch = manager.eval_num_rays_per_batch = 128
    config.logging.local_writer.enable = False


def manager_config(config: TrainerConfig) -> SemFlowDataManagerConfig:
    """The data manager's part of a configuration."""
    assert isinstance(config.pipeline.datamanager, SemFlowDataManagerConfig)
    return config.pipeline.datamanager


def set_up(config: TrainerConfig, vis: Literal["tensorboard", "viewer"] = "tensorboard") -> Trainer:
    """nerfstudio's trainer, ready to train."""
    config.vis = vis
    seed_everything(config.machine.seed)
    config.set_timestamp()
    trainer = config.setup(local_rank=0, world_size=1)
    config.save_config()
    trainer.setup()
    return trainer


def train(config: TrainerConfig, before_step: Callable[[Trainer, int], None] | None = None) -> Trainer:
    """nerfstudio's trainer, when it is done; `before_step` is called with it and the step that comes next."""
    trainer = set_up(config)
    if before_step is not None:

        def call(step: int) -> None:
            before_step(trainer, step)

        where = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
        trainer.callbacks.append(TrainingCallback(where, call, update_every_num_iters=1))
    try:
        trainer.train()
    finally:
        forget_writers()
    return trainer


def forget_writers() -> None:
    """nerfstudio keeps the loggers of a process's former runs."""
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()


def model_of(run: Any) -> SemanticFlowModel:
    """The model of a `Trainer` or a `Run`."""
    model = run.pipeline.model
    assert isinstance(model, SemanticFlowModel)
    return model


def scene_of(run: Any) -> Scene:
    """The only scene of a `Trainer` or a `Run`."""
    (name,) = model_of(run).scenes
    return model_of(run).scene(name)


def dataset_of(run: Any, split: Literal["train", "eval"] = "eval") -> SemFlowDataset:
    """A data set of a `Trainer` or a `Run`."""
    dataset = getattr(run.pipeline.datamanager, f"{split}_dataset")
    assert isinstance(dataset, SemFlowDataset)
    return dataset


def parameters(run: Any) -> dict[str, Tensor]:
    """Copies of all trainable parameters of a `Trainer` or a `Run`."""
    return {name: value.detach().clone() for name, value in model_of(run).named_parameters() if value.numel()}


@torch.no_grad()
def render(run: Any, split: Literal["train", "eval"] = "eval", index: int = 0) -> dict[str, Tensor]:
    """All outputs of one of the data set's cameras."""
    run.pipeline.eval()
    return model_of(run).get_outputs_for_camera(dataset_of(run, split).cameras[index : index + 1])


def without(scene: Path, folder: Path, *names: str) -> Path:
    """A copy of a scene that lacks some files or folders."""
    shutil.copytree(scene, folder)
    for name in names:
        for path in folder.glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder
