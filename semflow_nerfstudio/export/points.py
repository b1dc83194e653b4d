"""Labelled, coloured point clouds with motion."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy import ndarray

from semflow_nerfstudio.export.files import write_bytes, write_ply
from semflow_nerfstudio.export.views import Seen, Units3D


def point_table(seen: Seen, units: Units3D, confidence: float = 0.5) -> dict[str, ndarray]:
    """Properties of the points of a view that are at least this confident.

    x y z: positions; red green blue: uint8; label: class id, 255 where there are no classes; instance: id,
    -1 for none; vx vy vz: motion until the next frame; confidence: in [0, 1]; time: in [0, 1].
    """
    rows = (seen.points.confidence >= confidence).numpy()
    points = seen.points.pick(seen.points.confidence >= confidence)
    at = units.points(points.points.numpy()).astype(np.float32)
    motion = units.vectors(points.velocity.numpy()).astype(np.float32)
    color = (points.rgb.numpy() * 255).round().astype(np.uint8)
    return {
        **dict(zip("xyz", at.T, strict=True)),
        **dict(zip(("red", "green", "blue"), color.T, strict=True)),
        "label": points.label.numpy().astype(np.uint8),
        "instance": seen.instance[rows].astype(np.int32),
        **dict(zip(("vx", "vy", "vz"), motion.T, strict=True)),
        "confidence": points.confidence.numpy().astype(np.float32),
        "time": np.full(len(at), seen.view.time, dtype=np.float32),
    }


def write_points(path: Path, table: dict[str, ndarray], units: str) -> None:
    """Write points as .ply, or as .las where laspy is installed.

    Raises:
        ValueError: laspy is needed and not there.
    """
    if path.suffix == ".las":
        write_las(path, table)
    else:
        write_ply(path, table, note=f"{units} units; vx vy vz is the motion until the next frame")


def write_las(path: Path, table: dict[str, ndarray]) -> None:
    """Write points as LAS 1.4: 16-bit colours, class ids as classification, and the rest as extra dimensions."""
    try:
        import laspy
    except ImportError:
        raise ValueError("LAS files need the package laspy: pip install 'semflow-nerfstudio[las]'") from None
    header = laspy.LasHeader(point_format=7, version="1.4")
    at = np.column_stack([table[axis] for axis in "xyz"]).astype(np.float64)
    header.offsets = at.min(axis=0) if len(at) else np.zeros(3)
    header.scales = np.full(3, max(float(np.ptp(at, axis=0).max()) if len(at) else 1.0, 1e-6) / 2e9)
    extra = ("label", "instance", "vx", "vy", "vz", "confidence")
    for name in extra:
        header.add_extra_dim(laspy.ExtraBytesParams(name=name, type=table[name].dtype))
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = at.T
    for name in ("red", "green", "blue"):
        setattr(cloud, name, table[name].astype(np.uint16) * 257)
    cloud.classification = table["label"]
    cloud.gps_time = table["time"].astype(np.float64)
    for name in extra:
        setattr(cloud, name, table[name])
    stream = io.BytesIO()
    cloud.write(stream)
    write_bytes(path, stream.getvalue())
