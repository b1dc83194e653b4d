"""A scene whose fields are formulas: a ball that rolls in front of a wall beside a pillar, and who belongs to what."""

from __future__ import annotations

from dataclasses import replace

import torch
from builders import CONFIG, HEIGHT, NUM_CLASSES, WIDTH, look_at_origin, random_frames
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn

from semflow_nerfstudio.cameras import FrameCameras, pixel_centers
from semflow_nerfstudio.editing.edits import Edits
from semflow_nerfstudio.editing.scene_state import SceneState
from semflow_nerfstudio.fields.dynamic_field import DynamicFieldOutputs
from semflow_nerfstudio.fields.static_field import FieldOutputs
from semflow_nerfstudio.rendered import Rendered
from semflow_nerfstudio.renderer import RenderConfig, render_rays
from semflow_nerfstudio.sampling.proposal import ProposalSampling, ProposalSamplingConfig
from semflow_nerfstudio.scene import Scene, SceneConfig

SOLID = 400.0
WALL_Z = -0.7
PILLAR, PILLAR_RADIUS = (0.62, 0.0, -0.1), 0.15
"""The pillar is a static ball: it has bounds on all sides."""
RADIUS = 0.2
FIRST, WAY = (-0.45, 0.0, 0.1), (0.5, 0.0, 0.0)
"""Where the ball is at time 0, and how far it goes until time 1."""
BALL, PILLAR_ID = 0, 1
CLASSES = ("ground", "wall", "ball")
"""The pillar is of class ground."""


def ball_center(times: Tensor) -> Tensor:
    """(N, 1) -> (N, 3)."""
    return torch.tensor(FIRST) + times * torch.tensor(WAY)


def in_scene(unit: Tensor) -> Tensor:
    return unit * 2 - 1


class StaticFormula(nn.Module):
    """A wall striped in red and green, and a blue pillar."""

    def forward(self, unit: Tensor, directions: Tensor) -> FieldOutputs:
        x = in_scene(unit)
        wall = x[..., 2] < WALL_Z
        pillar = (x - torch.tensor(PILLAR)).norm(dim=-1) < PILLAR_RADIUS
        stripes = ((x[..., 0] * 5).floor() % 2)[..., None]
        rgb = stripes * torch.tensor([0.8, 0.2, 0.1]) + (1 - stripes) * torch.tensor([0.1, 0.6, 0.2])
        rgb = torch.where(pillar[..., None], torch.tensor([0.1, 0.2, 0.9]), rgb)
        return FieldOutputs(SOLID * (wall | pillar), rgb, x.new_zeros(*x.shape[:-1], 6))


class DynamicFormula(nn.Module):
    """The ball: white above, grey below."""

    def forward(self, unit: Tensor, grid_times: Tensor, directions: Tensor) -> DynamicFieldOutputs:
        x = in_scene(unit)
        local = x - ball_center(grid_times)
        inside = local.norm(dim=-1) < RADIUS
        rgb = torch.where(local[..., 1:2] > 0, 0.9, 0.5).expand_as(x)
        blend = torch.where(local.norm(dim=-1) < 1.3 * RADIUS, 0.98, 0.01)
        return DynamicFieldOutputs(SOLID * inside, rgb, x.new_zeros(*x.shape[:-1], 6), blend)


class FlowFormula(nn.Module):
    """Everything goes the ball's way."""

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, unit: Tensor, grid_times: Tensor) -> Tensor:
        return (torch.tensor(WAY) * self.tau).expand_as(unit)


class ProposalFormula(nn.Module):
    """Whatever is there, a little larger than it is, as a proposal field that bounds it."""

    def forward(self, unit: Tensor, grid_times: Tensor) -> Tensor:
        x = in_scene(unit)
        wall = x[..., 2] < WALL_Z + 0.03
        pillar = (x - torch.tensor(PILLAR)).norm(dim=-1) < PILLAR_RADIUS + 0.03
        ball = (x - ball_center(grid_times)).norm(dim=-1) < RADIUS + 0.03
        return 100.0 * (wall | pillar | ball) + 1e-3


class KnownObjects:
    """Who belongs to what, by formula: instance 0 is the ball, instance 1 the pillar."""

    ids = (BALL, PILLAR_ID)

    def label(self, number: int) -> int:
        return CLASSES.index("ball") if number == BALL else CLASSES.index("ground")

    def is_moving(self, number: int) -> bool:
        return number == BALL

    def is_present(self, number: int, time: float) -> bool:
        return True

    def center(self, number: int, time: float) -> Tensor:
        return ball_center(torch.tensor([[time]]))[0] if number == BALL else torch.tensor(PILLAR)

    def bounds(self, number: int, time: float) -> Tensor:
        radius = RADIUS if number == BALL else PILLAR_RADIUS
        return self.center(number, time) + radius * torch.tensor([[-1.0] * 3, [1.0] * 3])

    def membership(self, points: Tensor, times: Tensor, margin: float = 0.0, kind: str | None = None) -> Tensor:
        result = torch.full(points.shape[:1], -1, dtype=torch.long)
        if kind != "moving":
            result[(points - torch.tensor(PILLAR)).norm(dim=-1) <= PILLAR_RADIUS + margin] = PILLAR_ID
        if kind != "static":
            result[(points - ball_center(times.reshape(-1, 1))).norm(dim=-1) <= RADIUS + margin] = BALL
        return result

    def hidden_by(self, points: Tensor, times: Tensor, margin: float) -> Tensor:
        return torch.full(points.shape[:1], -1, dtype=torch.long)


def analytic_scene() -> tuple[Scene, ProposalSampling]:
    """The scene and its sampler."""
    frames = replace(random_frames((0.0, 0.25, 0.5, 0.75, 1.0)), near=1.4, far=5.5)
    scene = Scene(frames, SceneConfig(CONFIG.static, CONFIG.dynamic, CONFIG.flow, CONFIG.proposals), NUM_CLASSES)
    scene.static_field, scene.dynamic_field = StaticFormula(), DynamicFormula()  # type: ignore[assignment]
    scene.flow_field = FlowFormula(float(scene.timeline.tau))  # type: ignore[assignment]
    scene.proposal_fields = nn.ModuleList([ProposalFormula()])
    sampler = ProposalSampling(scene, ProposalSamplingConfig(proposal_samples=(64,), samples=28))
    sampler.set_step(1000)
    return scene.eval(), sampler.eval()


SCALE = 4
W, H = WIDTH * SCALE, HEIGHT * SCALE


def camera() -> FrameCameras:
    """One camera in front of the scene."""
    intrinsics = torch.tensor([[22.0, 22.0, WIDTH / 2, HEIGHT / 2]]) * SCALE
    return FrameCameras(look_at_origin(0.0)[None], intrinsics, W, H)


def camera_rays(time: float) -> RayBundle:
    """A ray through every pixel of `camera`, at one time."""
    view = camera()
    uv = pixel_centers(W, H).reshape(-1, 2)
    fx, fy, cx, cy = view.intrinsics[0]
    local = torch.stack([(uv[:, 0] - cx) / fx, (cy - uv[:, 1]) / fy, -torch.ones(len(uv))], dim=-1)
    pose = view.camera_to_worlds[0]
    directions = nn.functional.normalize(local @ pose[:, :3].T, dim=-1)
    return RayBundle(
        origins=pose[:, 3].expand_as(directions).contiguous(),
        directions=directions,
        pixel_area=torch.ones(len(uv), 1),
        times=torch.full((len(uv), 1), time),
    )


@torch.no_grad()
def picture(state: SceneState, time: float = 0.5, rays: RayBundle | None = None) -> Rendered:
    """The scene as edited."""
    scene, sampler = analytic_scene()
    rays = camera_rays(time) if rays is None else rays
    assert rays.times is not None
    if not state.edits_scene:
        samples, _ = sampler(rays, rays.times, scene)
    else:
        samples, _ = Edits(state, scene, KnownObjects(), CLASSES).sample(rays, rays.times, sampler)
    return render_rays(scene, None, samples, RenderConfig())


def image(values: Tensor) -> Tensor:
    """Rows of rays as a picture."""
    return values.reshape(H, W, *values.shape[1:])


def centroid(weights: Tensor) -> Tensor:
    """(u, v) of a picture's centre of mass."""
    mass = image(weights)[..., None]
    return (mass * pixel_centers(W, H)).sum((0, 1)) / mass.sum()


def project(point: Tensor) -> Tensor:
    """Pixel of a point in `camera`."""
    pixels, _ = camera().project(point[None], torch.zeros(1, dtype=torch.long))
    return pixels[0]
