"""`scene_state.json`: a scene state as a file."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.scene_state import (
    Copy,
    ObjectEdit,
    Rgb,
    SceneState,
    check_color,
    check_edit,
    from_euler,
    normalized,
    parse_target,
)
from semflow_nerfstudio.whole_file import whole_file

FORMAT, VERSION = "semflow scene state", 1
_KEYS = {"format", "version", *(entry.name for entry in fields(SceneState))}


def to_json(state: SceneState) -> dict[str, Any]:
    """The state as JSON values; what is as by default is left out of objects."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "scene": state.scene,
        "objects": {target: _changed(edit, ObjectEdit()) for target, edit in state.objects.items()},
        "isolate": list(state.isolate),
        "background": None if state.background is None else list(state.background),
        "class_colors": {name: list(color) for name, color in state.class_colors.items()},
        "hidden_classes": list(state.hidden_classes),
    }


def from_json(content: Any) -> SceneState:
    """A state out of JSON values; keys that are left out are as by default.

    Raises:
        ValueError: wrong types, names or numbers; the message says where.
    """
    if not isinstance(content, dict) or content.get("format", FORMAT) != FORMAT or "version" not in content:
        raise ValueError(f'this is no scene state, which has "format": "{FORMAT}" and a "version"')
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']!r}, but {VERSION} is the one that can be read")
    _only(content, _KEYS, "the file")
    objects = {}
    for target, values in _mapping(content.get("objects", {}), "objects").items():
        parse_target(target)
        objects[target] = _edit(target, _mapping(values, f"objects {target}"))
    isolate = _strings(content.get("isolate", []), "isolate")
    for target in isolate:
        parse_target(target)
    background, scene = content.get("background"), content.get("scene")
    if scene is not None and not isinstance(scene, str):
        raise ValueError("scene must be a name or null")
    colors = _mapping(content.get("class_colors", {}), "class_colors")
    return SceneState(
        objects={target: edit for target, edit in objects.items() if edit != ObjectEdit()},
        isolate=isolate,
        background=None if background is None else _color(background, "background"),
        class_colors={name: _color(value, f"class_colors {name}") for name, value in colors.items()},
        hidden_classes=_strings(content.get("hidden_classes", []), "hidden_classes"),
        scene=scene,
    )


def save_scene_state(state: SceneState, path: Path) -> None:
    """Write a state; the file is never half-written."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(to_json(state), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_scene_state(path: Path) -> SceneState:
    """Read a state.

    Raises:
        SceneDataError: naming the file, if it is no scene state or its values cannot be used. Whether a run has the
            classes and instances is for `scene_state.check_known` to say.
    """
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SceneDataError(
            f"{path}: there is no scene state here; save one from the viewer's Edit panel or write it by hand."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SceneDataError(f"{path}: this is no readable JSON ({error}); save the scene state again.") from error
    except ValueError as error:
        raise SceneDataError(f"{path}: {error}; correct the file or save it again.") from error


def _changed(item: ObjectEdit | Copy, default: ObjectEdit | Copy) -> dict[str, Any]:
    values = {entry.name: getattr(item, entry.name) for entry in fields(item)}
    changed = {name: value for name, value in values.items() if value != getattr(default, name)}
    if "copies" in changed:
        changed["copies"] = [_changed(copy, Copy()) for copy in changed["copies"]]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def _edit(target: str, values: dict[str, Any]) -> ObjectEdit:
    where = f"objects {target}"
    _only(values, {entry.name for entry in fields(ObjectEdit)}, where)
    read: dict[str, Any] = {}
    for name, value in values.items():
        at = f"{where} {name}"
        if name == "hidden":
            if not isinstance(value, bool):
                raise ValueError(f"{at} must be true or false")
            read[name] = value
        elif name == "color":
            read[name] = None if value is None else _color(value, at)
        elif name == "translation":
            read[name] = _numbers(value, (3,), at)
        elif name == "rotation":
            numbers = _numbers(value, (3, 4), at)
            read[name] = from_euler(numbers) if len(numbers) == 3 else _unit(numbers, at)
        elif name == "copies":
            if not isinstance(value, list):
                raise ValueError(f"{at} must be a list")
            read[name] = tuple(_copy(_mapping(copy, at), at) for copy in value)
        else:
            read[name] = _number(value, at)
    edit = ObjectEdit(**read)
    try:
        check_edit(edit)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return edit


def _copy(values: dict[str, Any], where: str) -> Copy:
    _only(values, {entry.name for entry in fields(Copy)}, where)
    x, y, z = _numbers(values.get("offset", [0, 0, 0]), (3,), f"{where} offset")
    return Copy((x, y, z), _number(values.get("time_offset", 0.0), f"{where} time_offset"))


def _unit(numbers: tuple[float, ...], where: str) -> tuple[float, ...]:
    length = math.hypot(*numbers)
    if length < 1e-9:
        raise ValueError(f"{where} is zero, but a rotation is a quaternion (w, x, y, z) or three angles in degrees")
    # What is a unit quaternion already stays bit for bit what it was.
    return numbers if abs(length - 1) < 1e-9 else normalized(numbers)


def _only(values: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where} has '{unknown[0]}', but known are {', '.join(sorted(known))}")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object with names and values")
    return value


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{where} must be a list of names")
    return tuple(dict.fromkeys(value))


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, not {value!r}")
    return float(value)


def _numbers(value: Any, counts: tuple[int, ...], where: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) not in counts:
        raise ValueError(f"{where} must be a list of {' or '.join(str(c) for c in counts)} numbers")
    return tuple(_number(item, where) for item in value)


def _color(value: Any, where: str) -> Rgb:
    red, green, blue = _numbers(value, (3,), where)
    check_color((red, green, blue), where)
    return red, green, blue
