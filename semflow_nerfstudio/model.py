"""The model: rays -> samples -> fields -> flow features -> attention -> semantics -> compositing -> outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor, nn

from semflow_nerfstudio.editing.edits import Edits
from semflow_nerfstudio.editing.scene_state import SceneState, check_known
from semflow_nerfstudio.editing.targets import Objects
from semflow_nerfstudio.evaluation.image_metrics import ImageEvaluation
from semflow_nerfstudio.renderer import RenderConfig, Rendered, render_rays, seen_motion, seen_points
from semflow_nerfstudio.sampling.proposal import ProposalSampling, ProposalSamplingConfig, Proposed, proposal_losses
from semflow_nerfstudio.scene import Scene, SceneConfig
from semflow_nerfstudio.scene_frames import SceneFrames
from semflow_nerfstudio.shared import SharedConfig, SharedNetworks
from semflow_nerfstudio.training.losses import color_loss, surface_loss
from semflow_nerfstudio.training.objective import (
    LossWeights,
    Observed,
    as_color,
    dynamic_losses,
    given_distance,
    observe,
    on_background,
    static_losses,
)
from semflow_nerfstudio.visuals.outputs import camera_outputs


@dataclass
class SemanticFlowModelConfig(ModelConfig):
    """Semantic Flow."""

    _target: type = field(default_factory=lambda: SemanticFlowModel)
    """Target class to instantiate."""
    scene: SceneConfig = field(default_factory=SceneConfig)
    """What every scene has of its own."""
    shared: SharedConfig = field(default_factory=SharedConfig)
    """What scenes share."""
    render: RenderConfig = field(default_factory=RenderConfig)
    """How rays are rendered."""
    sampling: ProposalSamplingConfig = field(default_factory=ProposalSamplingConfig)
    """Proposal sampling."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the losses."""
    time: bool = True
    """Whether anything may move. Off: the static field alone, taught by all pixels, whatever moves there."""
    static_steps: int = 250
    """Steps of the first stage, which trains the static field alone on what does not move (needs motion masks)."""
    mover_ray_share: float = 0.5
    """Share of a training batch's rays that get the dynamic field: first those known to show motion."""
    advected_rays: int = 256
    """Moving rays in a step's passes of the dynamic field alone."""
    encoder_every: int = 2
    """Steps between updates of a trainable frame encoder; its feature maps are kept in between."""
    default_time: float | None = None
    """Time of rays that have none; None: the first frame's."""
    default_scene: str | None = None
    """Scene of cameras that name none (viewer, camera paths); None: the first."""
    flow_color_scale: float = 0.05
    """Motion, as a share of the image width a frame, that gets the full colour in the `flow` output."""
    overlay_opacity: float = 0.5
    """Opacity of the classes' colours in the `semantics_overlay` output."""
    eval_num_rays_per_chunk: int = 8192
    """Rays rendered at once outside training."""
    enable_collider: bool = False
    """Near and far come from the scene, not from this switch."""


class SemanticFlowModel(Model):
    """Semantic fields of one or several dynamic scenes."""

    config: SemanticFlowModelConfig
    class_colors: Tensor
    """RGB in [0, 1] of the classes, (C, 3)."""
    _edits: Edits | None

    def populate_modules(self) -> None:
        """Build the scenes and what they share from the datamanager's frames."""
        super().populate_modules()
        frames: dict[str, SceneFrames] = self.kwargs["metadata"]["scene_frames"]
        labelled = [f for f in frames.values() if f.num_classes and "labels" in f.has]
        self.class_names = labelled[0].class_names if labelled else ()
        colors = labelled[0].class_colors if labelled else torch.zeros(0, 3)
        foreground = labelled[0].foreground if labelled else torch.zeros(0, dtype=torch.bool)
        self.register_buffer("class_colors", colors.clone(), persistent=False)
        self.register_buffer("foreground", foreground.clone(), persistent=False)
        if self.config.default_scene not in (None, *frames):
            known = ", ".join(frames)
            raise ValueError(
                f"default_scene is '{self.config.default_scene}', but the scenes are {known}; name one of them"
            )
        num_classes = len(self.class_names)
        if num_classes and not (self.config.render.flow_features or self.config.scene.residual):
            raise ValueError("render.flow_features and scene.residual are both off: nothing is left to tell classes by")
        self.scenes = nn.ModuleDict({name: Scene(f, self.config.scene, num_classes) for name, f in frames.items()})
        self.shared = SharedNetworks(self.config.shared, num_classes) if num_classes else None
        self.samplers = nn.ModuleDict(
            {name: ProposalSampling(self.scene(name), self.config.sampling) for name in self.scenes}
        )
        self.has_motion = all("motion_mask" in f.has for f in frames.values())
        background = next(iter(frames.values())).background_color
        self.renderer_rgb = RGBRenderer(background_color=torch.tensor(background))
        self.evaluation = ImageEvaluation(self.class_names, foreground)
        self.first_frame, count = {}, 0
        for name, f in frames.items():
            self.first_frame[name], count = count, count + len(f.cameras)
        self.train_psnr = torch.zeros(())
        self.step = 0
        self._maps: dict[str, tuple[tuple[int, ...] | None, Tensor]] = {}
        self._scene_state, self._edits = SceneState(), None

    def scene(self, name: str) -> Scene:
        """A scene by name."""
        scene = self.scenes[name]
        assert isinstance(scene, Scene)
        return scene

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every trainable parameter, in exactly one group."""
        groups: dict[str, list[nn.Parameter]] = {"fields": [], "flow": [], "proposals": [], "semantics": []}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad or parameter.numel() == 0:
                continue
            if ".proposal_fields." in name:
                groups["proposals"].append(parameter)
            elif ".flow_field." in name:
                groups["flow"].append(parameter)
            elif name.startswith("shared.") or "_residual." in name:
                groups["semantics"].append(parameter)
            else:
                groups["fields"].append(parameter)
        return {name: parameters for name, parameters in groups.items() if parameters}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """The static-then-dynamic schedule and the sampler's warm-up."""
        return [
            TrainingCallback(
                where_to_run=[TrainingCallbackLocation.BEFORE_TRAIN_ITERATION],
                update_every_num_iters=1,
                func=self.set_step,
            )
        ]

    def set_step(self, step: int) -> None:
        """Bring everything that changes over training to a step."""
        self.step = step
        for sampler in self.samplers.values():
            assert isinstance(sampler, ProposalSampling)
            sampler.set_step(step)

    def update_to_step(self, step: int) -> None:
        """A checkpoint of this step was loaded."""
        self.set_step(step)

    @property
    def static_stage(self) -> bool:
        """Whether only the static field is rendered: at the start of training, or where nothing may move."""
        if not self.config.time:
            return True
        return self.training and self.step < self.config.static_steps

    # ------------------------------------------------------------------ the way of a ray

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Render rays. In training the outputs hold one `SceneOutputs` for each scene in the batch."""
        parts = [self.render_scene(name, rows, rays) for name, rows, rays in self.by_scene(ray_bundle)]
        if self.training:
            colors = [
                (p.rows, {"rgb": on_background(self.scene(p.name), p.rendered.rgb, p.rendered.weights.total)})
                for p in parts
            ]
            return {"parts": parts, **join_dicts(colors)}
        return join_dicts([(part.rows, self.ray_outputs(part)) for part in parts])

    def render_scene(self, name: str, rows: Int[Tensor, "R"] | None, rays: RayBundle) -> SceneOutputs:
        """Rays of one scene -> samples -> rendered."""
        scene, sampler = self.scene(name), self.samplers[name]
        times, edits = self.ray_times(rays, scene), self.edits(name)
        samples, proposed = sampler(rays, times, scene) if edits is None else edits.sample(rays, times, sampler)
        rendered = render_rays(
            scene,
            self.shared,
            samples,
            self.config.render,
            maps=self.feature_maps(name),
            static_only=self.static_stage,
            mover_rays=self.mover_rays(rays),
            moving=self.known_moving(rays),
            training=self.training,
        )
        return SceneOutputs(name, rows, rays, rendered, proposed)

    def ray_outputs(self, part: SceneOutputs) -> dict[str, Tensor]:
        """What a rendered batch shows, one row a ray; `camera_outputs` makes pictures of it."""
        out = part.rendered
        renderer = self.renderer_rgb
        background = renderer.get_background_color(renderer.background_color, out.rgb.shape, out.rgb.device)
        edits = self.edits(part.name)
        if edits is not None and edits.background is not None:
            background = torch.tensor(edits.background, device=out.rgb.device)
        outputs = {
            "rgb": out.rgb + (1 - out.accumulation[:, None]) * background,
            "accumulation": out.accumulation[:, None],
            "depth": out.distance[:, None],
            "static_rgb": out.static_rgb + (1 - out.static_weights.sum(-1, keepdim=True)) * background,
            "dynamic_rgb": out.dynamic_share_rgb + (1 - out.dynamicness[:, None]) * background,
            "dynamicness": out.dynamicness[:, None],
        }
        if out.logits is not None:
            outputs["logits"] = out.logits
        outputs["here"] = outputs["there"] = seen_points(out)
        if out.flow is not None:
            outputs["there"] = outputs["here"].index_add(0, out.flow.rays, seen_motion(out, 1))
        return {name: value.clamp(0, 1) if name.endswith("rgb") else value for name, value in outputs.items()}

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Render an image: rgb, accumulation, depth, semantics and the other displayable outputs, each (H, W, 1 or 3).

        `depth` is the distance along the ray in scene units, `label` the class id, `flow` the motion of what is seen
        to the next frame time, as this same camera would see it.
        """
        return camera_outputs(
            super().get_outputs_for_camera(camera, obb_box),
            camera,
            *self.shown_classes(),
            self.config.overlay_opacity,
            self.config.flow_color_scale,
        )

    # ------------------------------------------------------------------ edits

    @property
    def scene_state(self) -> SceneState:
        """The edits that pictures show."""
        return self._scene_state

    def set_scene_state(self, state: SceneState, instances: Objects | None = None) -> None:
        """Show a scene edited. This is no part of checkpoints; training and evaluation do not see it.

        Args:
            state: The edits; an empty state shows everything as it is.
            instances: The edited scene's instances, needed where the state names a class or an instance.

        Raises:
            ValueError: the state names a scene, class or instance that is not there.
        """
        check_known(state, self.class_names, None, list(self.scenes))
        name = self.edited_scene(state)
        edits = Edits(state, self.scene(name), instances, self.class_names) if state.edits_scene else None
        self._scene_state, self._edits = state, edits

    def edited_scene(self, state: SceneState) -> str:
        """Name of the scene that a state edits."""
        return state.scene or self.config.default_scene or next(iter(self.scenes))

    def edits(self, name: str) -> Edits | None:
        """What is to be edited in a scene's pictures; never in training."""
        if self.training or self._edits is None or self.edited_scene(self._scene_state) != name:
            return None
        return self._edits

    @contextmanager
    def unedited(self) -> Iterator[None]:
        """Within this context pictures show scenes as they were learnt: for scores."""
        kept = self._scene_state, self._edits
        self._scene_state, self._edits = SceneState(), None
        try:
            yield
        finally:
            self._scene_state, self._edits = kept

    def shown_classes(self) -> tuple[Float[Tensor, "C 3"], Bool[Tensor, "C"]]:
        """Colours of the classes as edited, and which are coloured at all."""
        colors, shown = self.class_colors.clone(), torch.ones_like(self.foreground)
        for index, name in enumerate(self.class_names):
            if name in self._scene_state.class_colors:
                colors[index] = torch.tensor(self._scene_state.class_colors[name])
            shown[index] = name not in self._scene_state.hidden_classes
        return colors, shown

    # ------------------------------------------------------------------ pieces

    def by_scene(self, rays: RayBundle) -> Iterator[tuple[str, Int[Tensor, "R"] | None, RayBundle]]:
        """Split rays by the scene index that their cameras carry; rays without one are the default scene's."""
        names = list(self.scenes)
        index = rays.metadata.get("scene") if rays.metadata else None
        if len(names) == 1 or not isinstance(index, Tensor):
            yield self.config.default_scene or names[0], None, rays
            return
        for i, name in enumerate(names):
            rows = (index.reshape(-1) == i).nonzero()[:, 0]
            if len(rows):
                yield name, rows, rays[rows]

    def ray_times(self, rays: RayBundle, scene: Scene) -> Float[Tensor, "R 1"]:
        """Times in [0, 1]; the Render tab's splines overshoot, and some commands give no times at all."""
        if rays.times is None:
            time = scene.default_time() if self.config.default_time is None else self.config.default_time
            return torch.full_like(rays.origins[:, :1], time)
        return rays.times.reshape(-1, 1).to(rays.origins).clamp(0, 1)

    def known_moving(self, rays: RayBundle) -> Bool[Tensor, "R"] | None:
        """In training, which rays the motion masks know to show something that moves."""
        known = self.training and self.config.time and rays.metadata
        moving = rays.metadata.get("moving") if known else None
        return moving.reshape(-1) if isinstance(moving, Tensor) else None

    def mover_rays(self, rays: RayBundle) -> Int[Tensor, "M"] | None:
        """In training, the rays that get the dynamic field: those known to show motion, and some of the others."""
        moving = self.known_moving(rays)
        if moving is None or self.config.mover_ray_share >= 1:
            return None
        order = moving + torch.rand(len(moving), device=moving.device)
        return order.topk(max(1, int(self.config.mover_ray_share * len(moving)))).indices

    def feature_maps(self, name: str) -> Float[Tensor, "F h w C"] | None:
        """Feature maps of a scene's frames: fresh, with gradient, every few training steps, kept in between."""
        if self.shared is None or not self.config.render.flow_features:
            return None
        # Fused optimizers do not raise the parameters' own versions.
        version = (self.step, *(p._version for p in self.shared.encoder.parameters()))
        if self.training and self.step % self.config.encoder_every == 0:
            maps = self.shared.encode(self.scene(name).bank)
            self._maps[name] = (None, maps.detach())
            return maps
        kept = self._maps.get(name)
        if kept is not None and (self.training or kept[0] == version):
            return kept[1]
        with torch.no_grad():
            maps = self.shared.encode(self.scene(name).bank)
        self._maps[name] = (version, maps)
        return maps

    # ------------------------------------------------------------------ losses and metrics

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """Weighted losses of a training batch; of an evaluation batch, whose rays are rendered for looks, colour's."""
        if "parts" not in outputs:
            image = as_color(batch["image"].to(self.device)[..., :3])
            return {"color": self.config.losses.color * color_loss(outputs["rgb"], image)}
        total: dict[str, Tensor] = {}
        for part in outputs["parts"]:
            scene, w = self.scene(part.name), self.config.losses
            seen = observe(
                batch, part.rows, part.rays.metadata["directions_norm"], self.first_frame[part.name], self.device
            )
            if not self.config.time:
                seen = replace(seen, motion=torch.zeros_like(seen.frame, dtype=torch.uint8))
            if self.static_stage:
                losses = static_losses(scene, part.rendered, seen, w)
            else:
                direction = 1 if self.step % 2 else -1
                losses = dynamic_losses(
                    scene, part.rendered, seen, w, self.config.render, direction, self.config.advected_rays
                )
            losses.update(self.sampling_losses(part, seen))
            share = 1.0 if part.rows is None else len(part.rows) / len(batch["indices"])
            for name, loss in losses.items():
                total[name] = total.get(name, 0.0) + share * loss  # type: ignore[operator]
        return total

    def sampling_losses(self, part: SceneOutputs, seen: Observed) -> dict[str, Tensor]:
        """Losses of the proposal densities, which also learn from the given depth directly."""
        w = self.config.losses
        interlevel, distortion = proposal_losses(part.proposed, part.rendered.weights.total)
        result = {"interlevel": w.proposal * interlevel, "distortion": w.distortion * distortion}
        if seen.inverse_depth is None or w.proposal_surface <= 0:
            return result
        known, given = given_distance(seen)
        if self.static_stage:
            known = known & seen.static
        for samples, weights in zip(part.proposed.ray_samples[:-1], part.proposed.weights, strict=True):
            if weights.requires_grad:
                middle = (samples.frustums.starts + samples.frustums.ends)[..., 0] / 2
                loss = surface_loss(weights[..., 0], middle, given, known, w.surface_tolerance)
                result["proposal_surface"] = result.get("proposal_surface", 0.0) + w.proposal_surface * loss
        return result

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the batch."""
        error = (outputs["rgb"].detach() - as_color(batch["image"].to(self.device)[..., :3])).square().mean()
        self.train_psnr = -10 * torch.log10(error.clamp(min=1e-10))
        return {"psnr": self.train_psnr}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Scores and pictures of one evaluation image."""
        return self.evaluation.add(outputs, batch, self.class_colors)


@dataclass
class SceneOutputs:
    """The rays of a batch that belong to one scene."""

    name: str
    rows: Int[Tensor, "R"] | None
    """Their rows in the batch; None for all of it."""
    rays: RayBundle
    rendered: Rendered
    proposed: Proposed


def join_dicts(parts: list[tuple[Int[Tensor, "R"] | None, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Rows of several scenes back in the order of the batch."""
    if parts[0][0] is None:
        return parts[0][1]
    order = torch.cat([rows for rows, _ in parts if rows is not None]).argsort()
    return {name: torch.cat([values[name] for _, values in parts])[order] for name in parts[0][1]}
