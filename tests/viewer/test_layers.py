"""The viewer's internals are touched in one file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import semflow_nerfstudio.viewer

FOLDER = Path(semflow_nerfstudio.viewer.__file__).parent
FILES = sorted(path.name for path in FOLDER.glob("*.py"))


def run_time_imports(node: ast.AST) -> list[str]:
    """Modules that are imported, but for those that only type checkers see."""
    found: list[str] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found += [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            found.append(child.module or "")
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            found += run_time_imports(child)
    return found


@pytest.mark.parametrize("name", FILES)
def test_only_compat_knows_viser_and_nerfstudios_viewer(name: str) -> None:
    modules = run_time_imports(ast.parse((FOLDER / name).read_text(encoding="utf-8")))
    foreign = [module for module in modules if module.startswith(("viser", "nerfstudio.viewer"))]
    assert bool(foreign) == (name == "compat.py"), foreign
