"""Flow, epipolar errors, checks of poses, motion masks and the depth range, against a clip with known geometry."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import FOCAL, HEIGHT, WALL, WIDTH, draw, pose, poses

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.epipolar import Matches, pose_explains, some_matches
from semflow_nerfstudio.data.moving_pixels import clean, moving_pixels
from semflow_nerfstudio.process.depth_range import depth_range
from semflow_nerfstudio.process.epipolar import fit_rigid
from semflow_nerfstudio.process.optical_flow import DIS, consistent, flow_method, write_flow
from semflow_nerfstudio.process.pose_check import GOOD, check_poses

COUNT = 4


def cameras(matrices: np.ndarray, focal: float = FOCAL) -> FrameCameras:
    intrinsics = torch.tensor([[focal, focal, WIDTH / 2, HEIGHT / 2]] * len(matrices), dtype=torch.float64)
    return FrameCameras(torch.from_numpy(matrices.copy()), intrinsics, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def flows():
    """Flow and mask by (frame, other)."""
    pictures, dis = [draw(k)[0] for k in range(COUNT)], DIS()
    found = {}
    for a in range(COUNT - 1):
        there, back = dis(pictures[a], pictures[a + 1]), dis(pictures[a + 1], pictures[a])
        found[a, a + 1] = there, consistent(there, back)
        found[a + 1, a] = back, consistent(back, there)
    return found


def exact_matches(frame: int, other: int, count: int = 500) -> Matches:
    """Projections of random points in front of the cameras."""
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform((-2, -1.5, -7), (2, 1.5, -4), (count, 3)))
    both = [cameras(poses(COUNT)).project(points, torch.tensor(k).expand(count))[0].numpy() for k in (frame, other)]
    return Matches(*both)


def test_exact_matches_have_no_epipolar_error():
    matches = exact_matches(0, 2)
    assert pose_explains(cameras(poses(COUNT)), 0, 2, matches).distance.max() < 1e-6
    assert fit_rigid(matches).explains(matches).distance.max() < 1e-2


def test_distortion_is_undone():
    bent = replace(cameras(poses(COUNT)), distortion=torch.tensor([[-0.3, 0.05, 0, 0, 0.001, 0]] * COUNT).double())
    points = torch.from_numpy(np.random.default_rng(0).uniform((-2, -1.5, -7), (2, 1.5, -4), (200, 3)))
    matches = Matches(*(bent.project(points, torch.tensor(k).expand(200))[0].numpy() for k in (0, 1)))
    assert pose_explains(bent, 0, 1, matches).distance.max() < 1e-3
    assert np.median(pose_explains(cameras(poses(COUNT)), 0, 1, matches).distance) > 0.02


def test_the_correction_leads_to_the_epipolar_line_and_along_stays_on_it():
    exact, known = exact_matches(0, 2), cameras(poses(COUNT))
    moved = Matches(exact.here, exact.there + np.array([1.5, -4.0]))
    told = pose_explains(known, 0, 2, moved)
    assert np.median(told.distance) > 1
    for step in (0.0, 6.0, -6.0):
        there = moved.there + told.correction + step * told.along
        assert pose_explains(known, 0, 2, Matches(moved.here, there)).distance.max() < 1e-6
    np.testing.assert_allclose(np.linalg.norm(told.along, axis=1), 1, atol=1e-9)


def test_cameras_in_one_place_are_compared_by_rotation():
    still = np.repeat(poses(1), 2, axis=0)
    here = np.random.default_rng(0).uniform(0, 100, (60, 2))
    told = pose_explains(cameras(still), 0, 1, Matches(here, here + np.array([3.0, 4.0])))
    np.testing.assert_allclose(told.distance, 5, rtol=1e-9)
    np.testing.assert_allclose(told.correction, [[-3, -4]] * 60, atol=1e-9)


def test_flow_is_right_where_it_is_called_consistent(flows):
    """The wall behind everything is a plane whose flow is known."""
    flow, valid = flows[1, 2]
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([(u - WIDTH / 2) / FOCAL, -(v - HEIGHT / 2) / FOCAL, -np.ones_like(u)], -1) @ pose(1)[:, :3].T
    points = pose(1)[:, 3] + rays * ((WALL - pose(1)[2, 3]) / rays[..., 2:])
    seen = cameras(poses(COUNT)).project(torch.from_numpy(points), torch.full((HEIGHT, WIDTH), 2))[0].numpy()
    on_wall = valid & (np.arange(WIDTH) > 0.85 * WIDTH)
    miss = np.linalg.norm(flow - (seen - np.stack([u, v], -1)), axis=-1)[on_wall]
    assert on_wall.sum() > 1000 and np.median(miss) < 0.3
    assert 0.7 < valid.mean() < 0.999


def test_flow_that_is_not_finite_or_leaves_the_image_is_not_consistent(flows, tmp_path):
    flow, back = flows[0, 1][0].copy(), flows[1, 0][0]
    flow[10:20, 30:40] = np.nan
    flow[40:50, 30:40] = 1e6
    mask = consistent(flow, back)
    assert not mask[10:20, 30:40].any() and not mask[40:50, 30:40].any() and mask.mean() > 0.6
    write_flow(tmp_path / "f.npz", flow, mask)
    saved = np.load(tmp_path / "f.npz")
    assert np.isfinite(saved["flow"]).all() and (saved["mask"] == mask).all()
    back = back.copy()
    back[:] = np.nan
    assert not consistent(flow, back).any()


def test_right_poses_pass_and_usual_mistakes_are_named(flows):
    pairs, right = [(k, k + 1) for k in range(COUNT - 1)], poses(COUNT)

    def checked(matrices, focal=FOCAL):
        return check_poses(cameras(matrices, focal), pairs, lambda a, b: flows[a, b])

    good = checked(right)
    assert not good.wrong and not good.bad and good.error < 0.2 and not good.advice
    flipped = right.copy()
    flipped[:, :, 1:3] *= -1
    assert checked(flipped).wrong and "OpenCV's" in checked(flipped).advice
    inverse = right.copy()
    inverse[:, :, :3] = right[:, :, :3].transpose(0, 2, 1)
    inverse[:, :, 3] = -np.einsum("nij,nj->ni", inverse[:, :, :3], right[:, :, 3])
    assert checked(right[::-1]).wrong
    still = checked(np.repeat(right[:1], COUNT, axis=0))
    assert still.wrong and "does not stand still" in still.advice
    one_off = right.copy()
    one_off[3, :, 3] += (-0.3, 0.3, 0.0)
    told = checked(one_off)
    assert not told.wrong and [(e.frame, e.other) for e in told.bad] == [(2, 3)]


def test_flow_that_holds_in_few_places_does_not_judge_poses(flows):
    pairs, right = [(k, k + 1) for k in range(COUNT - 1)], poses(COUNT)
    few = {}
    for pair, (flow, valid) in flows.items():
        kept = valid & (np.arange(valid.shape[1]) < 0.3 * valid.shape[1])
        few[pair] = (flow + 20 * np.random.default_rng(0).normal(size=2).astype(np.float32), kept)
    assert not check_poses(cameras(right), pairs, lambda a, b: few[a, b]).errors
    one = {**flows, (1, 2): few[1, 2]}
    assert [error.frame for error in check_poses(cameras(right), pairs, lambda a, b: one[a, b]).errors] == [
        k for k in range(COUNT - 1) if k != 1
    ]


def test_poses_are_not_blamed_for_flow_that_errs(flows):
    """Where no rigid motion explains the flow well, right poses do not, either; wrong ones are told all the same."""
    pairs, right = [(k, k + 1) for k in range(COUNT - 1)], poses(COUNT)
    rng = np.random.default_rng(0)
    noisy = {pair: (flow + rng.normal(scale=0.9, size=flow.shape), valid) for pair, (flow, valid) in flows.items()}

    def checked(matrices):
        return check_poses(cameras(matrices), pairs, lambda a, b: noisy[a, b])

    told = checked(right)
    assert told.error > GOOD * np.hypot(WIDTH, HEIGHT) and not told.bad and not told.wrong
    assert checked(right[::-1]).wrong and checked(np.repeat(right[:1], COUNT, axis=0)).wrong


def test_movers_are_found_with_and_without_poses(flows):
    pictures = [draw(k) for k in range(COUNT)]
    grey = [picture.mean(-1).astype(np.uint8) for picture, _ in pictures]
    known = cameras(poses(COUNT))
    for k in (1, 2):
        truth = pictures[k][1]
        others = (k - 1, k + 1)
        posed = [
            (*flows[k, o], lambda m, o=o: pose_explains(known, k, o, m), grey[o])  # noqa: B023 (called at once)
            for o in others
        ]
        rough = [(*flows[k, o], fit_rigid(some_matches(*flows[k, o])).explains, grey[o]) for o in others]
        for found in (moving_pixels(grey[k], posed), moving_pixels(grey[k], rough)):
            assert (found & truth).sum() / (found | truth).sum() > 0.55
            assert found[~truth].mean() < 0.05


def test_wrong_flow_without_texture_moves_nothing():
    flat = np.full((HEIGHT, WIDTH), 128, np.uint8)
    flow = np.random.default_rng(0).normal(0, 5, (HEIGHT, WIDTH, 2)).astype(np.float32)
    known = cameras(poses(COUNT))
    everything = np.ones(flat.shape, bool)
    told = moving_pixels(flat, [(flow, everything, lambda m: pose_explains(known, 0, 1, m), flat)])
    assert not told.any()


def test_masks_lose_specks_and_fill_holes():
    mask = np.zeros((200, 320), bool)
    mask[50:120, 60:160] = True
    mask[80:84, 100:104] = False
    mask[10, 10] = mask[180, 300] = True
    found = clean(mask)
    assert found[50:120, 60:160].all() and not found[:30].any() and not found[150:].any()
    assert found.sum() < 1.25 * mask.sum()


def test_depth_range_holds_what_is_there():
    pictures = [draw(k)[0] for k in range(COUNT)]
    found = depth_range(cameras(poses(COUNT)), pictures, DIS(), lambda k: draw(k)[1])
    assert found is not None
    near, far = found
    assert 2 < near < 3.9 and 7.0 < far < 12
    still = np.repeat(poses(1), COUNT, axis=0)
    assert depth_range(cameras(still), pictures, DIS(), lambda k: None) is None


def test_raft_runs_with_weights_from_a_path(tmp_path):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    method = flow_method(str(tmp_path / "raft.pth"))
    flow = method(draw(0)[0][:100], draw(1)[0][:100])
    assert flow.shape == (100, WIDTH, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
    assert method.stamp["weights"]["bytes"] > 0


def test_flow_methods_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(SceneDataError, match="holds no RAFT weights"):
        flow_method("raft")
    with pytest.raises(SceneDataError, match="use dis, raft"):
        flow_method("sift")
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(SceneDataError, match="no weights of torchvision's"):
        flow_method(str(tmp_path / "x.pth"))
    with pytest.raises(SceneDataError, match="too small"):
        DIS()(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8))
