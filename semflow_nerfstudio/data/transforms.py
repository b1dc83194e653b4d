"""Dataparser of nerfstudio's transforms.json with times, labels, optical flow, masks and depth."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import (
    MAX_AUTO_RESOLUTION,
    Nerfstudio,
    NerfstudioDataParserConfig,
)
from nerfstudio.data.scene_box import SceneBox

from semflow_nerfstudio.data import scene_units
from semflow_nerfstudio.data.checks import SceneDataError, same_shape
from semflow_nerfstudio.data.modalities import downscaled_size
from semflow_nerfstudio.data.multi_scene import SceneParsers
from semflow_nerfstudio.data.parser_outputs import make_semantics, report_modalities, say
from semflow_nerfstudio.data.protocols import labelled_frames, scribble_share
from semflow_nerfstudio.data.records import SceneRecord, scene_key
from semflow_nerfstudio.data.transforms_json import TransformsFile, TransformsFrame, read_transforms
from semflow_nerfstudio.data.verification import common_size, verify_frames
from semflow_nerfstudio.saved_config import SavedConfig


@dataclass
class SemFlowDataParserConfig(SavedConfig, NerfstudioDataParserConfig):
    """nerfstudio's transforms.json with a time per frame and optional labels, flow, masks and depth."""

    _target: type = field(default_factory=lambda: SemFlowDataParser)
    scenes: tuple[str, ...] = ()
    """Scenes to read as one data set: names of folders in `data`, or paths. Without any, `data` is the scene."""
    read_labels: bool = True
    """Whether labels and class tables are read at all, for training or evaluation; without, their files may be broken
    or missing."""
    downscale_factor: int | None = None
    """Train and evaluate at floor(width / s) x floor(height / s), resized while it is loaded. If not set, the smallest
    power of two that brings the longer side to at most 1600 pixels."""
    labelled_frames: str = "all"
    """Distinct times of the clip whose labels may be used in training: all, none, 0-based indices such as 0,5,11, or
    completion-75, completion-50, completion-25, tracking-75, tracking-50, tracking-25, scribbles-1 (1 % of all
    pixels)."""


class SemFlowDataParser(Nerfstudio):
    """nerfstudio's own parser, whose orientation, scale, mask and split options all apply, with time and modalities.

    It differs in this: frames are sorted by time, then camera; `downscale_factor` needs no prepared `images_N` folders
    (everything is resized while it is loaded, to floor(width / s) x floor(height / s)); where the file has `near` and
    `far`, the volume that the cameras see between them is centred and scaled into [-1, 1]^3 instead of the cameras'
    positions. The outputs carry the same metadata as those of `DynamicSceneDataParser`.
    """

    config: SemFlowDataParserConfig

    def __init__(self, config: SemFlowDataParserConfig):
        # Not decorated as a dataclass and with its own __init__: the parent's generated one would set includes_time.
        super().__init__(config=config, includes_time=True)
        self._file: TransformsFile | None = None
        self._parent: dict[str, DataparserOutputs] = {}
        self._verified: set[Path] = set()
        self._size = (0, 0)
        self._scenes = SceneParsers(config) if config.scenes else None

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        if self._scenes is not None:
            return self._scenes.outputs(split, self.downscale_factor)
        file = self._transforms()
        training = self._parent_outputs("train")
        outputs = training if split == "train" else self._parent_outputs(split)
        by_image = {frame.image: (index, frame) for index, frame in enumerate(file.frames)}
        trained = sorted(by_image[path][0] for path in training.image_filenames)
        found = [by_image[path] for path in outputs.image_filenames]
        order = sorted(range(len(found)), key=lambda i: found[i][0])
        indices, frames = [found[i][0] for i in order], [found[i][1] for i in order]
        if split == "train":
            frames = self._without_hidden_labels(file, frames)
        records = [frame.record for frame in frames]
        verify_frames([frame.image for frame in frames], records, file.classes, self._verified)

        scale, shift, near, far = self._fit_depth_range(file, outputs)
        position = torch.tensor(indices)
        record = SceneRecord(
            name=scene_key(file.path.resolve().parent.name),
            classes=file.classes,
            distinct_times=file.distinct_times.astype(np.float32),
            next_frame=_neighbours(file, trained, indices, 1),
            previous_frame=_neighbours(file, trained, indices, -1),
            camera=np.unique([frame.camera for frame in frames], return_inverse=True)[1],
            near=near,
            far=far,
            bounded=file.near is not None,
            depth_unit=file.depth_unit,
            frame_range=(0, len(position)),
        )
        metadata = dict(outputs.metadata)
        if file.depth_unit is not None:
            metadata["depth_unit_scale_factor"] = file.depth_unit
        if metadata.get("depth_filenames"):
            metadata["depth_filenames"] = [metadata["depth_filenames"][i] for i in order]
        if "points3D_xyz" in metadata:
            metadata["points3D_xyz"] = scale * (metadata["points3D_xyz"] + shift)
        metadata.update(frames=records, scenes=[record])
        if file.classes is not None:
            metadata["semantics"] = make_semantics(file.classes, records)
        transform = outputs.dataparser_transform.clone()
        transform[:, 3] += shift / outputs.dataparser_scale
        masks = outputs.mask_filenames
        return DataparserOutputs(
            image_filenames=[frame.image for frame in frames],
            cameras=self._cameras(outputs.cameras[torch.tensor(order)], frames, scale, shift),
            alpha_color=outputs.alpha_color,
            scene_box=outputs.scene_box if near is None else SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])),
            mask_filenames=None if masks is None else [masks[i] for i in order],
            metadata=metadata,
            dataparser_transform=transform,
            dataparser_scale=outputs.dataparser_scale * scale,
        )

    def _transforms(self) -> TransformsFile:
        """The file, read and checked once per parser."""
        if self._file is None:
            file = read_transforms(self.config.data, self.config.read_labels)
            self._size = common_size([frame.image for frame in file.frames])
            for frame in file.frames:
                if not same_shape(self._size, frame.size):
                    raise SceneDataError(
                        f"{file.path} states {frame.size[0]:g}x{frame.size[1]:g} for {frame.image.name} but the image "
                        f"is {self._size[0]}x{self._size[1]}: correct w, h and the focal lengths."
                    )
            if not file.timed:
                say(f"{file.path} has no times: frames are taken as equidistant, in the order of their names.")
            self._file = file
            self._report(file)
        return self._file

    def _report(self, file: TransformsFile) -> None:
        images = set(self._parent_outputs("train").image_filenames)
        indices = [index for index, frame in enumerate(file.frames) if frame.image in images]
        frames = self._without_hidden_labels(file, [file.frames[index] for index in indices])
        if "eval_mode" in self._split_of_short_clips():
            say(f"{file.path} leaves no frame for evaluation: it uses the training frames themselves.")
        everything = list(range(len(file.frames)))
        flows = sum(int((_neighbours(file, everything, indices, step) >= 0).sum()) for step in (1, -1))
        report_modalities(str(file.path), [frame.record for frame in frames], flows)

    def _parent_outputs(self, split: str) -> DataparserOutputs:
        """nerfstudio's outputs at full size: its own downscaling wants folders of smaller images."""
        if split not in self._parent:
            factor, self.downscale_factor = self.downscale_factor, 1
            own = self.config
            self.config = replace(own, auto_scale_poses=self._scales_by_positions(), **self._split_of_short_clips())
            try:
                self._parent[split] = super()._generate_dataparser_outputs(split)
            finally:
                self.downscale_factor, self.config = factor, own
            if not self._parent[split].image_filenames:
                raise SceneDataError(
                    f"{self.config.data} has too few frames for a {split} split: change --train-split-fraction or use "
                    "--eval-mode interval or all."
                )
        return self._parent[split]

    def _split_of_short_clips(self) -> dict[str, Any]:
        """nerfstudio's split options, changed where its fraction would leave no frame for evaluation.

        Then the last but one is held out; of one or two frames, or where all are wanted for training, none.
        """
        file, config = self._transforms(), self.config
        count, share = len(file.frames), config.train_split_fraction
        if config.eval_mode != "fraction" or math.ceil(count * share) < count or "train_filenames" in file.meta:
            return {}
        if share < 1 and count >= 3:
            return {"train_split_fraction": (count - 1.5) / count}  # nerfstudio rounds up
        return {"eval_mode": "all"}

    def _scales_by_positions(self) -> bool:
        """nerfstudio's option, off where all cameras stand in one place: it would divide by zero."""
        file = self._transforms()
        positions = np.stack([frame.pose[:, 3] for frame in file.frames])
        if not self.config.auto_scale_poses or np.ptp(positions, axis=0).any():
            return self.config.auto_scale_poses
        if file.near is None:
            raise SceneDataError(
                f"{file.path} has all cameras in one place and no near and far, so nothing tells the scene's size: "
                "write near and far."
            )
        return False

    def _factor(self) -> int:
        factor = self.config.downscale_factor if self.downscale_factor is None else self.downscale_factor
        if factor is None:
            factor = 1
            while max(self._size) / factor > MAX_AUTO_RESOLUTION:
                factor *= 2
        if factor < 1:
            raise SceneDataError(f"--downscale-factor is {factor} for {self.config.data}: use a number from 1 up.")
        return factor

    def _cameras(
        self, cameras: Cameras, frames: list[TransformsFrame], scale: float, shift: Float[torch.Tensor, "3"]
    ) -> Cameras:
        """The parent's cameras with times, for images of the wanted size, moved into the scene box."""
        width, height = downscaled_size(*self._size, self._factor())
        poses = cameras.camera_to_worlds.clone()
        poses[:, :, 3] = scale * (poses[:, :, 3] + shift)
        return Cameras(
            camera_to_worlds=poses,
            fx=cameras.fx * width / cameras.width,
            fy=cameras.fy * height / cameras.height,
            cx=cameras.cx * width / cameras.width,
            cy=cameras.cy * height / cameras.height,
            width=width,
            height=height,
            distortion_params=cameras.distortion_params,
            camera_type=cameras.camera_type,
            times=torch.tensor([[frame.time] for frame in frames], dtype=torch.float32),
            metadata={"scene": torch.zeros(len(frames), 1, dtype=torch.int64)},
        )

    def _without_hidden_labels(self, file: TransformsFile, frames: list[TransformsFrame]) -> list[TransformsFrame]:
        times = file.distinct_times
        labelled = times[list(labelled_frames(self.config.labelled_frames, len(times), file.path))]
        share = scribble_share(self.config.labelled_frames)
        return [
            replace(
                frame,
                record=replace(
                    frame.record, labels=frame.record.labels if frame.time in labelled else None, scribbles=share
                ),
            )
            for frame in frames
        ]

    def _fit_depth_range(
        self, file: TransformsFile, outputs: DataparserOutputs
    ) -> tuple[float, Float[torch.Tensor, "3"], float | None, float | None]:
        """How the parent's scene units x become ours, scale * (x + shift), and near and far along the ray in ours.

        From the cameras of all splits. Nothing changes where the file has no near and far.
        """
        if file.near is None or file.far is None:
            return 1.0, torch.zeros(3), None, None
        applied = torch.eye(4, dtype=torch.float64)
        if "applied_transform" in file.meta:
            applied[:3] = torch.tensor(file.meta["applied_transform"], dtype=torch.float64)
        elif (self.config.data / "colmap/sparse/0").exists():  # what the parent takes for such folders
            applied[:3] = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]], dtype=torch.float64)
        to_scene = (outputs.dataparser_transform.double() @ applied.inverse()).numpy()
        scale = outputs.dataparser_scale / float(file.meta.get("applied_scale", 1.0))
        saved = np.stack([frame.pose for frame in file.frames])
        poses = to_scene[:, :3] @ saved
        poses[:, :, 3] = scale * (poses[:, :, 3] + to_scene[:, 3])
        rays = scene_units.corner_rays(_intrinsics(file), 1.0, 1.0)
        near, far = scale * file.near, scale * file.far
        center, fit = scene_units.fit_unit_box(scene_units.frustum_points(poses, rays, near, far))
        shift = torch.from_numpy(-center.astype(np.float32))
        return fit, shift, fit * near, fit * far * scene_units.longest_ray(rays)


def _intrinsics(file: TransformsFile) -> Float[np.ndarray, "N 4"]:
    """fx, fy, cx, cy of every frame as shares of its width and height."""
    by_name = {file.path.parent / entry["file_path"]: entry for entry in file.meta["frames"]}
    rows = []
    for frame in file.frames:
        entry = {**by_name[frame.image], **file.meta}
        rows.append(
            [entry["fl_x"] / entry["w"], entry["fl_y"] / entry["h"], entry["cx"] / entry["w"], entry["cy"] / entry["h"]]
        )
    return np.array(rows)


def _neighbours(file: TransformsFile, trained: list[int], indices: list[int], step: int) -> np.ndarray:
    """Position among the training frames of the same camera's next (step 1) or previous (-1) frame, else -1."""
    position = {index: place for place, index in enumerate(trained)}
    tracks: dict[str, list[int]] = defaultdict(list)
    for index, frame in enumerate(file.frames):
        tracks[frame.camera].append(index)
    neighbour = {}
    for track in tracks.values():
        for a, b in pairwise(track):
            neighbour[a, 1], neighbour[b, -1] = b, a
    return np.array([position.get(neighbour.get((index, step), -1), -1) for index in indices], dtype=np.int64)
