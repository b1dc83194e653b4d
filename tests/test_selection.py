"""The choice of what a run shows: written, read, moved, taken back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from semflow_nerfstudio.selection import (
    Selection,
    clear_selection,
    loaded_run_folder,
    read_selection,
    write_selection,
)


def test_nothing_chosen(tmp_path: Path) -> None:
    assert read_selection(tmp_path) == Selection(None, None)


def test_round_trip_and_a_moved_run(tmp_path: Path) -> None:
    run, edits = tmp_path / "run", tmp_path / "edits.json"
    run.mkdir()
    edits.write_text('{"hidden": ["class:cat"]}')
    written = write_selection(run, "A", edits)
    edits.unlink()
    assert read_selection(run) == written and written.scene_state is not None
    moved = Path(shutil.move(run, tmp_path / "moved"))
    chosen = read_selection(moved)
    assert chosen.scene == "A" and chosen.scene_state is not None and chosen.scene_state.parent == moved
    assert json.loads(chosen.scene_state.read_text()) == {"hidden": ["class:cat"]}
    assert write_selection(moved, None, chosen.scene_state) == Selection(None, chosen.scene_state)
    assert write_selection(moved, "B", None) == read_selection(moved) == Selection("B", None)
    assert [path.name for path in moved.iterdir()] == ["selection.json"]
    clear_selection(moved)
    assert read_selection(moved) == Selection() and not list(moved.iterdir())


@pytest.mark.parametrize("content", ["{", "[]", '{"scene": 3}'])
def test_a_broken_choice_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "selection.json").write_text(content)
    with pytest.raises(ValueError, match=r"selection\.json .*write it again with `semflow select`") as error:
        read_selection(tmp_path)
    assert "\n" not in str(error.value)


def test_edits_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json does not exist"):
        write_selection(tmp_path, "A", tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"list\.json holds no JSON object"):
        write_selection(tmp_path, "A", tmp_path / "list.json")
    assert read_selection(tmp_path) == Selection()
    edits = tmp_path / "edits.json"
    edits.write_text("{}")
    kept = write_selection(tmp_path, "A", edits).scene_state
    assert kept is not None
    kept.unlink()
    with pytest.raises(ValueError, match="does not exist"):
        read_selection(tmp_path)


def test_outside_of_loading_there_is_no_run() -> None:
    assert loaded_run_folder() is None
