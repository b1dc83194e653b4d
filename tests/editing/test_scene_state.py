"""Scene states are values: every edit is a new one, files bring back the same, and wrong files say what is wrong."""

import json
import math
from pathlib import Path

import pytest

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.scene_state import (
    Copy,
    History,
    ObjectEdit,
    SceneState,
    check_known,
    duplicate,
    from_euler,
    ghost,
    hide,
    isolate,
    parse_target,
    place,
    recolor,
    restore,
    rotation_matrix,
    with_background,
    with_class_color,
    with_class_visible,
    without_copies,
)
from semflow_nerfstudio.editing.scene_state_file import load_scene_state, save_scene_state, to_json


def everything() -> SceneState:
    state = hide(SceneState(scene="courtyard"), "class:person")
    state = ghost(state, "instance:3", 0.25)
    state = recolor(state, "moving", (1.0, 0.5, 0.0), 0.9)
    state = place(state, "instance:3", (0.1, -0.2, 1 / 3), from_euler((10, 20, 30)), 1.5)
    state = duplicate(duplicate(state, "instance:3", (1.0, 0.0, 0.0)), "instance:3", time_offset=0.25)
    state = with_background(isolate(state, ["instance:3", "static"]), (0.0, 1.0, 0.0))
    return with_class_visible(with_class_color(state, "floor", (0.2, 0.3, 0.4)), "wall", False)


def test_edits_return_new_states_and_leave_the_old_ones_alone() -> None:
    first = SceneState()
    second = hide(first, "class:person")
    assert first.empty and not first.edits_scene and first.edit("class:person") == ObjectEdit()
    assert second.edits_scene and second.edit("class:person").hidden and not second.empty
    moved = place(second, "class:person", translation=(1, 0, 0))
    assert moved.edit("class:person") == ObjectEdit(hidden=True, translation=(1.0, 0.0, 0.0))
    assert moved.edit("class:person").placed and not second.edit("class:person").placed
    assert restore(moved, "class:person").empty
    assert hide(second, "class:person", False).empty
    assert with_class_color(with_class_color(first, "floor", (1, 0, 0)), "floor", None).empty
    assert not with_class_visible(first, "floor", False).edits_scene
    assert with_class_visible(with_class_visible(first, "floor", False), "floor", True).empty


def test_copies_add_up_and_are_dropped_together() -> None:
    state = duplicate(duplicate(SceneState(), "instance:0", (1, 0, 0)), "instance:0", (2, 0, 0), 0.5)
    assert state.edit("instance:0").copies == (Copy((1.0, 0.0, 0.0)), Copy((2.0, 0.0, 0.0), 0.5))
    assert not state.edit("instance:0").placed
    assert without_copies(state, "instance:0").empty


def test_a_background_keeps_what_is_isolated_or_else_what_moves() -> None:
    assert SceneState().kept == ()
    assert with_background(SceneState(), (0, 1, 0)).kept == ("moving",)
    assert with_background(isolate(SceneState(), ["class:ball"]), (0, 1, 0)).kept == ("class:ball",)


@pytest.mark.parametrize("target", ["person", "class:", "instance:a", "instance:-1", "instance:", "moving:1", ""])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=f"'{target}' is no target: use class:NAME"):
        hide(SceneState(), target)
    with pytest.raises(ValueError, match="is no target"):
        isolate(SceneState(), [target])


def test_targets_are_read() -> None:
    assert parse_target("class:street lamp: old") == ("class", "street lamp: old")
    assert parse_target("instance:12") == ("instance", "12")
    assert parse_target("static") == ("static", "")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: ghost(s, "moving", 1.5), "opacity is 1.5"),
        (lambda s: ghost(s, "moving", math.nan), "opacity is nan"),
        (lambda s: recolor(s, "moving", (2, 0, 0)), "color is"),
        (lambda s: place(s, "moving", scale=0), "scale is 0"),
        (lambda s: place(s, "moving", translation=(math.inf, 0, 0)), "translation is"),
        (lambda s: place(s, "moving", rotation=(0, 0, 0, 0)), "quaternion"),
        (lambda s: duplicate(s, "moving", time_offset=2), "time_offset is 2"),
        (lambda s: with_background(s, (0, 0, -1)), "background is"),
    ],
)
def test_numbers_out_of_range_are_refused(edit, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edit(SceneState())


def test_rotations() -> None:
    z = rotation_matrix(from_euler((0, 0, 90)))
    for row, expected in zip(z, ((0, -1, 0), (1, 0, 0), (0, 0, 1)), strict=True):
        assert row == pytest.approx(expected, abs=1e-12)
    # About x first, then y: the y axis goes to z, then to x.
    both = rotation_matrix(from_euler((90, 90, 0)))
    assert [row[1] for row in both] == pytest.approx([1, 0, 0], abs=1e-12)


def test_files_bring_back_the_same_state(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "scene_state.json"
    for state in (SceneState(), everything()):
        save_scene_state(state, path)
        assert load_scene_state(path) == state
    assert [file.name for file in path.parent.iterdir()] == ["scene_state.json"]
    assert json.loads(path.read_text())["objects"]["class:person"] == {"hidden": True}


def test_hand_written_files_may_be_short_and_give_angles(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"version": 1, "objects": {"class:ball": {"rotation": [0, 0, 90], "copies": [{}]}, "moving": {}}}')
    state = load_scene_state(path)
    assert state == SceneState({"class:ball": ObjectEdit(rotation=from_euler((0, 0, 90)), copies=(Copy(),))})


def broken(**changes) -> str:
    return json.dumps(to_json(SceneState()) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable JSON"),
        ("[]", "no scene state"),
        ("{}", "no scene state"),
        (broken(format="other"), "no scene state"),
        (broken(version=2), "its version is 2"),
        (broken(objets={}), "has 'objets'"),
        (broken(objects=[]), "objects must be"),
        (broken(objects={"person": {}}), "'person' is no target"),
        (broken(objects={"moving": {"hiden": True}}), "objects moving has 'hiden'"),
        (broken(objects={"moving": {"hidden": 1}}), "objects moving hidden must be true or false"),
        (broken(objects={"moving": {"opacity": "full"}}), "objects moving opacity must be a finite number"),
        (broken(objects={"moving": {"opacity": 7}}), "objects moving: opacity is 7"),
        (broken(objects={"moving": {"translation": [1, 2]}}), "objects moving translation must be a list of 3 numbers"),
        (broken(objects={"moving": {"translation": [1, 2, math.nan]}}), "translation must be a finite number, not nan"),
        (broken(objects={"moving": {"rotation": [0, 0, 0, 0]}}), "rotation is zero"),
        (broken(objects={"moving": {"color": [1, 2, 3]}}), "color is"),
        (broken(objects={"moving": {"copies": [{"ofset": []}]}}), "has 'ofset'"),
        (broken(isolate="moving"), "isolate must be a list"),
        (broken(isolate=["all"]), "'all' is no target"),
        (broken(background="red"), "background must be a list of 3 numbers"),
        (broken(class_colors={"floor": [0, 0, 9]}), "class_colors floor is"),
        (broken(scene=3), "scene must be a name or null"),
    ],
)
def test_wrong_files_say_which_and_what(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(SceneDataError) as error:
        load_scene_state(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(SceneDataError, match="there is no scene state here"):
        load_scene_state(tmp_path / "none.json")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff")
    with pytest.raises(SceneDataError, match="no readable JSON"):
        load_scene_state(tmp_path / "picture.json")


def test_states_are_checked_against_a_run() -> None:
    state, classes = everything(), ["person", "floor", "wall"]
    check_known(state, classes, [3], ["courtyard"])
    check_known(state, classes, None, ["courtyard"])
    with pytest.raises(ValueError, match="no class 'person'; the run has floor, wall"):
        check_known(state, ["floor", "wall"], [3], ["courtyard"])
    with pytest.raises(ValueError, match="no class 'wall'"):
        check_known(state, ["person", "floor"], [3], ["courtyard"])
    with pytest.raises(ValueError, match="no instance 3; the scene has 0, 1"):
        check_known(state, classes, [1, 0], ["courtyard"])
    with pytest.raises(ValueError, match="no scene 'courtyard'; the run has lego"):
        check_known(state, classes, [3], ["lego"])


def test_history_goes_back_and_forth() -> None:
    history = History()
    assert not history.can_undo and history.undo() == SceneState() and history.redo() == SceneState()
    first = history.apply(hide(history.state, "moving"))
    second = history.apply(ghost(history.state, "static", 0.5))
    history.apply(second)
    assert history.undo() == first and history.undo().empty and not history.can_undo
    assert history.redo() == first and history.redo() == second and not history.can_redo
    history.undo()
    history.apply(hide(first, "class:ball"))
    assert not history.can_redo
    assert history.reset().empty and history.undo().edit("class:ball").hidden


def test_history_is_bounded_and_keeps_its_scene() -> None:
    history = History(SceneState(scene="lego"), limit=3)
    for opacity in (0.1, 0.2, 0.3, 0.4, 0.5):
        history.apply(ghost(history.state, "moving", opacity))
    assert [history.undo().edit("moving").opacity for _ in range(4)] == [0.4, 0.3, 0.2, 0.2]
    assert history.reset().scene == "lego"
