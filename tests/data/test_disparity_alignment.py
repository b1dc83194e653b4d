"""Triangulation and alignment on an analytic scene: a floor, a slanted wall and a ball that flies by."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from semflow_nerfstudio.cameras import FrameCameras, pixel_centers
from semflow_nerfstudio.data.disparity_alignment import (
    DisparityAlignment,
    FrameObservation,
    align_disparity,
    sharpen_edges,
)
from semflow_nerfstudio.data.triangulation import Match, camera_origin, camera_rays, triangulate

WIDTH, HEIGHT, FRAMES = 96, 64, 6
NORMAL, OFFSET = np.array([0.3, 0.1, 1.0]), -6.0
"""The wall: points with NORMAL . x = OFFSET."""
FLOOR = -1.0
"""The floor: y = FLOOR."""
RADIUS, START, VELOCITY = 0.3, np.array([-1.2, 0.2, -3.5]), np.array([0.5, 0.05, -0.1])
SCALES, SHIFTS = np.array([30.0, 22.0, 41.0, 35.0, 28.0, 33.0]), np.array([4.0, -1.0, 2.0, 0.5, 3.0, -2.0])
TIMES = np.linspace(0, 1, FRAMES)
NEXT, PREVIOUS = np.array([1, 2, 3, 4, 5, -1]), np.array([-1, 0, 1, 2, 3, 4])


def cameras(distortion: torch.Tensor | None = None) -> FrameCameras:
    """Cameras that go right and come back higher up, as those of a rig do."""
    poses = torch.eye(4)[:3].repeat(FRAMES, 1, 1)
    poses[:, :, 3] = torch.tensor(
        [[-0.6, 0, 0], [0, 0, 0.1], [0.6, 0, 0], [0.6, 0.4, 0.1], [0, 0.4, 0], [-0.6, 0.4, 0]]
    )
    return FrameCameras(poses, torch.tensor([[90.0, 88.0, 47.0, 33.0]]).repeat(FRAMES, 1), WIDTH, HEIGHT, distortion)


def ball_center(frame: int) -> np.ndarray:
    return START + frame * VELOCITY


def cast(view: FrameCameras, frame: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera depth of what pixels see, and whether it is the ball."""
    origin, rays = camera_origin(view, frame), camera_rays(view, frame, pixels)
    wall = (OFFSET - origin @ NORMAL) / (rays @ NORMAL)
    floor = (FLOOR - origin[1]) / np.minimum(rays[:, 1], -1e-9)
    ground = np.minimum(wall, floor)
    to_center = origin - ball_center(frame)
    a, b, c = (rays**2).sum(-1), rays @ to_center, to_center @ to_center - RADIUS**2
    root = b**2 - a * c
    ball = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    return np.minimum(ground, ball), ball < ground


@dataclass
class Rendered:
    depth: np.ndarray
    ball: np.ndarray
    seen: FrameObservation


def render(view: FrameCameras, frame: int) -> Rendered:
    """Exact depth, flow with masks, motion mask, and disparity with the frame's own scale and shift."""
    pixels = pixel_centers(WIDTH, HEIGHT).double().numpy().reshape(-1, 2)
    depth, ball = cast(view, frame, pixels)
    points = camera_origin(view, frame) + depth[:, None] * camera_rays(view, frame, pixels)
    flows = {}
    for step, other in ((1, NEXT[frame]), (-1, PREVIOUS[frame])):
        if other < 0:
            continue
        moved = torch.from_numpy(points + ball[:, None] * step * VELOCITY)
        end, there = view.project(moved, torch.full((len(points),), int(other)))
        end, there = end.numpy(), there.numpy()
        visible = np.abs(cast(view, int(other), end)[0] / there - 1) < 1e-3
        flows[step] = ((end - pixels).reshape(HEIGHT, WIDTH, 2), visible.reshape(HEIGHT, WIDTH))
    depth, ball = depth.reshape(HEIGHT, WIDTH), ball.reshape(HEIGHT, WIDTH)
    seen = FrameObservation(SCALES[frame] / depth + SHIFTS[frame], motion_mask=ball.astype(np.uint8))
    seen.flow_forward, seen.flow_forward_mask = flows.get(1, (None, None))
    seen.flow_backward, seen.flow_backward_mask = flows.get(-1, (None, None))
    return Rendered(depth, ball, seen)


@pytest.fixture(scope="module")
def video() -> list[Rendered]:
    return [render(cameras(), k) for k in range(FRAMES)]


def align(seen: list[FrameObservation], view: FrameCameras | None = None) -> DisparityAlignment | None:
    return align_disparity(view or cameras(), TIMES, NEXT, PREVIOUS, seen.__getitem__)


def errors(alignment: DisparityAlignment, video: list[Rendered], seen: list[FrameObservation], frame: int):
    """Relative depth errors of all wall pixels and all ball pixels of a frame."""
    disparity = seen[frame].disparity
    assert disparity is not None
    error = np.abs(alignment.inverse_depth(frame, disparity) * video[frame].depth - 1)
    return error[~video[frame].ball], error[video[frame].ball]


@pytest.mark.parametrize("lens", [None, (-0.12, 0.03, 0.0, 0.0, 0.002, -0.003)])
def test_triangulation_of_exact_flow_is_exact(lens):
    view = cameras(None if lens is None else torch.tensor(lens).repeat(FRAMES, 1))
    frame = render(view, 2)
    pixels = pixel_centers(WIDTH, HEIGHT).double().numpy()
    wall = ~frame.ball & frame.seen.flow_forward_mask & frame.seen.flow_backward_mask
    matches = [
        Match(3, (pixels + frame.seen.flow_forward)[wall], np.ones(wall.sum(), bool)),
        Match(1, (pixels + frame.seen.flow_backward)[wall], np.ones(wall.sum(), bool)),
    ]
    points = triangulate(view, 2, pixels[wall], matches)
    assert points.ok.all() and wall.mean() > 0.5
    assert np.abs(points.inverse_depth * frame.depth[wall] - 1).max() < 1e-5
    assert points.error.max() < 1e-3


def test_triangulation_knows_its_uncertainty_and_what_cannot_be_static():
    view = cameras()
    frame = render(view, 2)
    pixels = pixel_centers(WIDTH, HEIGHT).double().numpy()[~frame.ball]
    end = pixels + frame.seen.flow_forward[~frame.ball]
    valid = frame.seen.flow_forward_mask[~frame.ball]
    noise = np.random.default_rng(0).normal(0, 0.3, end.shape)
    points = triangulate(view, 2, pixels, [Match(3, end + noise, valid)])
    deviation = (points.inverse_depth - 1 / frame.depth[~frame.ball])[valid] * np.sqrt(points.information[valid]) / 0.3
    assert 0.9 < deviation.std() < 1.1
    # moved across the epipolar lines by a tenth of the image, no static point explains it
    away = triangulate(view, 2, pixels, [Match(3, end + np.array([12.0, 0.0]), valid)])
    assert np.median(away.error[valid]) > 5
    assert not triangulate(view, 2, pixels, [Match(3, end, ~valid & valid)]).ok.any()


def test_exact_disparity_is_recovered_exactly(video):
    seen = [frame.seen for frame in video]
    alignment = align(seen)
    assert alignment is not None
    # 1 / z = (disparity - shift) / scale
    assert np.allclose(alignment.scale, 1 / SCALES, rtol=2e-3)
    assert np.allclose(alignment.shift, -SHIFTS / SCALES, atol=1e-3)
    for k in range(FRAMES):
        wall, ball = errors(alignment, video, seen, k)
        # movers' depth is looked up pixel by pixel, which costs a few thousandths, also on the wall beside them
        assert np.median(wall) < 1e-5 and wall.max() < 0.015
        assert ball.max() < 0.01 and len(ball) > 100
    assert (alignment.inliers > 500).all() and (alignment.residual < 1e-3).all()


def smoothly_wrong(video: list[Rendered]) -> list[FrameObservation]:
    """Disparity with another smooth error of about 5 % in every frame, on wall and ball alike."""
    rng = np.random.default_rng(3)
    v, u = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    seen = []
    for k, frame in enumerate(video):
        phases, waves = rng.uniform(0, 2 * np.pi, 4), rng.uniform(3, 7, (4, 2))
        error = sum(np.sin(a * u + b * v + p) for (a, b), p in zip(waves, phases, strict=True)) * 0.035
        seen.append(replace(frame.seen, disparity=SCALES[k] / frame.depth * np.exp(error) + SHIFTS[k]))
    return seen


def test_smooth_errors_are_corrected_also_on_movers(video):
    seen = smoothly_wrong(video)
    alignment = align(seen)
    assert alignment is not None
    flat = replace(alignment, correction=np.zeros_like(alignment.correction))
    corrected = [errors(alignment, video, seen, k) for k in range(FRAMES)]
    affine = [errors(flat, video, seen, k) for k in range(FRAMES)]
    wall, ball = (np.concatenate([pair[i] for pair in corrected]) for i in (0, 1))
    affine_wall, affine_ball = (np.concatenate([pair[i] for pair in affine]) for i in (0, 1))
    assert np.median(affine_wall) > 0.02 and np.median(affine_ball) > 0.03
    assert np.median(wall) < 0.002
    assert np.median(ball) < 0.02


def test_movers_are_told_apart_without_motion_masks(video):
    seen = [replace(frame, motion_mask=None) for frame in smoothly_wrong(video)]
    alignment = align(seen)
    assert alignment is not None
    wall = np.concatenate([errors(alignment, video, seen, k)[0] for k in range(FRAMES)])
    assert np.median(wall) < 0.002


def test_size_of_the_disparity_does_not_matter(video):
    seen = smoothly_wrong(video)
    alignment = align(seen)
    assert alignment is not None and seen[1].disparity is not None
    constant = np.full((4 * HEIGHT, 4 * WIDTH), 10.0)
    small, large = alignment.inverse_depth(1, constant[:HEIGHT, :WIDTH]), alignment.inverse_depth(1, constant)
    mean = large.reshape(HEIGHT, 4, WIDTH, 4).mean((1, 3))
    assert small.dtype == np.float32 and np.allclose(small[1:-1, 1:-1], mean[1:-1, 1:-1], rtol=2e-3)


def test_frames_without_flow_take_their_neighbours_scale_and_shift(video):
    seen = [frame.seen for frame in video]
    for k in range(FRAMES):
        disparity = 30.0 / video[k].depth + 2.0
        lone = {} if k in (0, 1, 2, 3) else {"flow_forward": None, "flow_backward": None}
        seen[k] = replace(seen[k], disparity=disparity, **lone)
    alignment = align(seen)
    assert alignment is not None
    assert list(alignment.inliers[4:]) == [0, 0] and np.isnan(alignment.residual[4:]).all()
    wall, _ = errors(alignment, video, seen, 5)
    assert wall.max() < 5e-3


def test_unknown_disparity_stays_unknown(video):
    seen = [frame.seen for frame in video]
    holes = np.array(seen[1].disparity)
    holes[:20] = np.nan
    seen[1], seen[4] = replace(seen[1], disparity=holes), replace(seen[4], disparity=None)
    alignment = align(seen)
    assert alignment is not None
    result = alignment.inverse_depth(1, holes)
    assert np.isnan(result[:20]).all() and np.isfinite(result[20:]).all()
    assert np.isnan(alignment.scale[4]) and alignment.inliers[4] == 0
    assert np.isnan(alignment.inverse_depth(4, np.ones((HEIGHT, WIDTH)))).all()
    assert np.median(errors(alignment, video, seen, 3)[0]) < 1e-5


def test_without_parallax_nothing_is_aligned(video):
    view = cameras()
    view = replace(view, camera_to_worlds=view.camera_to_worlds[:1].repeat(FRAMES, 1, 1))
    seen = [render(view, k).seen for k in range(FRAMES)]
    assert align(seen, view) is None


def test_sharpening_puts_blurred_edges_on_one_side_and_keeps_slopes():
    u = np.arange(480.0)
    slope = np.tile(0.05 * u, (40, 1))
    edge = np.tile(10 + 20 * np.clip((u - 238) / 4, 0, 1), (40, 1))
    sharp = sharpen_edges(edge)
    assert set(np.unique(sharp)) == {10.0, 30.0} and (sharp[:, :236] == 10).all() and (sharp[:, 244:] == 30).all()
    assert np.array_equal(sharpen_edges(slope), slope)
    holes = edge.copy()
    holes[:, 100:110] = np.nan
    assert np.array_equal(np.isnan(sharpen_edges(holes)), np.isnan(holes))
    assert np.array_equal(sharpen_edges(holes)[:, 200:], sharp[:, 200:])


def test_courtyard_depth(test_data):
    """The whole way from files, at quarter size, against exact depth: 3.9 % with scale and shift alone."""
    from semflow_nerfstudio.data.dataset import SemFlowDataset
    from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
    from semflow_nerfstudio.data.modalities import read_depth
    from semflow_nerfstudio.data.scene_assembly import align_scenes

    folder = test_data / "rendered/Courtyard"
    parser = DynamicSceneDataParserConfig(data=folder, downscale_factor=4).setup()
    outputs = parser.get_dataparser_outputs("train")
    dataset = SemFlowDataset(outputs)
    align_scenes(dataset)
    everywhere, movers = [], []
    for k in range(len(dataset)):
        item = dataset[k]
        depth = read_depth(folder / f"gt_depth/{k:03d}.npz", *dataset.size(k)) * outputs.dataparser_scale
        error = np.abs(item["inverse_depth"][..., 0].numpy() * depth - 1)
        everywhere.append(error.ravel())
        movers.append(error[np.isin(item["labels"][..., 0].numpy(), (6, 7, 8))])
    assert np.median(np.concatenate(everywhere)) < 0.01
    assert np.median(np.concatenate(movers)) < 0.02
