"""What a run shows when it is rendered: a scene, and edits of it; a small file beside the run's config.yml."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path

from semflow_nerfstudio.whole_file import whole_file

FILE = "selection.json"
STATE_FILE = "selected_scene_state.json"


@dataclass(frozen=True)
class Selection:
    """A choice that `semflow select` wrote."""

    scene: str | None = None
    """None: the run's default."""
    scene_state: Path | None = None
    """The edits' file, which lies beside config.yml; None: no edits."""


def write_selection(folder: Path, scene: str | None, scene_state: Path | None) -> Selection:
    """Write the choice for a run; the edits are copied beside it, so that a moved run keeps them.

    Args:
        folder: The run's folder.
        scene: Name of the scene.
        scene_state: File of edits to copy.

    Raises:
        ValueError: the file of edits cannot be read or is no JSON object.
    """
    kept = None
    if scene_state is not None:
        _read_object(scene_state, "save it again from the editor")
        kept = folder / STATE_FILE
        if scene_state.resolve() != kept.resolve():
            _write(kept, scene_state.read_bytes())
    content = {"scene": scene, "scene_state": None if kept is None else kept.name}
    _write(folder / FILE, (json.dumps(content, indent=2) + "\n").encode())
    if kept is None:
        (folder / STATE_FILE).unlink(missing_ok=True)
    return Selection(scene, kept)


def read_selection(folder: Path) -> Selection:
    """The choice for a run; an empty one where none was made.

    Raises:
        ValueError: a file of the choice is broken or missing.
    """
    path, remedy = folder / FILE, "write it again with `semflow select` or remove it"
    if not path.is_file():
        return Selection()
    content = _read_object(path, remedy)
    scene, state = content.get("scene"), content.get("scene_state")
    if not isinstance(scene, str | None) or not isinstance(state, str | None):
        raise ValueError(f"{path} is no choice of a scene: {remedy}")
    if state is not None:
        _read_object(folder / state, "choose again with `semflow select`")
    return Selection(scene, None if state is None else folder / state)


def clear_selection(folder: Path) -> None:
    """Go back to the run's default scene, without edits."""
    for name in (FILE, STATE_FILE):
        (folder / name).unlink(missing_ok=True)


def loaded_run_folder() -> Path | None:
    """The folder of the run that nerfstudio is loading just now; None where it is not loading any.

    Its pipelines are not told where they come from, so the place is read from `eval_setup` further up the stack: the
    config.yml that was given, wherever the run has been moved or copied since its training.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "eval_setup" and frame.f_globals.get("__name__") == "nerfstudio.utils.eval_utils":
            return Path(frame.f_locals["config_path"]).resolve().parent
        frame = frame.f_back
    return None


def _read_object(path: Path, remedy: str) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: {remedy}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no valid JSON ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: {remedy}")
    return content


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)
