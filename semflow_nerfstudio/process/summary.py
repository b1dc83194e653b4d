"""What is in a scene, what is missing, and what that costs: for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from semflow_nerfstudio.process.pose_check import PoseCheck

SUMMARY = "summary.json"
"""Where `semflow process` keeps it, among its records."""
COSTS = {
    "labels": "no semantics are learned, only colour, geometry and motion",
    "optical flow": "motion is learned from colours alone, and poses cannot be checked",
    "motion masks": "what moves is told apart from what stands still only by colours and flow",
    "disparity or depth": "the depth of movers, and of all that the camera sees without parallax, is a guess",
    "near and far": "the scene is scaled by where the cameras were, not by what they see",
}
"""What the absence of something costs."""
PARTLY = "the others are learned without"


@dataclass
class Summary:
    """What `semflow process` made or `semflow check` found."""

    scene: str
    frames: int
    size: tuple[int, int]
    """(width, height) of the images."""
    poses: str
    """Where the poses come from."""
    counts: dict[str, tuple[int, int]]
    """How many of how many frames (or flows) have each of the keys of COSTS."""
    pose_check: PoseCheck
    pair_names: list[tuple[str, str]] = field(default_factory=list)
    """Image names of the pairs in `pose_check.errors`."""
    left_out: list[str] = field(default_factory=list)
    """Sentences: frames that were left out."""
    warnings: list[str] = field(default_factory=list)
    """Sentences."""
    errors: list[str] = field(default_factory=list)
    """Sentences: why nobody should train on this."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further findings: share of moving pixels, near, far, classes, ..."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "missing": self.missing}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Summary:
        """From what `to_json` gave, read back from a file."""
        values = {key: value for key, value in content.items() if key != "missing"}
        values["counts"] = {name: (have, total) for name, (have, total) in content["counts"].items()}
        values["pair_names"] = [(a, b) for a, b in content["pair_names"]]
        width, height = content["size"]
        return cls(**{**values, "size": (width, height), "pose_check": PoseCheck.from_json(content["pose_check"])})

    @property
    def missing(self) -> dict[str, str]:
        """What is missing on at least one frame, and what that costs."""
        return {
            f"no {name}" if have == 0 else f"{name} on {have} of {total}": COSTS[name] if have == 0 else PARTLY
            for name, (have, total) in self.counts.items()
            if have < total
        }

    def lines(self) -> list[str]:
        """For the terminal."""
        width, height = self.size
        lines = [f"{self.scene}: {self.frames} frames of {width}x{height}; poses: {self.poses}"]
        lines += [f"  left out: {sentence}" for sentence in self.left_out]
        lines += error_lines(self.pose_check, self.pair_names)
        lines += [f"  {name}: {value}" for name, value in self.details.items()]
        lines += [f"  {what}: {cost}" for what, cost in self.missing.items()]
        lines += [f"  warning: {sentence}" for sentence in self.warnings]
        lines += [f"  error: {sentence}" for sentence in self.errors]
        return lines


def error_lines(check: PoseCheck, names: Sequence[tuple[str, str]]) -> list[str]:
    """The epipolar errors of all pairs of frames, as a table."""
    if not check.errors:
        return []
    lines = [
        f"  epipolar error of static pixels, median over {len(check.errors)} pairs of frames: {check.error:.2f} px",
        "    pair of frames: error of the poses, of the best rigid motion, length of the flow (pixels)",
    ]
    for error, (a, b) in zip(check.errors, names, strict=True):
        mark = "  <- does not fit" if error.bad else ""
        lines.append(f"    {a} {b}: {error.error:.2f} {error.best:.2f} {error.motion:.1f}{mark}")
    return lines


def pose_errors(check: PoseCheck, names: Sequence[tuple[str, str]], what: str) -> tuple[list[str], list[str]]:
    """Sentences about poses that do not fit: errors, and warnings."""
    if check.wrong:
        sentence = (
            f"{what} do not fit the pictures: static pixels lie {check.error:.2f} px from their epipolar lines "
            f"(median; {len(check.bad)} of {len(check.errors)} pairs of frames are off). {check.advice}"
        )
        return [sentence.strip()], []
    if check.bad:
        listed = ", ".join(names[check.errors.index(error)][0] for error in check.bad[:5])
        more = f" and {len(check.bad) - 5} more" if len(check.bad) > 5 else ""
        return [], [f"{what} do not fit the flow after {listed}{more}: leave these frames out if they look bad."]
    if check.errors and max(error.motion for error in check.errors) < 0.5:
        return [], ["Hardly anything moves from frame to frame: wrong poses would not be noticed. Use fewer frames."]
    return [], []
