"""Configurations that are read back from the config.yml of older versions."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any


class SavedConfig:
    """Base of dataclasses that config.yml files hold: what a file lacks, since it came later, has its default.

    YAML restores an object's attributes without calling its constructor, which would leave new ones out.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            if field.name in state:
                continue
            if field.default_factory is not MISSING:
                self.__dict__[field.name] = field.default_factory()
            elif field.default is not MISSING:
                self.__dict__[field.name] = field.default
        self.__dict__.update(state)
