"""A model whose fields are formulas, with what instances and exports need of a trained one: two balls of one class that
move side by side, a post and a wall."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from builders import CONFIG, NUM_CLASSES, random_frames
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn

from semflow_nerfstudio.editing.editable import Editable
from semflow_nerfstudio.fields.dynamic_field import DynamicFieldOutputs
from semflow_nerfstudio.fields.static_field import FieldOutputs
from semflow_nerfstudio.renderer import RenderConfig, render_rays
from semflow_nerfstudio.sampling.proposal import ProposalSampling, ProposalSamplingConfig
from semflow_nerfstudio.scene import Scene, SceneConfig

SOLID = 400.0
WALL_Z, POST, POST_RADIUS = -0.7, (0.62, 0.0, 0.0), 0.12
RADIUS = 0.2
FIRST, WAY = (-0.5, -0.35, 0.1), (0.5, 0.0, 0.0)
"""Centre of the lower ball at time 0, and how far both go until time 1."""
APART = (0.0, 0.7, 0.0)
"""From the lower ball to the upper one."""
GROUND, WALL, BALL = 0, 1, 2
WIDTH, HEIGHT = 96, 72


def ball_centers(times: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 1) -> two of (N, 3)."""
    lower = torch.tensor(FIRST) + times * torch.tensor(WAY)
    return lower, lower + torch.tensor(APART)


def ball_distance(x: Tensor, times: Tensor) -> Tensor:
    """From the nearer ball's surface, negative inside."""
    lower, upper = ball_centers(times)
    return torch.minimum((x - lower).norm(dim=-1), (x - upper).norm(dim=-1)) - RADIUS


def post_distance(x: Tensor) -> Tensor:
    return (x - torch.tensor(POST)).norm(dim=-1) - POST_RADIUS


class StaticFormula(nn.Module):
    """A red wall and a blue post (a ball of class ground)."""

    def forward(self, unit: Tensor, directions: Tensor) -> FieldOutputs:
        x = unit * 2 - 1
        wall, post = x[..., 2] < WALL_Z, post_distance(x) < 0
        rgb = torch.where(post[..., None], torch.tensor([0.1, 0.2, 0.9]), torch.tensor([0.8, 0.2, 0.1]))
        return FieldOutputs(SOLID * (wall | post), rgb, x.new_zeros(*x.shape[:-1], 6))


class DynamicFormula(nn.Module):
    """Two green balls."""

    def forward(self, unit: Tensor, grid_times: Tensor, directions: Tensor) -> DynamicFieldOutputs:
        x = unit * 2 - 1
        distance = ball_distance(x, grid_times)
        rgb = torch.tensor([0.1, 0.8, 0.2]).expand_as(x)
        blend = torch.where(distance < 0.05, 0.98, 0.01)
        return DynamicFieldOutputs(SOLID * (distance < 0), rgb, x.new_zeros(*x.shape[:-1], 6), blend)


class FlowFormula(nn.Module):
    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, unit: Tensor, grid_times: Tensor) -> Tensor:
        return (torch.tensor(WAY) * self.tau).expand_as(unit)


class ProposalFormula(nn.Module):
    def forward(self, unit: Tensor, grid_times: Tensor) -> Tensor:
        x = unit * 2 - 1
        near = (x[..., 2] < WALL_Z + 0.03) | (post_distance(x) < 0.03) | (ball_distance(x, grid_times) < 0.03)
        return 100.0 * near + 1e-3


class FormulaModel(Editable, nn.Module):
    """The part of `SemanticFlowModel` that instances and exports use."""

    class_names = ("ground", "wall", "ball")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        frames = random_frames((0.0, 0.25, 0.5, 0.75, 1.0))
        images = torch.zeros(5, HEIGHT, WIDTH, 3, dtype=torch.uint8)
        self.frames = replace(frames, cameras=frames.cameras.scaled_to(WIDTH, HEIGHT), images=images, near=1.2, far=5.5)
        scene = Scene(
            self.frames, SceneConfig(CONFIG.static, CONFIG.dynamic, CONFIG.flow, CONFIG.proposals), NUM_CLASSES
        )
        scene.static_field, scene.dynamic_field = StaticFormula(), DynamicFormula()  # type: ignore[assignment]
        scene.flow_field = FlowFormula(float(scene.timeline.tau))  # type: ignore[assignment]
        scene.proposal_fields = nn.ModuleList([ProposalFormula()])
        self.scenes = nn.ModuleDict({"tiny": scene})
        self.sampler = ProposalSampling(scene, ProposalSamplingConfig(proposal_samples=(64,), samples=28))
        self.sampler.set_step(1000)
        self.config = SimpleNamespace(eval_num_rays_per_chunk=8192)
        self.first_frame = {"tiny": 0}
        self.class_colors = torch.eye(3)
        self.foreground = torch.tensor([False, False, True])
        self.device = torch.device("cpu")

    def scene(self, name: str) -> Scene:
        scene = self.scenes[name]
        assert isinstance(scene, Scene)
        return scene

    def by_scene(self, rays: RayBundle) -> Iterator[tuple[str, None, RayBundle]]:
        yield "tiny", None, rays

    def render_scene(self, name: str, rows: None, rays: RayBundle) -> Any:
        scene = self.scene(name)
        assert rays.times is not None
        edits = self.edits(name)
        if edits is None:
            samples, _ = self.sampler(rays, rays.times, scene)
        else:
            samples, _ = edits.sample(rays, rays.times, self.sampler)
        out = render_rays(scene, None, samples, RenderConfig())
        wall = samples.sources[..., 2] < WALL_Z + 0.05
        static = torch.where(wall[..., None], torch.eye(3)[WALL], torch.eye(3)[GROUND])
        share = (out.weights.static[..., None] * static).sum(1) + out.dynamicness[:, None] * torch.eye(3)[BALL]
        out.logits = 10 * share
        return SimpleNamespace(rendered=out)

    @property
    def shown_scene(self) -> str:
        return "tiny"


def formula_run(folder: Any) -> Any:
    """What stands for a `Run` of the formula model in a folder."""
    from semflow_nerfstudio.visuals.trajectories import RenderView, to_cameras

    model = FormulaModel().eval()
    cameras, times = model.frames.cameras, model.frames.times.tolist()
    views = [
        RenderView(pose, *intrinsics, WIDTH, HEIGHT, time)
        for pose, intrinsics, time in zip(cameras.camera_to_worlds, cameras.intrinsics.tolist(), times, strict=True)
    ]
    dataset = SimpleNamespace(metadata={"scene_frames": {"tiny": model.frames}})
    return SimpleNamespace(
        model=model,
        frames=to_cameras(views),
        frames_of=lambda scene: to_cameras(views),
        config=SimpleNamespace(get_base_dir=lambda: folder),
        pipeline=SimpleNamespace(eval=model.eval, datamanager=SimpleNamespace(train_dataset=dataset)),
    )
