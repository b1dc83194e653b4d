"""The comparison of two sets of poses."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.poses import align, compare


def random_poses(count: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    turns = Rotation.random(count, random_state=0).as_matrix()
    return np.concatenate([turns, rng.normal(size=(count, 3, 1))], axis=2)


def moved(poses: np.ndarray, scale: float, turn: np.ndarray, offset: np.ndarray) -> np.ndarray:
    positions = scale * poses[:, :, 3] @ turn.T + offset
    return np.concatenate([turn @ poses[:, :, :3], positions[:, :, None]], axis=2)


def test_a_similarity_is_undone():
    turn = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix()
    poses = random_poses()
    scores = compare(moved(poses, 0.2, turn, np.array([5.0, 1.0, -3.0])), poses)
    assert max(scores.values()) < 1e-5
    scale, found, _ = align(poses[:, :, 3], moved(poses, 3.0, turn, np.zeros(3))[:, :, 3])
    assert scale == pytest.approx(3.0) and np.allclose(found, turn)


def test_errors_are_measured():
    poses = random_poses()
    turned = poses.copy()
    turned[:, :, :3] = poses[:, :, :3] @ Rotation.from_rotvec([0, np.radians(2), 0]).as_matrix()
    assert compare(turned, poses)["rotation_degrees_mean"] == pytest.approx(2, abs=1e-6)
    shifted = poses.copy()
    shifted[0, 0, 3] += 0.5
    scores = compare(shifted, poses)
    assert scores["translation_share_max"] > 0.05 and scores["rotation_degrees_mean"] > 0.1


def test_mirrored_positions_are_not_aligned_by_a_reflection():
    poses = random_poses()
    mirrored = poses.copy()
    mirrored[:, 0, 3] *= -1
    _, rotation, _ = align(mirrored[:, :, 3], poses[:, :, 3])
    assert np.linalg.det(rotation) == pytest.approx(1)
