"""Edits at render time: a scene state becomes samples along rays (`rendering/edited.py`) that show the edited scene.

A picture is made of layers. The first is the scene as it was, without what is hidden or stands elsewhere. Every object
that is moved, faded or copied is a layer of its own: rays are carried back to where the object is in the fields, are
sampled there within its bounds, and the samples are merged into those of the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.ray_samplers import ProposalNetworkSampler, UniformSampler
from torch import Tensor

from semflow_nerfstudio.editing.scene_state import ORIGIN, ObjectEdit, Rgb, SceneState, Vector, rotation_matrix
from semflow_nerfstudio.editing.targets import (
    MOVING_MARGIN,
    STATIC_MARGIN,
    Objects,
    Owners,
    Share,
    Target,
    bounds_of,
    center_of,
    needs_instances,
    resolve,
)
from semflow_nerfstudio.rendering.edited import EditedSamples, turned
from semflow_nerfstudio.rendering.samples import pick
from semflow_nerfstudio.sampling.collider import NEAR_PLANE, box_interval
from semflow_nerfstudio.sampling.proposal import ProposalSampling, Proposed
from semflow_nerfstudio.scene import Scene

EMPTY_DENSITY = 1e-4
"""Density per scene unit below which a field shows nothing."""


@dataclass(frozen=True, eq=False)
class Layer:
    """An object as it is shown once."""

    target: Target
    opacity: float
    turn: Float[Tensor, "3 3"]
    """Rotation times scale."""
    scale: float
    shift: Float[Tensor, "3"]
    """Translation, after turning about the centre."""
    time_offset: float = 0.0


@dataclass
class LayerSamples:
    """Samples of one layer: S along each of R rays. The fields are those of `EditedSamples`."""

    rows: Int[Tensor, "R"]
    """Which rays."""
    starts: Float[Tensor, "R S"]
    ends: Float[Tensor, "R S"]
    read_at: Float[Tensor, "R S 3"]
    read_directions: Float[Tensor, "R S 3"]
    stretch: Float[Tensor, "R S"]
    static_kept: Bool[Tensor, "R S"]
    dynamic_kept: Bool[Tensor, "R S"]
    static_tint: Float[Tensor, "R S 4"]
    dynamic_tint: Float[Tensor, "R S 4"]
    ghost: Int[Tensor, "R S"]
    read_times: Float[Tensor, "R S"]
    turn: Float[Tensor, "R S 3 3"] | None
    drift: Float[Tensor, "R S 3"] | None

    def spread(self, rows: Int[Tensor, "R"], ends: Float[Tensor, "N 1"]) -> LayerSamples:
        """The samples as rows of N rays; the other rays get empty samples without length at their `ends`."""
        count = ends.shape[0]
        result: dict[str, Tensor | None] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None and entry.name != "rows":
                # Whatever the padding reads, the fields are not asked there.
                padding = value[:1].expand(count, *value.shape[1:]).clone()
                value = padding.index_copy(0, rows, value)
            result[entry.name] = value
        missed = torch.ones(count, dtype=torch.bool, device=ends.device).index_fill(0, rows, False)
        for name in ("starts", "ends"):
            value = result[name]
            assert value is not None
            value[missed] = ends[missed].expand(-1, value.shape[1])
        for name in ("static_kept", "dynamic_kept"):
            value = result[name]
            assert value is not None
            value[missed] = False
        return LayerSamples(**(result | {"rows": torch.arange(count, device=ends.device)}))  # type: ignore[arg-type]


class Edits:
    """A scene state, ready to be applied to one scene's rays."""

    def __init__(
        self, state: SceneState, scene: Scene, objects: Objects | None = None, class_names: Sequence[str] = ()
    ) -> None:
        """
        Args:
            state: What to show.
            scene: The scene that is edited.
            objects: Its instances; needed where the state names a class or an instance.
            class_names: Names of the classes by id.

        Raises:
            ValueError: the state names what is not there.
        """
        self.state, self.scene, self.objects = state, scene, objects
        self.background: Rgb | None = state.background
        edits = [(resolve(name, objects, class_names), edit) for name, edit in state.objects.items()]
        edits.sort(key=lambda pair: pair[0].precedence)
        self._edits: list[tuple[Target, ObjectEdit]] = edits
        self._hidden = [target for target, edit in edits if edit.hidden or edit.opacity == 0]
        self._kept = [resolve(name, objects, class_names) for name in state.kept]
        self._tints = [(target, edit) for target, edit in edits if edit.color is not None]
        self._lifted = [target for target, edit in edits if edit.placed or 0 < edit.opacity < 1]
        self.layers = [layer for target, edit in edits for layer in self._layers_of(target, edit)]
        self._asks_instances = objects is not None and any(
            needs_instances(target.name) for target in [*(t for t, _ in edits), *self._kept]
        )
        self._taken_away = any(target.moving for target in (*self._hidden, *self._lifted))
        self._turned = any(not torch.equal(layer.turn, torch.eye(3)) for layer in self.layers)

    def _layers_of(self, target: Target, edit: ObjectEdit) -> list[Layer]:
        if target in self._hidden:
            return []
        opacity = 1.0
        for other, outer in self._edits:
            opacity *= outer.opacity if other.contains(target) else 1.0
        turn = torch.tensor(rotation_matrix(edit.rotation)) * edit.scale

        def shown(offset: Vector, time_offset: float) -> Layer:
            shift = torch.tensor(edit.translation) + torch.tensor(offset)
            return Layer(target, opacity, turn, edit.scale, shift, time_offset)

        first = [shown(ORIGIN, 0.0)] if target in self._lifted else []
        return first + [shown(copy.offset, copy.time_offset) for copy in edit.copies]

    # ------------------------------------------------------------------ what is shown where

    def owners(self, points: Float[Tensor, "N 3"], times: Float[Tensor, "N"]) -> Owners:
        """Instances that points at times belong to."""
        if not self._asks_instances or self.objects is None:
            nobody = torch.full(points.shape[:1], -1, dtype=torch.long, device=points.device)
            return Owners(nobody, nobody, nobody)
        static = self.objects.membership(points, times, STATIC_MARGIN, "static")
        moving = self.objects.membership(points, times, MOVING_MARGIN, "moving")
        hidden_by = torch.full_like(moving, -1)
        if self._taken_away:
            free = (moving < 0).nonzero()[:, 0]
            hidden_by[free] = self.objects.hidden_by(points[free], times.reshape(-1)[free], MOVING_MARGIN)
        return Owners(static, moving, hidden_by)

    def kept(self, owners: Owners, layer: Layer | None) -> Share:
        """Which points of the fields a layer shows; None: the scene as it was."""
        everything = torch.ones_like(owners.static, dtype=torch.bool)
        shown = Share(everything, everything)
        for target in self._hidden:
            shown = shown & ~owners.taken_away(target)
        if self._kept:
            among = Share(~everything, ~everything)
            for target in self._kept:
                among = among | owners.share(target)
            shown = shown & among
        if layer is not None:
            shown = shown & owners.share(layer.target)
        for target in self._lifted:
            # What belongs to two objects that stand elsewhere goes with the more particular one.
            if layer is None or (target.precedence > layer.target.precedence and layer.target in self._lifted):
                shown = shown & ~owners.taken_away(target)
        return shown

    @torch.no_grad()
    def density(
        self, level: int, positions: Float[Tensor, "R S 3"], times: Float[Tensor, "R 1"], layer: Layer | None = None
    ) -> Float[Tensor, "R S 1"]:
        """Proposal density of what a layer shows.

        The proposal fields know all that is there at once. Where only one of the two fields is shown, or neither, they
        count by its part in the density of both.
        """
        density = self.scene.proposal_density(level, positions, times).reshape(-1)
        points, flat_times = positions.reshape(-1, 3), times[:, None].expand(*positions.shape[:2], 1).reshape(-1, 1)
        shown = self.kept(self.owners(points, flat_times[:, 0]), layer)
        partly = (shown.any & ~shown.all).nonzero()[:, 0]
        if len(partly):
            density[partly] *= self._part_shown(points[partly], flat_times[partly], shown.static[partly])
        return torch.where(shown.any, density, 0.0).reshape(*positions.shape[:2], 1)

    def _part_shown(
        self, points: Float[Tensor, "P 3"], times: Float[Tensor, "P 1"], static_shown: Bool[Tensor, "P"]
    ) -> Float[Tensor, "P"]:
        """Share of the one field that is shown in the density of both."""
        directions = torch.zeros_like(points)
        directions[:, 2] = 1  # densities do not depend on it
        still = self.scene.static_field(self.scene.space(points), directions).density
        moving = self.scene.dynamic_between_frames(points[:, None], times, directions[:, None])
        movers = (moving.blend * moving.density)[:, 0]
        own = torch.where(static_shown, still, movers)
        return own / (still + movers + EMPTY_DENSITY)

    # ------------------------------------------------------------------ samples

    @torch.no_grad()
    def sample(
        self, rays: RayBundle, times: Float[Tensor, "R 1"], sampler: ProposalSampling
    ) -> tuple[EditedSamples, Proposed]:
        """Rays of the picture -> samples of all layers, sorted along the rays."""
        crop = None if rays.nears is None or rays.fars is None else (rays.nears, rays.fars)

        def base_density(level: int, positions: Tensor, times: Tensor) -> Tensor:
            return self.density(level, positions, times)

        base, proposed = sampler(rays, times, self.scene, base_density)
        parts = [self._read(None, -1, base.starts, base.ends, base.positions, base.directions, times)]
        local = self._local_sampler(sampler)
        faded = [layer for layer in self.layers if layer.opacity < 1]
        for layer in self.layers:
            ghost = faded.index(layer) if layer in faded else -1
            for rows, time in rows_by_time(times):
                limits = None if crop is None else (crop[0][rows], crop[1][rows])
                part = self._sample_layer(layer, ghost, rays[rows], time, local, limits)
                if part is not None:
                    parts.append(part.spread(rows[part.rows], base.ends[:, -1:]))
        return self._merge(rays, times, parts, tuple(layer.opacity for layer in faded)), proposed

    def _local_sampler(self, sampler: ProposalSampling) -> ProposalNetworkSampler:
        """Proposal sampling within an object's bounds: even distances to start with, and always as in evaluation."""
        config = sampler.config
        return ProposalNetworkSampler(
            num_proposal_samples_per_ray=config.proposal_samples,
            num_nerf_samples_per_ray=config.samples,
            num_proposal_network_iterations=len(self.scene.proposal_fields),
            single_jitter=True,
            initial_sampler=UniformSampler(single_jitter=True),
        ).eval()

    def _sample_layer(
        self,
        layer: Layer,
        ghost: int,
        rays: RayBundle,
        time: float,
        sampler: ProposalNetworkSampler,
        limits: tuple[Tensor, Tensor] | None,
    ) -> LayerSamples | None:
        """Samples of a layer on those rays that pass its object's bounds; None where none does."""
        read_time = min(max(time - layer.time_offset, 0.0), 1.0)
        box = bounds_of(layer.target, self.objects, read_time, self.scene.space.aabb)
        if box is None:
            return None
        center, turn = center_of(layer.target, self.objects, read_time, box), layer.turn.to(box)
        back = torch.linalg.inv(turn)
        origins = center + turned(rays.origins - center - layer.shift.to(box), back)
        directions = turned(rays.directions, back * layer.scale)
        near, far = box_interval(origins, directions, box)
        near = near.clamp(min=NEAR_PLANE / layer.scale)
        if limits is not None:
            near = torch.maximum(near, limits[0] / layer.scale)
            far = torch.minimum(far, limits[1] / layer.scale)
        hit = (far > near)[:, 0].nonzero()[:, 0]
        if len(hit) == 0:
            return None
        carried = RayBundle(
            origins=origins[hit],
            directions=directions[hit],
            pixel_area=rays.pixel_area[hit],
            nears=near[hit],
            fars=far[hit],
        )
        read_times = torch.full_like(near[hit], read_time)

        def density_of(level: int) -> Callable[[Tensor], Tensor]:
            return lambda positions: self.density(level, positions, read_times, layer)

        final, _, _ = sampler(carried, density_fns=[density_of(i) for i in range(len(self.scene.proposal_fields))])
        starts, ends = final.frustums.starts[..., 0], final.frustums.ends[..., 0]
        read_at = carried.origins[:, None] + carried.directions[:, None] * ((starts + ends) / 2)[..., None]
        scale = layer.scale
        part = self._read(layer, ghost, starts * scale, ends * scale, read_at, carried.directions, read_times)
        part.rows = hit
        if self._turned:
            part.turn = turn.expand(*starts.shape, 3, 3)
            part.drift = self._drift(layer.target, turn, box, read_time).expand(*starts.shape, 3)
        return part

    def _drift(
        self, target: Target, turn: Float[Tensor, "3 3"], box: Float[Tensor, "2 3"], time: float
    ) -> Float[Tensor, "3"]:
        """What to add to turned motions to the next frame, so that the object as a whole goes where it went."""
        timeline = self.scene.bank.timeline  # its next frame is the one that flows lead to
        index = (timeline.index(box.new_tensor([time])) + 1e-4).floor() + 1
        following = float(timeline.time(index.clamp(max=len(timeline) - 1))[0])
        next_box = bounds_of(target, self.objects, following, self.scene.space.aabb)
        if next_box is None:
            return torch.zeros_like(box[0])
        way = center_of(target, self.objects, following, next_box) - center_of(target, self.objects, time, box)
        return way - turned(way, turn)

    def _read(
        self,
        layer: Layer | None,
        ghost: int,
        starts: Float[Tensor, "R S"],
        ends: Float[Tensor, "R S"],
        read_at: Float[Tensor, "R S 3"],
        directions: Float[Tensor, "R 3"],
        times: Float[Tensor, "R 1"],
    ) -> LayerSamples:
        """What a layer shows at samples, which are read at these places and times."""
        shape = starts.shape
        flat_times = times.expand(shape).reshape(-1)
        owners = self.owners(read_at.reshape(-1, 3), flat_times)
        kept = self.kept(owners, layer)
        static_tint, dynamic_tint = (starts.new_zeros(*shape, 4) for _ in range(2))
        for target, edit in self._tints:
            share, tint = owners.share(target), starts.new_tensor([*(edit.color or ()), edit.color_strength])
            static_tint[share.static.view(shape)] = tint
            dynamic_tint[share.dynamic.view(shape)] = tint
        same = self._turned and layer is None
        return LayerSamples(
            rows=torch.arange(shape[0], device=starts.device),
            starts=starts,
            ends=ends,
            read_at=read_at,
            read_directions=directions[:, None].expand_as(read_at),
            stretch=torch.full_like(starts, 1.0 if layer is None else layer.scale),
            static_kept=kept.static.view(shape),
            dynamic_kept=kept.dynamic.view(shape),
            static_tint=static_tint,
            dynamic_tint=dynamic_tint,
            ghost=torch.full(shape, ghost, dtype=torch.long, device=starts.device),
            read_times=times.expand(shape),
            turn=torch.eye(3, device=starts.device).expand(*shape, 3, 3) if same else None,
            drift=torch.zeros_like(read_at) if same else None,
        )

    def _merge(
        self,
        rays: RayBundle,
        times: Float[Tensor, "R 1"],
        parts: list[LayerSamples],
        opacities: tuple[float, ...],
    ) -> EditedSamples:
        """Samples of all layers in one row a ray, sorted by distance."""
        values = {
            f.name: torch.cat([getattr(part, f.name) for part in parts], dim=1)
            for f in fields(LayerSamples)
            if f.name != "rows" and getattr(parts[0], f.name) is not None
        }
        order = (values["starts"] + values["ends"]).argsort(dim=1, stable=True)
        values = {name: pick(value, order) for name, value in values.items()}
        if not any(layer.time_offset for layer in self.layers):
            del values["read_times"]
        return EditedSamples(rays.origins, rays.directions, times, **values, opacities=opacities)


def rows_by_time(times: Float[Tensor, "R 1"]) -> Iterator[tuple[Int[Tensor, "Q"], float]]:
    """Rays that share a time, and which."""
    for time in times.unique():
        yield (times[:, 0] == time).nonzero()[:, 0], float(time)
