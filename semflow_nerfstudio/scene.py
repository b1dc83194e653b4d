"""What belongs to one scene: its fields, frames, times and residuals. Everything else is shared (see `shared.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from semflow_nerfstudio.fields.dynamic_field import DynamicField, DynamicFieldConfig, DynamicFieldOutputs
from semflow_nerfstudio.fields.flow_field import FlowField, FlowFieldConfig
from semflow_nerfstudio.fields.proposal_field import ProposalField, ProposalFieldConfig
from semflow_nerfstudio.fields.space import SceneSpace
from semflow_nerfstudio.fields.static_field import FieldOutputs, GridConfig, StaticField, StaticFieldConfig, space_grid
from semflow_nerfstudio.flow.frame_bank import FrameBank
from semflow_nerfstudio.flow.semantic_network import SceneResidual
from semflow_nerfstudio.flow.timeline import Timeline
from semflow_nerfstudio.flow.visibility import transmittance
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene_frames import NEVER, SceneFrames

SEMANTIC_GRID = GridConfig(6, 2, 16, 16, 256)
"""A `SceneConfig.semantic_grid` of a laptop's size."""


@dataclass
class SceneConfig(SavedConfig):
    """Size of what every scene has of its own."""

    static: StaticFieldConfig = field(default_factory=lambda: StaticFieldConfig(GridConfig(8, 4, 17, 16, 512)))
    """Static field."""
    dynamic: DynamicFieldConfig = field(default_factory=lambda: DynamicFieldConfig(GridConfig(8, 4, 16, 16, 256)))
    """Dynamic field."""
    flow: FlowFieldConfig = field(default_factory=lambda: FlowFieldConfig(GridConfig(4, 2, 15, 8, 64)))
    """Flow field."""
    proposals: tuple[ProposalFieldConfig, ...] = field(
        default_factory=lambda: (ProposalFieldConfig(GridConfig(5, 2, 15, 16, 128)),)
    )
    """Proposal densities, coarse to fine."""
    frame_width: int = 480
    """Frames wider than this are shrunk before the frame encoder sees them."""
    residual: bool = True
    """Whether the fields' own trunk features add to the shared logits."""
    semantic_grid: GridConfig | None = None
    """Hash grid that the static residual reads beside the trunk, so that what labels teach need not fit into what
    colour is made from; None: the trunk alone."""


class Scene(nn.Module):
    """Fields, proposal densities, residuals, frames and times of one scene."""

    def __init__(self, frames: SceneFrames, config: SceneConfig, num_classes: int) -> None:
        super().__init__()
        self.name, self.bounded = frames.name, frames.bounded
        self.near, self.far = frames.near, frames.far
        self.background_color, self.opaque = frames.background_color, frames.opaque
        self.space = SceneSpace(frames.aabb, frames.bounded)
        self.timeline = Timeline(frames.distinct_times)
        self.bank = FrameBank(frames, config.frame_width)
        # The grids' vertices are the training frames' times: no ray would ever teach those of times held out.
        self.register_buffer("next_frame", frames.next_frame.clone(), persistent=False)
        self.register_buffer("previous_frame", frames.previous_frame.clone(), persistent=False)
        time_resolution = len(self.bank.timeline) - 1
        self.static_field = StaticField(config.static)
        self.dynamic_field = DynamicField(config.dynamic, time_resolution)
        self.flow_field = FlowField(config.flow, time_resolution)
        self.proposal_fields = nn.ModuleList(ProposalField(p, time_resolution) for p in config.proposals)
        self.config = config
        self.set_classes(num_classes, frames.own_classes)

    def set_classes(self, num_classes: int, own: Bool[Tensor, "C"] | None = None) -> None:
        """Start the residuals anew, for that many classes; without classes there are none. Only the `own` classes are
        shown (None: all)."""
        self.register_buffer("own_classes", torch.ones(num_classes, dtype=torch.bool) if own is None else own.clone())
        for name in ("semantic_grid", "static_residual", "flow_residual"):
            self._modules.pop(name, None)
        self.residual = self.config.residual and num_classes > 0
        if self.residual:
            width = self.config.static.trunk_dim
            if self.config.semantic_grid is not None:
                self.semantic_grid = space_grid(self.config.semantic_grid)
                width += self.semantic_grid.output_dim
            self.static_residual = SceneResidual(width, num_classes)
            self.flow_residual = SceneResidual(self.config.dynamic.trunk_dim, num_classes)

    next_frame: Tensor
    previous_frame: Tensor
    own_classes: Tensor

    def among_own(self, logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        """Logits in which classes that this scene cannot show are out of the question.

        Scenes are labelled with tables of their own: what one calls background is floor and walls to another, and
        should not have to be told from them.
        """
        return torch.where(self.own_classes, logits, NEVER)

    def static_residual_logits(
        self, points: Float[Tensor, "*batch 3"], trunk: Float[Tensor, "*batch G"]
    ) -> Float[Tensor, "*batch C"]:
        """What this scene adds to the shared logits of static points, from the static field's trunk there."""
        if self.config.semantic_grid is None:
            return self.static_residual(trunk)
        own = self.semantic_grid(self.space(points).reshape(-1, 3))
        own = own.reshape(*points.shape[:-1], self.semantic_grid.output_dim)
        return self.static_residual(torch.cat([trunk, own], dim=-1))

    def static(self, samples: Samples) -> FieldOutputs:
        """The static field at the samples."""
        return self.static_field(self.space(samples.sources), samples.sample_directions)

    def dynamic(
        self,
        positions: Float[Tensor, "R S 3"],
        times: Float[Tensor, "R 1"],
        directions: Float[Tensor, "R S 3"],
    ) -> DynamicFieldOutputs:
        """The dynamic field at points (scene units) at one time per ray."""
        grid_times = self.bank.timeline.grid_time(times)[:, None].expand(*positions.shape[:-1], 1)
        return self.dynamic_field(self.space(positions), grid_times, directions)

    def dynamic_between_frames(
        self,
        positions: Float[Tensor, "R S 3"],
        times: Float[Tensor, "R 1"],
        directions: Float[Tensor, "R S 3"],
        iterations: int = 2,
    ) -> DynamicFieldOutputs:
        """The dynamic field at times between frames: what the flow brings from the frames before and after.

        The grid alone would interpolate in place, so movers would fade from one frame's place to the next's. Here each
        point looks where it was at the frame before and will be at the frame after, and mixes both linearly in time; at
        a frame time that is the field itself. Frames are those of the training: a time that was held out lies between
        two of them.
        """
        between = self.between_frames(times)
        if between is None:
            return self.dynamic(positions, self.nearest_frame(times), directions)
        frames, share_after = between
        before, after = (self.dynamic(self.carried(positions, times, at, iterations), at, directions) for at in frames)
        earlier, later = (1 - share_after) * before.density, share_after * after.density
        density = earlier + later
        share = (later / density.clamp(min=1e-10))[..., None]
        return DynamicFieldOutputs(
            density=density,
            rgb=torch.lerp(before.rgb, after.rgb, share),
            trunk=torch.lerp(before.trunk, after.trunk, share),
            blend=torch.lerp(before.blend, after.blend, share[..., 0]),
        )

    def between_frames(
        self, times: Float[Tensor, "R 1"]
    ) -> tuple[tuple[Float[Tensor, "R 1"], Float[Tensor, "R 1"]], Float[Tensor, "R 1"]] | None:
        """Times of the frames before and after, and the share of the one after; None where all are frame times."""
        timeline = self.bank.timeline
        index, off = timeline.index(times), (times - self.nearest_frame(times)).abs() > 1e-4 * self.timeline.tau
        if len(timeline) < 2 or not bool(off.any()):
            return None
        lower = index.floor().clamp(max=len(timeline) - 2)
        return (timeline.time(lower), timeline.time(lower + 1)), index - lower

    def nearest_frame(self, times: Float[Tensor, "R 1"]) -> Float[Tensor, "R 1"]:
        """Times of the nearest training frames."""
        return self.bank.timeline.time(self.bank.timeline.index(times).round())

    def carried(
        self,
        positions: Float[Tensor, "R S 3"],
        times: Float[Tensor, "R 1"],
        at: Float[Tensor, "R 1"],
        iterations: int = 2,
    ) -> Float[Tensor, "R S 3"]:
        """Where points at `times` are at the frame times `at`: the flow there, inverted by fixed-point iteration."""
        steps = ((at - times) / self.timeline.tau)[..., None]
        there, flat_times = positions, at[:, None].expand(*positions.shape[:-1], 1).reshape(-1, 1)
        for _ in range(iterations):
            there = positions + steps * self.velocity(there.reshape(-1, 3), flat_times).reshape(positions.shape)
        return there

    def velocity(self, points: Float[Tensor, "P 3"], times: Float[Tensor, "P 1"]) -> Float[Tensor, "P 3"]:
        """The flow field: scene units per tau."""
        return self.flow_field(self.space(points), self.bank.timeline.grid_time(times))

    def proposal_density(
        self, level: int, positions: Float[Tensor, "R S 3"], times: Float[Tensor, "R 1"]
    ) -> Float[Tensor, "R S 1"]:
        """Density of a proposal field, as nerfstudio's sampler asks for it; between frames it follows the flow."""
        between = None if self.training else self.between_frames(times)
        if between is None:
            return self._proposal_at_frames(level, positions, times if self.training else self.nearest_frame(times))
        frames, share_after = between
        before, after = (
            self._proposal_at_frames(level, self.carried(positions, times, at, iterations=1), at) for at in frames
        )
        return torch.lerp(before, after, share_after[..., None])

    def _proposal_at_frames(
        self, level: int, positions: Float[Tensor, "R S 3"], times: Float[Tensor, "R 1"]
    ) -> Float[Tensor, "R S 1"]:
        grid_times = self.bank.timeline.grid_time(times)[:, None].expand(*positions.shape[:-1], 1)
        return self.proposal_fields[level](self.space(positions), grid_times)[..., None]

    def seen_from_frames(
        self, points: Float[Tensor, "P 3"], times: Float[Tensor, "P 1"], frame: Int[Tensor, "P"], samples: int
    ) -> Float[Tensor, "P"]:
        """How visible points are from the cameras of frames, by the last proposal density: what is solid there."""

        def density(positions: Float[Tensor, "P n 3"], at: Float[Tensor, "P 1"]) -> Float[Tensor, "P n"]:
            return self.proposal_density(-1, positions, at)[..., 0]

        return transmittance(density, self.bank.camera_to_worlds[frame, :, 3], points, times, samples)

    def default_time(self) -> float:
        """Time that rays without one are rendered at: the first frame's."""
        return float(self.bank.frame_times[0])

    @property
    def device(self) -> torch.device:
        return self.space.aabb.device
