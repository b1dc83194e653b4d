"""Frame times and the window around a time."""

import pytest
import torch

from semflow_nerfstudio.encodings.grid_layout import SNAP
from semflow_nerfstudio.flow.timeline import Timeline

UNEVEN = torch.tensor([0.0, 0.1, 0.35, 0.4, 1.0])


def test_frames_have_whole_indices_and_back() -> None:
    timeline = Timeline(UNEVEN)
    assert timeline.index(UNEVEN).tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(timeline.time(torch.arange(5.0)), UNEVEN)


def test_index_and_time_are_inverse_between_frames() -> None:
    timeline, times = Timeline(UNEVEN), torch.linspace(0, 1, 101)[:, None]
    torch.testing.assert_close(timeline.time(timeline.index(times)), times, atol=1e-6, rtol=0)
    assert timeline.index(torch.tensor([0.05])).item() == pytest.approx(0.5)
    assert timeline.index(torch.tensor([0.7])).item() == pytest.approx(3.5)


def test_times_outside_the_clip_are_clamped() -> None:
    timeline = Timeline(UNEVEN[1:4])
    assert timeline.index(torch.tensor([0.0, 1.0])).tolist() == [0, 2]


def test_grid_times_of_frames_are_the_grids_vertices() -> None:
    for count in (2, 5, 12, 49, 128):
        times = torch.rand(count, generator=torch.Generator().manual_seed(count)).sort().values
        position = Timeline(times).grid_time(times) * (count - 1)
        assert (position - torch.arange(count)).abs().max() <= SNAP * (count - 1)


def test_tau_is_the_median_gap() -> None:
    assert Timeline(torch.tensor([0.0, 0.1, 0.35, 1.0])).tau.item() == pytest.approx(0.25)
    assert Timeline(torch.tensor([0.3])).tau.item() == 1


def test_window_at_frames_is_the_papers() -> None:
    timeline = Timeline(UNEVEN)
    window = timeline.window(torch.tensor([2.0, 0.0, 4.0]), 3, at_frames=True)
    assert window.center == 1 and window.at_frames
    assert window.index.tolist() == [[1, 2, 3], [0, 0, 1], [3, 4, 4]]
    assert window.weight.tolist() == [[1, 1, 1], [0, 1, 1], [1, 1, 0]]


def test_window_between_frames_fades_at_its_ends() -> None:
    window = Timeline(UNEVEN).window(torch.tensor([1.25, 3.75, 0.5]), 3, at_frames=False)
    assert window.index.tolist() == [[0, 1, 2, 3], [2, 3, 4, 4], [0, 0, 1, 2]]
    expected = [[0.75, 1, 1, 0.25], [0.25, 1, 1, 0], [0, 1, 1, 0.5]]
    torch.testing.assert_close(window.weight, torch.tensor(expected))


@pytest.mark.parametrize("size, stride", [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2), (3, 4)])
def test_weights_of_frames_are_continuous_in_time(size: int, stride: int) -> None:
    timeline = Timeline(UNEVEN)
    index = torch.linspace(0, 4, 4001)
    window = timeline.window(index, size, at_frames=False, stride=stride)
    per_frame = torch.zeros(len(index), len(UNEVEN)).scatter_add(1, window.index, window.weight)
    assert per_frame.diff(dim=0).abs().max() <= 1.5e-3
    at = timeline.window(torch.arange(5.0), size, at_frames=True, stride=stride)
    exact = torch.zeros(5, 5).scatter_add(1, at.index, at.weight)
    torch.testing.assert_close(per_frame[::1000], exact, atol=1e-5, rtol=0)


def test_extra_time_has_no_weight_at_frames() -> None:
    window = Timeline(UNEVEN).window(torch.arange(5.0), 3, at_frames=False)
    assert window.weight.shape[1] == 4
    assert torch.equal(window.weight[:, -1], torch.zeros(5))


@pytest.mark.parametrize("at_frames", [True, False])
def test_static_scene_has_one_time(at_frames: bool) -> None:
    timeline = Timeline(torch.tensor([0.0]))
    index = timeline.index(torch.tensor([0.0, 0.5, 1.0]))
    window = timeline.window(index, 3, at_frames)
    assert timeline.grid_time(torch.tensor([0.7])).item() == 0
    assert torch.equal(window.weight.sum(-1), torch.ones(3)) and torch.equal(window.weight[:, 1], torch.ones(3))
    assert torch.equal(timeline.time(window.index.float()), torch.zeros(window.index.shape))


@pytest.mark.parametrize("offset", [-9e-5, 0.0, 9e-5])
def test_times_that_are_a_frames_but_for_rounding_are_that_frames(offset: float) -> None:
    timeline = Timeline(UNEVEN)
    near = timeline.window(torch.tensor([2.0]) + offset, 3, at_frames=False)
    exact = timeline.window(torch.tensor([2.0]), 3, at_frames=False)
    assert torch.equal(near.index, exact.index) and near.index.tolist() == [[1, 2, 3, 4]]
    torch.testing.assert_close(near.weight, exact.weight, atol=1e-4, rtol=0)
    assert timeline.window(torch.tensor([2 - 2e-4]), 3, at_frames=False).index.tolist() == [[0, 1, 2, 3]]


def test_nearly_the_last_frame_has_no_frame_after_it() -> None:
    window = Timeline(UNEVEN).window(torch.tensor([4 - 5e-5]), 3, at_frames=False)
    assert window.index[0, window.center].item() == 4
    torch.testing.assert_close(window.weight, torch.tensor([[1.0, 1.0, 0.0, 0.0]]), atol=1e-4, rtol=0)


def test_window_with_a_stride() -> None:
    timeline = Timeline(torch.linspace(0, 1, 12))
    assert [timeline.stride_over_clip(size) for size in (1, 3, 5, 12, 99)] == [11, 6, 3, 1, 1]
    window = timeline.window(torch.tensor([6.0, 1.0]), 3, at_frames=True, stride=5)
    assert window.index.tolist() == [[1, 5, 6, 7, 11], [0, 0, 1, 2, 6]] and window.gaps == (4, 1, 1, 4)
    assert window.weight.tolist() == [[1, 0, 1, 0, 1], [0, 0, 1, 0, 1]] and window.center == 2
    assert window.exists.tolist() == [[True] * 5, [False, True, True, True, True]]
    between = timeline.window(torch.tensor([6.25]), 3, at_frames=False, stride=5)
    assert between.index.tolist() == [[1, 2, 5, 6, 7, 11, 11]] and between.gaps == (1, 3, 1, 1, 4, 1)
    torch.testing.assert_close(between.weight, torch.tensor([[0.75, 0.25, 0, 0.75, 0.25, 0.75, 0]]))


def test_neighbours_are_there_whatever_the_window() -> None:
    window = Timeline(UNEVEN).window(torch.tensor([2.0, 0.0]), 1, at_frames=True)
    assert window.index.tolist() == [[1, 2, 3], [0, 0, 1]] and window.center == 1
    assert window.weight.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert window.exists.tolist() == [[True, True, True], [False, True, True]]
