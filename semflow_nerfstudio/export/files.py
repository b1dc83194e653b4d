"""Writing files that are never half there: PLY, PNG, .flo, arrays and JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from PIL import Image

from semflow_nerfstudio.whole_file import whole_file

FLO_MAGIC = 202021.25
_PLY_TYPES = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int", "i2": "short"}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; it appears when it is complete."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_image(path: Path, pixels: ndarray) -> None:
    """Write a PNG: uint8 (H, W) or (H, W, 3), or uint16 (H, W)."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    write_bytes(path, stream.getvalue())


def write_array(path: Path, array: ndarray) -> None:
    """Write a .npy."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes(path, stream.getvalue())


def write_arrays(path: Path, **arrays: ndarray) -> None:
    """Write a .npz."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, stream.getvalue())


def write_flo(path: Path, flow: Float[ndarray, "H W 2"]) -> None:
    """Write optical flow in Middlebury's format; unknown flow is 1e10, as the format has it."""
    height, width = flow.shape[:2]
    header = np.array([FLO_MAGIC], "<f4").tobytes() + np.array([width, height], "<i4").tobytes()
    write_bytes(path, header + np.where(np.isfinite(flow), flow, 1e10).astype("<f4").tobytes())


def write_ply(
    path: Path, vertices: dict[str, ndarray], faces: Int[ndarray, "F 3"] | None = None, note: str = ""
) -> None:
    """Write a binary PLY.

    Args:
        path: The file.
        vertices: Properties of the vertices by name, (V,) each, of the types that PLY knows.
        faces: Triangles.
        note: One comment line.
    """
    count = len(next(iter(vertices.values())))
    dtype = [(name, f"<{values.dtype.str[1:]}") for name, values in vertices.items()]
    table = np.empty(count, dtype=dtype)
    for name, values in vertices.items():
        table[name] = values
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        *([f"comment {note}"] if note else []),
        f"element vertex {count}",
    ]
    lines += [f"property {_PLY_TYPES[values.dtype.str[1:]]} {name}" for name, values in vertices.items()]
    body = table.tobytes()
    if faces is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        rows = np.empty(len(faces), dtype=[("count", "u1"), ("vertices", "<i4", 3)])
        rows["count"], rows["vertices"] = 3, faces
        body += rows.tobytes()
    write_bytes(path, "\n".join([*lines, "end_header\n"]).encode() + body)
