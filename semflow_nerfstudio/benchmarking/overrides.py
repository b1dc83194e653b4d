"""Settings by dotted name: how the rows of a benchmark say what differs from the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig

SHORT = {"model": "pipeline.model", "data": "pipeline.datamanager", "parser": "pipeline.datamanager.dataparser"}
"""First words that stand for longer ones."""


def apply_overrides(config: TrainerConfig, overrides: Mapping[str, Any]) -> TrainerConfig:
    """Set entries of a configuration, such as {"model.render.window": 5}; lists become tuples.

    Raises:
        ValueError: there is no such entry, or the configuration refuses the value.
    """
    for name, value in overrides.items():
        first, _, rest = name.partition(".")
        path = f"{SHORT.get(first, first)}.{rest}" if rest else SHORT.get(first, first)
        config = _set(config, path.split("."), tuple(value) if isinstance(value, list) else value, name)
    return config


def _set(node: Any, path: list[str], value: Any, name: str) -> Any:
    """The dataclass with one entry changed: in place where it allows that, checked as if it were made anew."""
    head, *rest = path
    if not is_dataclass(node) or head not in {field.name for field in fields(node)}:
        raise ValueError(f"there is no setting '{name}': {type(node).__name__} has no '{head}'")
    if rest:
        value = _set(getattr(node, head), rest, value, name)
    if rest and not node.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        setattr(node, head, value)
        return node
    return replace(node, **{head: value})  # type: ignore[type-var]
