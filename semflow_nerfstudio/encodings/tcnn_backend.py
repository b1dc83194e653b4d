"""tiny-cuda-nn's hash grid, for those who ask for it: it keeps a table of its own in a layout of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from semflow_nerfstudio.encodings.grid_layout import GridLayout


def make_encoding(layout: GridLayout, log2_hashmap_size: int) -> Any:
    """A `tinycudann.Encoding` (a module; parameter `params`) with as many cells as `layout`, shifted by half of one.

    Raises:
        RuntimeError: without tinycudann or a GPU, or if it cannot have such a grid.
    """
    refusal = 'the hash grid backend "tcnn" cannot be used: {}; take "auto"'
    if any(len(set(resolution)) > 1 for resolution in layout.resolutions):
        raise RuntimeError(refusal.format("its grids have the same resolution on all axes"))
    if layout.features not in (1, 2, 4, 8):
        raise RuntimeError(refusal.format("its levels have 1, 2, 4 or 8 features"))
    try:
        # without a GPU tinycudann raises OSError when it is imported
        import tinycudann  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        raise RuntimeError(refusal.format(f"tinycudann cannot be imported ({error})")) from error
    base, top = layout.resolutions[0][0], layout.resolutions[-1][0]
    config = {
        "otype": "HashGrid",
        "n_levels": layout.num_levels,
        "n_features_per_level": layout.features,
        "log2_hashmap_size": log2_hashmap_size,
        # it counts vertices where we count cells
        "base_resolution": base + 1,
        "per_level_scale": ((top + 1) / (base + 1)) ** (1 / max(layout.num_levels - 1, 1)),
    }
    encoding: nn.Module = tinycudann.Encoding(n_input_dims=layout.input_dim, encoding_config=config)
    return encoding
