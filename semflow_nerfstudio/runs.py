"""Training runs as values: train one, load one, evaluate it on chosen views."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from semflow_nerfstudio.data.label_propagation import fill_holes
from semflow_nerfstudio.editing.scene_state import SceneState, check_known, parse_target
from semflow_nerfstudio.evaluation.metrics import copy_baseline
from semflow_nerfstudio.evaluation.scene_evaluation import join_scores
from semflow_nerfstudio.evaluation.segmentation import mean_over_images
from semflow_nerfstudio.model import SemanticFlowModel
from semflow_nerfstudio.pipeline import SemanticFlowPipeline
from semflow_nerfstudio.visuals.camera_path import CropBox
from semflow_nerfstudio.visuals.display import Display, instance_membership

Progress = Callable[[int, int], None]
"""(done, total)."""


@dataclass
class Run:
    """A trained pipeline."""

    config: TrainerConfig
    pipeline: SemanticFlowPipeline

    @property
    def model(self) -> SemanticFlowModel:
        model = self.pipeline.model
        assert isinstance(model, SemanticFlowModel)
        return model

    @property
    def frames(self) -> Cameras:
        """Cameras of the training frames of the scene that is shown."""
        return self.frames_of(self.model.shown_scene)

    def frames_of(self, scene: str) -> Cameras:
        """Cameras of a scene's training frames."""
        dataset: Any = self.pipeline.datamanager.train_dataset
        if len(self.model.scenes) == 1:
            return dataset.cameras
        first, last = dataset.frame_range(list(self.model.scenes).index(scene))
        return dataset.cameras[first:last]

    def views(self, scene: str | None = None) -> list[int]:
        """Indices of the evaluation images of a scene; None: of all scenes.

        Raises:
            ValueError: there is no such scene.
        """
        dataset: Any = self.pipeline.datamanager.eval_dataset
        names = list(self.model.scenes)
        if scene not in (None, *names):
            raise ValueError(f"there is no scene '{scene}' in this run: it has {', '.join(names)}")
        return [i for i, frame in enumerate(dataset.frames) if scene in (None, names[frame.scene])]

    @torch.no_grad()
    def render(
        self, camera: Cameras, crop: CropBox | None = None, background: tuple[float, ...] | None = None
    ) -> dict[str, Float[Tensor, "H W C"]]:
        """All outputs of one camera (shape (1,)), on the CPU, edited as the model's scene state says.

        Args:
            camera: From where and when.
            crop: Box outside which nothing is shown.
            background: Colour behind everything; None: the crop's, the scene state's or the scene's.
        """
        from nerfstudio.data.scene_box import OrientedBox
        from nerfstudio.model_components.renderers import background_color_override_context

        self.pipeline.eval()
        box = None if crop is None else OrientedBox.from_params(*crop.as_floats())
        color = background or (None if crop is None else crop.background)
        device = self.model.device
        behind = nullcontext() if color is None else background_color_override_context(torch.tensor(color))
        with behind:
            outputs = self.model.get_outputs_for_camera(camera.to(device), box)
        return {name: value.cpu() for name, value in outputs.items()}

    def edit(self, state: SceneState, progress: Progress | None = None) -> None:
        """Show a scene as a state says, with its instances where they are needed.

        Raises:
            ValueError: the state names what the run does not have.
        """
        from semflow_nerfstudio.editing.find_instances import show_state

        show_state(self.model, self.config.get_base_dir(), state, progress)

    def show(self, display: Display, progress: Progress | None = None) -> None:
        """Show classes as a display says, with the scene's instances where it highlights one.

        Raises:
            ValueError: it names what the run does not have.
        """
        from semflow_nerfstudio.editing.find_instances import instances_of

        model = self.model
        display.check(model.class_names)
        named = any(parse_target(target)[0] == "instance" for target in display.highlight)
        found = instances_of(self, model.edited_scene(model.scene_state), progress) if named else None
        if found is not None:
            check_known(SceneState(isolate=display.highlight), model.class_names, found.ids, list(model.scenes))
        model.display, model.membership = display, None if found is None else instance_membership(found)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def load_run(path: Path, test_mode: str = "test") -> Run:
    """Load a run from its folder or its config.yml.

    Raises:
        FileNotFoundError: there is no run at the path.
        ValueError: its checkpoint is damaged, or of another configuration.
    """
    from nerfstudio.utils.eval_utils import eval_setup

    from semflow_nerfstudio.configs import methods  # noqa: F401  (registers what checkpoints need)

    file = run_config_file(path)

    def moved(config: TrainerConfig) -> TrainerConfig:
        if (
            config.get_base_dir().resolve() != file.parent.resolve()
            and (file.parent / config.relative_model_dir).is_dir()
        ):
            config.get_base_dir = lambda: file.parent  # type: ignore[method-assign]
        return config

    try:
        config, pipeline, _, _ = eval_setup(file, test_mode=test_mode, update_config_callback=moved)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise ValueError(f"{file.parent}: {' '.join(str(error).split())}") from error
    assert isinstance(pipeline, SemanticFlowPipeline)
    return Run(config, pipeline)


def run_config_file(path: Path) -> Path:
    """The config.yml of a run, given itself, the run's folder, or a folder above: there, the latest.

    Raises:
        FileNotFoundError: there is no run at the path.
    """
    file = path / "config.yml" if path.is_dir() else path
    if file.is_file():
        return file
    nested = sorted(path.rglob("config.yml")) if path.is_dir() else []
    if not nested:
        raise FileNotFoundError(f"{file}: there is no trained run here; give the folder that holds config.yml")
    return max(nested, key=lambda p: p.stat().st_mtime)


def evenly_spaced(total: int, count: int) -> list[int]:
    """Indices of `count` of `total` views, evenly spread, first and last included; all where there are no more."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist() if total else []


def evaluate(
    run: Run,
    views: Iterable[int] | None = None,
    progress: Progress | None = None,
    foreground_only: bool = False,
) -> dict[str, float]:
    """Scores of held-out views: means over images, data-set level scores, and the copy baseline.

    Of several scenes, each scene's scores (`SCENE/psnr`) and their means.

    Args:
        run: What to evaluate.
        views: Indices of evaluation images; None for all.
        progress: Told after every image.
        foreground_only: Score all classes that are not foreground as one.

    Raises:
        ValueError: with `foreground_only`, where the run has no labels, or no class of either kind.
    """
    dataset: Any = run.pipeline.datamanager.eval_dataset
    chosen = list(range(len(dataset)) if views is None else views)
    if foreground_only and not 0 < int(run.model.foreground.sum()) < len(run.model.class_names):
        known = ", ".join(run.model.class_names) or "none"
        raise ValueError(
            "the scores of the foreground alone need classes that are foreground and classes that are not, but of this "
            f"run's classes ({known}) {int(run.model.foreground.sum())} are: name them in foreground_object.txt (or as "
            "`foreground` in transforms.json) and train again, or score all classes."
        )
    run.model.evaluation.reset(foreground_only)
    copies: dict[str, list[dict[str, float]]] = {}
    rays, start = 0, time.perf_counter()
    for done, index in enumerate(chosen):
        batch = dataset.get_data(index)
        with run.model.unedited():
            outputs = run.render(dataset.cameras[index : index + 1])
        scene = run.model.scene_of(dataset.cameras[index : index + 1])
        run.model.get_image_metrics_and_images(outputs, batch, scene)
        copies.setdefault(scene, []).append(copy_of_same_time(run, dataset, index, batch, foreground_only))
        rays += outputs["rgb"].shape[0] * outputs["rgb"].shape[1]
        if progress is not None:
            progress(done + 1, len(chosen))
    seconds = time.perf_counter() - start
    copied = join_scores({scene: mean_over_images(images) for scene, images in copies.items()})
    scores = run.model.evaluation.result() | copied
    return scores | {
        "eval_views": len(chosen),
        "eval_seconds": seconds,
        "eval_rays_per_second": rays / max(seconds, 1e-9),
    }


def copy_of_same_time(
    run: Run, dataset: Any, index: int, batch: dict[str, Tensor], foreground_only: bool = False
) -> dict[str, float]:
    """Scores of the scene's training frame whose time is nearest, shown in place of a rendering.

    Labels are those of the nearest frame that has some; pixels without one take the nearest labelled pixel's.
    """
    train: Any = run.pipeline.datamanager.train_dataset
    if train.cameras.times is None or dataset.cameras.times is None:
        return {}
    gap = (train.cameras.times[:, 0] - dataset.cameras.times[index, 0]).abs()
    gap[torch.tensor([frame.scene != dataset.frames[index].scene for frame in train.frames])] = torch.inf
    nearest = train.get_data(int(gap.argmin()))
    image, truth = nearest["image"][..., :3], batch["image"][..., :3]
    if image.shape != truth.shape:
        return {}
    labelled = torch.tensor([frame.labels is not None for frame in train.frames])
    labels, closest = nearest.get("labels"), int(torch.where(labelled, gap, torch.inf).argmin())
    if labels is not None and labelled[closest] and gap[closest].isfinite():
        labels = torch.from_numpy(fill_holes(train.label_image(closest)))
    true_labels = batch.get("labels")
    if foreground_only:
        labels, true_labels = (with_one_static_class(x, run.model.foreground) for x in (labels, true_labels))
    return copy_baseline(image, labels, truth, true_labels)


def with_one_static_class(labels: Tensor | None, foreground: Bool[Tensor, "C"]) -> Tensor | None:
    """Label images in which the first class that is not foreground stands for all such classes."""
    if labels is None:
        return None
    static = (~foreground).nonzero()[:, 0].to(labels)
    return torch.where(torch.isin(labels, static), static[0], labels)


def train(config: TrainerConfig, on_step: Callable[[int, float], None] | None = None) -> tuple[Run, float]:
    """Train a configuration with nerfstudio's trainer, without viewer and logging.

    Args:
        config: What to train.
        on_step: Told (step, PSNR of the step's rays) after every iteration.

    Returns:
        The run and the seconds that its iterations took.
    """
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
    from nerfstudio.utils import writer

    config.vis = "tensorboard"
    config.logging.local_writer.enable = False
    seed_everything(config.machine.seed)
    config.set_timestamp()
    writer.EVENT_WRITERS.clear()  # or a second training would log into the first one's folder as well
    trainer = config.setup(local_rank=0, world_size=1)
    config.save_config()
    trainer.setup()
    if on_step is not None:
        trainer.callbacks.append(
            TrainingCallback(
                where_to_run=[TrainingCallbackLocation.AFTER_TRAIN_ITERATION],
                update_every_num_iters=1,
                func=lambda step: on_step(step, trainer.pipeline.model.train_psnr),
            )
        )
    start = time.perf_counter()
    trainer.train()
    return Run(config, trainer.pipeline), time.perf_counter() - start
