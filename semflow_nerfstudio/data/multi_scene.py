"""Several scenes read as one data set: each keeps its own units, box, near and far, sizes and modalities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.labels import merge_class_tables
from semflow_nerfstudio.data.parser_outputs import make_semantics
from semflow_nerfstudio.data.records import FrameRecord, SceneRecord, scene_key


class SceneParsers:
    """One parser for each of the scenes that a configuration lists in `scenes`.

    Args:
        config: A parser's configuration with the fields `data` and `scenes`; everything else holds for all scenes.

    Raises:
        SceneDataError: a scene is not there, or listed twice.
    """

    def __init__(self, config: Any) -> None:
        paths = scene_paths(config.data, config.scenes)
        self.names = scene_names(paths)
        self.parsers = [replace(config, data=path, scenes=()).setup() for path in paths]

    def outputs(self, split: str, downscale_factor: int | None) -> DataparserOutputs:
        """A split of all scenes."""
        for parser in self.parsers:
            parser.downscale_factor = downscale_factor
        return join_scenes([parser.get_dataparser_outputs(split) for parser in self.parsers], self.names)


def scene_paths(data: Path, scenes: Sequence[str]) -> list[Path]:
    """Where scenes are: under `data`, else at the path that their name is.

    Raises:
        SceneDataError: a scene is not there, or listed twice.
    """
    paths = []
    for scene in scenes:
        found = [path for path in (data / scene, Path(scene)) if path.exists()]
        if not found:
            there = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
            known = f" ({', '.join(there)})" if there else ""
            raise SceneDataError(f"{data / scene} does not exist: give --scenes names in {data}{known} or paths.")
        paths.append(found[0])
    for path, count in Counter(path.resolve() for path in paths).items():
        if count > 1:
            raise SceneDataError(f"{path} is listed {count} times in --scenes: name every scene once.")
    return paths


def scene_folder(config: Any, number: int = 0) -> Path:
    """Folder of one of the scenes that a parser's configuration names; any parser of nerfstudio has `data`."""
    scenes, data = getattr(config, "scenes", ()), Path(config.data)
    path = scene_paths(data, scenes)[number] if scenes else data
    return path if path.is_dir() else path.parent


def scene_names(paths: Sequence[Path]) -> list[str]:
    """Names of scenes, by their folders; folders of one name get the names of those above them in front.

    Raises:
        SceneDataError: two folders cannot be told apart.
    """
    parts = [[part for part in _folder(path).parts if part != path.anchor] for path in paths]
    depth = [1] * len(paths)
    while True:
        names = [scene_key("_".join(part[-d:])) for part, d in zip(parts, depth, strict=True)]
        shared = {name for name, count in Counter(names).items() if count > 1}
        if not shared:
            return names
        longer = [i for i, name in enumerate(names) if name in shared and depth[i] < len(parts[i])]
        if not longer:
            raise SceneDataError(f"the scenes {', '.join(map(str, paths))} have one name: rename one of their folders.")
        for i in longer:
            depth[i] += 1


def _folder(path: Path) -> Path:
    path = path.resolve()
    return path.parent if path.suffix == ".json" else path


def join_scenes(parts: Sequence[DataparserOutputs], names: Sequence[str]) -> DataparserOutputs:
    """The frames of all scenes one scene after the other; what differs between scenes goes into their records.

    The joint transform is none and the joint scale 1: every scene has its own.

    Args:
        parts: Outputs of this package's parsers, one scene each.
        names: The scenes' names.

    Raises:
        SceneDataError: class tables contradict each other.
    """
    frames: list[FrameRecord] = []
    scenes: list[SceneRecord] = []
    for index, (part, name) in enumerate(zip(parts, names, strict=True)):
        (record,) = part.metadata["scenes"]
        first = len(frames)
        frames += [replace(frame, scene=index) for frame in part.metadata["frames"]]
        scenes.append(
            replace(
                record,
                name=name,
                frame_range=(first, len(frames)),
                box=part.scene_box.aabb.numpy().astype(np.float32),
                transform=part.dataparser_transform.numpy().astype(np.float32),
                scale=float(part.dataparser_scale),
            )
        )
    metadata: dict[str, Any] = {"frames": frames, "scenes": scenes}
    if "depth_unit_scale_factor" in parts[0].metadata:
        metadata["depth_unit_scale_factor"] = parts[0].metadata["depth_unit_scale_factor"]
    tables = [scene.classes for scene in scenes if scene.classes is not None]
    if tables:
        metadata["semantics"] = make_semantics(merge_class_tables(tables), frames)
    masks = [mask for part in parts for mask in (part.mask_filenames or [None] * len(part.image_filenames))]
    return DataparserOutputs(
        image_filenames=[path for part in parts for path in part.image_filenames],
        cameras=join_cameras([part.cameras for part in parts]),
        alpha_color=parts[0].alpha_color,
        scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])),
        mask_filenames=masks if any(mask is not None for mask in masks) else None,  # type: ignore[arg-type]
        metadata=metadata,
        dataparser_transform=torch.eye(4)[:3],
        dataparser_scale=1.0,
    )


def join_cameras(parts: Sequence[Cameras]) -> Cameras:
    """Cameras of several scenes, which carry the scene's index; they may differ in size."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    distortion = None
    if any(part.distortion_params is not None for part in parts):
        distortion = torch.cat(
            [torch.zeros(len(p), 6) if p.distortion_params is None else p.distortion_params for p in parts]
        )
    return Cameras(
        camera_to_worlds=joined("camera_to_worlds"),
        fx=joined("fx"),
        fy=joined("fy"),
        cx=joined("cx"),
        cy=joined("cy"),
        width=joined("width"),
        height=joined("height"),
        distortion_params=distortion,
        camera_type=joined("camera_type"),
        times=torch.cat([part.times.reshape(-1, 1) for part in parts if part.times is not None]),
        metadata={"scene": torch.cat([torch.full((len(part), 1), index) for index, part in enumerate(parts)])},
    )
