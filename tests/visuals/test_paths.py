"""What named paths look at."""

import pytest
import torch

from semflow_nerfstudio.cameras import pixel_centers
from semflow_nerfstudio.visuals.paths import focus_depth
from semflow_nerfstudio.visuals.trajectories import RenderView, orbit


def wide_view() -> RenderView:
    """A camera with a wide field of view, whose principal point is not in the middle."""
    return RenderView(torch.eye(4)[:3], 12.0, 10.0, 20.0, 9.0, 32, 24)


def distances(view: RenderView, depth: float) -> torch.Tensor:
    """Along the rays to a wall across the optical axis."""
    uv = pixel_centers(view.width, view.height)
    x, y = (uv[..., :1] - view.cx) / view.fx, (uv[..., 1:] - view.cy) / view.fy
    return depth * torch.cat([x, y, torch.ones_like(x)], dim=-1).norm(dim=-1, keepdim=True)


def test_the_focus_is_a_camera_depth_not_a_distance() -> None:
    view = wide_view()
    distance = distances(view, 2.0)
    assert float(distance.median()) > 2.5
    depth = focus_depth(view, distance, torch.ones_like(distance))
    assert depth == pytest.approx(2.0, abs=1e-5)
    path = orbit(view, depth, 4)
    for step in path:
        back, position = step.camera_to_world[:, 2], step.camera_to_world[:, 3]
        middle = position + back * (-2.0 - position[2]) / back[2]
        torch.testing.assert_close(middle, torch.tensor([0.0, 0.0, -2.0]).double(), atol=1e-6, rtol=0)


def test_only_what_is_seen_counts() -> None:
    view = wide_view()
    distance = distances(view, 2.0)
    distance[:20] = 50.0
    seen = torch.ones_like(distance)
    seen[:20] = 0.1
    assert focus_depth(view, distance, seen) == pytest.approx(2.0, abs=1e-5)
