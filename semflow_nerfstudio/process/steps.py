"""Steps that can be interrupted: a finished step is not done again unless its inputs or options changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.whole_file import PARTIAL, whole_file

RECORDS = "process"
"""Folder of a scene that holds one record per step; what is in it alone belongs to `semflow process`."""

Item = TypeVar("Item")


class Progress(Protocol):
    """Told how many of `total` items of a step are done."""

    def __call__(self, done: int, total: int, note: str = "") -> object: ...


def write_json(path: Path, content: Any) -> None:
    """Write JSON such that the file is never half-written."""
    with whole_file(path) as hidden:
        hidden.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def file_stamp(path: Path) -> dict[str, Any]:
    """What tells whether a file is still the same: its absolute name, size and time of change."""
    status = path.stat()
    return {"path": str(path.resolve()), "bytes": status.st_size, "changed": status.st_mtime_ns}


def tree_stamp(path: Path) -> list[dict[str, Any]]:
    """Stamps of a file, or of all files below a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file_stamp(file) for file in files if file.is_file()]


class Step:
    """One step of the work on a scene, with a record of what it was made from.

        step = Step(scene, "flow", {"method": "dis"}, after=[frames], folders=("flow",))
        result = step.result()
        if result is None:
            step.begin()
            ...                      # skip what `step.has(path)` says is there
            result = step.finish({"pairs": 11}, files)

    Files that an interrupted step had finished are kept as long as its inputs and options stay the same, so every file
    has to be written as a whole (see `whole_file`).
    """

    def __init__(
        self,
        scene: Path,
        name: str,
        inputs: Mapping[str, Any],
        after: Sequence[Step] = (),
        folders: Sequence[str] = (),
        version: int = 1,
    ) -> None:
        """
        Args:
            scene: Folder of the scene.
            name: Name of the step, and of its record.
            inputs: Options and stamps of files that the result depends on; JSON values.
            after: Steps whose results it depends on.
            folders: Folders of the scene that hold its files, and nothing else.
            version: To be raised with every change of the code that changes the result.
        """
        self.scene = scene
        self.name = name
        self.folders = tuple(folders)
        content = [name, version, inputs, [step.key for step in after]]
        self.key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self.record = scene / RECORDS / f"{name}.json"

    def result(self) -> dict[str, Any] | None:
        """What the step found, if it is done, with these inputs, and all its files are there."""
        record = self._read()
        if record.get("key") != self.key or not record.get("done"):
            return None
        there = all((self.scene / file).is_file() for file in record["files"])
        return record["result"] if there else None

    def begin(self) -> None:
        """Remove what was made from other inputs; keep what an interrupted run of this step has finished."""
        if self._read().get("key") != self.key:
            for folder in self.folders:
                shutil.rmtree(self.scene / folder, ignore_errors=True)
        for folder in self.folders:
            (self.scene / folder).mkdir(parents=True, exist_ok=True)
            for leftover in (self.scene / folder).glob(f"{PARTIAL}*"):
                leftover.unlink(missing_ok=True)
        write_json(self.record, {"key": self.key, "done": False})

    def has(self, path: Path) -> bool:
        """Whether this file need not be made: an interrupted run of this step has finished it."""
        return path.is_file()

    def finish(self, result: dict[str, Any], files: Iterable[Path] = ()) -> dict[str, Any]:
        """Record the step as done, with what it found (JSON values) and the files that it made."""
        names = [path.relative_to(self.scene).as_posix() for path in files]
        write_json(self.record, {"key": self.key, "done": True, "files": names, "result": result})
        return result

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def claim(scene: Path, source: Path) -> None:
    """Make the folder of a new scene, or go on with one that this program made.

    Raises:
        SceneDataError: the folder holds other things, is a file, or is or contains the source.
    """
    where, origin = scene.resolve(), source.resolve()
    if where == origin or where in origin.parents:
        raise SceneDataError(f"{source} lies in {scene}, which is to hold the new scene: name another folder for it.")
    if scene.exists() and not scene.is_dir():
        raise SceneDataError(f"{scene} is a file: name a folder for the new scene.")
    if scene.is_dir() and any(scene.iterdir()) and not (scene / RECORDS).is_dir():
        raise SceneDataError(f"{scene} holds files that `semflow process` did not make: name a new folder.")
    (scene / RECORDS).mkdir(parents=True, exist_ok=True)


def workers(jobs: int | None) -> int:
    """How many threads to work with: `jobs`, or one for each processor, at most 8."""
    return max(1, min(jobs or os.cpu_count() or 1, 8))


def each(items: Sequence[Item], work: Callable[[Item], object], jobs: int | None, progress: Progress) -> None:
    """Do `work` on every item in threads, showing progress. The first error (or Ctrl-C) ends it soon."""
    progress(0, len(items))
    with ThreadPoolExecutor(workers(jobs)) as pool:
        waiting: set[Future] = {pool.submit(work, item) for item in items}
        done = 0
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5, return_when="FIRST_COMPLETED")
                for future in finished:
                    future.result()
                done += len(finished)
                progress(done, len(items))
        finally:
            for future in waiting:
                future.cancel()
