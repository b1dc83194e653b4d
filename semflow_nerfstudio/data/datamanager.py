"""nerfstudio's datamanager for videos: rays from a few frames at a time, and what the model is told of each scene."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PatchPixelSamplerConfig, PixelSampler, PixelSamplerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from semflow_nerfstudio.compat import sent
from semflow_nerfstudio.data.corruption import CorruptionConfig
from semflow_nerfstudio.data.dataset import SemFlowDataset
from semflow_nerfstudio.data.derived_motion import derive_motion_masks
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.frame_cache import FrameCache
from semflow_nerfstudio.data.frame_features import Clip, FrameFeaturesConfig, frame_features
from semflow_nerfstudio.data.frame_sampler import SemFlowPixelSampler, SemFlowPixelSamplerConfig
from semflow_nerfstudio.data.label_sources import LabelPropagation, label_images, propagate_labels
from semflow_nerfstudio.data.labels import ClassTable, extend_class_table
from semflow_nerfstudio.data.parser_outputs import say
from semflow_nerfstudio.data.scene_assembly import (
    align_scenes,
    assemble_scene,
    complete_cameras,
    labelled_classes,
)
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene_frames import SceneFrames


@dataclass
class SemFlowDataManagerConfig(SavedConfig, VanillaDataManagerConfig):
    """Configuration of `SemFlowDataManager`."""

    _target: type = field(default_factory=lambda: SemFlowDataManager)
    """Target class to instantiate."""
    dataparser: AnnotatedDataParserUnion = field(default_factory=DynamicSceneDataParserConfig)  # type: ignore
    """Which data to read; every parser of nerfstudio works."""
    pixel_sampler: PixelSamplerConfig = field(default_factory=SemFlowPixelSamplerConfig)
    """From which pixels batches are drawn."""
    eval_num_images_to_sample_from: int = 8
    """Evaluation images kept in memory for losses during training; -1 for all. Metrics always see all images."""
    frame_width_cap: int = 512
    """Width in pixels to which the frames that the frame encoder sees are scaled down where they are wider."""
    align_disparity: bool = True
    """Whether to make metric depth of relative disparity, by static points triangulated from the optical flow."""
    derive_motion_masks: bool = True
    """Whether what moves is derived from optical flow and poses on training frames that have no motion mask."""
    label_propagation: LabelPropagation = "auto"
    """How unlabelled pixels learn from others' labels where some frames, or most pixels, have none: along the given
    optical flow and from strokes to the rest of their image before training, along the model's own trajectories while
    it trains, all of it (auto), or none."""
    silhouettes: bool = False
    """Whether the model gets the training frames' label images, so that movers can be held to their silhouettes in the
    neighbouring frames (`losses.silhouette`)."""
    hidden_labels: Literal["none", "training", "all"] = "none"
    """Labels that are never read, so that their files may be missing or broken: none, those of the training frames, or
    those for evaluation as well."""
    known_classes: tyro.conf.Suppress[ClassTable | None] = None
    """Classes that come first in the data set's table, those of networks that are adapted to it."""
    known_basis: tyro.conf.Suppress[Any] = None
    """`FeatureBasis` by which frozen features are compressed, that of networks that are adapted to them; None: one
    that is fitted to all scenes."""
    frame_features: FrameFeaturesConfig = field(default_factory=FrameFeaturesConfig)
    """What the flows read in the frames: a small encoder trained along, or frozen features of a pretrained one."""
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    """Deliberate damage to the training data, to measure how much the method minds."""


class SemFlowDataManager(VanillaDataManager[SemFlowDataset]):
    """Works with every dataparser; see `SemFlowDataset` for what batches hold (but for
    `disparity` and `depth` where there is `inverse_depth`, which is made of them).

    The training dataset's metadata, which nerfstudio hands to the model, gets `scene_frames` (name -> `SceneFrames`)
    where disparity was aligned, `alignment` (name -> `DisparityAlignment`), for training with few labels
    `label_sources` (name -> `LabelSources`), for training on frozen features `feature_basis`, and `silhouettes`
    (name -> label images) where they are asked for.
    """

    config: SemFlowDataManagerConfig  # type: ignore

    def __init__(self, config: SemFlowDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(without_labels(config), *args, **kwargs)
        dataset = self.train_dataset
        # A run that is only looked at has no loader: nerfstudio leaves it out, and `ns-render dataset` prevents it.
        loader = getattr(self, "train_image_dataloader", None)
        images = None if loader is None else loader.all_images()
        scenes = [assemble_scene(dataset, i, config.frame_width_cap, images) for i in range(len(dataset.scenes or ()))]
        if len(scenes) > 1 and self.test_mode == "val":  # a checkpoint knows; one scene alone learns what it lacks
            for i, scene in enumerate(scenes):
                scene.own_classes = labelled_classes(dataset, i)
        self.add_frame_features(scenes)
        dataset.metadata["scene_frames"] = {scene.name: scene for scene in scenes}

    def add_frame_features(self, scenes: list[SceneFrames]) -> None:
        """Give scenes the features of a frozen encoder: computed for training, empty where a checkpoint has them."""
        config, adapted = self.config.frame_features, self.config.known_classes is not None
        if config.encoder == "trainable" or not (adapted or any("labels" in scene.has for scene in scenes)):
            return
        if self.test_mode != "val":
            for scene in scenes:
                scene.features = torch.zeros(len(scene.images), 1, 1, config.pca_dim, dtype=torch.float16)
            return
        found = frame_features([Clip.of(scene) for scene in scenes], config, self.device, self.config.known_basis)
        if found is not None:
            self.train_dataset.metadata["feature_basis"] = found.basis
            for scene, maps in zip(scenes, found.maps, strict=True):
                scene.features = maps

    def create_train_dataset(self) -> SemFlowDataset:
        """The training frames, damaged where that is asked for."""
        dataset = self._with_classes(super().create_train_dataset(), hidden=("training", "all"))
        if not self.config.corruption.nothing:
            dataset.corrupt(self.config.corruption)
        return dataset

    def create_eval_dataset(self) -> SemFlowDataset:
        """The evaluation dataset. It is made last: times need the cameras of all splits."""
        dataset = self._with_classes(super().create_eval_dataset(), hidden=("all",))
        complete_cameras(self.train_dataset, dataset, self.dataparser, self.test_split)
        return dataset

    def _with_classes(self, dataset: SemFlowDataset, hidden: tuple[str, ...]) -> SemFlowDataset:
        if self.config.hidden_labels in hidden:
            dataset.hide_labels()
        if self.config.known_classes is not None:
            dataset.use_classes(extend_class_table(self.config.known_classes, dataset.table))
        return dataset

    def use_classes(self, table: ClassTable) -> None:
        """Take over the classes of a trained run, by name; says which classes of the labels it does not know."""
        unknown = {name: None for data in (self.train_dataset, self.eval_dataset) for name in data.use_classes(table)}
        if unknown:
            say(f"The run knows no class {', '.join(unknown)}: pixels with these labels are not scored.")

    def show_scene(self, index: int) -> None:
        """Let the first evaluation camera be the first of this scene: `ns-render spiral` starts there."""
        if isinstance(getattr(self, "eval_dataloader", None), SceneEvalDataloader):
            self.eval_dataloader.first = self.eval_dataset.frame_range(index)[0]

    def setup_train(self) -> None:
        """Set up the training frames. Only for training are they read, and masks and depth derived, now."""
        dataset = self.train_dataset
        training = self.test_mode == "val"
        if self.config.derive_motion_masks and training:
            derive_motion_masks(dataset)
        if self.config.align_disparity and training:
            align_scenes(dataset)
        if training:
            dataset.metadata["label_sources"] = propagate_labels(dataset, self.config.label_propagation)
            if self.config.silhouettes:
                dataset.metadata["silhouettes"] = label_images(dataset)
        self.train_image_dataloader = self._cache(
            dataset, self.config.train_num_images_to_sample_from, self.config.train_num_times_to_repeat_images
        )
        if training:
            self.train_image_dataloader.preload()
        self.iter_train_image_dataloader = iter(self.train_image_dataloader)
        self.train_pixel_sampler = self._get_pixel_sampler(dataset, self.config.train_num_rays_per_batch)
        self.train_ray_generator = HostRayGenerator(dataset.cameras)

    def setup_eval(self) -> None:
        """Set up evaluation images; they are read when asked for."""
        dataset = self.eval_dataset
        self.eval_image_dataloader = self._cache(
            dataset, self.config.eval_num_images_to_sample_from, self.config.eval_num_times_to_repeat_images
        )
        self.iter_eval_image_dataloader = iter(self.eval_image_dataloader)
        self.eval_pixel_sampler = self._get_pixel_sampler(dataset, self.config.eval_num_rays_per_batch)
        self.eval_ray_generator = HostRayGenerator(dataset.cameras)
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(input_dataset=dataset, device=self.device)
        self.eval_dataloader = SceneEvalDataloader(input_dataset=dataset, device=self.device)

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """Rays and the pixels they belong to, on the datamanager's device.

        Beside the keys of `SemFlowDataset`, `indices` (R, 3) holds frame, row and column, `image_size` (R, 2) the
        width and height of the frame, which turn flow into shares of the image. `image` is float32 in [0, 1].
        """
        ray_bundle, batch = super().next_train(step)
        ray_bundle, batch = self._finish(ray_bundle, batch, self.train_dataset)
        if "motion_mask" in batch:
            # The model spends its dynamic field where something moves; in rendering it has no such hint.
            ray_bundle.metadata["motion"] = batch["motion_mask"]
        return ray_bundle, batch

    def next_eval(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """As `next_train`, for evaluation images."""
        ray_bundle, batch = super().next_eval(step)
        return self._finish(ray_bundle, batch, self.eval_dataset)

    def _finish(
        self, rays: RayBundle, batch: dict[str, Any], dataset: SemFlowDataset
    ) -> tuple[RayBundle, dict[str, Any]]:
        frames = batch["indices"][:, 0].cpu()
        batch["image_size"] = torch.cat([dataset.cameras.width[frames], dataset.cameras.height[frames]], dim=-1).float()
        batch = {key: self._sent(value) if isinstance(value, Tensor) else value for key, value in batch.items()}
        if batch["image"].dtype == torch.uint8:
            batch["image"] = batch["image"].float() / 255.0
        return rays._apply_fn_to_fields(self._sent), batch

    def _sent(self, values: Tensor) -> Tensor:
        return sent(values, torch.device(self.device))

    def _cache(self, dataset: SemFlowDataset, num_frames: int, num_repeats: int) -> FrameCache:
        # What inverse depth was made of is four bytes a pixel and frame that no loss reads.
        unused = ("disparity", "depth") if dataset.disparity_is_aligned() else ("depth",)
        return FrameCache(dataset, num_frames, num_repeats, self.device, self.exclude_batch_keys_from_device, unused)

    def _get_pixel_sampler(self, dataset: SemFlowDataset, num_rays_per_batch: int) -> PixelSampler:
        if self.config.patch_size > 1 and type(self.config.pixel_sampler) is SemFlowPixelSamplerConfig:
            # given as an argument of setup(), the patch size would come too late for the number of rays
            sampler = PatchPixelSamplerConfig(patch_size=self.config.patch_size)
            return sampler.setup(num_rays_per_batch=num_rays_per_batch)
        sampler = super()._get_pixel_sampler(dataset, num_rays_per_batch)
        if isinstance(sampler, SemFlowPixelSampler):
            sampler.scene_of_frame = torch.tensor([frame.scene for frame in dataset.frames])
        return sampler


class HostRayGenerator(RayGenerator):
    """Makes rays on the host, wherever the model is: nerfstudio's cameras ask their device for values, at each of
    which a GPU would run dry."""

    def __init__(self, cameras: Cameras) -> None:
        super().__init__(cameras.to("cpu"))

    def _apply(self, fn: Any, recurse: bool = True) -> HostRayGenerator:
        """Stay where it is when the pipeline moves."""
        return self

    def forward(self, ray_indices: Tensor) -> RayBundle:
        """Rays of (frame, row, column) indices (R, 3)."""
        return super().forward(ray_indices.cpu())


class SceneEvalDataloader(RandIndicesEvalDataloader):
    """Random evaluation images; asked for single ones, it counts from the first of the scene that is shown."""

    first: int = 0

    def get_camera(self, image_idx: int = 0) -> tuple[Cameras, dict]:
        """Camera and batch of an image."""
        return super().get_camera((self.first + image_idx) % len(self.cameras))


def without_labels(config: SemFlowDataManagerConfig) -> SemFlowDataManagerConfig:
    """A configuration whose parser does not even look at the labels that are hidden, where it can be told so."""
    changes: dict[str, Any] = {"training": {"labelled_frames": "none"}, "all": {"read_labels": False}}
    changed = changes.get(config.hidden_labels, {})
    if not all(hasattr(config.dataparser, name) for name in changed) or not changed:
        return config
    return replace(config, dataparser=replace(config.dataparser, **changed))
