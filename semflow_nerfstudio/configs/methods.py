"""The methods that `ns-train` knows: entry points, nothing else."""

from __future__ import annotations

from nerfstudio.configs.base_config import LoggingConfig, MachineConfig, ViewerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.plugins.types import MethodSpecification

from semflow_nerfstudio import compat
from semflow_nerfstudio.configs.optimizers import FusedAdamConfig
from semflow_nerfstudio.configs.schedulers import WarmupDecayConfig
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.frame_sampler import SemFlowPixelSamplerConfig
from semflow_nerfstudio.fields.dynamic_field import DynamicFieldConfig
from semflow_nerfstudio.fields.flow_field import FlowFieldConfig
from semflow_nerfstudio.fields.proposal_field import ProposalFieldConfig
from semflow_nerfstudio.fields.static_field import GridConfig, StaticFieldConfig
from semflow_nerfstudio.model import SemanticFlowModelConfig
from semflow_nerfstudio.pipeline import SemanticFlowPipelineConfig
from semflow_nerfstudio.renderer import RenderConfig
from semflow_nerfstudio.sampling.proposal import ProposalSamplingConfig
from semflow_nerfstudio.scene import SEMANTIC_GRID, SceneConfig
from semflow_nerfstudio.shared import SharedConfig
from semflow_nerfstudio.training.objective import LossWeights

compat.allow_numpy_scalars_in_checkpoints()
compat.silence_upstream_warnings()


def optimizers(fields: float = 3e-2) -> dict:
    """One Adam per parameter group; the groups start when they first get gradients. Rates fall until the last step,
    whatever `--max-num-iterations` says."""
    rates = {
        "fields": fields,
        "flow": fields / 2,
        "proposals": fields,
        "semantics": fields / 4,
        "semantic_grid": fields,
    }
    return {
        name: {
            "optimizer": FusedAdamConfig(lr=rate, eps=1e-15),
            "scheduler": WarmupDecayConfig(warmup_steps=20, final_ratio=0.05),
        }
        for name, rate in rates.items()
    }


def trainer(name: str, steps: int, rays: int, model: SemanticFlowModelConfig, eval_image_every: int) -> TrainerConfig:
    """A trainer that runs on whatever device there is, evaluates as it goes, and ends when it is done."""
    return TrainerConfig(
        method_name=name,
        max_num_iterations=steps,
        steps_per_save=max(500, steps // 4),
        steps_per_eval_batch=0,
        steps_per_eval_image=eval_image_every,
        steps_per_eval_all_images=0,
        mixed_precision=False,
        machine=MachineConfig(device_type=compat.default_device()),  # type: ignore[arg-type]
        pipeline=SemanticFlowPipelineConfig(
            datamanager=SemFlowDataManagerConfig(
                train_num_rays_per_batch=rays,
                eval_num_rays_per_batch=rays,
                pixel_sampler=SemFlowPixelSamplerConfig(frames_per_batch=8, dynamic_fraction=0.3),
            ),
            model=model,
        ),
        optimizers=optimizers(),
        viewer=ViewerConfig(num_rays_per_chunk=1 << 13, quit_on_train_completion=True),
        logging=LoggingConfig(steps_per_log=50),
        vis="viewer+tensorboard",
    )


LITE_STEPS = 2000
FULL_STEPS = 20000


def lite(steps: int = LITE_STEPS) -> TrainerConfig:
    """`semantic-flow-lite` for another number of steps."""
    model = SemanticFlowModelConfig(
        scene=SceneConfig(semantic_grid=SEMANTIC_GRID),
        render=RenderConfig(label_gradient=0.2),
    )
    return trainer("semantic-flow-lite", steps, 1024, model, eval_image_every=500)


def paper(steps: int = LITE_STEPS) -> TrainerConfig:
    """`semantic-flow-paper` for another number of steps: fields and budget of `semantic-flow-lite`, but the reference's
    compositing, losses, weights and schedule, and no selection of rays or samples."""
    samples = ProposalSamplingConfig().samples
    model = SemanticFlowModelConfig(
        render=RenderConfig(
            window=3,
            integrator="euler",
            static_samples=samples,
            flow_samples=samples,
            compositing="paper",
            semantic_gradient="joint",
        ),
        losses=LossWeights(
            color=3.0,
            static_color=1.0,
            dynamic_color=1.0,
            advected_color=1.0,
            semantic=0.16,
            static_semantic=0.08,
            dynamic_semantic=0.08,
            consistency=0.1,
            optical_flow=0.02,
            flow_cycle=1.0,
            flow_smooth=0.1,
            flow_magnitude=0.01 + 0.1,  # and first-order smoothness in time, which is the same L1 of motion
            static_flow=0.5,
            blend_static=0.1,
            blend_prior=0.0,
            hidden=0.0,
            dynamicness=0.01,
            advected_blend_static=0.1,
            advected_dynamicness=0.01,
            surface=0.0,
            line_of_sight_static=0.0,
            depth=0.04,
            depth_everywhere=0.04,
            order=0.1,
            depth_guided_blend=1.0,
            sparsity=0.001,
            proposal_surface=0.0,
        ),
        static_steps=3 * steps // 7,  # 60k of 140k
        mover_ray_share=1.0,
        advected_rays=1024,
        encoder_every=1,
        moving_rays_teach_static=True,
        dynamic_field_shows="everything",
        random_background=False,
    )
    return trainer("semantic-flow-paper", steps, 1024, model, eval_image_every=500)


def by_name(name: str, steps: int) -> TrainerConfig:
    """The configuration of a method of a laptop's size for a number of steps.

    Raises:
        ValueError: there is none of this name.
    """
    methods = {"semantic-flow-lite": lite, "semantic-flow-paper": paper}
    if name not in methods:
        raise ValueError(f"there is no method '{name}' for any number of steps: use {' or '.join(methods)}")
    return methods[name](steps)


semantic_flow_paper = MethodSpecification(
    config=paper(),
    description="Semantic Flow with the paper's own choices, for comparison.",
)

semantic_flow_lite = MethodSpecification(
    config=lite(),
    description="Semantic Flow, small: trains on a laptop's CPU in minutes.",
)

semantic_flow = MethodSpecification(
    config=trainer(
        "semantic-flow",
        FULL_STEPS,
        4096,
        SemanticFlowModelConfig(
            scene=SceneConfig(
                static=StaticFieldConfig(GridConfig(16, 2, 19, 16, 2048)),
                dynamic=DynamicFieldConfig(GridConfig(12, 2, 19, 16, 512)),
                flow=FlowFieldConfig(GridConfig(6, 2, 17, 8, 128), hidden_dim=64),
                proposals=(
                    ProposalFieldConfig(GridConfig(5, 2, 17, 16, 128)),
                    ProposalFieldConfig(GridConfig(5, 2, 17, 16, 256)),
                ),
                frame_width=512,
                semantic_grid=GridConfig(8, 2, 17, 16, 512),
            ),
            render=RenderConfig(label_gradient=0.2),
            shared=SharedConfig(encoder_width=32, encoder_hidden=32, attention_width=64, attention_heads=4),
            sampling=ProposalSamplingConfig(proposal_samples=(128, 64), samples=48, update_every=5, warmup=2000),
            static_steps=1000,
            advected_rays=1024,
            encoder_frames=24,
            eval_num_rays_per_chunk=1 << 15,
        ),
        eval_image_every=1000,
    ),
    description="Semantic Flow: semantic fields of dynamic scenes, one GPU, full size.",
)
