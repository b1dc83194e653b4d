"""Results of measurements: one JSON file a run, found again by what was measured."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from semflow_nerfstudio.whole_file import whole_file


@dataclass(frozen=True)
class RunKey:
    """What a run measured: two runs with equal keys measure the same."""

    benchmark: str
    """Which measurement, such as quality, speed or tasks."""
    configuration: str
    """Name of the row, for people; what differs from the default is said by `overrides`."""
    scene: str
    """Name of the scene."""
    seed: int = 0
    """Seed of the run."""
    commit: str = "unknown"
    """Commit of the package (`machine.commit`)."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Everything that tells this run from others of the benchmark: plain values by (dotted) name."""

    @property
    def fingerprint(self) -> str:
        """Eight digits of everything but name and commit: rows that are configured alike have the same."""
        settings = [self.benchmark, self.scene, self.seed, dict(self.overrides)]
        text = json.dumps(settings, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def file_name(self) -> str:
        """Name of the run's file."""
        parts = (self.configuration, self.scene, f"seed{self.seed}", self.fingerprint, self.commit)
        return "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts) + ".json"


class Records:
    """The runs in a folder.

    Rows that are configured alike share a run whatever their names are: `find` goes by the fingerprint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def find(self, key: RunKey, any_commit: bool = False) -> dict[str, Any] | None:
        """The record of a run that was made already; None where there is none.

        Args:
            key: What was measured.
            any_commit: Also take one of another commit of the package; of several, the one measured last.
        """
        ending = "*" if any_commit else key.commit
        found = [read_record(path) for path in sorted(self.folder.glob(f"[!.]*_{key.fingerprint}_{ending}.json"))]
        return max(found, key=lambda record: record["measured"]) if found else None

    def write(self, key: RunKey, content: Mapping[str, Any]) -> Path:
        """Write a run's record, replacing one of the same file name, and return its path.

        The key's entries and the time come first in the file; NaN and infinities, which JSON cannot hold, become null.
        """
        path = self.folder / key.file_name
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(path, asdict(key) | {"fingerprint": key.fingerprint, "measured": now} | dict(content))
        return path

    def all(self) -> list[dict[str, Any]]:
        """All records, by file name."""
        return [read_record(path) for path in sorted(self.folder.glob("[!.]*.json"))]


def read_record(path: Path) -> dict[str, Any]:
    """One record.

    Raises:
        ValueError: the file is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no result ({error}): delete it, and the run is made again.") from error
    if not isinstance(content, dict) or "measured" not in content:
        raise ValueError(f"{path} is no result (it does not say when it was measured): delete it to measure again.")
    return content


def write_json(path: Path, content: Any) -> None:
    """Write JSON such that the file is never half-written; what JSON cannot hold becomes null."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """The same value with NaN and infinities as None and tuples as lists, however deep."""
    if isinstance(value, Mapping):
        return {str(name): without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
