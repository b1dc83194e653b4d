"""nerfstudio's pipeline, with scores over the whole evaluation that a mean of per-image scores cannot give."""

from __future__ import annotations

import math
import statistics
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torchvision.utils import save_image

from semflow_nerfstudio.model import SemanticFlowModel
from semflow_nerfstudio.viewer.panel import semantics_control


@dataclass
class SemanticFlowPipelineConfig(VanillaPipelineConfig):
    """Pipeline of `semantic-flow`."""

    _target: type = field(default_factory=lambda: SemanticFlowPipeline)
    """Target class to instantiate."""


class SemanticFlowPipeline(VanillaPipeline):
    """Evaluates with one summed confusion matrix, and leaves absent values out of means."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Adam's moments of table entries that are no longer seen decay into denormal numbers, which make a CPU several
        # times slower from some 800 steps on. Threads inherit the setting, so it comes before any are started.
        torch.set_flush_denormal(True)
        super().__init__(*args, **kwargs)
        self.semantics = semantics_control(self)

    def get_eval_loss_dict(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """nerfstudio's, of scenes as they were learnt: what the viewer edits is not scored."""
        with self._unedited():
            return super().get_eval_loss_dict(step)

    def get_eval_image_metrics_and_images(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """nerfstudio's, of scenes as they were learnt."""
        with self._unedited():
            return super().get_eval_image_metrics_and_images(step)

    def _unedited(self) -> AbstractContextManager[None]:
        assert isinstance(self.model, SemanticFlowModel)
        return self.model.unedited()

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
                with model.unedited():
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
        own = set(self.state_dict())
        saved = {key.replace("module.", "") for key in loaded_state}
        missing, unexpected = sorted(own - saved), sorted(saved - own)
        if missing or unexpected:
            raise RuntimeError(
                "this checkpoint belongs to another configuration: it lacks "
                f"{missing[:3] or 'nothing'} and has {unexpected[:3] or 'nothing'} besides; "
                "load it with the config.yml that lies beside it"
            )
        super().load_pipeline(loaded_state, step)
