"""Which pixels learn from other frames' labels, set up before training from the labels that may be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.dataset import SemFlowDataset
from semflow_nerfstudio.data.label_looks import Looks, Sample
from semflow_nerfstudio.data.label_propagation import (
    CarriedLabels,
    Flow,
    carry_labels,
    labels_are_partial,
    without_edges,
)
from semflow_nerfstudio.data.label_spreading import Picture, spread_labels
from semflow_nerfstudio.data.resize import is_sparse
from semflow_nerfstudio.data.scene_assembly import frame_cameras
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.training.label_transport import LabelSources

LabelPropagation = Literal["auto", "none", "optical-flow", "image", "trajectories", "both"]
"""optical-flow: along the given flow, before training; image: from strokes to the rest of their image, before training;
trajectories: along the model's own, while it trains; both: along flow and trajectories; auto: all of these."""


def propagate_labels(dataset: SemFlowDataset, method: LabelPropagation) -> dict[str, LabelSources]:
    """Set up how unlabelled pixels of training frames get labels, where labels are partial.

    Labels carried along the optical flow and within images go to `dataset.carried`.

    Returns:
        By scene: the labelled frames for the model's own trajectories to reach; empty where none are wanted.
    """
    assert dataset.scenes is not None
    sources: dict[str, LabelSources] = {}
    if method == "none" or not dataset.has("labels"):
        return sources
    for number, record in enumerate(dataset.scenes):
        first, last = record.frame_range
        labels = [_labels(dataset, frame) for frame in range(first, last)]
        given = [own for own in labels if own is not None]
        if given and not any((own != IGNORE_LABEL).any() for own in given):
            CONSOLE.print(
                f"{record.name}: none of its {len(given)} label images names a class on any pixel, so nothing is "
                "learned of classes: see that their colours or ids are those of the class table.",
                markup=False,
            )
        if not labels_are_partial(labels):
            continue
        has_flow = any(f.flow_forward or f.flow_backward for f in dataset.frames[first:last])
        if method in ("auto", "optical-flow", "both") and has_flow:
            _carry(dataset, number, labels)
        if method in ("auto", "image"):
            _spread(dataset, number, labels)
        if method in ("auto", "trajectories", "both"):
            sources[record.name] = _sources(dataset, first, labels)
    return sources


def label_images(dataset: SemFlowDataset) -> dict[str, UInt8[Tensor, "N H W"]]:
    """Label images of the training frames at the size of training, by scene; 255 where nothing is labelled."""
    assert dataset.scenes is not None
    images = {}
    for record in dataset.scenes:
        frames = range(*record.frame_range)
        width, height = dataset.size(frames.start)
        unlabelled = np.full((height, width), IGNORE_LABEL, np.uint8)
        known = [_labels(dataset, frame) for frame in frames]
        if any(labels is not None for labels in known):
            stack = np.stack([unlabelled if labels is None else labels for labels in known])
            images[record.name] = torch.from_numpy(stack)
    return images


def _labels(dataset: SemFlowDataset, frame: int) -> np.ndarray | None:
    """Labels that may be used, at the size of training."""
    if dataset.frames[frame].labels is None:
        return None
    return dataset.label_image(frame)


def _carry(dataset: SemFlowDataset, scene: int, labels: list[np.ndarray | None]) -> None:
    assert dataset.scenes is not None
    record = dataset.scenes[scene]
    first, _ = record.frame_range

    def flow(frame: int, forward: bool) -> Flow | None:
        return dataset.read_flow(first + frame, forward)

    carried = [frame.without_edges() for frame in carry_labels(labels, record.next_frame, record.previous_frame, flow)]
    dataset.carried |= {first + k: frame for k, frame in enumerate(carried)}
    _say(record.name, "optical flow carries labels", labels, carried)


def _spread(dataset: SemFlowDataset, scene: int, labels: list[np.ndarray | None]) -> None:
    """Labels of sparsely labelled frames for the rest of their images."""
    assert dataset.scenes is not None
    record = dataset.scenes[scene]
    first, _ = record.frame_range
    sparse = [k for k, own in enumerate(labels) if own is not None and is_sparse(own)]

    def picture(k: int) -> Picture:
        known = dataset.get_metadata({"image_idx": first + k})
        depth = next((known[name] for name in ("inverse_depth", "disparity") if name in known), None)
        image = dataset.get_image_uint8(first + k).numpy()
        return Picture.of(image, None if depth is None else depth[..., 0].float().numpy())

    def sample(k: int) -> Sample:
        own = labels[k]
        assert own is not None
        return picture(k).sample(own, len(sparse))

    def spread(k: int) -> CarriedLabels:
        own = labels[k]
        assert own is not None
        return spread_labels(picture(k), own, dataset.carried.get(first + k), looks)

    if sparse:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            looks = Looks.of(list(pool.map(sample, sparse)))
            found = list(track(pool.map(spread, sparse), "Spreading labels", total=len(sparse), transient=True))
        dataset.carried |= {first + k: frame for k, frame in zip(sparse, found, strict=True)}
        _say(record.name, "strokes spread", [labels[k] for k in sparse], found)


def _say(scene: str, what: str, labels: Sequence[np.ndarray | None], carried: Sequence[CarriedLabels]) -> None:
    missing = sum(
        frame.labels.size if own is None else int((own == IGNORE_LABEL).sum())
        for own, frame in zip(labels, carried, strict=True)
    )
    reached = sum(int((frame.labels != IGNORE_LABEL).sum()) for frame in carried)
    CONSOLE.print(
        f"{scene}: {what} to {100 * reached / max(missing, 1):.0f} % of the unlabelled pixels"
        f"{'' if len(carried) == 1 else f' of {len(carried)} frames'}.",
        markup=False,
    )


def _sources(dataset: SemFlowDataset, first: int, labels: list[np.ndarray | None]) -> LabelSources:
    rows = [k for k, own in enumerate(labels) if own is not None]
    items = [dataset.get_metadata({"image_idx": first + k}) for k in rows]

    def stack(name: str) -> Tensor | None:
        return torch.stack([item[name][..., 0] for item in items]) if all(name in item for item in items) else None

    cameras = frame_cameras(dataset, first, first + len(labels))
    kept = torch.tensor(rows)
    motion, inverse_depth = stack("motion_mask"), stack("inverse_depth")
    assert dataset.cameras.times is not None
    return LabelSources(
        labels=torch.stack([torch.from_numpy(without_edges(np.asarray(labels[k]))) for k in rows]),
        cameras=FrameCameras(
            cameras.camera_to_worlds[kept],
            cameras.intrinsics[kept],
            cameras.width,
            cameras.height,
            None if cameras.distortion is None else cameras.distortion[kept],
        ),
        times=dataset.cameras.times[first + kept, 0],
        wanted=torch.tensor([own is None or is_sparse(own) for own in labels]),
        moving=None if motion is None else motion != 0,
        inverse_depth=inverse_depth,
    )
