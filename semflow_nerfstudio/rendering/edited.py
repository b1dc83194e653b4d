"""Samples of an edited scene: what they show may stand elsewhere in the fields, at another time, tinted or faded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semflow_nerfstudio.fields.dynamic_field import DynamicFieldOutputs
from semflow_nerfstudio.fields.static_field import FieldOutputs
from semflow_nerfstudio.rendering.compositing import transmittances
from semflow_nerfstudio.rendering.samples import Samples

if TYPE_CHECKING:
    from semflow_nerfstudio.scene import Scene

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in the light that a colour gives (ITU-R BT.709)."""


@dataclass
class EditedSamples(Samples):
    """Samples whose field values come from `sources`, and count only where they are kept.

    Positions, distances, starts and ends are those of the picture, sorted along the ray; samples of things that were
    moved or copied lie among those of the scene as it was.
    """

    read_at: Float[Tensor, "R S 3"] = field(kw_only=True)
    """Where the fields are read."""
    read_directions: Float[Tensor, "R S 3"] = field(kw_only=True)
    """Viewing directions there, of length one."""
    stretch: Float[Tensor, "R S"] = field(kw_only=True)
    """Length in the picture of one scene unit there."""
    static_kept: Bool[Tensor, "R S"] = field(kw_only=True)
    """Where the static field is shown."""
    dynamic_kept: Bool[Tensor, "R S"] = field(kw_only=True)
    """Where the dynamic field is shown."""
    static_tint: Float[Tensor, "R S 4"] = field(kw_only=True)
    """RGB that the static field is tinted with, and how strongly."""
    dynamic_tint: Float[Tensor, "R S 4"] = field(kw_only=True)
    """Likewise for the dynamic field."""
    ghost: Int[Tensor, "R S"] = field(kw_only=True)
    """Which of `opacities` a sample's object has; -1: it is as it is."""
    opacities: tuple[float, ...] = field(kw_only=True)
    """How much of each faded object is left."""
    turn: Float[Tensor, "R S 3 3"] | None = field(kw_only=True, default=None)
    """How motions there turn and scale on their way to the picture; None: not at all."""
    drift: Float[Tensor, "R S 3"] | None = field(kw_only=True, default=None)
    """What is added to a motion to the next frame: the turned object itself still goes where it went."""
    read_times: Float[Tensor, "R S"] | None = field(kw_only=True, default=None)
    """Times at which the fields are read, where some differ from their rays'."""

    @property
    def sources(self) -> Float[Tensor, "R S 3"]:
        return self.read_at

    @property
    def sample_directions(self) -> Float[Tensor, "R S 3"]:
        return self.read_directions

    @property
    def deltas(self) -> Float[Tensor, "R S"]:
        """Lengths of the samples where the fields are read, which their densities count in."""
        return (self.ends - self.starts) / self.stretch

    def source_times(self) -> Float[Tensor, "R S"]:
        """Time at which each sample is read."""
        return self.times.expand_as(self.starts) if self.read_times is None else self.read_times

    def static(self, scene: Scene) -> FieldOutputs:
        """The static field as it is shown; evaluated where it is, and empty elsewhere."""
        rows, spread = self._shown(self.static_kept)
        out = scene.static_field(scene.space(self._rows(self.read_at, rows)), self._rows(self.read_directions, rows))
        return FieldOutputs(spread(out.density), tinted(spread(out.rgb), self.static_tint), spread(out.trunk))

    def dynamic(self, scene: Scene) -> DynamicFieldOutputs:
        """The dynamic field as it is shown, likewise."""
        rows, spread = self._shown(self.dynamic_kept)
        out = scene.dynamic_between_frames(
            self._rows(self.read_at, rows)[:, None],
            self.source_times().reshape(-1, 1)[rows],
            self._rows(self.read_directions, rows)[:, None],
        )
        density, rgb, trunk, blend = (spread(v[:, 0]) for v in (out.density, out.rgb, out.trunk, out.blend))
        return DynamicFieldOutputs(density=density, rgb=tinted(rgb, self.dynamic_tint), trunk=trunk, blend=blend)

    def _shown(self, kept: Bool[Tensor, "R S"]) -> tuple[Int[Tensor, "P"], Callable[[Tensor], Tensor]]:
        """Rows of the samples that are kept, and what spreads their values over all samples, with zeros elsewhere."""
        rows = kept.flatten().nonzero()[:, 0]
        if len(rows) == 0:  # networks want to be asked something
            rows = rows.new_zeros(1)

        def spread(values: Tensor) -> Tensor:
            values = values * kept.flatten()[rows].reshape(-1, *[1] * (values.dim() - 1))
            flat = values.new_zeros(kept.numel(), *values.shape[1:]).index_copy(0, rows, values)
            return flat.reshape(*kept.shape, *values.shape[1:])

        return rows, spread

    @staticmethod
    def _rows(values: Float[Tensor, "R S 3"], rows: Int[Tensor, "P"]) -> Float[Tensor, "P 3"]:
        return values.reshape(-1, 3)[rows]

    def faded(self, alphas: Float[Tensor, "R S"], share: Float[Tensor, "R S"] | None = None) -> Float[Tensor, "R S"]:
        """Opacities with those of faded objects lowered.

        An object whose samples stop A of a ray's light together stops `opacity * A` in the end: lowering each sample's
        own opacity would leave a solid object nearly as opaque as it was.

        Args:
            alphas: Of one field's samples.
            share: How much of them counts (the blending weight); None: all.
        """
        for index, opacity in enumerate(self.opacities):
            own = self.ghost == index
            stopped = torch.where(own, alphas if share is None else alphas * share, 0.0)
            before, _ = transmittances(stopped)
            alphas = torch.where(own, alphas * opacity * before / (1 - opacity * (1 - before)), alphas)
        return alphas


def turned(vectors: Float[Tensor, "*batch 3"], matrices: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Matrices times vectors; not as a matrix product, which autocast would compute in bfloat16: too coarse a place."""
    return (matrices * vectors[..., None, :]).sum(-1)


def tinted(rgb: Float[Tensor, "R S 3"], tint: Float[Tensor, "R S 4"]) -> Float[Tensor, "R S 3"]:
    """Colours mixed with a tint (RGB, strength); light and shade stay."""
    color, strength = tint[..., :3], tint[..., 3:]
    if not bool((strength > 0).any()):
        return rgb
    luma = rgb.new_tensor(LUMA)
    light = (rgb * luma).sum(-1, keepdim=True) / (color * luma).sum(-1, keepdim=True).clamp(min=1e-3)
    return torch.lerp(rgb, (color * light).clamp(0, 1), strength)
