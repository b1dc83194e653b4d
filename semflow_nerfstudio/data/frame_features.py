"""Feature maps of frames by a frozen, pretrained encoder: computed once, compressed, kept on disk.

One compression serves all scenes of a run, and new scenes that its networks are taken to: features mean the same
everywhere. Clips are never held at the encoder's own width.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.parser_outputs import say
from semflow_nerfstudio.data.pretrained_encoders import FrozenEncoder, default_weights, load_encoder
from semflow_nerfstudio.flow.feature_basis import FeatureBasis
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene_frames import SceneFrames
from semflow_nerfstudio.whole_file import whole_file

VERSION = 2
"""Raised whenever features of the same frames and arguments come out differently."""
MAX_DIM = 256
"""All encoders have more channels than this."""
PCA_SAMPLES, PCA_FRAMES = 20_000, 32
"""Cells of all scenes, and frames of each, that the compression is fitted to."""


@dataclass
class FrameFeaturesConfig(SavedConfig):
    """What the flows read in the frames."""

    encoder: Literal["trainable", "resnet18", "resnet50", "r3d_18", "dinov2"] = "trainable"
    """trainable: the small convolutional encoder, trained along with the scenes. Others are frozen and need their
    pretrained weights, which are never downloaded."""
    weights: Path | None = None
    """Checkpoint of the frozen encoder; by default where torch's hub cache keeps it."""
    pca_dim: int = 32
    """Channels that frozen features are compressed to."""
    cache: Path | None = None
    """Folder for computed features; by default semflow/features in the user's cache folder."""

    def __post_init__(self) -> None:
        if not 1 <= self.pca_dim <= MAX_DIM:
            raise ValueError(f"frame_features.pca_dim is {self.pca_dim}: use 1 to {MAX_DIM}.")


def missing_weights(encoder: str, weights: Path | None = None) -> str | None:
    """Why an encoder cannot be had, in one sentence; None where it can."""
    if encoder == "trainable":
        return None
    path = weights or default_weights(encoder)
    if path.is_file():
        return None
    return f"the weights of {encoder} are not at {path}, and nothing is downloaded"


class FrameFeatures(NamedTuple):
    """Compressed features of all scenes of a run."""

    maps: list[Float16[Tensor, "N h w C"]]
    """By scene, on the CPU; cells tile the images."""
    basis: FeatureBasis


@dataclass(frozen=True)
class Clip:
    """The frames of a scene."""

    images: UInt8[Tensor, "N H W 3"]
    cameras: list[Int[Tensor, "n"]]
    """Each camera's frames, in the order of time: what an encoder of videos sees as one."""

    @classmethod
    def of(cls, scene: SceneFrames) -> Clip:
        """A scene's; where nothing tells cameras apart, the first frames of all times are one's, and so on."""
        camera = scene.camera
        if camera is None:
            _, member = scene.times.unique(return_inverse=True)
            camera = torch.stack([(member[:k] == member[k]).sum() for k in range(len(member))])
        order = scene.times.argsort(stable=True)
        return cls(scene.images, [order[camera[order] == which] for which in camera.unique()])

    def describe(self) -> dict[str, Any]:
        """What features depend on."""
        frames = hashlib.sha256(np.ascontiguousarray(self.images.numpy()).tobytes()).hexdigest()
        return {"frames": frames, "shape": list(self.images.shape), "cameras": [c.tolist() for c in self.cameras]}


def frame_features(
    clips: Sequence[Clip],
    config: FrameFeaturesConfig,
    device: torch.device | str = "cpu",
    known: FeatureBasis | None = None,
) -> FrameFeatures | None:
    """Compressed features of the frames of all scenes of a run.

    Args:
        clips: The scenes' frames.
        config: Which encoder.
        device: Where to compute.
        known: The compression that the networks were trained with; None: one is fitted to all scenes together.

    Returns:
        None where the small trainable encoder is to be used, be it that it was asked for or that the weights are not
        there, which is said.

    Raises:
        SceneDataError: the weights are there, but broken or of another network, or not those of the known compression.
    """
    if config.encoder == "trainable":
        return None
    reason = missing_weights(config.encoder, config.weights)
    if reason is not None:
        say(f"The small trainable frame encoder is used, for {reason}.")
        return None
    weights = config.weights or default_weights(config.encoder)
    made_by = {"encoder": config.encoder, "weights": file_hash(weights)}
    if known is not None:
        check_basis(known, made_by, weights, config.pca_dim)
    folder = config.cache or cache_folder()
    encoder = cache(lambda: load_encoder(config.encoder, weights).to(device))
    common = {"version": VERSION, **made_by, "pca_dim": config.pca_dim}
    content = [clip.describe() for clip in clips]
    basis = known or kept_basis(
        folder, {**common, "scenes": content}, lambda: fit_basis(encoder(), clips, config.pca_dim, made_by)
    )
    maps = [
        kept(
            folder / f"{config.encoder}-{{}}.npz",
            {**common, **described, "basis": basis.key()},
            partial(compressed, encoder, clip, basis),
        )
        for clip, described in zip(clips, content, strict=True)
    ]
    return FrameFeatures(maps, basis)


def check_basis(known: FeatureBasis, made_by: dict[str, str], weights: Path, dim: int) -> None:
    """Raise SceneDataError where networks were trained with other features."""
    theirs = known.made_by()
    if theirs.get("encoder") != made_by["encoder"]:
        raise SceneDataError(
            f"the networks to adapt read features of {theirs.get('encoder')}, not of {made_by['encoder']}: use "
            f"--pipeline.datamanager.frame-features.encoder {theirs.get('encoder')}."
        )
    if theirs != made_by:
        raise SceneDataError(
            f"{weights} are not the weights whose features the networks to adapt read: give those with "
            "--pipeline.datamanager.frame-features.weights."
        )
    if known.axes.shape[1] != dim:
        raise SceneDataError(
            f"the networks to adapt read {known.axes.shape[1]} channels, not {dim}: use "
            f"--pipeline.datamanager.frame-features.pca-dim {known.axes.shape[1]}."
        )


def pixels(images: UInt8[Tensor, "n H W 3"], device: torch.device | str) -> Float[Tensor, "n 3 H W"]:
    """Images in [-1, 1]: what an encoder takes."""
    return images.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def fit_basis(encoder: FrozenEncoder, clips: Sequence[Clip], dim: int, made_by: dict[str, str]) -> FeatureBasis:
    """The compression that serves all scenes alike: fitted to as many cells of each, picked evenly."""
    cells = []
    for clip in clips:
        count = min(PCA_FRAMES, len(clip.images))
        wanted = set(torch.linspace(0, len(clip.images) - 1, count).round().long().tolist())
        share = max(1, PCA_SAMPLES // len(clips) // len(wanted))
        for camera in clip.cameras:
            for piece, seen, own in encoder.pieces(len(camera)):
                rows = [row for row, frame in enumerate(camera[piece].tolist()) if frame in wanted]
                if rows:
                    maps = encoder.piece(pixels(clip.images[camera[seen]], encoder.mean.device), own)[rows]
                    flat = maps.flatten(2).transpose(1, 2)
                    picked = torch.linspace(0, flat.shape[1] - 1, min(share, flat.shape[1])).long()
                    cells.append(flat[:, picked.to(flat.device)].flatten(0, 1))
    return FeatureBasis.fit(torch.cat(cells), dim, **made_by)


def compressed(encoder: Callable[[], FrozenEncoder], clip: Clip, basis: FeatureBasis) -> Float16[Tensor, "N h w C"]:
    """All frames' features, compressed as soon as they are computed."""
    network, result = encoder(), None
    for camera in clip.cameras:
        for piece, seen, own in network.pieces(len(camera)):
            maps = network.piece(pixels(clip.images[camera[seen]], network.mean.device), own)
            small = basis(maps.permute(0, 2, 3, 1)).cpu()
            if result is None:
                result = small.new_empty((len(clip.images), *small.shape[1:]))
            result[camera[piece]] = small
    assert result is not None
    return result


def kept_basis(folder: Path, arguments: dict[str, Any], fit: Callable[[], FeatureBasis]) -> FeatureBasis:
    """The compression from the cache, or fitted."""
    file = folder / f"basis-{short_hash(arguments)}.npz"
    found = read_cache(file, arguments, ("mean", "axes", "source"))
    if found is not None:
        return FeatureBasis(*found)
    basis = fit()
    write_cache(file, arguments, mean=basis.mean, axes=basis.axes, source=basis.source)
    return basis


def kept(
    pattern: Path, arguments: dict[str, Any], compute: Callable[[], Float16[Tensor, "N h w C"]]
) -> Float16[Tensor, "N h w C"]:
    """Features from the cache, or computed."""
    file = pattern.with_name(pattern.name.format(short_hash(arguments)))
    found = read_cache(file, arguments, ("features",))
    if found is not None and found[0].dtype == torch.float16 and len(found[0]) == arguments["shape"][0]:
        return found[0]
    features = compute()
    write_cache(file, arguments, features=features)
    return features


def cache_folder() -> Path:
    """The user's cache folder for features."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semflow" / "features"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def short_hash(arguments: dict[str, Any]) -> str:
    """Names a file by what is in it."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:24]


def read_cache(file: Path, arguments: dict[str, Any], names: Sequence[str]) -> list[Tensor] | None:
    """What was computed with these arguments; None where there is nothing, or something broken."""
    try:
        with np.load(file, allow_pickle=False) as content:
            if json.loads(str(content["arguments"])) != arguments:
                return None
            arrays = [content[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return [torch.from_numpy(array) for array in arrays] if all(np.isfinite(array).all() for array in arrays) else None


def write_cache(file: Path, arguments: dict[str, Any], **tensors: Tensor) -> None:
    """Keep what was computed; a folder that cannot be written to is said and otherwise ignored."""
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        with whole_file(file) as partial, partial.open("wb") as stream:
            np.savez(stream, arguments=json.dumps(arguments), **arrays)
    except OSError as error:
        say(
            f"Frame features are not kept in {file.parent} ({error.strerror}): set "
            "--pipeline.datamanager.frame-features.cache."
        )
