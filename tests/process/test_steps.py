"""Steps: what is done is not done again, what changed is, and what was interrupted goes on."""

import json

import pytest

from semflow_nerfstudio.process.steps import Step, each
from semflow_nerfstudio.whole_file import whole_file


def run(scene, inputs, after=(), names=("a", "b"), fail_at=None, name="step"):
    """A step that writes files; returns it and which it wrote now."""
    step = Step(scene, name, inputs, after=after, folders=(f"made_{name}",))
    wrote = []
    if step.result() is None:
        step.begin()
        files = [scene / f"made_{name}" / name_ for name_ in names]
        for file in files:
            if step.has(file):
                continue
            if file.name == fail_at:
                raise KeyboardInterrupt
            with whole_file(file) as hidden:
                hidden.write_text(json.dumps(inputs))
            wrote.append(file.name)
        step.finish({"count": len(files)}, files)
    return step, wrote


def test_a_done_step_is_not_done_again(tmp_path):
    assert run(tmp_path, {"x": 1})[1] == ["a", "b"]
    step, wrote = run(tmp_path, {"x": 1})
    assert wrote == [] and step.result() == {"count": 2}


def test_changed_options_remove_what_was_made(tmp_path):
    run(tmp_path, {"x": 1}, names=("a", "b", "old"))
    assert run(tmp_path, {"x": 2})[1] == ["a", "b"]
    assert sorted(p.name for p in (tmp_path / "made_step").iterdir()) == ["a", "b"]


def test_steps_after_a_changed_one_are_done_again(tmp_path):
    first, _ = run(tmp_path, {"x": 1})
    assert run(tmp_path, {}, after=[first], name="next")[1] == ["a", "b"]
    assert run(tmp_path, {}, after=[first], name="next")[1] == []
    first, _ = run(tmp_path, {"x": 2})
    assert run(tmp_path, {}, after=[first], name="next")[1] == ["a", "b"]


def test_an_interrupted_step_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {"x": 1}, fail_at="b")
    assert Step(tmp_path, "step", {"x": 1}, folders=("made_step",)).result() is None
    (tmp_path / "made_step/.partial-1-b").write_text("half")
    assert run(tmp_path, {"x": 1})[1] == ["b"]
    assert not list((tmp_path / "made_step").glob(".partial*"))


def test_an_interrupted_step_with_other_options_starts_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {"x": 1}, fail_at="b")
    assert run(tmp_path, {"x": 2})[1] == ["a", "b"]


def test_lost_files_are_made_again(tmp_path):
    run(tmp_path, {})
    (tmp_path / "made_step/a").unlink()
    assert run(tmp_path, {})[1] == ["a"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"key": 3}'])
def test_a_broken_record_means_not_done(tmp_path, content):
    run(tmp_path, {})
    (tmp_path / "process/step.json").write_text(content)
    assert run(tmp_path, {})[1] == ["a", "b"]


def test_a_file_appears_as_a_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a/b.txt") as hidden:
        hidden.write_text("half")
        raise RuntimeError
    assert list((tmp_path / "a").iterdir()) == []


def test_each_does_everything_and_passes_errors_on():
    seen, told = [], []
    each(range(20), seen.append, 3, lambda done, total, note="": told.append((done, total)))
    assert sorted(seen) == list(range(20)) and told[0] == (0, 20) and told[-1] == (20, 20)

    def fail(item):
        if item == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        each(range(20), fail, 2, lambda done, total, note="": None)
