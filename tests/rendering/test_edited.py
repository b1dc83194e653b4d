"""What edited scenes are rendered with."""

import torch

from semflow_nerfstudio.rendering.edited import turned


def test_places_are_turned_in_full_precision_whatever_networks_compute_in() -> None:
    vectors, turns = torch.randn(5, 3), torch.randn(5, 3, 3)
    expected = (turns.double() @ vectors.double()[..., None])[..., 0]
    with torch.autocast("cpu", torch.bfloat16):
        found = turned(vectors, turns)
        one_for_all = turned(vectors, turns[0])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one_for_all, vectors @ turns[0].T, atol=1e-5, rtol=1e-5)
