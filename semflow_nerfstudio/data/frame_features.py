"""Feature maps of a clip's frames by a frozen, pretrained encoder: computed once, compressed, kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semflow_nerfstudio.data.parser_outputs import say
from semflow_nerfstudio.data.pretrained_encoders import default_weights, load_encoder
from semflow_nerfstudio.saved_config import SavedConfig

VERSION = 1
"""Raised whenever features of the same frames and arguments come out differently."""
MAX_DIM = 256
"""All encoders have more channels than this."""
PCA_SAMPLES = 20_000
"""Cells that the compression is fitted to."""


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


def frame_features(
    images: UInt8[Tensor, "N H W 3"], config: FrameFeaturesConfig, device: torch.device | str = "cpu"
) -> Float[Tensor, "N h w C"] | None:
    """Compressed features of a clip's frames, float16 on the CPU.

    Args:
        images: All frames of one scene, in the order of time.
        config: Which encoder.
        device: Where to compute.

    Returns:
        Maps whose cells tile the images; None where the small trainable encoder is to be used, be it that it was asked
        for or that the weights are not there, which is said.

    Raises:
        SceneDataError: the weights are there, but broken or of another network.
    """
    if config.encoder == "trainable":
        return None
    reason = missing_weights(config.encoder, config.weights)
    if reason is not None:
        say(f"The small trainable frame encoder is used, for {reason}.")
        return None
    weights = config.weights or default_weights(config.encoder)
    arguments = {
        "version": VERSION,
        "encoder": config.encoder,
        "weights": file_hash(weights),
        "pca_dim": config.pca_dim,
        "frames": hashlib.sha256(np.ascontiguousarray(images.numpy()).tobytes()).hexdigest(),
        "shape": list(images.shape),
    }
    name = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:24]
    file = (config.cache or cache_folder()) / f"{config.encoder}-{name}.npz"
    kept = read_cache(file, arguments)
    if kept is not None:
        return kept
    encoder = load_encoder(config.encoder, weights).to(device)
    pixels = images.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    maps = encoder(pixels).permute(0, 2, 3, 1)
    features = compress(maps, config.pca_dim).half().cpu()
    write_cache(file, arguments, features)
    return features


def compress(maps: Float[Tensor, "N h w D"], dim: int) -> Float[Tensor, "N h w dim"]:
    """Project features to their first `dim` principal components, with a mean variance of one.

    The same for the same maps: cells are picked evenly, and signs are such that each component's largest weight is
    positive.
    """
    flat = maps.reshape(-1, maps.shape[-1]).double()
    picked = flat[torch.linspace(0, len(flat) - 1, min(PCA_SAMPLES, len(flat)), device=flat.device).long()]
    mean = picked.mean(0)
    values, vectors = torch.linalg.eigh((picked - mean).T @ (picked - mean) / len(picked))
    axes = vectors.flip(-1)[:, :dim]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = axes * torch.sign(largest)
    variance = values.flip(0)[:dim].clamp(min=0).mean().clamp(min=1e-12)
    return ((flat - mean) @ axes / variance.sqrt()).float().reshape(*maps.shape[:-1], -1)


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


def read_cache(file: Path, arguments: dict) -> Float[Tensor, "N h w C"] | None:
    """Features that were computed of these frames with these arguments; None where there are none, or broken ones."""
    try:
        with np.load(file, allow_pickle=False) as content:
            if json.loads(str(content["arguments"])) != arguments:
                return None
            features = content["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    good = features.dtype == np.float16 and features.ndim == 4 and len(features) == arguments["shape"][0]
    return torch.from_numpy(features) if good and np.isfinite(features).all() else None


def write_cache(file: Path, arguments: dict, features: Float[Tensor, "N h w C"]) -> None:
    """Keep features; a folder that cannot be written to is said and otherwise ignored."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.savez(stream, features=features.numpy(), arguments=json.dumps(arguments))
        os.replace(partial, file)
    except OSError as error:
        say(f"Frame features are not kept in {file.parent} ({error.strerror}): set --frame-features.cache.")
