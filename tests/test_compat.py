"""What depends on the device."""

import pytest
import torch

from semflow_nerfstudio.compat import MOST_RAYS, SAMPLE_BYTES, rays_at_once

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("free", "kept", "rays"),
    [(0, 0, 8192), (2 * 24 * SAMPLE_BYTES * 20_000, 0, 20_000), (0, 2 * 24 * SAMPLE_BYTES * 20_000, 20_000)],
)
def test_images_take_half_of_the_free_memory(free: int, kept: int, rays: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch keeps for later is free as well."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: kept + 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10**9)
    assert rays_at_once(GPU, 8192, 24) == rays


def test_a_large_gpu_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**12, 10**12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    assert rays_at_once(GPU, 8192, 24) == MOST_RAYS >= 480 * 270
    assert rays_at_once(GPU, 2 * MOST_RAYS, 24) == 2 * MOST_RAYS
    assert rays_at_once(torch.device("cpu"), 8192, 24) == 8192
