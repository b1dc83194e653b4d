"""Small random scenes and networks, for tests of the model's torch-only core."""

import math

import torch
from torch import Tensor, nn

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.fields.dynamic_field import DynamicFieldConfig
from semflow_nerfstudio.fields.flow_field import FlowFieldConfig
from semflow_nerfstudio.fields.proposal_field import ProposalFieldConfig
from semflow_nerfstudio.fields.static_field import GridConfig, StaticFieldConfig
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.scene import Scene, SceneConfig
from semflow_nerfstudio.scene_frames import SceneFrames
from semflow_nerfstudio.shared import SharedConfig, SharedNetworks

NUM_CLASSES = 3
WIDTH, HEIGHT, FOCAL = 24, 18, 22.0
TIMES = (0.0, 0.2, 0.6, 1.0)
"""Uneven on purpose."""

CONFIG = SceneConfig(
    static=StaticFieldConfig(GridConfig(2, 2, 10, 4, 8), hidden_dim=16, trunk_dim=6),
    dynamic=DynamicFieldConfig(GridConfig(2, 2, 10, 4, 8), hidden_dim=16, trunk_dim=6, blend_bias=0.0),
    flow=FlowFieldConfig(GridConfig(2, 2, 10, 4, 8), hidden_dim=8),
    proposals=(ProposalFieldConfig(GridConfig(2, 2, 10, 4, 8), hidden_dim=8),),
)


def look_at_origin(angle: float, distance: float = 2.5) -> Tensor:
    """(3, 4) OpenGL camera-to-world matrix on a circle around the origin, `angle` radians from the +z axis."""
    backwards = torch.tensor([math.sin(angle), 0.0, math.cos(angle)])
    right = torch.tensor([math.cos(angle), 0.0, -math.sin(angle)])
    up = torch.tensor([0.0, 1.0, 0.0])
    return torch.stack([right, up, backwards, distance * backwards], dim=1)


def arc_cameras(count: int, distortion: Tensor | None = None) -> FrameCameras:
    """`count` cameras, a tenth of a radian apart, that look at the origin."""
    poses = torch.stack([look_at_origin(0.1 * (k - (count - 1) / 2)) for k in range(count)])
    intrinsics = torch.tensor([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]).repeat(count, 1)
    return FrameCameras(poses, intrinsics, WIDTH, HEIGHT, distortion)


def random_frames(times: tuple[float, ...] = TIMES, distinct: tuple[float, ...] | None = None) -> SceneFrames:
    """Frames of random images at `times` (which may repeat: several cameras a time)."""
    count = len(times)
    following = torch.arange(1, count + 1)
    return SceneFrames(
        name="tiny",
        cameras=arc_cameras(count),
        images=torch.randint(0, 256, (count, HEIGHT, WIDTH, 3), dtype=torch.uint8),
        times=torch.tensor(times),
        distinct_times=torch.tensor(sorted(set(distinct or times))),
        next_frame=torch.where(following < count, following, -1),
        previous_frame=torch.arange(count) - 1,
        aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]),
        bounded=True,
        near=1.6,
        far=3.4,
        class_names=("ground", "wall", "ball"),
        class_colors=torch.eye(3),
        foreground=torch.tensor([False, False, True]),
        has=frozenset({"labels", "flow", "motion_mask"}),
    )


def shake(module: nn.Module, scale: float = 0.3) -> None:
    """Random weights everywhere, also where training starts from zero, and features of order one in the grids."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(noise if name.endswith("table") else parameter + scale * noise)


def random_scene(
    times: tuple[float, ...] = TIMES, seed: int = 0, residual: bool = True, shared: SharedConfig | None = None
) -> tuple[Scene, SharedNetworks]:
    """A scene whose fields, flow and residuals are all random and alive, and shared networks for it."""
    torch.manual_seed(seed)
    config = SceneConfig(
        CONFIG.static,
        CONFIG.dynamic,
        CONFIG.flow,
        CONFIG.proposals,
        residual=residual,
        semantic_grid=CONFIG.static.grid,
    )
    scene = Scene(random_frames(times), config, NUM_CLASSES)
    networks = SharedNetworks(shared or SharedConfig(encoder_width=6, encoder_hidden=4, hidden_dim=16), NUM_CLASSES)
    shake(scene)
    shake(networks, 0.15)
    return scene, networks


def random_samples(times: Tensor, count: int = 12, seed: int = 1) -> Samples:
    """Samples along rays of a camera in the middle of the arc, one ray for each of the times (R,)."""
    generator = torch.Generator().manual_seed(seed)
    rays = len(times)
    pose = look_at_origin(0.03)
    local = torch.cat([torch.rand(rays, 2, generator=generator) * 0.5 - 0.25, -torch.ones(rays, 1)], dim=-1)
    directions = nn.functional.normalize(local @ pose[:, :3].T, dim=-1)
    edges = torch.sort(1.6 + 1.8 * torch.rand(rays, count + 1, generator=generator), dim=-1).values
    return Samples(pose[:, 3].expand(rays, 3).contiguous(), directions, times[:, None], edges[:, :-1], edges[:, 1:])
