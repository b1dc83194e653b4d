"""The README's tables of what `semflow bench speed` and `semflow bench scale` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semflow_nerfstudio.benchmarking.records import Records

MISSING = "not measured"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def machine_of(record: dict[str, Any]) -> str:
    """What a record was measured on."""
    machine = record["machine"]
    return machine.get("gpu", f"{machine['cpu']}, {machine['threads']} threads")


def with_gpu(rows: list[list[str]], records: list[dict[str, Any]], columns: int) -> list[list[str]]:
    """The rows, and one that says so where nothing was measured on a GPU."""
    if any("gpu" in record["machine"] for record in records):
        return rows
    return [*rows, ["GPU", *[MISSING] * (columns - 1)]]


def speed_table(results: Path) -> str:
    """Main figures, one row a run."""
    records = Records(results / "speed").all()
    columns = {
        "train_ms_per_ray": ("training step", "{:.2f} ms"),
        "dense_ms_per_ray": ("plain and dense", "{:.1f} ms"),
        "nerfacto_ms_per_ray": ("nerfacto, torch", "{:.2f} ms"),
        "render_ms_per_ray": ("rendering", "{:.2f} ms"),
        "render_between_ms_per_ray": ("between frames", "{:.2f} ms"),
        "hash_ratio_8x15": ("grid 8x15", "{:.1f}x"),
        "hash_ratio_16x19": ("grid 16x19", "{:.1f}x"),
    }
    head = ["machine", "commit", *(title for title, _ in columns.values()), "1080p image, extrapolated"]
    rows = []
    for record in records:
        values = [(record.get(key), form) for key, (_, form) in columns.items()]
        memory = record.get("frame_memory", {}).get("full_hd_gb_extrapolated")
        values.append((memory, "{:.1f} GB"))
        cells = [MISSING if value in (None, MISSING) else form.format(value) for value, form in values]
        rows.append([machine_of(record), record["commit"], *cells])
    return table(head, with_gpu(rows, records, len(head)))


def stage_table(results: Path) -> str:
    """Where a training step's time goes."""
    records = Records(results / "speed").all()
    stages = sorted({stage for record in records for stage in record["stages"]})
    stages.sort(key=lambda stage: -max(record["stages"].get(stage, 0.0) for record in records))
    head = ["machine", *stages]
    rows = [[machine_of(r), *(f"{100 * r['stages'].get(stage, 0.0):.0f} %" for stage in stages)] for r in records]
    return table(head, rows)


def sample_table(results: Path) -> str:
    """Error of semantics on some of a ray's samples against semantics on all."""
    rows = [
        [
            machine_of(record),
            row["samples"],
            f"{row['logit_error_mean']:.4f}",
            f"{row['logit_error_max']:.3f}",
            f"{100 * row['labels_changed']:.2f} %",
        ]
        for record in Records(results / "speed").all()
        for row in record["semantic_samples"]
    ]
    return table(["machine", "samples", "mean logit error", "largest", "labels changed"], rows)


def scale_table(results: Path) -> str:
    """Time and memory by the length of the clip."""
    rows = []
    for record in Records(results / "scale").all():
        name, size = machine_of(record), record["options"]["size"]
        for row in record["rows"]:
            memory = [f"{row[key] / 1e3:.2f} GB" for key in ("resident_mb", "peak_mb")]
            times = [f"{row[key]:.0f} ms" for key in ("ms_per_step", "cpu_ms_per_step")]
            rows.append([name, size, str(row["frames"]), *times, *memory])
        summary = record["summary"]
        growth = [f"{summary[f'{kind}_mb_per_frame']:.1f} MB a frame" for kind in ("resident", "peak")]
        times = [f"{summary[key]:.2f}x" for key in ("time_ratio", "cpu_time_ratio")]
        rows.append([name, size, "growth", *times, *growth])
        long = [f"{summary[f'{kind}_gb_of_300_frames']:.1f} GB" for kind in ("resident", "peak")]
        rows.append([name, size, "300, extrapolated", "-", "-", *long])
    return table(["machine", "size", "frames", "step", "its processor time", "memory in training", "peak"], rows)
