"""Time hash grid backends against nerfstudio's own torch HashEncoding, all in one run.

    python -m benchmarks.encodings                # CPU: 65,536 points, some two minutes on two cores
    python -m benchmarks.encodings --device cuda  # 2**20 points

Every repeat times all encodings once, one after the other, so that a busy moment of the machine hits them alike.
Figures are medians, with the minimum beside them. What cannot run here says "not measured" and why.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semflow_nerfstudio.benchmarking.machine import describe
from semflow_nerfstudio.benchmarking.records import write_json
from semflow_nerfstudio.encodings.hash_grid import HashGrid

FEATURES = 2
FRAMES = 12
"""Frames of the 4-D grids' time axis."""
CONFIGURATIONS = {"8x15": (8, 15, 512), "16x19": (16, 19, 2048)}
"""Levels, log2 of the hashmap size, finest resolution; the coarsest is 16."""
BACKENDS = ("torch", "numba", "triton", "tcnn")
PASSES = ("forward", "forward_backward", "forward_backward_inputs")
"""The last one with gradients of the points as well."""


@dataclass
class Case:
    """One row: an encoding, its input, and the milliseconds it took."""

    name: str
    dimensions: int
    configuration: str
    times: str
    make: Callable[[], nn.Module]
    points: Tensor
    encoding: nn.Module | None = None
    not_measured: str = ""
    first_call_s: float = 0.0
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PASSES})

    def start(self, device: torch.device) -> None:
        """Build it and run every pass once, untimed: compilers, caches and allocators warm up."""
        try:
            self.encoding = self.make().to(device)
            before = time.perf_counter()
            for name in PASSES:
                self.run(name)
            self.first_call_s = time.perf_counter() - before
        except (RuntimeError, ImportError) as error:  # cannot run here, or is not installed
            self.encoding, self.not_measured = None, str(error).splitlines()[0]

    def run(self, name: str) -> float:
        """Milliseconds of one pass."""
        assert self.encoding is not None
        points = self.points.clone().requires_grad_(name == "forward_backward_inputs")
        for parameter in self.encoding.parameters():
            parameter.grad = None
        _synchronize(points.device)
        before = time.perf_counter()
        if name == "forward":
            with torch.no_grad():
                self.encoding(points)
        else:
            features = self.encoding(points)
            features.backward(torch.ones_like(features))
        _synchronize(points.device)
        return (time.perf_counter() - before) * 1e3

    def gathered_bytes(self) -> int:
        """Bytes of table entries and of outputs that a forward pass must move, caches aside."""
        levels = CONFIGURATIONS[self.configuration][0]
        entry = 2 if self.name == "tcnn" else 4
        return len(self.points) * levels * FEATURES * (2**self.dimensions * entry + 4)

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "encoding": self.name,
            "dimensions": self.dimensions,
            "configuration": self.configuration,
            "times": self.times,
        }
        if self.encoding is None:
            return {**row, "milliseconds": "not measured", "why": self.not_measured}
        row["first_call_s"] = round(self.first_call_s, 2)
        for name in PASSES:
            row[f"{name}_ms"] = round(statistics.median(self.milliseconds[name]), 3)
            row[f"{name}_ms_min"] = round(min(self.milliseconds[name]), 3)
        if self.points.is_cuda:
            row["forward_gb_per_s"] = round(self.gathered_bytes() / row["forward_ms"] / 1e6, 1)
        return row


def measure(
    device: torch.device,
    num_points: int,
    repeats: int,
    configurations: Sequence[str],
    dimensions: Sequence[int] = (3, 4),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """All rows, and for each configuration how many times faster than nerfstudio's torch encoding "auto" is.

    Args:
        device: Where to measure.
        num_points: Random points a call.
        repeats: Timed calls of each encoding and pass.
        configurations: Keys of `CONFIGURATIONS`.
        dimensions: Of the grids; nerfstudio's has three.
        progress: Told (done, total) after every round.
    """
    cases = [case for name in configurations for case in _cases(name, num_points, device)]
    cases = [case for case in cases if case.dimensions in dimensions]
    for case in cases:
        case.start(device)
    progress(1, repeats + 1)
    for repeat in range(repeats):
        for case in cases:
            if case.encoding is not None:
                for name in PASSES:
                    case.milliseconds[name].append(case.run(name))
        progress(repeat + 2, repeats + 1)
    rows = [case.row() for case in cases]
    result: dict[str, Any] = {"machine": describe(device), "points": num_points, "repeats": repeats, "rows": rows}
    for configuration in configurations:
        baseline = _find(rows, "nerfstudio torch", configuration)
        for row in rows:
            same = row["configuration"] == configuration and row["dimensions"] == 3
            if same and "forward_backward_ms" in row and "forward_backward_ms" in baseline:
                row["times_faster"] = round(baseline["forward_backward_ms"] / row["forward_backward_ms"], 2)
        fast = _find(rows, "numba" if device.type == "cpu" else "triton", configuration)
        result[f"hash_ratio_{configuration}"] = fast.get("times_faster", "not measured")
    return result


def _cases(configuration: str, num_points: int, device: torch.device) -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(num_points, 4, generator=generator)
    # a ray's samples share a time: 64 of them
    frames = torch.randint(FRAMES, (-(-num_points // 64), 1), generator=generator).repeat_interleave(64, dim=0)
    at_frames = torch.cat((points[:, :3], frames[:num_points] / (FRAMES - 1)), dim=1)
    inputs = (
        (3, "", points[:, :3], BACKENDS),
        (4, "any", points, BACKENDS),
        (4, "frames", at_frames, ("numba", "triton")),  # the others do not care
    )
    cases = [_nerfstudio_case(configuration, points[:, :3].contiguous().to(device))]
    for dimensions, times, values, names in inputs:
        for name in names:
            make = _make_grid(name, dimensions, configuration)
            cases.append(Case(name, dimensions, configuration, times, make, values.contiguous().to(device)))
    return cases


def _make_grid(backend: Any, dimensions: int, configuration: str) -> Callable[[], nn.Module]:
    levels, log2_size, finest = CONFIGURATIONS[configuration]
    time_axis = (FRAMES - 1,) * (dimensions - 3)
    base, top = (16,) * 3 + time_axis, (finest,) * 3 + time_axis
    return lambda: HashGrid(dimensions, levels, FEATURES, log2_size, base, top, backend)


def _nerfstudio_case(configuration: str, points: Tensor) -> Case:
    levels, log2_size, finest = CONFIGURATIONS[configuration]

    def make() -> nn.Module:
        from nerfstudio.field_components.encodings import HashEncoding

        return HashEncoding(levels, 16, finest, log2_size, FEATURES, implementation="torch")

    return Case("nerfstudio torch", 3, configuration, "", make, points)


def _find(rows: list[dict[str, Any]], name: str, configuration: str) -> dict[str, Any]:
    return next(
        r for r in rows if r["encoding"] == name and r["configuration"] == configuration and r["dimensions"] == 3
    )


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.cuda.synchronize(device)


def _print(result: dict[str, Any]) -> None:
    print(
        f"{'':18}{'dims':>5} {'config':>7} {'times':>7} {'forward':>9} {'+backward':>10} {'+inputs':>9} {'faster':>7}"
    )
    for row in result["rows"]:
        start = f"{row['encoding']:18}{row['dimensions']:5} {row['configuration']:>7} {row['times']:>7}"
        if "why" in row:
            print(f"{start} not measured: {row['why']}")
            continue
        forward, backward, inputs = (row[f"{name}_ms"] for name in PASSES)
        faster = row.get("times_faster", "")
        bandwidth = f"  {row['forward_gb_per_s']} GB/s" if "forward_gb_per_s" in row else ""
        print(f"{start} {forward:9.2f} {backward:10.2f} {inputs:9.2f} {faster:>7}{bandwidth}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--points", type=int, help="points a call (default: 65536, on a GPU 1048576)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--configurations", nargs="+", choices=list(CONFIGURATIONS), default=list(CONFIGURATIONS))
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/encodings_<device>.json)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    num_points = arguments.points or (65536 if device.type == "cpu" else 2**20)
    result = measure(device, num_points, arguments.repeats, arguments.configurations)
    _print(result)
    output = arguments.output or Path("benchmarks/results") / f"encodings_{device.type}.json"
    write_json(output, result)
    print(f"written to {output}")


if __name__ == "__main__":
    main()
