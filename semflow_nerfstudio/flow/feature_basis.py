"""The linear map that compresses a frozen encoder's features: one for all scenes that share networks."""

from __future__ import annotations

import hashlib
import json

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn


class FeatureBasis(nn.Module):
    """Mean and scaled principal axes; kept in checkpoints, so that new scenes' features mean the same to the networks.

    Without axes (`known` is false) it stands for one that a checkpoint has, or is of an old run whose scenes had one
    each.
    """

    mean: Tensor
    """(D,) float32."""
    axes: Tensor
    """(D, C) float32."""
    source: Tensor
    """What made the features, as the bytes of a JSON text."""

    def __init__(
        self,
        mean: Float[Tensor, "D"] | None = None,
        axes: Float[Tensor, "D C"] | None = None,
        source: UInt8[Tensor, "B"] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(0) if mean is None else mean.float().cpu())
        self.register_buffer("axes", torch.zeros(0, 0) if axes is None else axes.float().cpu())
        self.register_buffer("source", torch.zeros(0, dtype=torch.uint8) if source is None else source.cpu())

    @classmethod
    def fit(cls, cells: Float[Tensor, "P D"], dim: int, **source: str) -> FeatureBasis:
        """The first `dim` principal components of cells, with a mean variance of one.

        The same for the same cells: signs are such that each component's largest weight is positive.
        """
        cells = cells.double()
        mean = cells.mean(0)
        values, vectors = torch.linalg.eigh((cells - mean).T @ (cells - mean) / len(cells))
        axes = vectors.flip(-1)[:, :dim]
        axes = axes * torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
        variance = values.flip(0)[:dim].clamp(min=0).mean().clamp(min=1e-12)
        text = json.dumps(source, sort_keys=True).encode()
        return cls(mean, axes / variance.sqrt(), torch.frombuffer(bytearray(text), dtype=torch.uint8))

    @classmethod
    def of_state(cls, state: dict[str, Tensor]) -> FeatureBasis | None:
        """That of a checkpoint's shared networks; None where there is none."""
        mean, axes, source = (state.get(f"basis.{name}") for name in ("mean", "axes", "source"))
        return None if mean is None or not mean.numel() else cls(mean.clone(), axes, source)

    @property
    def known(self) -> bool:
        """Whether features can be compressed by it."""
        return self.axes.numel() > 0

    def made_by(self) -> dict[str, str]:
        """The `source` that it was fitted with."""
        return json.loads(bytes(self.source.tolist()) or b"{}")

    def key(self) -> str:
        """A hash of its numbers."""
        numbers = b"".join(part.contiguous().cpu().numpy().tobytes() for part in (self.mean, self.axes, self.source))
        return hashlib.sha256(numbers).hexdigest()

    def forward(self, maps: Float[Tensor, "*cells D"]) -> Float16[Tensor, "*cells C"]:
        """Compressed features."""
        return ((maps - self.mean.to(maps)) @ self.axes.to(maps)).half()

    def copied(self) -> FeatureBasis:
        """A basis of its own with the same numbers."""
        return FeatureBasis(self.mean.clone(), self.axes.clone(), self.source.clone())

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        for name, buffer in list(self._buffers.items()):
            saved = state_dict.get(prefix + name)
            if saved is not None and buffer is not None:
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
