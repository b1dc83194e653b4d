"""What may import what: the core runs on torch alone, devices are chosen in one place, heavy extras are optional."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import semflow_nerfstudio

PACKAGE = Path(semflow_nerfstudio.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
CORE_FOLDERS = ("encodings/", "fields/", "flow/", "rendering/", "training/")
CORE_FILES = ("cameras.py", "scene_frames.py", "scene.py", "shared.py", "renderer.py", "rendered.py", "saved_config.py")
CORE = [name for name in SOURCES if name.startswith(CORE_FOLDERS) or name in CORE_FILES]
BACKENDS = [name for name in CORE if name.startswith("encodings/") and name.endswith(("_backend.py", "_kernels.py"))]
USERS_OF_THE_MODEL = (
    *("configs/", "pipeline.py", "runs.py", "viewer", "benchmarking/", "cli/"),
    *("surface_points.py", "editing/find_instances.py", "export/"),
)


def imports(node: ast.AST, everywhere: bool = True) -> Iterator[str]:
    """Full names of the modules that are imported; `everywhere`: inside functions, too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield child.module or ""
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif everywhere or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(child, everywhere)


def tree(name: str) -> ast.Module:
    return ast.parse(SOURCES[name].read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CORE)
def test_core_imports_torch_alone(name: str) -> None:
    allowed = {"torch", "jaxtyping", *sys.stdlib_module_names}
    if name in BACKENDS:
        allowed |= {"numba", "numpy", "triton", "tinycudann"}
    foreign = {module for module in imports(tree(name)) if module.split(".")[0] not in allowed | {"semflow_nerfstudio"}}
    assert not foreign, f"{name} imports {foreign}"


@pytest.mark.parametrize("name", CORE)
def test_core_does_not_reach_outside_through_the_package(name: str) -> None:
    own = {module for module in imports(tree(name)) if module.startswith("semflow_nerfstudio.")}
    paths = {module.removeprefix("semflow_nerfstudio.").replace(".", "/") for module in own}
    outside = {p for p in paths if f"{p}.py" in SOURCES and f"{p}.py" not in CORE}
    assert not outside, f"{name} imports {outside}"


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith(USERS_OF_THE_MODEL)])
def test_only_the_outermost_parts_import_the_model(name: str) -> None:
    assert "semflow_nerfstudio.model" not in set(imports(tree(name)))


def named_devices(module: ast.Module) -> Iterator[int]:
    """Lines that call `.cuda()` or hold the literal "cuda"."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            yield node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split(":")[0] == "cuda":
            yield node.lineno


@pytest.mark.parametrize("name", [n for n in SOURCES if n != "compat.py" and not n.startswith("encodings/")])
def test_devices_are_chosen_in_one_place(name: str) -> None:
    assert list(named_devices(tree(name))) == []


@pytest.mark.parametrize("name", SOURCES)
def test_optional_extras_are_not_imported_at_module_level(name: str) -> None:
    heavy = {"tinycudann", "open3d"}
    if name not in BACKENDS:
        heavy |= {"numba", "triton"}
    found = {module.split(".")[0] for module in imports(tree(name), everywhere=False)}
    assert not found & heavy


def test_the_rules_see_the_files_they_are_about() -> None:
    assert {"encodings/hash_grid.py", "fields/static_field.py", "flow/timeline.py", "training/losses.py"} <= set(CORE)
    assert set(CORE_FILES) <= set(CORE) and "encodings/numba_backend.py" in BACKENDS
    assert list(named_devices(ast.parse('x.cuda()\ny = x.to("cuda:0")\ntorch.cuda.is_available()'))) == [1, 2]
    assert list(imports(ast.parse("def f():\n import numba.core\nfrom a import b"))) == ["numba.core", "a", "a.b"]
    assert list(imports(ast.parse("def f():\n import numba\nimport c"), everywhere=False)) == ["c"]


def test_test_modules_have_names_of_their_own() -> None:
    """pytest imports them by their bare names."""
    names = [
        path.name for path in Path(__file__).parent.rglob("*.py") if path.name not in ("__init__.py", "conftest.py")
    ]
    assert sorted(names) == sorted(set(names))
