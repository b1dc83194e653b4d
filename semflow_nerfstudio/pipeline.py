"""nerfstudio's pipeline, with scores over the whole evaluation that a mean of per-image scores cannot give."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils import profiler
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.parallel import DistributedDataParallel
from torchvision.utils import save_image

from semflow_nerfstudio.model import SemanticFlowModel


@dataclass
class SemanticFlowPipelineConfig(VanillaPipelineConfig):
    """Pipeline of `semantic-flow`."""

    _target: type = field(default_factory=lambda: SemanticFlowPipeline)
    """Target class to instantiate."""


class SemanticFlowPipeline(VanillaPipeline):
    """Evaluates with one summed confusion matrix, leaves absent values out of means, and trains on several devices.

    With several processes the model is wrapped so that gradients are averaged. Whatever has parameters, the losses
    included, therefore runs inside the wrapped model's `forward`; the rest of nerfstudio sees the model itself.
    """

    def __init__(
        self,
        config: SemanticFlowPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        # Adam's moments of table entries that are no longer seen decay into denormal numbers, which make a CPU several
        # times slower from some 800 steps on. Threads inherit the setting, so it comes before any are started.
        torch.set_flush_denormal(True)
        # One process as far as nerfstudio is concerned: its own wrapper names a CUDA device even on the CPU.
        super().__init__(config, device, test_mode, **kwargs)
        self.world_size = self.datamanager.world_size = world_size
        self.datamanager.local_rank = local_rank
        if world_size > 1:
            self._model = cast(Model, distribute(self._model))
            if dist.get_rank() != 0:
                _write_no_transforms(self.datamanager)

    @profiler.time_function
    def get_train_loss_dict(self, step: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Rays, what the model makes of them, losses and metrics of a training step."""
        rays, batch = self.datamanager.next_train(step)
        outputs = self._model(rays, batch)
        return outputs, outputs["losses"], self.model.get_metrics_dict(outputs, batch)

    def get_average_image_metrics(
        self,
        data_loader: Any,
        image_prefix: str,
        step: int | None = None,
        output_path: Path | None = None,
        get_std: bool = False,
    ) -> dict[str, Any]:
        """Scores of all images of a loader: means over images, `miou_dataset`, and `_std` where asked for."""
        model = self.model
        assert isinstance(model, SemanticFlowModel)
        self.eval()
        model.evaluation.reset()
        speeds: list[float] = []
        columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=CONSOLE, transient=True) as progress:
            task = progress.add_task("", total=len(data_loader))
            for index, (camera, batch) in enumerate(data_loader):
                start = time.perf_counter()
                outputs = model.get_outputs_for_camera(camera=camera)
                speeds.append(float(camera.height * camera.width) / (time.perf_counter() - start))
                _, pictures = model.get_image_metrics_and_images(outputs, batch)
                if output_path is not None:
                    for name, picture in pictures.items():
                        save_image(
                            picture.permute(2, 0, 1).cpu(), output_path / f"{image_prefix}_{name}_{index:04d}.png"
                        )
                progress.advance(task)
        self.train()
        pixels = float(camera.height * camera.width)
        result = model.evaluation.result() | {
            "num_rays_per_sec": statistics.fmean(speeds),
            "fps": statistics.fmean(speeds) / pixels,
        }
        if get_std:
            images = model.evaluation.images
            for name in images[0]:
                values = [image[name] for image in images if not math.isnan(image[name])]
                result[f"{name}_std"] = statistics.pstdev(values) if values else math.nan
        # ns-eval writes JSON, which knows no NaN; the loggers of a training run take nothing but numbers.
        return {name: None if get_std and math.isnan(value) else value for name, value in result.items()}

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint; weights that are missing or left over are an error, never silently random."""
        model = self.model
        assert isinstance(model, SemanticFlowModel)
        model.match_checkpoint(loaded_state)
        own = {key.replace("module.", "") for key in self.state_dict()}
        saved = {key.replace("module.", "") for key in loaded_state}
        missing, unexpected = sorted(own - saved), sorted(saved - own)
        if missing or unexpected:
            raise RuntimeError(
                "this checkpoint belongs to another configuration: it lacks "
                f"{missing[:3] or 'nothing'} and has {unexpected[:3] or 'nothing'} besides; "
                "load it with the config.yml that lies beside it"
            )
        super().load_pipeline(loaded_state, step)


def distribute(model: Model) -> DistributedDataParallel:
    """Wrap a model so that the gradients of its `forward` are averaged over processes, on any device.

    Parameters without a gradient are looked for in every step: the first stage leaves the dynamic field out, and the
    frame encoder and the proposal fields are not updated in all of them. Buffers are the frames, the same everywhere.
    """
    return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)


def _write_no_transforms(datamanager: Any) -> None:
    """nerfstudio's trainer saves the dataparser's transform from every process; the first one's will do."""
    outputs = getattr(datamanager, "train_dataparser_outputs", None)
    if outputs is not None:
        outputs.save_dataparser_transform = lambda path: None
