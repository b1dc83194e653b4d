"""`semflow bench speed` and `semflow bench scale`: what a machine takes for the method."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from semflow_nerfstudio.benchmarking.options import ScaleOptions, SpeedOptions


@dataclass
class Speed:
    """Time encodings, a training step and rendering, beside baselines, on the built-in scene."""

    options: Annotated[SpeedOptions, tyro.conf.arg(name="")] = field(default_factory=SpeedOptions)
    """What is timed."""
    out: Path = Path("benchmarks/results/speed")
    """Folder of the results, one JSON file a run."""

    def main(self) -> None:
        """Measure, write the record and print its main figures."""
        from semflow_nerfstudio.benchmarking.records import Records
        from semflow_nerfstudio.benchmarking.speed import MAIN_FIGURES, key_of, measure
        from semflow_nerfstudio.cli.report import print_scores, progress

        result = measure(self.options, progress)
        path = Records(self.out).write(key_of(self.options, result["machine"]), result)
        print_scores({name: result[name] for name in MAIN_FIGURES if name in result}, "milliseconds a ray, and ratios")
        print(path)


@dataclass
class Scale:
    """Time and memory of training on clips of different lengths of the built-in scene."""

    options: Annotated[ScaleOptions, tyro.conf.arg(name="")] = field(default_factory=ScaleOptions)
    """What is measured."""
    out: Path = Path("benchmarks/results/scale")
    """Folder of the results, one JSON file a run."""

    def main(self) -> None:
        """Measure, write the record and print its main figures."""
        from semflow_nerfstudio.benchmarking.records import Records
        from semflow_nerfstudio.benchmarking.scale import key_of, measure
        from semflow_nerfstudio.cli.report import print_scores, progress

        result = measure(self.options, progress)
        path = Records(self.out).write(key_of(self.options, result["machine"]), result)
        print_scores(result["summary"], "growth from the shortest to the longest clip")
        print(path)
