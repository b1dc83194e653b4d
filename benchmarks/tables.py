"""Writes the README's result tables from `benchmarks/results/*.json`: `python -m benchmarks.tables`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import speed_tables
from semflow_nerfstudio.benchmarking import quality_tables, task_tables
from semflow_nerfstudio.benchmarking.records import Records

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"

SCENE_COLUMNS = {
    "psnr": ("PSNR", ".1f"),
    "dynamic_psnr": ("on movers", ".1f"),
    "ssim": ("SSIM", ".3f"),
    "miou": ("mIoU", ".3f"),
    "miou_moving": ("moving", ".3f"),
    "boundary_f": ("boundary F", ".3f"),
    "copy_psnr": ("copy PSNR", ".1f"),
    "copy_miou": ("copy mIoU", ".3f"),
}


def row(cells: list[str]) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def number(value: Any, form: str) -> str:
    """A figure as the table shows it."""
    return "not measured" if value is None else format(value, form)


def load(pattern: str) -> list[dict[str, Any]]:
    """Result files by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(pattern))]


def scene_table() -> str:
    """Scores of held-out views."""
    head = ["scene", "size", "labels", "seed", "views", "training", *(title for title, _ in SCENE_COLUMNS.values())]
    lines = [row(head), row(["---"] * len(head))]
    for result in load("scene_*.json"):
        scores = result["scores"]
        cells = [
            result["scene"],
            f"1/{result['downscale_factor']:g}",
            result["labelled_frames"],
            str(result["seed"]),
            str(scores["eval_views"]),
            f"{result['train_seconds']:.0f} s",
        ]
        lines.append(row(cells + [number(scores.get(k), form) for k, (_, form) in SCENE_COLUMNS.items()]))
    return "\n".join(lines)


def dnerf_table() -> str:
    """PSNR on D-NeRF scenes."""
    head = ["scene", "size", "seed", "views", "training", "PSNR", "SSIM"]
    lines = [row(head), row(["---"] * len(head))]
    for result in load("dnerf_*.json"):
        scores = result["scores"]
        cells = [result["scene"], f"{result['scale']:g}", str(result["seed"]), str(scores["eval_views"])]
        cells += [f"{result['train_seconds']:.0f} s", number(scores["psnr"], ".1f"), number(scores["ssim"], ".3f")]
        lines.append(row(cells))
    return "\n".join(lines)


def own_video_table() -> str:
    """A hand-held clip without labels and with few."""
    head = ["clip", "labelled", "frames", "size", "epipolar error", "steps", "training", "PSNR", "copy PSNR", "mIoU"]
    lines = [row([*head, "copy mIoU"]), row(["---"] * (len(head) + 1))]
    for result in load("own_video_*.json"):
        scores = result["scores"]
        cells = [result["scene"], result["labels"], str(result["frames"]), "{}x{}".format(*result["size"])]
        cells += [f"{result['epipolar_error']:.2f} px", str(result["steps"]), f"{result['train_seconds']:.0f} s"]
        cells += [number(scores[key], ".1f") for key in ("psnr", "copy_psnr")]
        cells += ["-" if scores.get(key) is None else f"{scores[key]:.3f}" for key in ("miou", "copy_miou")]
        lines.append(row(cells))
    return "\n".join(lines)


def encoding_table() -> str:
    """Time of the hash encodings."""
    head = ["machine", "points", "dimensions", "levels x table", "times", "encoding", "forward", "forward + backward"]
    head += ["faster", "moved, forward"]
    lines = [row(head), row(["---"] * len(head))]
    for result in load("encodings_*.json"):
        machine = result["machine"]
        for entry in result["rows"]:
            times = [number(entry.get(key), ".1f") for key in ("forward_ms", "forward_backward_ms")]
            faster = entry.get("times_faster")
            cells = [machine.get("gpu", f"{machine['cpu']}, {machine['threads']} threads"), f"{result['points']:,}"]
            cells += [str(entry["dimensions"]), entry["configuration"], entry["times"] or "-", entry["encoding"]]
            cells += [time if time == "not measured" else f"{time} ms" for time in times]
            cells.append("-" if faster is None else f"{faster:.1f}x")
            rate = entry.get("forward_gb_per_s")
            lines.append(row([*cells, "-" if rate is None else f"{rate:.0f} GB/s"]))
    return "\n".join(lines)


def core_table() -> str:
    """Time of the parts where only torch is installed."""
    parts = {"static_field": "static field", "dynamic_field": "dynamic field", "flow": "flow"}
    head = [
        "machine",
        "commit",
        "grids",
        "rays x samples",
        *parts.values(),
        "training pass, a ray",
        "rendering, a ray",
        "480x270",
    ]
    lines = [row(head), row(["---"] * len(head))]
    for result in load("core_*.json"):
        machine, options = result["machine"], result["options"]
        cells = [machine.get("gpu", f"{machine['cpu']}, {machine['threads']} threads"), machine["commit"]]
        cells += [result["backend"]]
        cells.append(f"{options['rays']} x {options['samples']}")
        cells += [f"{result['rows'][part]['forward_backward_ms']:.1f} ms" for part in parts]
        rendering = result["render_ms_per_ray"]
        cells += [f"{1e3 * result['training_pass_ms_per_ray']:.1f} µs", f"{1e3 * rendering:.2f} µs"]
        whole = options["rays"] == 480 * 270
        lines.append(row([*cells, f"{1e3 / result['rows']['rendering']['forward_ms']:.1f} frames/s" if whole else "-"]))
    return "\n".join(lines)


def pose_table() -> str:
    """Poses found from images alone against given ones."""
    head = [
        "scene",
        "frames",
        "position, mean",
        "max",
        "rotation, mean",
        "rotation from frame to frame",
        "focal length",
    ]
    lines = [row(head), row(["---"] * len(head))]
    for result in load("poses_*.json"):
        scores = result["scores"]
        cells = [result["scene"], f"{scores['frames']} of {scores['given_frames']}"]
        cells += [f"{100 * scores[f'translation_share_{kind}']:.1f} %" for kind in ("mean", "max")]
        cells += [f"{scores[key]:.2f}°" for key in ("rotation_degrees_mean", "step_rotation_degrees_mean")]
        lines.append(row([*cells, f"{100 * scores['focal_ratio']:.1f} %"]))
    return "\n".join(lines)


def editing_table() -> str:
    """Objects taken out and moved."""
    head = [
        "scene",
        "taken out",
        "size",
        "seed",
        "views",
        "as it was",
        "taken out (PSNR)",
        "trained without",
        "moved: off by",
    ]
    lines = [row(head), row(["---"] * len(head))]
    for result in load("editing/*.json"):
        scores = result["scores"]
        cells = [result["scene"], result["object"], result["size"], str(result["seed"]), str(result["views"])]
        cells += [number(scores.get(f"psnr_{k}"), ".1f") for k in ("unedited", "removed", "trained_without")]
        distance = number(scores.get("centroid_px"), ".2f")
        lines.append(row([*cells, distance if distance == "not measured" else f"{distance} px"]))
    return "\n".join(lines)


def task_table(name: str) -> str:
    """One of the tables of `semflow bench tasks`."""
    return task_tables.TABLES[name](Records(RESULTS / "tasks").all())


def quality_table(name: str) -> str:
    """One of the tables of `semflow bench quality`."""
    return quality_tables.TABLES[name](Records(RESULTS / "quality").all())


def instance_table() -> str:
    """Instances of a run against true ones."""
    head = ["scene", "size", "seed", "steps", "instances", "found", "IoU", "of movers", "each"]
    lines = [row(head), row(["---"] * len(head))]
    for result in load("instances_*.json"):
        scores = result["scores"]
        cells = [result["scene"], result["size"], str(result["seed"]), str(result["steps"])]
        cells += [str(scores["true_instances"]), str(scores["found_instances"])]
        cells += [number(scores["iou"], ".3f"), number(scores["iou_moving"], ".3f")]
        lines.append(row([*cells, ", ".join(f"{name} {iou:.2f}" for name, iou in result["iou"].items())]))
    return "\n".join(lines)


TRACK_SCORES = {
    "average_jaccard": "average Jaccard",
    "average_pts_within_thresh": "points within thresholds",
    "occlusion_accuracy": "occlusion accuracy",
}


def track_table() -> str:
    """Followed points against exact tracks, all and those on movers."""
    head = ["scene", "size", "seed", "steps", "of", *TRACK_SCORES.values(), "off in 3-D, median"]
    lines = [row(head), row(["---"] * len(head))]
    for result in load("tracks_*.json"):
        scores = result["scores"]
        for prefix, title in (("", f"all {result['points']} points"), ("moving_", "points on movers")):
            cells = [result["scene"], result["size"], str(result["seed"]), str(result["steps"]), title]
            cells += [number(scores[prefix + name], ".3f") for name in TRACK_SCORES]
            error = scores.get(f"{prefix}median_error_world")
            lines.append(row([*cells, "-" if error is None else f"{error:.3f}"]))
    return "\n".join(lines)


TABLES = {"scenes": scene_table, "dnerf": dnerf_table, "encodings": encoding_table, "editing": editing_table}
TABLES |= {
    "instances": instance_table,
    "tracks": track_table,
    "own_video": own_video_table,
    "poses": pose_table,
    "core": core_table,
}
TABLES |= {name: partial(quality_table, name) for name in quality_tables.TABLES}
TABLES |= {name: partial(task_table, name) for name in task_tables.TABLES}
TABLES |= {
    "speed": lambda: speed_tables.speed_table(RESULTS),
    "stages": lambda: speed_tables.stage_table(RESULTS),
    "samples": lambda: speed_tables.sample_table(RESULTS),
    "scale": lambda: speed_tables.scale_table(RESULTS),
}


def render(text: str) -> str:
    """The README's text with every table between its markers made anew.

    Raises:
        ValueError: the text lacks a table's markers.
    """
    for name, make in TABLES.items():
        start, end = f"<!-- table: {name} -->\n", "<!-- end of table -->"
        before, found, rest = text.partition(start)
        if not found or end not in rest:
            raise ValueError(f"README.md has no table '{name}' between its markers")
        text = before + start + make() + "\n" + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")
