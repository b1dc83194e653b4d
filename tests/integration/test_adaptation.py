"""A trained run's shared networks in a run of a new scene: exactly they, with few labels or none."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.engine.trainer import Trainer
from PIL import Image
from several_scenes import MERGED
from tiny_runs import TrainedRun, dataset_of, model_of, parameters, render, set_up, tiny_config, tiny_model, train
from tiny_scenes import COLORS, save_image, write_dynamic_scene

from semflow_nerfstudio.completion import complete
from semflow_nerfstudio.data.labels import read_label_map
from semflow_nerfstudio.data.modalities import decode_labels
from semflow_nerfstudio.runs import evaluate, load_run
from semflow_nerfstudio.training.adaptation import read_shared

CAT = (7, 8, 9)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene without a person and a dog, with a cat."""
    folder = write_dynamic_scene(tmp_path_factory.mktemp("new"), count=3, test_cameras=3)
    (folder.parent / "labelmap.txt").write_text("cat:7,8,9::\nbackground:0,0,0::\nballoon:220,20,60::\n")
    (folder.parent / "foreground_object.txt").write_text("cat\nballoon\n")
    for file in (*folder.glob("SegmentationClass_train/*.png"), *folder.glob("multiview_GT_semantic/*/*.png")):
        pixels = np.array(Image.open(file).convert("RGB"))
        pixels[(pixels == COLORS[1]).all(-1)] = CAT
        save_image(file, pixels)
    return folder


def adapt(scene: Path, out: Path, source: TrainedRun, steps: int = 6, **model: Any) -> Any:
    settings = {"static_steps": 1, "adapt_from": source.folder, "adapt_field_steps": 2, **model}
    return tiny_config(scene, out, steps=steps, **settings)


def shared_of(run: Any) -> dict[str, torch.Tensor]:
    shared = model_of(run).shared
    assert shared is not None
    # The confidence's temperature and how often classes are labelled follow the labels whatever is frozen.
    fitted = ("calibration.", "class_prior.")
    return {name: value.clone() for name, value in shared.state_dict().items() if not name.startswith(fitted)}


def test_exactly_the_shared_part_is_taken(
    scene: Path, run_of_two: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """From a folder or a file, and the run says what; nothing of the source's fields is taken, in any layer."""
    source = read_shared(run_of_two.folder).state
    for place in (run_of_two.folder, run_of_two.checkpoint):
        trainer = set_up(adapt(scene, tmp_path, run_of_two, adapt_from=place))
        assert model_of(trainer).class_names == (*MERGED, "cat")
        for name, value in shared_of(trainer).items():
            assert torch.equal(value[: len(source[name])], source[name]), name
        printed = " ".join(capsys.readouterr().out.split())
        assert f"Took the shared networks ({len(source)} tensors" in printed
        assert "2 of its 4 classes are matched by name (background, balloon)" in printed
        assert "2 are kept though the scene lacks them (person, dog), 1 are new (cat)" in printed
    own = model_of(trainer).scene("Scene")
    for residual in (own.static_residual, own.flow_residual):
        assert all((value == 0).all() for value in residual.layers[-1].parameters())
    saved = torch.load(run_of_two.checkpoint)["pipeline"]
    fields = {n: p for n, p in parameters(trainer).items() if n.startswith("scenes.") and p.numel() and p.std() > 0}
    kinds = ("static_field", "dynamic_field", "flow_field", "proposal_fields", "static_residual", "flow_residual")
    assert all(any(name.split(".")[2] == kind for name in fields) for kind in kinds), fields.keys()
    for name, value in fields.items():
        assert not any(torch.equal(value, v) for v in saved.values() if v.shape == value.shape), name


def test_fields_first_then_labels_for_some_steps(scene: Path, run_of_two: TrainedRun, tmp_path: Path) -> None:
    """Steps 0 and 1 train fields, 2 and 3 learn from labels, 4 and 5 do not any more."""
    seen: list[dict[str, torch.Tensor]] = []
    fields: list[torch.Tensor] = []

    def watch(trainer: Trainer, step: int) -> None:
        seen.append(shared_of(trainer))
        fields.append(model_of(trainer).scene("Scene").static_field.state_dict()["grid.table"].clone())

    trainer = train(adapt(scene, tmp_path, run_of_two, adapt_label_steps=2), watch)
    seen.append(shared_of(trainer))
    changed = [any(not torch.equal(a[n], b[n]) for n in a) for a, b in pairwise(seen)]
    assert changed == [False, False, True, True, False, False]
    assert all(not torch.equal(a, b) for a, b in pairwise(fields))


def test_the_shared_part_can_be_frozen(scene: Path, run_of_two: TrainedRun, tmp_path: Path) -> None:
    first: dict[str, torch.Tensor] = {}
    config = adapt(scene, tmp_path, run_of_two, steps=4, adapt_freeze_shared=True)
    trainer = train(config, lambda trainer, step: first.update(shared_of(trainer)) if step == 0 else None)
    assert all(torch.equal(value, first[name]) for name, value in shared_of(trainer).items())
    grouped = {id(p) for group in model_of(trainer).get_param_groups().values() for p in group}
    model = model_of(trainer)
    assert model.shared is not None and not grouped & {id(p) for p in model.shared.parameters()}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad and p.numel()}
    residual = model.scene("Scene").static_residual
    assert (residual.layers[-1].weight != 0).any()  # they learn from the labels


def test_an_adapted_run_needs_its_source_no_more(scene: Path, run_of_two: TrainedRun, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(run_of_two.folder, source)
    trainer = train(adapt(scene, tmp_path / "runs", run_of_two, adapt_from=source, steps=3))
    shutil.rmtree(source)
    run = load_run(trainer.base_dir)
    assert run.model.class_names == (*MERGED, "cat")
    assert torch.equal(render(run)["semantics"], render(trainer)["semantics"])
    scores = evaluate(run, [0])
    assert {"iou_cat", "iou_dog"} <= scores.keys() and np.isfinite(scores["miou"])


def test_an_adaptation_is_resumed(scene: Path, run_of_two: TrainedRun, tmp_path: Path) -> None:
    first = train(adapt(scene, tmp_path, run_of_two, steps=3))
    config = adapt(scene, tmp_path / "on", run_of_two, steps=2)
    config.load_dir = first.checkpoint_dir
    trainer = set_up(config)
    assert all(torch.equal(value, shared_of(first)[name]) for name, value in shared_of(trainer).items())
    trainer.train()
    assert trainer.step == 4


def test_zero_shot_reads_no_label(
    scene: Path, run_of_two: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Without class table and labels, and with broken ones, the result is the same; scores come from a later look."""
    source = read_shared(run_of_two.folder).state
    results = {}
    for kind in ("whole", "gone", "broken"):
        folder = shutil.copytree(scene.parent, tmp_path / kind) / "Scene"
        if kind == "gone":
            for path in (folder / "SegmentationClass_train", folder / "multiview_GT_semantic"):
                shutil.rmtree(path)
            (folder.parent / "labelmap.txt").unlink()
        elif kind == "broken":
            for file in (*folder.glob("SegmentationClass_train/*"), *folder.glob("multiview_GT_semantic/*/*")):
                file.write_bytes(b"broken")
            (folder.parent / "labelmap.txt").write_text("broken")
        config = adapt(folder, tmp_path / "runs" / kind, run_of_two, adapt_label_steps=0)
        config.steps_per_eval_image = config.steps_per_eval_all_images = 2
        results[kind] = train(config)
        assert "its 4 classes (background, person, balloon, dog) become the scene's" in " ".join(
            capsys.readouterr().out.split()
        )
    whole = parameters(results["whole"])
    for kind in ("gone", "broken"):
        other = parameters(results[kind])
        assert other.keys() == whole.keys() and all(torch.equal(value, other[name]) for name, value in whole.items())
    assert model_of(results["whole"]).class_names == MERGED
    assert all(torch.equal(value, source[name]) for name, value in shared_of(results["whole"]).items())

    for file in (tmp_path / "whole/Scene/SegmentationClass_train").iterdir():
        file.write_bytes(b"broken")
    run = load_run(results["whole"].base_dir)
    assert not dataset_of(run, "train").has("labels")
    assert set(np.unique(dataset_of(run)[0]["labels"])) == {0, 2, 255}  # the cat is not known, so it is not scored
    assert np.isfinite(evaluate(run, [0])["miou"])
    gone = load_run(results["gone"].base_dir)
    assert torch.equal(render(gone)["semantics"], render(run)["semantics"])

    # The labels that it hands back are of the classes that it came with, in the layout of its scene.
    files = complete(gone, tmp_path / "completed")
    table = read_label_map(tmp_path / "completed/labelmap.txt", tmp_path / "completed/foreground_object.txt")
    assert table.names == MERGED and str(files[0].name) == "SegmentationClass_train/000.png"
    shown = render(gone, "train")["label"][..., 0].numpy()
    np.testing.assert_array_equal(decode_labels(tmp_path / "completed" / files[0].name, table), shown)


def test_what_does_not_fit_is_refused(scene: Path, run_of_two: TrainedRun, tmp_path: Path) -> None:
    shared = tiny_model().shared
    shared.hidden_dim += 1
    with pytest.raises(ValueError, match=r"has shared networks of another size .*--pipeline\.model\.shared") as error:
        set_up(adapt(scene, tmp_path, run_of_two, shared=shared))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"after 2 steps, but .* at least 1 with them: use --max-num-iterations 3"):
        set_up(adapt(scene, tmp_path, run_of_two, steps=2))
    with pytest.raises(ValueError, match=r"after 4 steps, but .* another 3 with them: use --max-num-iterations 5"):
        set_up(adapt(scene, tmp_path, run_of_two, steps=4, adapt_label_steps=3))
    with pytest.raises(ValueError, match="is no checkpoint and holds none"):
        set_up(adapt(scene, tmp_path, run_of_two, adapt_from=tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("option", "value"), [("adapt_field_steps", 5), ("adapt_label_steps", 0), ("adapt_freeze_shared", True)]
)
def test_options_that_would_mean_nothing_are_refused(
    run_of_two: TrainedRun, tmp_path: Path, option: str, value: Any
) -> None:
    """Before any data is read."""
    name = f"--pipeline.model.{option.replace('_', '-')}"
    with pytest.raises(ValueError, match=rf"{name} is {value}, but no run is adapted: .*--pipeline\.model\.adapt-from"):
        set_up(tiny_config(tmp_path / "nowhere", tmp_path, **{option: value}))
    if option.endswith("steps"):
        with pytest.raises(ValueError, match=rf"{name} is -1: use a number of steps from 0 up"):
            set_up(adapt(tmp_path / "nowhere", tmp_path, run_of_two, **{option: -1}))


def test_saved_runs_are_shown_whatever_they_say_of_adaptations(run_of_two: TrainedRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run_of_two.folder, tmp_path / "run"))
    text = (folder / "config.yml").read_text()
    for before, after in (("freeze_shared: false", "freeze_shared: true"), ("label_steps: null", "label_steps: 5")):
        assert f"adapt_{before}" in text
        text = text.replace(f"adapt_{before}", f"adapt_{after}")
    (folder / "config.yml").write_text(text)
    run = load_run(folder)
    assert run.model.config.adapt_freeze_shared and run.model.config.adapt_label_steps == 5
