"""Every switch of the model trains, renders and comes back from its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import (
    OUTPUTS,
    manager_config,
    parameters,
    render,
    scene_of,
    shrink,
    tiny_config,
    tiny_model,
    train,
)

from semflow_nerfstudio.configs.methods import paper
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.model import SemanticFlowModelConfig
from semflow_nerfstudio.renderer import RenderConfig
from semflow_nerfstudio.runs import load_run
from semflow_nerfstudio.sampling.occupancy import OccupancySamplingConfig
from semflow_nerfstudio.sampling.proposal import ProposalSamplingConfig
from semflow_nerfstudio.scene import SceneConfig
from semflow_nerfstudio.shared import SharedConfig
from semflow_nerfstudio.training.objective import LossWeights

SCENE: SceneConfig = tiny_model().scene
SHARED: dict[str, Any] = {"encoder_width": 8, "encoder_hidden": 8, "attention_width": 8, "hidden_dim": 16}
NOTHING = LossWeights(**{name: 0.0 for name in LossWeights.__dataclass_fields__ if name != "color"})


def scene_config(**changes: Any) -> SceneConfig:
    values = {name: getattr(SCENE, name) for name in SceneConfig.__dataclass_fields__}
    return SceneConfig(**{**values, **changes})


VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {
        "render": RenderConfig(compositing="paper"),
        "dynamic_field_shows": "everything",
        "losses": LossWeights(
            depth_guided_blend=0.1, order=0.1, blend_prior=0.0, advected_blend_static=0.1, advected_dynamicness=0.1
        ),
    },
    "labels shape the fields": {"render": RenderConfig(label_gradient=1.0)},
    "stopped": {"render": RenderConfig(semantic_gradient="stopped")},
    "no grid of the labels": {"scene": scene_config(semantic_grid=None)},
    "no flow features": {"render": RenderConfig(flow_features=False)},
    "no residual": {"scene": scene_config(residual=False)},
    "mean": {"shared": SharedConfig(**SHARED, attention="mean")},
    "no displacement": {"shared": SharedConfig(**SHARED, use_displacement=False)},
    "window of one": {"render": RenderConfig(window=1)},
    "window of five": {"render": RenderConfig(window=5, substeps=2)},
    "window over the whole clip": {"render": RenderConfig(window=3, window_stride=0)},
    "uniform weights": {"render": RenderConfig(semantic_weights="uniform", flow_samples=99, static_samples=99)},
    "no time": {"time": False},
    "visibility of tokens": {"render": RenderConfig(token_visibility=2)},
    "few samples": {"render": RenderConfig(static_samples=1, flow_samples=1)},
    "more samples than there are": {"render": RenderConfig(static_samples=99, flow_samples=99)},
    "black background": {"random_background": False},
    "all rays move": {"mover_ray_share": 1.0, "advected_rays": 10_000},
    "few rays move": {"mover_ray_share": 0.0, "advected_rays": 1},
    "small frames": {"scene": scene_config(frame_width=20)},
    "frames encoded every step": {"encoder_every": 1},
    "more frames than are encoded": {"encoder_frames": 2},
    "bfloat16": {"bfloat16": True},
    "occupancy grid": {
        "sampler": "occupancy",
        "occupancy": OccupancySamplingConfig(resolution=8, steps=24, update_every=1, cells=500),
    },
    "colour alone": {"losses": NOTHING},
    "two proposals": {
        "scene": scene_config(proposals=SCENE.proposals * 2),
        "sampling": ProposalSamplingConfig(proposal_samples=(12, 8), samples=6),
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name: str, scene: Path, tmp_path: Path) -> None:
    trainer = train(tiny_config(scene, tmp_path, **{"static_steps": 1, "steps": 3, **VARIANTS[name]}))
    assert all(value.isfinite().all() for value in parameters(trainer).values())
    before, after = render(trainer), render(load_run(trainer.base_dir))
    assert set(before) >= OUTPUTS
    for output, values in before.items():
        assert values.isfinite().all() and torch.equal(values, after[output]), output
        assert values.min() >= 0 and (values.shape[-1] == 1 or values.max() <= 1), output


def test_depth_teaches_every_proposal_field(scene: Path, tmp_path: Path) -> None:
    losses = LossWeights(**{name: float(name.startswith("proposal_")) for name in vars(NOTHING)})
    config = tiny_config(scene, tmp_path, steps=1, **{**VARIANTS["two proposals"], "losses": losses})
    trainer = train(config)
    trainer.pipeline.train()
    total = sum(trainer.pipeline.get_train_loss_dict(0)[1].values())
    assert isinstance(total, torch.Tensor)
    for field in scene_of(trainer).proposal_fields:
        grads = torch.autograd.grad(total, list(field.parameters()), retain_graph=True)
        assert all(grad.abs().max() > 0 for grad in grads)


def test_an_occupancy_grid_has_no_proposals_to_ask(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="token_visibility asks the proposal fields, which sampler 'occupancy' has"):
        train(tiny_config(scene, tmp_path, **VARIANTS["occupancy grid"], render=RenderConfig(token_visibility=2)))


def test_sampling_must_fit_the_proposal_fields(scene: Path, tmp_path: Path) -> None:
    sampling = ProposalSamplingConfig(proposal_samples=(12, 8))
    with pytest.raises(ValueError, match="proposal_samples has 2 entries for 1 proposal fields"):
        train(tiny_config(scene, tmp_path, sampling=sampling))


def test_images_of_half_the_size(scene: Path, tmp_path: Path) -> None:
    """nerfstudio's own switch does what the parser's --downscale-factor does."""
    config = tiny_config(scene, tmp_path / "one")
    manager_config(config).camera_res_scale_factor = 0.5
    other = tiny_config(DynamicSceneDataParserConfig(data=scene, downscale_factor=2), tmp_path / "other")
    one, two = parameters(train(config)), parameters(train(other))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_something_must_tell_the_classes_apart(scene: Path, tmp_path: Path) -> None:
    variant = {"render": RenderConfig(flow_features=False), "scene": scene_config(residual=False)}
    with pytest.raises(ValueError, match=r"flow_features and scene\.residual are both off"):
        train(tiny_config(scene, tmp_path, **variant))


def test_the_papers_choices_train(scene: Path, tmp_path: Path) -> None:
    """`semantic-flow-paper`, with the tiny fields of the other tests."""
    config = paper(6)
    model, small = config.pipeline.model, tiny_model()
    assert isinstance(model, SemanticFlowModelConfig)
    assert model.render.compositing == "paper" and model.static_steps == 2 and model.losses.surface == 0
    model.scene, model.shared, model.sampling = small.scene, small.shared, small.sampling
    shrink(config)
    manager_config(config).dataparser = DynamicSceneDataParserConfig(data=scene)
    manager_config(config).data, config.output_dir, config.experiment_name = scene, tmp_path, "paper"
    trainer = train(config)
    before, after = render(trainer), render(load_run(trainer.base_dir))
    assert all(values.isfinite().all() and torch.equal(values, after[name]) for name, values in before.items())
    trainer.pipeline.train()
    losses = trainer.pipeline.get_train_loss_dict(5)[1]
    expected = {"depth_everywhere", "depth_guided_blend", "order", "advected_blend_static", "advected_dynamicness"}
    assert expected <= {name for name, value in losses.items() if value != 0}
