"""Components of labelled points along their motion, on moving balls whose identity is known."""

import numpy as np
from numpy import ndarray

from semflow_nerfstudio.editing.components import Voxels, absorb_satellites, fragments, moving_objects, voxelise

ORIGIN, SIZE = np.zeros(3), 0.05
BALL = np.array([p for p in np.random.default_rng(0).normal(size=(1500, 3))])
BALL = 0.2 * BALL / np.linalg.norm(BALL, axis=1, keepdims=True)


def balls(*tracks: tuple[int, list[list[float] | None]]) -> tuple[list[Voxels], list[list[ndarray]]]:
    """Voxels of balls (label, centres or None at each frame), and the centres that are there."""
    frames, truth = [], []
    for k in range(len(tracks[0][1])):
        points, labels, at = [np.zeros((0, 3))], [np.zeros(0, dtype=int)], []
        for label, centers in tracks:
            center = centers[k]
            if center is not None:
                points.append(BALL + center)
                labels.append(np.full(len(BALL), label))
            at.append(center)
        frames.append(voxelise(np.concatenate(points), np.concatenate(labels), ORIGIN, SIZE))
        truth.append(at)
    return frames, truth


def shift(velocity: list[float]):
    return lambda points, start, end: points + np.array(velocity) * (end - start)


def objects_near(frame: Voxels, center: list[float]) -> set[int]:
    near = np.linalg.norm((frame.index + 0.5) * SIZE - center, axis=1) < 0.19
    near |= (np.linalg.norm((frame.index + 0.5) * SIZE - center, axis=1) < 0.25) & (
        np.abs((frame.index + 0.5) * SIZE - center)[:, 2] > 0.1
    )
    return set(frame.object[near].tolist())


def number(frames: list[Voxels]) -> int:
    return len({i for frame in frames for i in frame.object.tolist()} - {-1})


def test_majority_label_of_a_voxel() -> None:
    points = np.array([[0.01, 0.01, 0.01]] * 3 + [[0.06, 0.01, 0.01]])
    voxels = voxelise(points, np.array([4, 7, 7, 4]), ORIGIN, SIZE)
    assert voxels.index.tolist() == [[0, 0, 0], [1, 0, 0]] and voxels.label.tolist() == [7, 4]
    assert len(voxelise(points, np.array([4, 7, 7, 4]), ORIGIN, SIZE, least=2)) == 1


def test_fragments_end_where_the_label_does() -> None:
    row = np.array([[k, 0, 0] for k in range(8)])
    voxels = Voxels(row, np.array([1] * 4 + [2] * 4), np.full(8, -1))
    assert fragments(voxels)[0] == 2
    gap = Voxels(row[[0, 1, 2, 6, 7]], np.ones(5, dtype=int), np.full(5, -1))
    assert fragments(gap, radius=2)[0] == 2 and fragments(gap)[0] == 1
    assert fragments(Voxels(np.zeros((0, 3), dtype=int), np.zeros(0, dtype=int), np.zeros(0, dtype=int)))[0] == 0


def test_two_objects_of_a_label_keep_their_ids_over_time() -> None:
    frames, truth = balls(
        (3, [[0.5 + 0.1 * k, 0.5, 0.5] for k in range(6)]), (3, [[0.5 + 0.1 * k, 1.5, 0.5] for k in range(6)])
    )
    moving_objects(frames, ORIGIN, SIZE, shift([0.1, 0, 0]))
    assert number(frames) == 2
    ids = [[objects_near(frame, center) for center in at] for frame, at in zip(frames, truth, strict=True)]
    assert all(pair == ids[0] for pair in ids) and ids[0][0] != ids[0][1] and all(len(i) == 1 for i in ids[0])


def test_objects_that_touch_for_a_while_stay_two() -> None:
    """Two balls of one label approach, touch at one of seven frames, and part again; each carries its own motion."""
    left = [[1.0 - 0.2 * abs(k - 3), 0.5 + 0.15 * k, 0.5] for k in range(7)]
    right = [[1.42 + 0.2 * abs(k - 3), 0.5 + 0.15 * k, 0.5] for k in range(7)]
    frames, truth = balls((3, [list(c) for c in left]), (3, [list(c) for c in right]))
    assert [fragments(frame)[0] for frame in frames] == [2, 2, 2, 1, 2, 2, 2]

    def advect(points: ndarray, start: int, end: int) -> ndarray:
        a, b = np.array(left), np.array(right)
        nearer = np.linalg.norm(points - a[start], axis=1) < np.linalg.norm(points - b[start], axis=1)
        return points + np.where(nearer[:, None], a[end] - a[start], b[end] - b[start])

    moving_objects(frames, ORIGIN, SIZE, advect)
    assert number(frames) == 2
    for side in (0, 1):
        of_side = [objects_near(frame, at[side]) for frame, at in zip(frames, truth, strict=True)]
        assert all(ids == of_side[0] and len(ids) == 1 for ids in of_side)


def test_an_object_that_falls_apart_behind_a_post_stays_one() -> None:
    frames, _ = balls((3, [[0.5 + 0.1 * k, 0.5, 0.5] for k in range(7)]))
    for k in (3, 4):
        kept = np.abs((frames[k].index[:, 0] + 0.5) * SIZE - (0.5 + 0.1 * k)) > 0.14
        frames[k] = Voxels(frames[k].index[kept], frames[k].label[kept], frames[k].object[kept])
        assert fragments(frames[k])[0] == 2
    moving_objects(frames, ORIGIN, SIZE, shift([0.1, 0, 0]))
    assert number(frames) == 1 and all((frame.object == 0).all() for frame in frames)


def test_an_object_that_hides_for_a_frame_comes_back_as_itself() -> None:
    centers = [[0.5 + 0.3 * k, 0.5, 0.5] for k in range(6)]
    frames, _ = balls((3, [c if k != 2 else None for k, c in enumerate(centers)]))
    moving_objects(frames, ORIGIN, SIZE, shift([0.3, 0, 0]))
    assert number(frames) == 1
    away, _ = balls((3, [c if k < 2 else None for k, c in enumerate(centers)]), (3, [None] * 5 + [[0.5, 2.0, 0.5]]))
    moving_objects(away, ORIGIN, SIZE, shift([0.3, 0, 0]))
    assert number(away) == 2


def test_labels_do_not_mix() -> None:
    frames, _ = balls((3, [[0.5, 0.5, 0.5]] * 3), (4, [[0.7, 0.5, 0.5]] * 3))
    moving_objects(frames, ORIGIN, SIZE, shift([0, 0, 0]))
    assert number(frames) == 2
    assert all(len(set(f.label[f.object == i].tolist())) == 1 for f in frames for i in (0, 1))


def test_small_pieces_beside_a_large_object_belong_to_it() -> None:
    large = np.argwhere(np.ones((8, 8, 8), dtype=bool))
    piece = np.argwhere(np.ones((3, 3, 3), dtype=bool))
    near, far = piece + np.array([12, 0, 0]), piece + np.array([40, 0, 0])
    twin = large + np.array([0, 13, 0])
    index = np.concatenate([large, near, far, twin])
    number_of = np.repeat([0, 1, 2, 3], [len(large), len(near), len(far), len(twin)])
    voxels = Voxels(index, np.ones(len(index), dtype=int), number_of.copy())
    absorb_satellites([voxels])
    assert [set(voxels.object[number_of == i].tolist()) for i in range(4)] == [{0}, {0}, {2}, {3}]
