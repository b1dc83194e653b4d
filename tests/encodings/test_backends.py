"""Which backend is chosen, and what is said where one cannot be had."""

import sys
import types
import warnings

import pytest
import torch
from agreement import CASES, assert_agrees, make_grids, make_points
from torch import nn

from semflow_nerfstudio.encodings import backends, numba_backend, torch_backend
from semflow_nerfstudio.encodings.grid_layout import make_layout
from semflow_nerfstudio.encodings.hash_grid import HashGrid

LAYOUT = make_layout(3, 4, 2, 9, 4, 40)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget() -> None:
    """Each test chooses anew."""
    backends.choose_backend.cache_clear()
    backends._warn_once.cache_clear()


def test_auto_takes_numba_on_the_cpu() -> None:
    pytest.importorskip("numba")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends.choose_backend("auto", LAYOUT, CPU, torch.float32) is numba_backend


def test_auto_falls_back_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "semflow_nerfstudio.encodings.numba_kernels", None)
    with pytest.warns(UserWarning, match="plain torch.*numba cannot be imported") as said:
        for levels in (2, 3):
            HashGrid(3, levels, 2, 9, 4, 40)(torch.rand(5, 3))
    assert len(said) == 1
    assert backends.choose_backend("auto", LAYOUT, CPU, torch.float32) is torch_backend


def test_auto_falls_back_for_double_precision() -> None:
    with pytest.warns(UserWarning, match="float32"):
        assert HashGrid(3).double()(torch.rand(5, 3)).dtype == torch.float64


@pytest.mark.parametrize("case", ["3-D", "3-D, dense", "4-D", "4-D, dense frames"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tables(case: str, dtype: torch.dtype) -> None:
    """Read and summed in single precision; only the gradient itself is rounded. With collisions and without."""
    grid, reference = make_grids("auto", CASES[case])
    grid.to(dtype)
    reference.load_state_dict(grid.state_dict())
    with pytest.warns(UserWarning, match="plain torch, which is much slower than numba: .*float32"):
        assert grid(torch.rand(3, grid.input_dim)).dtype == torch.float32
    assert_agrees(grid, reference, make_points(grid.input_dim, 300), tolerance=2 * torch.finfo(dtype).eps)
    assert grid.table.grad is not None and grid.table.grad.dtype == dtype


def test_auto_takes_torch_on_other_devices() -> None:
    assert backends.choose_backend("auto", LAYOUT, torch.device("mps"), torch.float32) is torch_backend


def test_auto_needs_no_triton_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("triton", "semflow_nerfstudio.encodings.triton_backend"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    assert HashGrid(3)(torch.rand(5, 3)).shape == (5, 16)


def test_named_backend_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match='"triton" cannot be used: triton kernels need a CUDA device'):
        HashGrid(3, backend="triton")(torch.rand(5, 3))
    with pytest.raises(RuntimeError, match='"numba" cannot be used'):
        HashGrid(3, backend="numba").double()(torch.rand(5, 3))


def test_checkpoints_fit_every_backend() -> None:
    grid, other = HashGrid(3, backend="auto"), HashGrid(3, backend="torch")
    other.load_state_dict(grid.state_dict())
    points = torch.rand(100, 3)
    torch.testing.assert_close(grid(points), other(points), rtol=0, atol=1e-7)


class _FakeEncoding(nn.Module):
    """What is used of tinycudann.Encoding, which needs a GPU even to be imported."""

    def __init__(self, n_input_dims: int, encoding_config: dict) -> None:
        super().__init__()
        self.config, self.dims = encoding_config, n_input_dims
        self.params = nn.Parameter(torch.zeros(64))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        width = self.config["n_levels"] * self.config["n_features_per_level"]
        return self.params[:width].half().expand(len(points), width)


def test_tcnn_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", types.SimpleNamespace(Encoding=_FakeEncoding))
    grid = HashGrid(4, 5, 2, 15, 15, 255, backend="tcnn", init_scale=0.5)
    encoding = grid.tcnn_encoding
    assert isinstance(encoding, _FakeEncoding) and encoding.dims == 4
    assert encoding.config["base_resolution"] == 16 and encoding.config["per_level_scale"] == pytest.approx(2)
    assert encoding.config["log2_hashmap_size"] == 15
    assert [id(parameter) for parameter in grid.parameters()] == [id(grid.table)]
    assert 0.25 < grid.table.abs().max() <= 0.5
    values = grid(torch.rand(2, 3, 4))
    assert values.shape == (2, 3, 10) and values.dtype == torch.float32


def test_tcnn_is_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="same resolution on all axes"):
        HashGrid(4, 4, 2, 15, (16, 16, 16, 11), (64, 64, 64, 11), backend="tcnn")
    with pytest.raises(RuntimeError, match="1, 2, 4 or 8 features"):
        HashGrid(3, features_per_level=3, backend="tcnn")
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(RuntimeError, match="tinycudann cannot be imported"):
        HashGrid(3, backend="tcnn")
