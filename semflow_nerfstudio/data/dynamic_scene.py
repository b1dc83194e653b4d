"""Dataparser of the Semantic Dynamic Scene / DynamicNeRF folder layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox

from semflow_nerfstudio.data import scene_units
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.layout import LLFFCameras, SceneFolder, TestView, read_scene_folder
from semflow_nerfstudio.data.modalities import downscaled_size
from semflow_nerfstudio.data.multi_scene import SceneParsers
from semflow_nerfstudio.data.parser_outputs import make_semantics, report_modalities, say
from semflow_nerfstudio.data.protocols import EVAL_PROTOCOLS, EvalProtocol, labelled_frames, scribble_share
from semflow_nerfstudio.data.records import FrameRecord, SceneRecord, scene_key
from semflow_nerfstudio.data.verification import verify_frames
from semflow_nerfstudio.saved_config import SavedConfig


@dataclass
class DynamicSceneDataParserConfig(SavedConfig, DataParserConfig):
    """Semantic Dynamic Scene / DynamicNeRF folders: images, poses_bounds.npy and whatever else there is."""

    _target: type = field(default_factory=lambda: DynamicSceneDataParser)
    data: Path = Path()
    """Folder of one scene, or with `scenes` the folder that they are in. The class table (labelmap.txt,
    foreground_object.txt) lies beside a scene or in it."""
    scenes: tuple[str, ...] = ()
    """Scenes to read as one data set: names of folders in `data`, or paths. Without any, `data` is the scene."""
    read_labels: bool = True
    """Whether labels and class tables are read at all, for training or evaluation; without, their files may be broken
    or missing."""
    downscale_factor: int = 1
    """Train and evaluate at floor(width / s) x floor(height / s). Everything is resized while it is loaded."""
    labelled_frames: str = "all"
    """Frames whose labels may be used in training: all, none, 0-based indices such as 0,5,11, or completion-75,
    completion-50, completion-25, tracking-75, tracking-50, tracking-25, scribbles-1 (1 % of every frame's pixels)."""
    eval_protocol: EvalProtocol = "all-views"
    """Evaluate on: all-views (every camera at every time minus the training images; with partial labels only the times
    without labels), dynnerf (the first camera at all times), train-holdout (training frames held out at an interval),
    label-holdout (the training frames whose labels are withheld; their colours are trained on).
    A scene without test views that are no training images is always evaluated on held-out training frames."""
    holdout_interval: int = 6
    """Of this many consecutive training frames, train-holdout keeps the middle one for evaluation."""
    include_training_views: bool = False
    """Also evaluate those test views that are training images, as published DynamicNeRF figures do."""
    orientation_method: Literal["up", "none"] = "up"
    """up: rotate the scene so that the cameras' mean up axis is +z; none: keep the world's axes."""
    depth_margin: float = 0.05
    """Share by which the near and far bounds are widened: data sets take them from percentiles of a point cloud."""


@dataclass(frozen=True)
class _View:
    """One image of a split."""

    image: Path
    record: FrameRecord
    camera: int
    """Row of the poses."""
    time: int
    frame: int | None
    """Index in the clip, None for a test view."""


class DynamicSceneDataParser(DataParser):
    """Reads one scene or several; see `DynamicSceneDataParserConfig`.

    Besides nerfstudio's fields, the outputs carry metadata["frames"] (a FrameRecord per image), metadata["scenes"] (a
    SceneRecord per scene) and, where there is a class table, metadata["semantics"]; cameras carry metadata["scene"].
    """

    config: DynamicSceneDataParserConfig
    includes_time: bool = True
    downscale_factor: int | None = None
    """nerfstudio sets this to 1 on the object where it renders at full size."""

    def __init__(self, config: DynamicSceneDataParserConfig):
        super().__init__(config=config)
        self._folder: SceneFolder | None = None
        self._verified: set[Path] = set()
        self._scenes = SceneParsers(config) if config.scenes else None

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        if self._scenes is not None:
            return self._scenes.outputs(split, self.downscale_factor)
        scene = self._scene()
        training, evaluation = self._split(scene)
        views = training if split == "train" else evaluation
        verify_frames([v.image for v in views], [v.record for v in views], scene.classes, self._verified)

        factor = self.config.downscale_factor if self.downscale_factor is None else self.downscale_factor
        if factor < 1:
            raise SceneDataError(f"--downscale-factor is {factor} for {self.config.data}: use a number from 1 up.")
        width, height = downscaled_size(*scene.size, factor)
        poses, rotation, center, scale, far_ratio = self._normalize(scene.cameras, scene.size)
        rows = [view.camera for view in views]
        ratio = np.array([width / scene.size[0], height / scene.size[1]] * 2)
        fx, fy, cx, cy = torch.from_numpy((scene.cameras.intrinsics[rows] * ratio).astype(np.float32)).T[..., None]
        distinct_times = clip_times(len(scene.images))
        cameras = Cameras(
            camera_to_worlds=torch.from_numpy(poses[rows].astype(np.float32)),
            fx=fx,
            fy=fy,
            cx=cx,
            cy=cy,
            width=width,
            height=height,
            camera_type=CameraType.PERSPECTIVE,
            times=torch.from_numpy(distinct_times[[view.time for view in views]])[:, None],
            metadata={"scene": torch.zeros(len(views), 1, dtype=torch.int64)},
        )

        near, far = self._depth_range(scene.cameras)
        trained = {view.frame: index for index, view in enumerate(training)}
        record = SceneRecord(
            name=scene_key(self.config.data.resolve().name),
            classes=scene.classes,
            distinct_times=distinct_times,
            next_frame=_neighbours(views, trained, 1),
            previous_frame=_neighbours(views, trained, -1),
            near=near * scale,
            far=far * scale * far_ratio,
            bounded=True,
            frame_range=(0, len(views)),
        )
        records = [view.record for view in views]
        metadata: dict = {"frames": records, "scenes": [record]}
        if scene.classes is not None:
            metadata["semantics"] = make_semantics(scene.classes, records)
        return DataparserOutputs(
            image_filenames=[view.image for view in views],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])),
            metadata=metadata,
            dataparser_transform=torch.from_numpy(
                np.concatenate([rotation, -center[:, None]], axis=1).astype(np.float32)
            ),
            dataparser_scale=scale,
        )

    def _scene(self) -> SceneFolder:
        """The scene's files, listed and checked once per parser."""
        if self._folder is None:
            self._folder = read_scene_folder(self.config.data, self.config.read_labels)
            self._report(self._folder)
        return self._folder

    def _report(self, scene: SceneFolder) -> None:
        training, _ = self._split(scene)
        flows = sum((view.time > 0) + (view.time < len(scene.images) - 1) for view in training)
        report_modalities(str(self.config.data), [view.record for view in training], flows)
        if not self._novel_views(scene) and self.config.eval_protocol not in ("train-holdout", "label-holdout"):
            kept = "frames that are held out" if len(training) < len(scene.images) else "the training frames themselves"
            lacks = "nothing but training images in" if scene.test_views else "no"
            say(f"{self.config.data} has {lacks} multiview_GT/: evaluation uses {kept}.")

    def _novel_views(self, scene: SceneFolder) -> list[TestView]:
        """The test views that are no training images, or all of them where that is asked for."""
        return [
            view
            for view in scene.test_views
            if self.config.include_training_views or not scene.cameras.same_camera(view.camera, view.time)
        ]

    def scored_times(self, scene: SceneFolder) -> set[int]:
        """Indices of the times of the clip that evaluation views with labels show, of the scene's files as listed.

        Raises:
            SceneDataError: the options leave no evaluation view.
        """
        _, evaluation = self._split(scene)
        return {view.time for view in evaluation if view.record.labels is not None}

    def _split(self, scene: SceneFolder) -> tuple[list[_View], list[_View]]:
        """Training and evaluation views. Labels of training frames that may not be used are dropped here."""
        config = self.config
        count = len(scene.images)
        labelled = set(labelled_frames(config.labelled_frames, count, config.data))
        if config.eval_protocol not in EVAL_PROTOCOLS:
            raise SceneDataError(
                f"--eval-protocol is '{config.eval_protocol}' for {config.data}: use {', '.join(EVAL_PROTOCOLS)}."
            )
        frames = [
            _View(image, record, camera=k, time=k, frame=k)
            for k, (image, record) in enumerate(zip(scene.images, scene.records, strict=True))
        ]
        held_out: list[int] = []
        evaluation: list[_View] = []
        novel = self._novel_views(scene)
        if config.eval_protocol == "label-holdout":
            evaluation = [view for view in frames if view.frame not in labelled]
            if not evaluation:
                raise SceneDataError(
                    f"--eval-protocol label-holdout has nothing to evaluate in {config.data}: withhold labels with "
                    "--labelled-frames."
                )
        elif config.eval_protocol == "train-holdout" or not novel:
            held_out = held_out_frames(count, config.holdout_interval)
            evaluation = [frames[k] for k in held_out or range(count)]
        else:
            times = set(range(count)) - labelled
            for view in novel:
                if config.eval_protocol == "dynnerf":
                    wanted = view.camera == 0
                else:
                    wanted = not times or view.time in times
                if wanted:
                    evaluation.append(
                        _View(view.image, FrameRecord(labels=view.labels), view.camera, view.time, frame=None)
                    )
            if not evaluation:
                raise SceneDataError(
                    f"{config.data / 'multiview_GT'} has no view for --eval-protocol {config.eval_protocol}: add test "
                    "views or use --eval-protocol train-holdout."
                )
        training = [
            replace(
                view,
                record=replace(
                    view.record,
                    labels=view.record.labels if view.frame in labelled else None,
                    scribbles=scribble_share(config.labelled_frames),
                ),
            )
            for view in frames
            if view.frame not in held_out
        ]
        return training, evaluation

    def _depth_range(self, cameras: LLFFCameras) -> tuple[float, float]:
        return cameras.near * (1 - self.config.depth_margin), cameras.far * (1 + self.config.depth_margin)

    def _normalize(
        self, cameras: LLFFCameras, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
        """Poses in scene units, the world-to-scene rotation, centre and scale, and the longest ray per unit of depth.

        From all cameras of the clip, so that it is the same for all splits, protocols and sizes.
        """
        rotation = (
            np.eye(3) if self.config.orientation_method == "none" else scene_units.upright_rotation(cameras.poses)
        )
        poses = rotation @ cameras.poses
        rays = scene_units.corner_rays(cameras.intrinsics, *size)
        center, scale = scene_units.fit_unit_box(scene_units.frustum_points(poses, rays, *self._depth_range(cameras)))
        poses[:, :, 3] = scale * (poses[:, :, 3] - center)
        return poses, rotation, center, scale, scene_units.longest_ray(rays)


def clip_times(count: int) -> np.ndarray:
    """Times k / (count - 1) of the frames of a clip, float32; 0 for a single frame."""
    return (np.arange(count) / max(count - 1, 1)).astype(np.float32)


def held_out_frames(count: int, interval: int) -> list[int]:
    """Frames kept for evaluation: the middle one of every `interval`; none of a clip of one or two frames.

    Raises:
        SceneDataError: if the interval is below 2.
    """
    if interval < 2:
        raise SceneDataError(f"--holdout-interval is {interval}: use at least 2, so that frames remain for training.")
    if count < 3:
        return []
    return [k for k in range(count) if k % interval == interval // 2] or [count // 2]


def _neighbours(views: Sequence[_View], trained: dict[int | None, int], step: int) -> np.ndarray:
    return np.array(
        [-1 if view.frame is None else trained.get(view.frame + step, -1) for view in views], dtype=np.int64
    )
