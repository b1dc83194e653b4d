"""Taking the networks that scenes share from a trained run to new scenes (paper section 3.4)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor, nn

from semflow_nerfstudio.flow.feature_basis import FeatureBasis
from semflow_nerfstudio.scene_frames import SceneFrames
from semflow_nerfstudio.shared import SharedNetworks

MODEL, SHARED, CLASSES, SCENES = "_model.", "_model.shared.", "_model.classes.table", "_model.scenes."
"""Keys of a pipeline's checkpoint."""
BASIS = "basis."
"""Buffers that the data side takes over (`TrainedShared.basis`): the new scenes' features are made with them."""
PRIOR = "class_prior.counts"
"""How often each class was labelled; a new class has not been yet, and older checkpoints do not say."""
CLASS_LAYERS = ("flow_network.", "static_network.")
"""Parts of the shared networks whose last layers have a row for each class."""
ENCODER = "encoder."
"""A frame encoder that was trained along; networks that read frozen features have none."""


@dataclass(frozen=True, eq=False)
class Classes:
    """Names, colours and roles of C classes; a class's id is its position."""

    names: tuple[str, ...] = ()
    colors: UInt8[Tensor, "C 3"] = field(default_factory=lambda: torch.zeros(0, 3, dtype=torch.uint8))
    """RGB."""
    foreground: Bool[Tensor, "C"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    @classmethod
    def of(cls, scenes: Iterable[SceneFrames], unlabelled: bool = False) -> Classes:
        """Those of the first scene that has labels; `unlabelled`: or classes alone."""
        for frames in scenes:
            if frames.num_classes and ("labels" in frames.has or unlabelled):
                colors = (frames.class_colors * 255).round().to(torch.uint8)
                return cls(frames.class_names, colors, frames.foreground)
        return cls()

    def encode(self) -> UInt8[Tensor, "B"]:
        """As the bytes of a JSON text, which every reader of checkpoints takes."""
        content = {"names": self.names, "colors": self.colors.tolist(), "foreground": self.foreground.tolist()}
        return torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)

    @classmethod
    def decode(cls, table: UInt8[Tensor, "B"]) -> Classes:
        """The inverse of `encode`."""
        content = json.loads(bytes(table.tolist()))
        return cls(
            tuple(content["names"]),
            torch.tensor(content["colors"], dtype=torch.uint8).reshape(-1, 3),
            torch.tensor(content["foreground"], dtype=torch.bool),
        )


class ClassRecord(nn.Module):
    """A model's classes, kept in its checkpoint: what its logits mean can be read from there, without any data set."""

    table: Tensor

    def __init__(self, classes: Classes) -> None:
        super().__init__()
        self.register_buffer("table", classes.encode())

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        saved = state_dict.get(prefix + "table")
        if saved is not None:
            self.table = torch.empty_like(saved, device=self.table.device)  # names have any length
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@dataclass(frozen=True, eq=False)
class TrainedShared:
    """The shared part of a checkpoint."""

    path: Path
    state: dict[str, Tensor]
    """Of `SharedNetworks`."""
    classes: Classes

    @property
    def basis(self) -> FeatureBasis | None:
        """What compressed the frozen features that they read; None where there are none, or in an old checkpoint."""
        return FeatureBasis.of_state(self.state)

    @property
    def lacks_basis(self) -> bool:
        """Whether they read frozen features of which the checkpoint does not say how they were compressed."""
        return self.basis is None and not self.trains_encoder

    @property
    def trains_encoder(self) -> bool:
        """Whether their frame encoder is trained along, so that they read no frozen features."""
        return any(name.startswith(ENCODER) for name in self.state)


def checkpoint_file(path: Path) -> Path:
    """A checkpoint, given itself, its folder, or the run's folder or config.yml: there, the latest.

    Raises:
        ValueError: there is none.
    """
    folder = path.parent if path.name == "config.yml" else path
    if path.is_file() and path.name != "config.yml":
        return path
    found = [file for pattern in ("step-*.ckpt", "nerfstudio_models/step-*.ckpt") for file in folder.glob(pattern)]
    if not found:
        raise ValueError(f"{path} is no checkpoint and holds none: give a run's folder or one of its step-*.ckpt files")
    return max(found, key=lambda file: file.name)


def read_state(file: Path) -> dict[str, Tensor]:
    """The pipeline's state of a checkpoint; tensors are read when they are used.

    Raises:
        ValueError: the file is no checkpoint of nerfstudio.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is damaged or no checkpoint: give another one")
    content = torch.load(file, map_location="cpu", mmap=True)
    if not isinstance(content, dict) or "pipeline" not in content:
        raise ValueError(f"{file} is no checkpoint of nerfstudio: give a run's folder or one of its step-*.ckpt files")
    return {key.replace("module.", ""): value for key, value in content["pipeline"].items()}


def scene_names(state: dict[str, Tensor]) -> tuple[str, ...]:
    """Names of the scenes in a pipeline's state."""
    return tuple(dict.fromkeys(key[len(SCENES) :].split(".")[0] for key in state if key.startswith(SCENES)))


def read_shared(path: Path) -> TrainedShared:
    """The shared part of a checkpoint (see `checkpoint_file`).

    Raises:
        ValueError: there is no checkpoint, or it has no shared networks or no class names.
    """
    file = checkpoint_file(path)
    state = read_state(file)
    shared = {key[len(SHARED) :]: value for key, value in state.items() if key.startswith(SHARED)}
    if not shared:
        raise ValueError(f"{file} has no shared networks to adapt: it was trained without labels, take another run")
    if CLASSES not in state:
        raise ValueError(f"{file} does not say which classes it knows: train it again with this version")
    return TrainedShared(file, shared, Classes.decode(state[CLASSES]))


@torch.no_grad()
def adapt_shared(shared: SharedNetworks, source: TrainedShared, names: Sequence[str]) -> None:
    """Load trained networks into those of a new run, whose classes are the trained ones and perhaps more after them.

    The last layers' rows of the trained classes are taken as they are. Rows of new classes start at zero weight and the
    lowest trained bias: they can be learned and disturb nothing before.

    Raises:
        ValueError: the networks differ in more than the number of classes.
    """
    assert tuple(names[: len(source.classes.names)]) == source.classes.names
    apart = (BASIS, PRIOR)
    own = {name: value for name, value in shared.state_dict().items() if not name.startswith(apart)}
    differing = sorted(own.keys() ^ {name for name in source.state if not name.startswith(apart)})
    if differing and differing[0].startswith(ENCODER):
        made_by = {} if source.basis is None else source.basis.made_by()
        frozen = f"{made_by.get('encoder', 'as in its config.yml')}, whose weights must be there"
        raise ValueError(
            f"{source.path} has another frame encoder: use --pipeline.datamanager.frame-features.encoder "
            f"{'trainable' if source.trains_encoder else frozen}"
        )
    if differing:
        raise ValueError(
            f"{source.path} has other shared networks ({differing[0]}): use its --pipeline.model.shared options"
        )
    known = len(source.classes.names)
    if PRIOR in source.state:
        shared.class_prior.counts[:known] = source.state[PRIOR].to(shared.class_prior.counts)
    for name, target in own.items():
        given = source.state[name].to(target)
        if target.shape == given.shape:
            target.copy_(given)
            continue
        rows = (target.shape[:1], given.shape[:1]) == ((len(names),), (known,))
        if not (name.startswith(CLASS_LAYERS) and rows and target.shape[1:] == given.shape[1:]):
            raise ValueError(
                f"{source.path} has shared networks of another size ({name}: {tuple(given.shape)} there, "
                f"{tuple(target.shape)} here): use its --pipeline.model.shared options"
            )
        target[:known] = given
        target[known:] = given.min() if target.ndim == 1 else 0


def describe(source: TrainedShared, names: Sequence[str], scene_classes: Sequence[str] | None) -> str:
    """One sentence on what was taken over.

    Args:
        source: What.
        names: The new run's classes.
        scene_classes: Classes of the new scenes' own tables; None where no label is ever read.
    """
    known = source.classes.names
    numbers = sum(value.numel() for value in source.state.values())
    text = f"Took the shared networks ({len(source.state)} tensors, {numbers:,} numbers) of {source.path}"
    if source.lacks_basis:
        text += " (from a version that compressed each scene's features differently: train it again to adapt it well)"
    if scene_classes is None:
        return f"{text}; its {len(known)} classes ({', '.join(known)}) become the scene's, and the fields start anew."
    matched, new = [n for n in known if n in scene_classes], [n for n in names if n not in known]
    absent = [n for n in known if n not in scene_classes]
    parts = [f"{len(matched)} of its {len(known)} classes are matched by name ({', '.join(matched) or 'none'})"]
    if absent:
        parts.append(f"{len(absent)} are kept though the scene lacks them ({', '.join(absent)})")
    if new:
        parts.append(f"{len(new)} are new ({', '.join(new)})")
    return f"{text}; {', '.join(parts)}, and the fields start anew."
