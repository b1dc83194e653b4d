"""The model: rays -> samples -> fields -> flow features -> attention -> semantics -> compositing -> outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.viewer.viewer_elements import ViewerDropdown
from torch import Tensor, nn

from semflow_nerfstudio.compat import computes_in_bfloat16, rays_at_once
from semflow_nerfstudio.editing.editable import Editable
from semflow_nerfstudio.evaluation.scene_evaluation import SceneEvaluation
from semflow_nerfstudio.flow.feature_maps import FeatureCache, Maps
from semflow_nerfstudio.renderer import RenderConfig, render_rays
from semflow_nerfstudio.sampling.choice import SamplerName, Sampling, make_sampler
from semflow_nerfstudio.sampling.occupancy import OccupancySamplingConfig
from semflow_nerfstudio.sampling.proposal import ProposalSamplingConfig
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.scene import Scene, SceneConfig
from semflow_nerfstudio.scene_frames import SceneFrames
from semflow_nerfstudio.scene_objective import SceneObjective, Stage
from semflow_nerfstudio.scene_outputs import SceneOutputs, displayed_rays, join_dicts, rays_by_scene
from semflow_nerfstudio.shared import SharedConfig, SharedNetworks
from semflow_nerfstudio.training.adaptation import Classes, ClassRecord
from semflow_nerfstudio.training.backgrounds import on_background
from semflow_nerfstudio.training.label_transport import DEFAULT_TRANSPORT, LabelTransport, LabelTransportConfig
from semflow_nerfstudio.training.losses import color_loss
from semflow_nerfstudio.training.objective import LossWeights, present_modalities
from semflow_nerfstudio.training.observed import as_color, left_out, observe, rays_with_motion
from semflow_nerfstudio.training.older_checkpoints import complete_state, has_shared, saved_features
from semflow_nerfstudio.training.parameter_groups import parameter_groups
from semflow_nerfstudio.training.silhouettes import Silhouettes
from semflow_nerfstudio.visuals.outputs import ShownClasses, camera_outputs


@dataclass
class SemanticFlowModelConfig(SavedConfig, ModelConfig):
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
    """Proposal sampling; its `samples` are those of either sampler."""
    sampler: SamplerName = "proposal"
    """How samples are found: by proposal networks, or by an occupancy grid, both aware of time."""
    occupancy: OccupancySamplingConfig = field(default_factory=OccupancySamplingConfig)
    """Occupancy-grid sampling."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the losses."""
    time: bool = True
    """Whether anything may move. Off: the static field alone, taught by all pixels, whatever moves there."""
    static_steps: int = 250
    """Steps of the first stage for each scene, which train the static fields alone: on what does not move, or on all
    pixels where no motion masks say what that is."""
    mover_ray_share: float = 0.5
    """Share of a training batch's rays that get the dynamic field: first those known to show motion."""
    label_transport: LabelTransportConfig = DEFAULT_TRANSPORT
    """How labels are carried along trajectories where they are few."""
    advected_rays: int = 256
    """Moving rays in a step's passes of the dynamic field alone."""
    moving_rays_teach_static: bool = False
    """Whether rays known to show something that moves have gradients in the static field (the paper)."""
    dynamic_field_shows: Literal["movers", "everything"] = "movers"
    """What the dynamic field alone has to look like: the moving pixels, or the whole image (the paper)."""
    random_background: bool = True
    """Whether training compares colours in front of random backgrounds where images have no transparency, so that what
    is opaque is rendered so; off: in front of the scene's background colour."""
    encoder_every: int = 2
    """Steps between updates of a trainable frame encoder; its feature maps are kept in between."""
    encoder_frames: int = 12
    """Frames encoded in such an update, those that the step's rays read most; shorter clips are encoded as a whole.
    Several scenes share them, so that a step costs the same."""
    default_time: float | None = None
    """Time of rays that have none; None: the first frame's."""
    default_scene: str | None = None
    """Scene of cameras that name none (viewer, camera paths); None: the first."""
    adapt_from: Path | None = None
    """Checkpoint, or folder of a run, whose shared networks are taken to the scenes of this run."""
    adapt_field_steps: int = 1000
    """Steps of an adaptation that train the new scenes' fields alone, without labels."""
    adapt_label_steps: int | None = None
    """Steps of an adaptation with labels, after these; None: the rest of the training; 0: no label is ever read."""
    adapt_freeze_shared: bool = False
    """Whether an adaptation leaves the shared networks as they are; then new classes are learned by the scenes'
    residuals alone."""
    flow_color_scale: float = 0.05
    """Motion, as a share of the image width a frame, that gets the full colour in the `flow` output."""
    overlay_opacity: float = 0.5
    """Opacity of the classes' colours in the `semantics_overlay` output."""
    eval_num_rays_per_chunk: int = 8192
    """Rays rendered at once outside training; images on GPUs with memory for more take more (`compat.rays_at_once`)."""
    bfloat16: bool | None = None
    """Whether networks compute in bfloat16 (what they give, and losses, are float32); None: on GPUs that have it."""
    enable_collider: bool = False
    """Near and far come from the scene, not from this switch."""


class SemanticFlowModel(Editable, Model):
    """Semantic fields of one or several dynamic scenes."""

    config: SemanticFlowModelConfig
    class_colors: Tensor
    """RGB in [0, 1] of the classes, (C, 3)."""
    foreground: Tensor
    """Which classes are foreground, bool (C,)."""
    scene_choice: ViewerDropdown[str]
    """The viewer's list of scenes, where there are several."""

    def populate_modules(self) -> None:
        """Build the scenes and what they share from the datamanager's frames."""
        super().populate_modules()
        frames: dict[str, SceneFrames] = self.kwargs["metadata"]["scene_frames"]
        self.modalities = {name: f.has for name, f in frames.items()}
        adapting = self.config.adapt_from is not None
        classes = Classes.of(frames.values(), unlabelled=adapting)
        if self.config.default_scene not in (None, *frames):
            known = ", ".join(frames)
            raise ValueError(
                f"default_scene is '{self.config.default_scene}', but the scenes are {known}; name one of them"
            )
        num_classes = len(classes.names)
        if num_classes and not (self.config.render.flow_features or self.config.scene.residual):
            raise ValueError("render.flow_features and scene.residual are both off: nothing is left to tell classes by")
        proposes = self.config.sampler == "proposal"
        if not proposes and self.config.render.token_visibility:
            raise ValueError("render.token_visibility asks the proposal fields, which sampler 'occupancy' has none of")
        own = self.config.scene if proposes else replace(self.config.scene, proposals=())
        self.scenes = nn.ModuleDict({name: Scene(f, own, num_classes) for name, f in frames.items()})
        self.shared = self.make_shared(next(iter(frames.values())).features, num_classes) if num_classes else None
        self.samplers = nn.ModuleDict(
            {
                name: make_sampler(self.config.sampler, self.scene(name), self.config.sampling, self.config.occupancy)
                for name in self.scenes
            }
        )
        self.name_classes(classes)
        if adapting and self.config.adapt_freeze_shared and self.shared is not None:
            self.shared.requires_grad_(False)
        if len(frames) > 1:
            self.scene_choice = ViewerDropdown("Scene", self.config.default_scene or next(iter(frames)), list(frames))
        background = next(iter(frames.values())).background_color
        self.renderer_rgb = RGBRenderer(background_color=torch.tensor(background))
        self.first_frame, count = {}, 0
        for name, f in frames.items():
            self.first_frame[name], count = count, count + len(f.cameras)
        self.objective = SceneObjective(
            self.config.losses,
            self.config.render,
            self.config.advected_rays,
            self.config.dynamic_field_shows == "everything",
            self.config.random_background,
            LabelTransport(self.config.label_transport, self.kwargs["metadata"].get("label_sources")),
            Silhouettes(self.kwargs["metadata"].get("silhouettes")),
        )
        self.train_psnr = torch.zeros(())
        self.step = 0
        most = max(self.config.render.window, self.config.encoder_frames // len(frames))
        self._maps = {name: FeatureCache(most) for name in frames}

    def make_shared(self, features: Tensor | None, num_classes: int) -> SharedNetworks:
        """The shared networks, for the frozen features (N, h, w, C) that frames have or for an encoder of their own."""
        dim = None if features is None else features.shape[-1]
        return SharedNetworks(self.config.shared, num_classes, dim, self.kwargs["metadata"].get("feature_basis"))

    def match_checkpoint(self, saved: dict[str, Tensor]) -> bool:
        """Build the frame encoder that a checkpoint was trained with, and complete what older ones lack.

        A frozen encoder whose weights were not there in training gave way to the small trainable one; whether they are
        there now does not matter.

        Returns:
            Whether the shared networks were built anew, and no optimizer knows their parameters.
        """
        scenes = list(self.scenes)
        complete_state(saved, scenes, len(self.class_names))
        features = saved_features(saved, scenes)
        if self.shared is None or not has_shared(saved):
            for name in scenes:
                if features[name] is None:
                    self.scene(name).bank.features = None
            return False
        first = features[scenes[0]]
        if (first is None) == (self.shared.encoder is not None):
            return False
        for name in scenes:
            bank = self.scene(name).bank
            size = (len(bank.images), 1, 1, 0 if first is None else first.shape[-1])
            bank.features = None if first is None else first.new_zeros(size, device=self.device)
        self.shared = self.make_shared(first, len(self.class_names)).to(self.device)
        return True

    def scene(self, name: str) -> Scene:
        """A scene by name."""
        scene = self.scenes[name]
        assert isinstance(scene, Scene)
        return scene

    def name_classes(self, classes: Classes) -> None:
        """Say what the logits mean."""
        self.class_names = classes.names
        self.classes = ClassRecord(classes)
        self.register_buffer("class_colors", classes.colors.float() / 255, persistent=False)
        self.register_buffer("foreground", classes.foreground.clone(), persistent=False)
        self.evaluation = SceneEvaluation(tuple(self.scenes), classes.names, classes.foreground)

    def take_classes(self, classes: Classes) -> None:
        """Build all that depends on the classes anew: weights of other classes are about to be loaded."""
        self.name_classes(classes)
        for name in self.scenes:
            self.scene(name).set_classes(len(classes.names))
        features = self.scene(next(iter(self.scenes))).bank.features
        self.shared = self.make_shared(features, len(classes.names)) if classes.names else None
        self.to(self.device).train(self.training)

    @property
    def shown_scene(self) -> str:
        """Scene of cameras that name none."""
        return self.scene_choice.value if len(self.scenes) > 1 else next(iter(self.scenes))

    def show_scene(self, name: str) -> None:
        """Choose the scene of cameras that name none.

        Raises:
            ValueError: there is no such scene.
        """
        if name not in self.scenes:
            raise ValueError(f"there is no scene '{name}' in this run: it has {', '.join(self.scenes)}")
        if len(self.scenes) > 1:
            self.scene_choice.value = name

    def scene_of(self, camera: Cameras) -> str:
        """The scene that a camera of a data set belongs to."""
        index = camera.metadata.get("scene") if camera.metadata else None
        return self.shown_scene if index is None else list(self.scenes)[int(index.reshape(-1)[0])]

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every trainable parameter, in exactly one group."""
        return parameter_groups(self.named_parameters())

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
            assert isinstance(sampler, Sampling)
            sampler.set_step(step)

    def update_to_step(self, step: int) -> None:
        """A checkpoint of this step was loaded."""
        self.set_step(step)

    @property
    def static_stage(self) -> bool:
        """Whether only the static field is rendered: at the start of training, or where nothing may move."""
        return not self.config.time or (self.training and self.step < self.static_steps)

    @property
    def static_steps(self) -> int:
        """Steps of the first stage: batches mix scenes, each of which wants its own."""
        return self.config.static_steps * len(self.scenes)

    @property
    def labels_in_use(self) -> bool:
        """Whether this step of the training learns from labels: in an adaptation, not all do."""
        config = self.config
        if config.adapt_from is None:
            return True
        count = self.step - config.adapt_field_steps
        return count >= 0 and (config.adapt_label_steps is None or count < config.adapt_label_steps)

    # ------------------------------------------------------------------ the way of a ray

    def forward(self, ray_bundle: RayBundle, batch: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render rays; with a training batch, its `losses` and the rays' `rgb` without gradient and nothing else.

        Everything that has parameters runs in here, and no other output has a gradient: what several processes need.
        """
        enabled = computes_in_bfloat16(self.device) if self.config.bfloat16 is None else self.config.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            outputs = super().forward(ray_bundle)
            if batch is None:
                return outputs
            return {"rgb": torch.as_tensor(outputs["rgb"]).detach(), "losses": self.get_loss_dict(outputs, batch)}

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
        scene, sampler = self.scene(name), cast(Any, self.samplers[name])
        times, edits = self.ray_times(rays, scene), self.edits(name)
        samples, proposed = sampler(rays, times, scene) if edits is None else edits.sample(rays, times, sampler)
        semantic = not self.training or self.labels_in_use
        motion = self.known_motion(rays) if "motion_mask" in self.modalities[name] else None
        mover_rays = rays_with_motion(motion, self.config.mover_ray_share)
        moving = None if motion is None else (motion == 1) | left_out(motion, mover_rays)
        rendered = render_rays(
            scene,
            self.shared if semantic else None,
            samples,
            self.config.render,
            maps=self.feature_maps(name, times) if semantic else None,
            static_only=self.static_stage,
            mover_rays=mover_rays,
            moving=None if self.config.moving_rays_teach_static else moving,
            shared_alone=self.teaches_shared_alone,
            training=self.training,
        )
        if not self.training and self.shared is not None and rendered.logits is not None:
            logits = self.shared.class_prior(rendered.logits, rendered.weights.transmittance)
            rendered.logits = self.scene(name).among_own(logits)
        return SceneOutputs(name, rows, rays, rendered, proposed)

    def ray_outputs(self, part: SceneOutputs) -> dict[str, Tensor]:
        """What a rendered batch shows, one row a ray; `camera_outputs` makes pictures of it."""
        out = part.rendered
        renderer = self.renderer_rgb
        edits, color = self.edits(part.name), renderer.background_color
        if edits is not None and edits.background is not None:
            color = torch.tensor(edits.background)
        background = renderer.get_background_color(color, out.rgb.shape, out.rgb.device)
        outputs = displayed_rays(out, background)
        if out.logits is not None and self.shared is not None:
            outputs["logits"] = self.shared.calibration(out.logits)
        return outputs

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Render an image: rgb, accumulation, depth, semantics and the other displayable outputs, each (H, W, 1 or 3).

        `depth` is the distance along the ray in scene units, `label` the class id, `flow` the motion of what is seen
        to the next frame time, as this same camera would see it.
        """
        colors, shown = self.shown_classes()
        return camera_outputs(
            super().get_outputs_for_camera(camera, obb_box),
            camera,
            ShownClasses(self.class_names, colors, self.foreground),
            shown,
            self.display,
            self.config.overlay_opacity,
            self.config.flow_color_scale,
            self.edited,
            self.membership,
        )

    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> dict[str, Tensor]:
        """What the rays (H, W) of an image returned, rendered in chunks of as many as the device takes at once."""
        configured = self.config.eval_num_rays_per_chunk
        self.config.eval_num_rays_per_chunk = rays_at_once(self.device, configured, self.config.sampling.samples)
        try:
            return super().get_outputs_for_camera_ray_bundle(camera_ray_bundle)
        finally:
            self.config.eval_num_rays_per_chunk = configured

    def ray_image(self, camera: Cameras) -> dict[str, Tensor]:
        """What every ray of an image returned (`ray_outputs`), (H, W, C) each; lengths are in scene units."""
        return super().get_outputs_for_camera(camera)

    # ------------------------------------------------------------------ pieces

    def by_scene(self, rays: RayBundle) -> Iterator[tuple[str, Int[Tensor, "R"] | None, RayBundle]]:
        """Split rays by the scene index that their cameras carry; rays without one are the default scene's."""
        return rays_by_scene(rays, list(self.scenes), self.shown_scene)

    def ray_times(self, rays: RayBundle, scene: Scene) -> Float[Tensor, "R 1"]:
        """Times in [0, 1]; the Render tab's splines overshoot, and some commands give no times at all."""
        if rays.times is None:
            time = scene.default_time() if self.config.default_time is None else self.config.default_time
            return torch.full_like(rays.origins[:, :1], time)
        return rays.times.reshape(-1, 1).to(rays.origins).clamp(0, 1)

    def known_motion(self, rays: RayBundle) -> UInt8[Tensor, "R"] | None:
        """In training, what the motion masks say of the rays: 0 static, 1 moving, 255 unknown."""
        known = self.training and self.config.time and rays.metadata
        motion = rays.metadata.get("motion") if known else None
        return motion.reshape(-1) if isinstance(motion, Tensor) else None

    @property
    def teaches_shared_alone(self) -> bool:
        """Whether the shared networks' logits are taught without the scenes' residuals, too; these have to exist."""
        both = self.config.render.flow_features and self.config.scene.residual
        return self.training and len(self.scenes) > 1 and both and self.config.losses.shared_semantic > 0

    def feature_maps(self, name: str, times: Float[Tensor, "R 1"]) -> Maps | None:
        """Feature maps of a scene's frames: fresh, with gradient, every few training steps, kept in between."""
        shared, bank, cache = self.shared, self.scene(name).bank, self._maps[name]
        if shared is None or not self.config.render.flow_features:
            return None
        encoder = shared.encoder
        learned = encoder is not None and any(p.requires_grad for p in encoder.parameters())
        if encoder is None and len(bank.images) > cache.most:
            return bank.features  # of a long clip: in half precision, as they are kept
        if learned and self.training and self.step % self.config.encoder_every == 0:
            offsets = self.config.render.window_offsets(bank.timeline)
            return cache.update(shared.encode, bank, times, offsets, shared.pooled_frames(bank))
        # Fused optimizers do not raise the parameters' own versions.
        version = () if encoder is None else (self.step, *(p._version for p in encoder.parameters()))
        return cache.kept(shared.encode, bank, None if self.training else version)

    # ------------------------------------------------------------------ losses and metrics

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """Weighted losses of a training batch; of an evaluation batch, whose rays are rendered for looks, colour's."""
        if "parts" not in outputs:
            image = as_color(batch["image"].to(self.device)[..., :3])
            return {"color": self.config.losses.color * color_loss(outputs["rgb"], image)}
        total: dict[str, Tensor] = {}
        stage = Stage(self.step, self.static_stage, self.config.time, self.step - self.static_steps)
        for part in outputs["parts"]:
            known = present_modalities(batch, self.modalities[part.name])
            z_ratio, first = part.rays.metadata["directions_norm"], self.first_frame[part.name]
            seen = observe(known, part.rows, z_ratio, first, self.device)
            share = 1.0 if part.rows is None else len(part.rows) / len(batch["indices"])
            for name, loss in self.objective(self.scene(part.name), self.shared, part, seen, stage, share).items():
                total[name] = total.get(name, 0.0) + share * loss  # type: ignore[operator]
        return total

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the batch."""
        error = (outputs["rgb"].detach() - as_color(batch["image"].to(self.device)[..., :3])).square().mean()
        self.train_psnr = -10 * torch.log10(error.clamp(min=1e-10))
        return {"psnr": self.train_psnr}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor], scene: str | None = None
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Scores and pictures of one evaluation image of a scene; None: of the one that is shown."""
        return self.evaluation.add(scene or self.shown_scene, outputs, batch, self.class_colors)
