"""nerfstudio's pipeline, with scores over the whole evaluation that a mean of per-image scores cannot give."""

from __future__ import annotations

import math
import statistics
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils import profiler
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.parallel import DistributedDataParallel
from torchvision.utils import save_image

from semflow_nerfstudio.configs.schedulers import follow_length
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.datamanager import SemFlowDataManager, SemFlowDataManagerConfig
from semflow_nerfstudio.data.dataset import SemFlowDataset
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.data.parser_outputs import say
from semflow_nerfstudio.editing.scene_state_file import load_scene_state
from semflow_nerfstudio.model import SemanticFlowModel, SemanticFlowModelConfig
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.selection import Selection, loaded_run_folder, read_selection
from semflow_nerfstudio.training.adaptation import (
    CLASSES,
    Classes,
    TrainedShared,
    adapt_shared,
    describe,
    read_shared,
)
from semflow_nerfstudio.viewer.panel import semantics_control

LABELS_TEACH = ("semantics", "semantic_grid")
"""Parameter groups that learn from labels alone."""
ADAPTED_RATE = 3.0
"""How much faster shared networks and residuals learn from the labels of an adaptation than from others."""


@dataclass
class SemanticFlowPipelineConfig(SavedConfig, VanillaPipelineConfig):
    """Pipeline of `semantic-flow`."""

    _target: type = field(default_factory=lambda: SemanticFlowPipeline)
    """Target class to instantiate."""


class SemanticFlowPipeline(VanillaPipeline):
    """Evaluates with one summed confusion matrix, leaves absent values out of means, and trains on several devices.

    With several processes the model is wrapped so that gradients are averaged. Whatever has parameters, the losses
    included, therefore runs inside the wrapped model's `forward`; the rest of nerfstudio sees the model itself.
    A pipeline that is loaded for rendering shows what `semflow select` chose for its run.
    """

    selection: Selection = Selection()
    """The choice of a run that was loaded for rendering."""

    def __init__(
        self,
        config: SemanticFlowPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        """nerfstudio's, ready to train ("val") or to be looked at.

        Raises:
            ValueError: what is to be adapted, and how, makes no sense or does not fit.
        """
        # Adam's moments of table entries that are no longer seen decay into denormal numbers, which make a CPU several
        # times slower from some 800 steps on. Threads inherit the setting, so it comes before any are started.
        torch.set_flush_denormal(True)
        if test_mode == "val":  # a saved run is shown whatever it was trained with
            check_adaptation(config)
        adapting = adaptation(config)
        adapted = None
        if adapting is not None and adapting.adapt_from is not None and test_mode == "val":
            adapted = read_shared(adapting.adapt_from)
        # One process as far as nerfstudio is concerned: its own wrapper names a CUDA device even on the CPU.
        super().__init__(for_adaptation(config, test_mode, adapted), device, test_mode, **kwargs)
        if adapted is not None:
            self.adapt(adapted)
        data: Any = self.datamanager
        self.world_size = data.world_size = world_size
        data.local_rank = local_rank
        if world_size > 1:
            self._model = cast(Model, distribute(self._model))
            if dist.get_rank() != 0:
                _write_no_transforms(self.datamanager)
        self.semantics = semantics_control(self)

    def adapt(self, source: TrainedShared) -> None:
        """Take trained shared networks, and say what was taken.

        Raises:
            ValueError: they do not fit.
        """
        model, data = self.model, self.datamanager.train_dataset
        assert isinstance(model, SemanticFlowModel) and model.shared is not None and isinstance(data, SemFlowDataset)
        adapt_shared(model.shared, source, model.class_names)
        named = [name for table in data.classes if table is not None for name in table.names]
        say(describe(source, model.class_names, named if data.has("labels") else None))

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """The model's and the datamanager's.

        Raises:
            ValueError: an adaptation ends before its steps with labels do.
        """
        trainer, adapting = training_callback_attributes.trainer, adaptation(self.config)
        if trainer is not None:
            last = trainer._start_step + trainer.config.max_num_iterations
            without_labels = 0 if adapting is None else adapting.adapt_field_steps
            if adapting is not None and adapting.adapt_label_steps != 0:
                with_labels = adapting.adapt_label_steps or 1
                if last < without_labels + with_labels:
                    raise ValueError(
                        f"the training ends after {last} steps, but the first {without_labels} are without labels and "
                        f"{'at least' if adapting.adapt_label_steps is None else 'another'} {with_labels} with them: "
                        f"use --max-num-iterations {without_labels + with_labels} or more, or lower "
                        "--pipeline.model.adapt-field-steps"
                    )
            self._say_what_is_too_short(last)
            for name, scheduler in trainer.optimizers.schedulers.items():
                # What the labels of an adaptation teach starts at its full rate when they come, or a higher one.
                boost = ADAPTED_RATE if adapting is not None and name == "semantics" else 1.0
                follow_length(scheduler, last, without_labels if name in LABELS_TEACH else 0, boost)
        return super().get_training_callbacks(training_callback_attributes)

    def _say_what_is_too_short(self, last: int) -> None:
        model = self.model
        if isinstance(model, SemanticFlowModel) and model.config.time and last <= model.static_steps:
            say(
                f"Nothing that moves will be learned: the training ends after {last} steps, and the first "
                f"{model.static_steps} are the static fields' alone. Lower --pipeline.model.static-steps."
            )

    @profiler.time_function
    def get_train_loss_dict(self, step: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Rays, what the model makes of them, losses and metrics of a training step."""
        rays, batch = self.datamanager.next_train(step)
        outputs = self._model(rays, batch)
        return outputs, outputs["losses"], self.model.get_metrics_dict(outputs, batch)

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
                _, pictures = model.get_image_metrics_and_images(outputs, batch, model.scene_of(camera))
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
            result |= deviations(model.evaluation.images)
            if len(model.scenes) > 1:
                for scene, evaluation in model.evaluation.of.items():
                    result |= {f"{scene}/{k}": v for k, v in deviations(evaluation.images).items()}
        # ns-eval writes JSON, which knows no NaN; the loggers of a training run take nothing but numbers.
        return {name: None if get_std and math.isnan(value) else value for name, value in result.items()}

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint; weights that are missing or left over are an error, never silently random.

        Its classes count, whatever the data's class table has become since.
        """
        model = self.model
        assert isinstance(model, SemanticFlowModel)
        loaded_state = {key.replace("module.", ""): value for key, value in loaded_state.items()}
        if CLASSES in loaded_state:
            self.take_classes(Classes.decode(loaded_state[CLASSES]))
        if model.match_checkpoint(loaded_state) and self.test_mode == "val":
            raise RuntimeError(
                "this training cannot go on: it began with another frame encoder, as the weights of "
                "--pipeline.datamanager.frame-features.encoder were there then and are not now, or the reverse; "
                "restore that, or start anew"
            )
        present = {key.replace("module.", ""): value for key, value in self.state_dict().items()}
        loaded_state.setdefault(CLASSES, present[CLASSES])  # absent in runs from before class names were kept
        own, saved = set(present), set(loaded_state)
        missing, unexpected = sorted(own - saved), sorted(saved - own)
        if missing or unexpected:
            raise RuntimeError(
                "this checkpoint belongs to another configuration: it lacks "
                f"{missing[:3] or 'nothing'} and has {unexpected[:3] or 'nothing'} besides; "
                "load it with the config.yml that lies beside it"
            )
        super().load_pipeline(loaded_state, step)
        folder = loaded_run_folder() if self.test_mode != "val" else None
        if folder is not None:
            self.select(read_selection(folder))

    def select(self, selection: Selection) -> None:
        """Show a choice from now on.

        Raises:
            ValueError: the run has no such scene.
        """
        assert isinstance(self.model, SemanticFlowModel)
        if selection.scene is not None:
            self.model.show_scene(selection.scene)
            if isinstance(self.datamanager, SemFlowDataManager):
                self.datamanager.show_scene(list(self.model.scenes).index(selection.scene))
        if selection.scene_state is not None:
            self.show_edits(selection.scene_state)
        self.selection = selection

    def show_edits(self, file: Path) -> None:
        """Show the edits of a file beside the run's config.yml.

        Raises:
            ValueError: naming the file, if it is no scene state or names what the run does not have.
        """
        from semflow_nerfstudio.editing.find_instances import show_state

        assert isinstance(self.model, SemanticFlowModel)
        try:
            show_state(self.model, file.parent, load_scene_state(file))
        except SceneDataError:
            raise
        except ValueError as error:
            raise ValueError(f"{file}: {error}; choose again with `semflow select`") from error

    def take_classes(self, classes: Classes) -> None:
        """Take over a checkpoint's classes; its weights are loaded next.

        Raises:
            ValueError: the run goes on training with data of other classes.
        """
        model = self.model
        assert isinstance(model, SemanticFlowModel) and isinstance(self.datamanager, SemFlowDataManager)
        if classes.names == model.class_names:
            return
        if self.test_mode == "val":
            raise ValueError(
                f"the checkpoint's classes are {', '.join(classes.names) or 'none'}, but the data's are "
                f"{', '.join(model.class_names) or 'none'}: go on with the class tables and labels it was trained on"
            )
        model.take_classes(classes)
        self.datamanager.use_classes(class_table(classes, None))


def class_table(classes: Classes, source: Path | None) -> ClassTable:
    """Classes of a checkpoint as the data side knows them."""
    return ClassTable(classes.names, classes.colors.numpy(), classes.foreground.numpy(), source=source)


def adaptation(config: VanillaPipelineConfig) -> SemanticFlowModelConfig | None:
    """The model's part of a configuration that takes the shared networks of another run; None of others."""
    model = config.model
    return model if isinstance(model, SemanticFlowModelConfig) and model.adapt_from is not None else None


def check_adaptation(config: VanillaPipelineConfig) -> None:
    """Refuse options of an adaptation that would mean nothing.

    Raises:
        ValueError: a number of steps is negative, or nothing is adapted.
    """
    model = config.model
    if not isinstance(model, SemanticFlowModelConfig):
        return
    for name in ("adapt_field_steps", "adapt_label_steps", "adapt_freeze_shared"):
        value, option = getattr(model, name), f"--pipeline.model.{name.replace('_', '-')}"
        if value is not None and value < 0:
            raise ValueError(f"{option} is {value}: use a number of steps from 0 up")
        if model.adapt_from is None and value != getattr(type(model), name):
            raise ValueError(
                f"{option} is {value}, but no run is adapted: name one with --pipeline.model.adapt-from, or leave the "
                "option out"
            )


def for_adaptation(
    config: SemanticFlowPipelineConfig, test_mode: str, source: TrainedShared | None
) -> SemanticFlowPipelineConfig:
    """The configuration with what an adaptation asks of the data: the known classes first, and which labels to hide.

    Without a step of labels none is ever read in training; later those of the evaluation's views are, to score them.
    """
    adapting, data = adaptation(config), config.datamanager
    if adapting is None or not isinstance(data, SemFlowDataManagerConfig):
        return config
    if source is not None:
        data = replace(data, known_classes=class_table(source.classes, source.path), known_basis=source.basis)
    if adapting.adapt_label_steps == 0:
        data = replace(data, hidden_labels="all" if test_mode == "val" else "training")
    return replace(config, datamanager=data)


def deviations(images: list[dict[str, float]]) -> dict[str, float]:
    """Standard deviations over images, `SCORE_std`; NaN where no image has a value."""
    result = {}
    for name in images[0] if images else ():
        values = [image[name] for image in images if not math.isnan(image[name])]
        result[f"{name}_std"] = statistics.pstdev(values) if values else math.nan
    return result


def distribute(model: Model) -> DistributedDataParallel:
    """Wrap a model so that the gradients of its `forward` are averaged over processes, on any device.

    Parameters without a gradient are looked for in every step: the first stage leaves the dynamic field out, and the
    frame encoder and the proposal fields are not updated in all of them. Buffers stay each process's own:
    frames are the same everywhere; what is counted while training (calibration, labels, occupancy) is counted on a
    process's own rays, and the first one's is saved.
    """
    return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)


def _write_no_transforms(datamanager: Any) -> None:
    """nerfstudio's trainer saves the dataparser's transform from every process; the first one's will do."""
    outputs = getattr(datamanager, "train_dataparser_outputs", None)
    if outputs is not None:
        outputs.save_dataparser_transform = lambda path: None
