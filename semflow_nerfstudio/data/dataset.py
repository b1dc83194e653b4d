"""Frames with all their modalities, at the size of their cameras."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs, Semantics
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from semflow_nerfstudio.data.checks import SceneDataError, same_shape
from semflow_nerfstudio.data.corruption import CorruptionConfig, dis_flow
from semflow_nerfstudio.data.disparity_alignment import DisparityAlignment, FrameObservation, sharpen_edges
from semflow_nerfstudio.data.label_propagation import CarriedLabels
from semflow_nerfstudio.data.labels import ClassTable, merge_class_tables
from semflow_nerfstudio.data.modalities import (
    decode_disparity,
    read_depth,
    read_disparity,
    read_flow,
    read_image,
    read_image_size,
    read_labels,
    read_mask,
    resize_flow,
)
from semflow_nerfstudio.data.records import FrameRecord, SceneRecord
from semflow_nerfstudio.data.resize import resize_nearest
from semflow_nerfstudio.data.scribbles import scribbles
from semflow_nerfstudio.scene_frames import IGNORE_LABEL

UNKNOWN_MOTION = 255
"""Value of `motion_mask` where it is not known whether a pixel moves."""
MODALITY_KEYS = (
    "labels",
    "carried_labels",
    "carried_confidence",
    "flow_forward",
    "flow_forward_mask",
    "flow_backward",
    "flow_backward_mask",
    "motion_mask",
    "disparity",
    "depth",
    "inverse_depth",
)


class SemFlowDataset(InputDataset):
    """Images, labels, optical flow, masks and depth of the frames of one split.

    Everything is read at the width and height of the frame's camera, whatever the sizes of the files. An item has
    `image_idx`, `image` (H, W, 3), nerfstudio's `mask` where the parser gives one, and those of `MODALITY_KEYS` that at
    least one frame of the dataset has, all (H, W, k):

        labels               uint8, 255 unknown
        carried_labels       uint8, 255 none: labels of other frames, once `carried` has been set, with
        carried_confidence   float16 in [0, 1]
        flow_forward/backward        float16, pixels of this image size, with
        flow_forward/backward_mask   bool, False unknown
        motion_mask          uint8, 0 static, 1 moving, 255 unknown
        disparity            float32, relative inverse depth, NaN unknown
        depth                float32, camera z in scene units, NaN unknown
        inverse_depth        float16 (to .05 %, far less than it is wrong), 1 / (camera z in scene units), NaN unknown:
                             from `depth`, else from `disparity` once `alignments` has been set

    Frames come from `metadata["frames"]` of this package's parsers; for other parsers from nerfstudio's `semantics` and
    `depth_filenames` metadata. Labels are ids of `table`, in which the classes of all scenes are merged by name.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(dataparser_outputs, scale_factor, **kwargs)
        self.exclude_batch_keys_from_device = [*type(self).exclude_batch_keys_from_device, *MODALITY_KEYS]
        self.frames = frame_records(dataparser_outputs)
        self.scenes: list[SceneRecord] | None = self.metadata.get("scenes")
        self.classes = class_tables(dataparser_outputs)
        tables = [table for table in self.classes if table is not None]
        self.use_classes(merge_class_tables(tables) if tables else None)
        self.alignments: dict[int, DisparityAlignment] = {}
        """By scene: what maps its frames' disparity to inverse depth. Set by the datamanager."""
        self.carried: dict[int, CarriedLabels] = {}
        """By frame: labels that the flow brings from other frames. Set by the datamanager."""
        self.derived_motion: dict[int, UInt8[np.ndarray, "h w"]] = {}
        """By frame, at any size: what moves, where there is no mask. Set by `use_derived_motion`."""
        self.see_through: set[int] = set()
        """Frames among those read so far whose images have transparency."""
        self.corruption = CorruptionConfig()
        self._has = self._present()
        if scale_factor != 1.0:
            self._rescale_exactly(dataparser_outputs)
        self._check_sizes()

    def _rescale_exactly(self, outputs: DataparserOutputs) -> None:
        """Scale intrinsics by the ratio of the whole-pixel sizes, as images and flow are, not by the nominal factor."""
        source, scaled = outputs.cameras, self.cameras
        width_ratio, height_ratio = scaled.width / source.width, scaled.height / source.height
        scaled.fx, scaled.cx = source.fx * width_ratio, source.cx * width_ratio
        scaled.fy, scaled.cy = source.fy * height_ratio, source.cy * height_ratio

    def use_classes(self, table: ClassTable | None) -> tuple[str, ...]:
        """Give labels as ids of this table from now on; pixels of classes that it lacks are unknown.

        Returns:
            The classes that it lacks.
        """
        self.table = table
        names = () if table is None else table.names
        self._label_ids = [None if own is None or own.names == names else own.ids_in(names) for own in self.classes]
        return tuple(dict.fromkeys(n for own in self.classes if own is not None for n in own.names if n not in names))

    def hide_labels(self) -> None:
        """Never read a label."""
        for frame in self.frames:
            frame.labels = None
        self._has.discard("labels")

    def _check_sizes(self) -> None:
        first: dict[int, int] = {}
        for index, frame in enumerate(self.frames):
            reference = first.setdefault(frame.scene, index)
            if self.size(index) != self.size(reference):
                names = [self.image_filenames[i] for i in (reference, index)]
                sizes = ["x".join(map(str, self.size(i))) for i in (reference, index)]
                raise SceneDataError(
                    f"{names[0]} is {sizes[0]} but {names[1]} of the same scene is {sizes[1]}: resize or crop the "
                    "images of a scene (and its cameras) to one size."
                )

    def size(self, image_idx: int) -> tuple[int, int]:
        """(width, height) at which the frame is read."""
        return int(self.cameras.width[image_idx]), int(self.cameras.height[image_idx])

    def has(self, modality: str) -> bool:
        """Whether at least one frame has a file of this modality (a field name of `FrameRecord`)."""
        return modality in self._has

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "H W channels"]:
        """The frame's RGB or RGBA by area at its camera's size."""
        path = Path(self.image_filenames[image_idx])
        size, own_size = self.size(image_idx), read_image_size(path)
        if not same_shape(own_size, size):
            raise SceneDataError(
                f"{path} is {own_size[0]}x{own_size[1]} but its camera is for images of {size[0]}x{size[1]}: correct "
                "the camera's width, height and focal lengths, or crop the image alike."
            )
        return read_image(path, *size)

    def get_image_float32(self, image_idx: int) -> Float[Tensor, "H W 3"]:
        """RGB in [0, 1]; transparency is blended over the parser's alpha colour, over black where it names none."""
        image = torch.from_numpy(self.get_numpy_image(image_idx).astype(np.float32) / 255.0)
        if image.shape[-1] == 3:
            return image
        if bool((image[..., 3] < 1).any()):
            self.see_through.add(image_idx)
        background = self._dataparser_outputs.alpha_color
        blended = image[..., :3] * image[..., 3:]
        return blended if background is None else blended + background.float() * (1.0 - image[..., 3:])

    def get_image_uint8(self, image_idx: int) -> UInt8[Tensor, "H W 3"]:
        """The same, rounded to 8 bits."""
        return (self.get_image_float32(image_idx) * 255.0).round().to(torch.uint8)

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """One item; see the class."""
        image = self.get_image_uint8(image_idx) if image_type == "uint8" else self.get_image_float32(image_idx)
        data: dict[str, Any] = {"image_idx": image_idx, "image": image}
        masks = self._dataparser_outputs.mask_filenames
        if masks is not None:
            path: Path | None = masks[image_idx]  # of several scenes, some may have none
            width, height = self.size(image_idx)
            mask = np.ones((height, width), np.uint8) if path is None else read_mask(Path(path), width, height)
            data["mask"] = torch.from_numpy(mask).bool()[..., None]
            if self.mask_color:
                color = torch.tensor(self.mask_color) * (255.0 if image_type == "uint8" else 1.0)
                data["image"] = torch.where(data["mask"], image, color.to(image.dtype))
        data.update(self.get_metadata(data))
        return data

    def get_metadata(self, data: dict[str, Any]) -> dict[str, Tensor]:
        """The modalities of frame `data["image_idx"]`; see the class."""
        index: int = data["image_idx"]
        frame, size = self.frames[index], self.size(index)
        width, height = size
        result: dict[str, np.ndarray] = {}
        if self.has("labels"):
            result["labels"] = self.label_image(index)
        if self.carried:
            carried = self.carried.get(index) or CarriedLabels.none(height, width)
            result["carried_labels"], result["carried_confidence"] = carried.labels, carried.confidence
        for name in ("flow_forward", "flow_backward"):
            if self.has(name):
                known = self.read_flow(index, name == "flow_forward")
                flow, valid = known or (np.zeros((height, width, 2)), np.zeros((height, width), bool))
                result[name], result[f"{name}_mask"] = flow.astype(np.float16), valid
        if self.has("motion_mask"):
            mask = self.motion_mask(index)
            result["motion_mask"] = np.full((height, width), UNKNOWN_MOTION, np.uint8) if mask is None else mask
        unknown = np.full((height, width), np.nan, np.float32)
        if self.has("disparity"):
            result["disparity"] = unknown if frame.disparity is None else read_disparity(frame.disparity, *size)
        if self.has("depth"):
            unit = self.depth_unit(frame.scene)
            result["depth"] = unknown if frame.depth is None else read_depth(frame.depth, *size, unit=unit)
        if self.alignments or self.has("depth"):
            with np.errstate(over="ignore"):  # infinity is as unknown as NaN
                inverse_depth = self._inverse_depth(index, result.get("depth", unknown)).astype(np.float16)
            result["inverse_depth"] = inverse_depth
        return {
            key: torch.from_numpy(np.ascontiguousarray(value if value.ndim == 3 else value[..., None]))
            for key, value in result.items()
        }

    def depth_unit(self, scene: int) -> float:
        """Scene units per unit of a scene's depth files."""
        own = None if self.scenes is None else self.scenes[scene]
        scale = self._dataparser_outputs.dataparser_scale if own is None or own.scale is None else own.scale
        stated = None if own is None else own.depth_unit
        unit = self.metadata.get("depth_unit_scale_factor", 1.0) if stated is None else stated
        return float(unit) * float(scale)

    def label_image(self, image_idx: int) -> UInt8[np.ndarray, "H W"]:
        """Class ids of a frame, 255 where unknown or not to be used."""
        frame, (width, height) = self.frames[image_idx], self.size(image_idx)
        classes = self.classes[frame.scene]
        if frame.labels is None or classes is None:
            return np.full((height, width), IGNORE_LABEL, np.uint8)
        ids, lookup = read_labels(frame.labels, classes, width, height), self._label_ids[frame.scene]
        ids = self.corruption.labels(image_idx, ids if lookup is None else lookup[ids])
        return ids if frame.scribbles is None else scribbles(ids, frame.scribbles, image_idx)

    def _inverse_depth(self, index: int, depth: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
        frame = self.frames[index]
        alignment = self.alignments.get(frame.scene)
        if frame.depth is not None or frame.disparity is None or alignment is None:
            return (1.0 / depth).astype(np.float32)
        disparity = read_sharp_disparity(frame.disparity, *self.size(index))
        return alignment.inverse_depth(index - self.frame_range(frame.scene)[0], disparity)

    def disparity_is_aligned(self) -> bool:
        """Whether every frame's disparity has become inverse depth, or is not needed for there is depth."""

        def done(index: int) -> bool:
            frame = self.frames[index]
            alignment = self.alignments.get(frame.scene)
            aligned = alignment is not None and np.isfinite(alignment.scale[index - self.frame_range(frame.scene)[0]])
            return frame.disparity is None or frame.depth is not None or bool(aligned)

        return all(done(index) for index in range(len(self.frames)))

    def observation(self, image_idx: int) -> FrameObservation:
        """What aligning a frame's disparity needs."""
        frame, size = self.frames[image_idx], self.size(image_idx)
        result = FrameObservation(disparity=None)
        if frame.disparity is not None:
            result.disparity = read_sharp_disparity(frame.disparity, *size)
        result.flow_forward, result.flow_forward_mask = self.read_flow(image_idx, True) or (None, None)
        result.flow_backward, result.flow_backward_mask = self.read_flow(image_idx, False) or (None, None)
        result.motion_mask = self.motion_mask(image_idx)
        return result

    def motion_mask(self, image_idx: int) -> UInt8[np.ndarray, "H W"] | None:
        """0 static, 1 moving, 255 unknown: the given mask, else the derived one; None where there is neither."""
        path, size = self.frames[image_idx].motion_mask, self.size(image_idx)
        if path is not None:
            return read_mask(path, *size)
        derived = self.derived_motion.get(image_idx)
        return None if derived is None else resize_nearest(derived, *size)

    def use_derived_motion(self, masks: dict[int, UInt8[np.ndarray, "h w"]]) -> None:
        """Give these masks (0 static, 1 moving, 255 unknown), of any size, for frames that have none of their own."""
        self.derived_motion |= masks
        if masks:
            self._has.add("motion_mask")

    def read_flow(self, index: int, forward: bool) -> tuple[Float[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]] | None:
        """A frame's flow and where it is valid, at the frame's size: what everything that follows flow reads.

        Damaged where that is asked for; None where there is no file.
        """
        frame = self.frames[index]
        path = frame.flow_forward if forward else frame.flow_backward
        if path is None:
            return None
        if self.corruption.flow_source == "given":
            flow, valid = read_flow(path, *self.size(index))
        else:
            target = self._neighbour(index, forward)
            if target is None:
                return None
            files = [Path(self.image_filenames[k]) for k in (index, target)]
            images = [read_image(file, *read_image_size(file))[..., :3] for file in files]
            flow, valid = resize_flow(*dis_flow(*images), *self.size(index))
        return self.corruption.flow(index, forward, flow, valid)

    def flow_target(self, index: int, forward: bool) -> int | None:
        """Index of the frame that a frame's given flow leads to; None where there is none."""
        frame = self.frames[index]
        path = frame.flow_forward if forward else frame.flow_backward
        return None if path is None else self._neighbour(index, forward)

    def _neighbour(self, index: int, forward: bool) -> int | None:
        """Index of the frame that a frame's flow leads to; None where that is not in this data set."""
        scene = None if self.scenes is None else self.scenes[self.frames[index].scene]
        if scene is None:
            return None
        first = scene.frame_range[0]
        local = int((scene.next_frame if forward else scene.previous_frame)[index - first])
        return None if local < 0 else first + local

    def corrupt(self, corruption: CorruptionConfig) -> None:
        """Damage the data from now on, to measure how much a method minds; see `CorruptionConfig`."""
        corruption.check()
        self.corruption = corruption
        self.frames = [corruption.keep(frame) for frame in self.frames]
        self._has = self._present()

    def _present(self) -> set[str]:
        """Modalities that at least one frame has."""
        return {
            name for name in FrameRecord.__dataclass_fields__ if any(getattr(f, name) is not None for f in self.frames)
        }

    def frame_range(self, scene: int) -> tuple[int, int]:
        """First and one past the last index of a scene's frames."""
        return (0, len(self)) if self.scenes is None else self.scenes[scene].frame_range


def read_sharp_disparity(path: Path, width: int, height: int) -> Float[np.ndarray, "height width"]:
    """Disparity that is to become depth: no value lies between foreground and background, as averages would."""
    return resize_nearest(sharpen_edges(decode_disparity(path)), width, height)


def frame_records(outputs: DataparserOutputs) -> list[FrameRecord]:
    """One record a frame, from this package's parsers or from nerfstudio's `semantics` and `depth_filenames`."""
    metadata = outputs.metadata
    if "frames" in metadata:
        return [copy(frame) for frame in metadata["frames"]]
    count = len(outputs.image_filenames)
    semantics = metadata.get("semantics")
    labels = list(semantics.filenames) if isinstance(semantics, Semantics) else []
    depths = list(metadata.get("depth_filenames") or [])
    missing = [None] * count
    return [
        FrameRecord(labels=label and Path(label), depth=depth and Path(depth))
        for label, depth in zip(labels or missing, depths or missing, strict=True)
    ]


def class_tables(outputs: DataparserOutputs) -> list[ClassTable | None]:
    """Class table of each scene; from nerfstudio's `Semantics` for parsers that know no scenes."""
    if "scenes" in outputs.metadata:
        return [scene.classes for scene in outputs.metadata["scenes"]]
    semantics = outputs.metadata.get("semantics")
    if not isinstance(semantics, Semantics):
        return [None]
    colors = semantics.colors.float() * (255.0 if semantics.colors.max() <= 1.0 else 1.0)
    table = ClassTable(
        names=tuple(semantics.classes),
        colors=colors.round().clamp(0, 255).numpy().astype(np.uint8),
        foreground=np.zeros(len(semantics.classes), bool),
        colors_given=False,  # nerfstudio's label files hold ids
    )
    return [table]
