"""One model of several scenes: trained, resumed, loaded, scored, rendered and chosen from."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.scripts import render as ns_render
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.utils import install_checks
from PIL import Image
from several_scenes import FRAMES, MERGED, SIZES
from tiny_runs import (
    STEPS,
    TrainedRun,
    dataset_of,
    forget_writers,
    manager_config,
    model_of,
    parameters,
    set_up,
    tiny_config,
    train,
    without,
)
from viewer_session import watched

from semflow_nerfstudio.cli import main
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.labels import read_label_map
from semflow_nerfstudio.data.modalities import decode_labels
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.editing.scene_state import SceneState, hide
from semflow_nerfstudio.export.export import export_run
from semflow_nerfstudio.export.options import ExportOptions
from semflow_nerfstudio.flow.frame_bank import FrameBank
from semflow_nerfstudio.runs import Run, evaluate, load_run
from semflow_nerfstudio.scene_outputs import SceneOutputs
from semflow_nerfstudio.selection import read_selection, write_selection
from semflow_nerfstudio.shared import SharedNetworks
from semflow_nerfstudio.training.objective import present_modalities
from semflow_nerfstudio.training.observed import observe
from semflow_nerfstudio.viewer.panel import SemanticsPanel

MERGED_SCENES = ("A", "B")


def of(root: Path, *names: str) -> DynamicSceneDataParserConfig:
    return DynamicSceneDataParserConfig(data=root, scenes=names)


def semflow(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["semflow", *map(str, arguments)])
        main.entrypoint()


@pytest.fixture
def run(run_of_two: TrainedRun) -> Run:
    return load_run(run_of_two.folder)


@pytest.fixture
def copy(run_of_two: TrainedRun, tmp_path: Path) -> Path:
    """The run, moved."""
    return Path(shutil.copytree(run_of_two.folder, tmp_path / "somewhere" / "else"))


def test_any_scene_can_be_exported(run: Run, tmp_path: Path) -> None:
    """Its own cameras, whichever scene is shown."""
    dataset = dataset_of(run, "train")
    for shown in ("A", "B"):
        run.model.show_scene(shown)
        for name in (*MERGED_SCENES, None):
            out = tmp_path / f"{shown}_{name}"
            export_run(run, out, ExportOptions(what=("cameras",), scene=name, units="scene"))
            first, last = dataset.frame_range(MERGED_SCENES.index(name or shown))
            poses = np.load(out / "cameras.npz")["camera_to_worlds"][:, :3]
            np.testing.assert_allclose(poses, dataset.cameras.camera_to_worlds[first:last].numpy(), atol=1e-6)


# ---------------------------------------------------------------- training


def test_every_parameter_is_in_one_group_and_learns(scenes: Path, tmp_path: Path) -> None:
    first: dict[str, torch.Tensor] = {}
    trainer = train(
        tiny_config(of(scenes, "A", "B"), tmp_path, steps=STEPS, static_steps=1),
        lambda trainer, step: first.update(parameters(trainer)) if step == 0 else None,
    )
    model = model_of(trainer)
    grouped = [id(p) for group in model.get_param_groups().values() for p in group]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad and p.numel()}
    after = parameters(trainer)
    # The proposals' loss is zero as long as they bound the samples' weights, which they do from the start.
    still = {n for n, value in after.items() if torch.equal(value, first[n]) and ".proposal_fields." not in n}
    assert not still and all(value.isfinite().all() for value in after.values())
    assert {name.split(".")[1] for name in after if name.startswith("scenes.")} == {"A", "B"}


def test_a_scene_costs_its_fields_only(scenes: Path, tmp_path: Path) -> None:
    """A third scene adds its own parameters and nothing to those that scenes share."""
    shutil.copytree(scenes, tmp_path / "scenes")
    shutil.copytree(scenes / "A", tmp_path / "scenes/C")
    models = [
        model_of(set_up(tiny_config(of(tmp_path / "scenes", *names), tmp_path)))
        for names in (("A", "B"), ("A", "B", "C"))
    ]
    two, three = ({name: p.numel() for name, p in model.named_parameters()} for model in models)
    added = set(three) - set(two)
    assert set(two) < set(three) and all(name.startswith("scenes.C.") for name in added)
    assert sum(three[name] for name in added) == sum(p.numel() for p in models[1].scene("A").parameters())
    assert all(three[name] == count for name, count in two.items())


def test_scenes_share_a_step(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many scenes there are, a step encodes no more frames; each scene gets its steps of the first stage."""
    encoded: list[int] = []
    encode = SharedNetworks.encode

    def count(self: SharedNetworks, bank: FrameBank, frames: torch.Tensor | None = None) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            encoded.append(len(bank.images) if frames is None else len(frames))
        return encode(self, bank, frames)

    monkeypatch.setattr(SharedNetworks, "encode", count)
    config = tiny_config(of(scenes, "A", "B"), tmp_path, steps=6, static_steps=2, encoder_frames=6, encoder_every=1)
    stages: list[bool] = []
    train(config, lambda trainer, _: stages.append(model_of(trainer).static_stage))
    assert stages == [True] * 4 + [False] * 2
    assert encoded == [3] * 12


def test_losses_skip_what_a_scene_lacks(scenes: Path, tmp_path: Path) -> None:
    """B has no motion masks: all its rays get movers, as if it were alone; half of A's do."""
    config = tiny_config(of(scenes, "A", "B"), tmp_path)
    manager_config(config).derive_motion_masks = False
    trainer = set_up(config)
    model = model_of(trainer)
    trainer.pipeline.train()
    rays, batch = trainer.pipeline.datamanager.next_train(0)
    names = []
    for step in (0, STEPS):
        model.set_step(step)
        outputs = model(rays)
        assert outputs["rgb"].shape == batch["image"].shape
        losses = model.get_loss_dict(outputs, batch)
        assert all(value.isfinite() for value in losses.values())
        names.append(set(losses))
    assert names[0] < names[1] and "dynamicness" in names[1]
    parts: dict[str, SceneOutputs] = {part.name: part for part in outputs["parts"]}
    assert len(parts["A"].rendered.dynamic_weights) * 2 == len(parts["A"].rays)
    assert len(parts["B"].rendered.dynamic_weights) == len(parts["B"].rays)
    for name, part in parts.items():
        known = present_modalities(batch, model.modalities[name])
        seen = observe(known, part.rows, part.rays.metadata["directions_norm"], model.first_frame[name], model.device)
        assert (seen.motion is None) == (name == "B") and seen.labels is not None and seen.flow is not None


def test_shared_networks_are_taught_alone_where_there_are_several_scenes(scenes: Path, tmp_path: Path) -> None:
    """In both stages; of one scene, or without residuals, there is nothing else that the logits could be."""
    for names, residual, expected in (("AB", True, True), ("A", True, False), ("AB", False, False)):
        config = tiny_config(of(scenes, *names), tmp_path / f"{names}{residual}")
        config.pipeline.model.scene.residual = residual  # type: ignore[attr-defined]
        pipeline = set_up(config).pipeline.train()
        for step in (0, STEPS):
            model = pipeline.model
            model.set_step(step)  # type: ignore[operator]
            losses = model(*pipeline.datamanager.next_train(step))["losses"]
            assert ("shared_semantic" in losses) == expected


def test_resumed(run_of_two: TrainedRun, scenes: Path, tmp_path: Path) -> None:
    config = tiny_config(of(scenes, "A", "B"), tmp_path, steps=2)
    config.load_dir = run_of_two.folder / "nerfstudio_models"
    trainer = set_up(config)
    loaded, saved = parameters(trainer), parameters(load_run(run_of_two.folder))
    assert trainer._start_step == STEPS
    assert all(torch.equal(value, saved[name]) for name, value in loaded.items())
    trainer.train()
    forget_writers()
    assert trainer.step == STEPS + 1
    after = parameters(trainer)
    assert {"A", "B"} <= {n.split(".")[1] for n in after if not torch.equal(after[n], saved[n]) and "scenes" in n}


def test_resuming_with_other_classes_is_refused(run_of_two: TrainedRun, scenes: Path, tmp_path: Path) -> None:
    config = tiny_config(scenes / "A", tmp_path)
    config.load_dir = run_of_two.folder / "nerfstudio_models"
    with pytest.raises(
        ValueError, match="the checkpoint's classes are background, person, balloon, dog, but the data's"
    ):
        set_up(config)


# ---------------------------------------------------------------- scores


def test_eval_reports_every_scene_and_the_mean(run_of_two: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    ComputePSNR(run_of_two.config_file, out).main()
    scores = json.loads(out.read_text())["results"]
    for name in ("psnr", "miou", "miou_dataset", "total_accuracy", "iou_background"):
        assert scores[name] == pytest.approx((scores[f"A/{name}"] + scores[f"B/{name}"]) / 2), name
    assert scores["A/psnr"] != scores["B/psnr"]
    assert scores["iou_dog"] is not None and {"psnr_std", "A/psnr_std", "B/psnr_std"} <= scores.keys()


def test_eval_of_one_scene(run_of_two: TrainedRun, run: Run, tmp_path: Path) -> None:
    everything = evaluate(run)
    semflow("eval", run_of_two.folder, "--scene", "B", "--out", tmp_path / "b.json")
    scores = json.loads((tmp_path / "b.json").read_text())
    assert scores["eval_views"] == len(run.views("B")) < len(run.views()) == everything["eval_views"]
    for name in ("psnr", "miou", "copy_psnr"):
        assert scores[name] == pytest.approx(everything[f"B/{name}"]), name
    assert not any("/" in name for name in scores)
    with pytest.raises(SystemExit):
        semflow("eval", run_of_two.folder, "--scene", "C")


# ---------------------------------------------------------------- rendering and choosing


def test_each_camera_shows_its_scene(run: Run) -> None:
    """Also one without a scene, or without any metadata: it shows the one that is chosen."""
    dataset, pictures = dataset_of(run, "train"), {}
    for index, (name, (width, height)) in enumerate(SIZES.items()):
        first = dataset.frame_range(index)[0]
        camera = dataset.cameras[first : first + 1]
        pictures[name] = run.render(camera)["rgb"]
        assert pictures[name].shape == (height, width, 3) and run.model.scene_of(camera) == name
        for metadata in (None, {}, {"cam_idx": 0}):
            camera.metadata = metadata
            run.model.show_scene(name)
            assert torch.equal(run.render(camera)["rgb"], pictures[name])
            run.model.show_scene("AB".replace(name, ""))
            assert not torch.equal(run.render(camera)["rgb"], pictures[name])


def test_a_scene_shows_its_own_classes(run: Run, run_of_two: TrainedRun, tmp_path: Path) -> None:
    """However likely a class is that only another scene's labels name; runs of before that are loaded as they were."""
    dog = MERGED.index("dog")

    def shown(run: Run) -> dict[str, set[int]]:
        shared, dataset = run.model.shared, dataset_of(run, "train")
        assert shared is not None
        with torch.no_grad():
            shared.static_network.layers[-1].bias[dog] += 1e3
            shared.class_prior.counts.fill_(1)
        cameras = [dataset.cameras[first : first + 1] for first in (dataset.frame_range(i)[0] for i in range(2))]
        return {name: set(run.render(c)["label"].unique().tolist()) for name, c in zip(SIZES, cameras, strict=True)}

    assert run.model.scene("A").own_classes.tolist() == [name != "dog" for name in MERGED]
    assert run.model.scene("B").own_classes.tolist() == [name != "person" for name in MERGED]
    found = shown(run)
    assert dog not in found["A"] and found["B"] == {dog}
    old = TrainedRun(Path(shutil.copytree(run_of_two.folder, tmp_path / "old")), run_of_two.config)
    content = torch.load(old.checkpoint, weights_only=True)
    for name in SIZES:
        del content["pipeline"][f"_model.scenes.{name}.own_classes"]
    torch.save(content, old.checkpoint)
    assert shown(load_run(old.folder)) == {"A": {dog}, "B": {dog}}


def test_select_and_render(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A moved run keeps its choice, which a scene's name overrides."""
    semflow("select", copy, "--scene", "B")
    assert read_selection(copy).scene == "B" and "scene: B (of A, B)" in capsys.readouterr().out
    run = load_run(copy)
    assert run.config.get_base_dir() == copy.resolve() and run.model.shown_scene == "B"
    assert run.frames.width.unique().tolist() == [SIZES["B"][0]]
    for scene, options in (("B", ()), ("A", ("--scene", "A"))):
        out = tmp_path / scene
        semflow("render", copy, out, "--num-frames", 1, "--outputs", "rgb", "--no-legend", "--no-captions", *options)
        (picture,) = (np.asarray(Image.open(file)) for file in out.glob("*.png"))
        width, height = SIZES[scene]
        assert abs(picture.shape[0] - height) <= 1 and abs(picture.shape[1] - width) <= 1
    semflow("select", copy, "--clear")
    assert load_run(copy).model.shown_scene == "A"
    for wrong in (("--scene", "C"), ("--clear", "--scene", "A"), ("--scene-state", "nowhere.json")):
        with pytest.raises(SystemExit):
            semflow("select", copy, *wrong)
        assert read_selection(copy).scene is None


def test_ns_render_shows_the_choice(copy: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cameras say nothing of scenes. The choice beside the given config.yml counts, not that of the first place."""
    monkeypatch.setattr(install_checks, "check_ffmpeg_installed", lambda: None)
    write_selection(copy, "B", None)
    run = load_run(copy, "inference")
    pose = run.frames.camera_to_worlds[0]
    keyframe = {"camera_to_world": [*pose.flatten().tolist(), 0, 0, 0, 1], "fov": 50, "aspect": 1.6, "render_time": 0.5}
    path = {"camera_type": "perspective", "render_height": 10, "render_width": 16, "camera_path": [keyframe]}
    (tmp_path / "path.json").write_text(json.dumps({**path, "fps": 1, "seconds": 1, "smoothness_value": 0}))
    ns_render.RenderCameraPath(
        load_config=copy / "config.yml",
        camera_path_filename=tmp_path / "path.json",
        output_path=tmp_path / "images",
        output_format="images",
        image_format="png",
        rendered_output_names=["rgb"],
    ).main()
    (file,) = (tmp_path / "images").glob("*.png")
    camera = run.frames[:1]
    camera.metadata, camera.times = None, torch.full((1, 1), 0.5)
    camera.fx = camera.fy = torch.full((1, 1), 0.5 * 10 / np.tan(np.radians(25)), dtype=torch.float32)
    camera.cx, camera.cy = torch.tensor([[8.0]]), torch.tensor([[5.0]])
    camera.width, camera.height = torch.tensor([[16]]), torch.tensor([[10]])
    for scene in "AB":
        run.model.show_scene(scene)
        gap = np.abs(np.asarray(Image.open(file), np.int64) - (255 * run.render(camera)["rgb"]).numpy()).max()
        assert (gap < 2) == (scene == "B")


def test_scores_and_training_know_no_choice(copy: Path, run: Run, scenes: Path, tmp_path: Path) -> None:
    write_selection(copy, "B", None)
    chosen = load_run(copy)
    assert chosen.pipeline.selection.scene == "B" and run.pipeline.selection.scene is None
    views = [run.views("A")[0], run.views("B")[0]]
    before, after = evaluate(run, views), evaluate(chosen, views)
    for name in before.keys() - {"eval_seconds", "eval_rays_per_second"}:
        assert after[name] == pytest.approx(before[name], rel=0, abs=0, nan_ok=True), name
    config = tiny_config(of(scenes, "A", "B"), tmp_path)
    config.load_dir = copy / "nerfstudio_models"
    assert model_of(set_up(config)).shown_scene == "A"


def test_a_choice_that_the_run_does_not_have_is_named(copy: Path) -> None:
    write_selection(copy, "C", None)
    with pytest.raises(ValueError, match="there is no scene 'C' in this run: it has A, B"):
        load_run(copy)


def test_spirals_start_at_the_chosen_scene(copy: Path) -> None:
    for scene, size in SIZES.items():
        write_selection(copy, scene, None)
        camera, _ = load_run(copy).pipeline.datamanager.eval_dataloader.get_camera(image_idx=0)  # type: ignore
        assert (int(camera.width), int(camera.height)) == size


def test_the_viewer_has_a_list_of_scenes(run: Run, tmp_path: Path) -> None:
    with watched(run, tmp_path) as session:
        first = session.client.picture()
        assert tuple(session.client.control("Scene")["options"]) == ("A", "B")
        second = session.show("Scene", "B")
        assert run.model.shown_scene == "B" and not np.array_equal(first, second)


def test_each_scene_has_its_own_edits_in_the_viewer(run: Run, tmp_path: Path) -> None:
    """Time, selection and edits follow the scene; a state of another scene shows that one."""
    with watched(run, tmp_path) as session:
        panel, client = run.pipeline.semantics.panel, session.client
        assert isinstance(panel, SemanticsPanel)
        browser = panel.browser
        plain = session.settle()
        session.show("Selected", "static")
        client.press("Hide")
        client.wait(lambda: "- static: hidden" in client.texts())
        hidden = session.settle()
        assert not np.array_equal(hidden, plain)
        session.show("Scene", "B")
        client.wait(lambda: "Nothing is edited." in client.texts() and "Nothing is selected." in client.texts())
        session.settle()
        assert browser.state == SceneState(scene="B") and model_of(run).edits("B") is None
        assert panel.playback.playback.times.tolist() == pytest.approx(browser.frame_times)
        assert client.value("Edits file").endswith("scene_state_B.json")
        client.press("Undo")  # there is nothing to undo here
        session.show("Scene", "A")
        client.wait(lambda: "- static: hidden" in client.texts())
        session.settle()
        assert browser.state == hide(SceneState(scene="A"), "static")
        client.press("Undo")
        client.wait(lambda: "Nothing is edited." in client.texts())
        client.upload(
            "Upload edits", "b.json", b'{"version": 1, "scene": "B", "objects": {"moving": {"hidden": true}}}'
        )
        client.wait(lambda: "- moving: hidden" in client.texts())
        session.settle()
        assert run.model.shown_scene == "B" and browser.state == hide(SceneState(scene="B"), "moving")
        assert session.alive


# ---------------------------------------------------------------- classes are in the checkpoint


def test_a_run_knows_its_classes_without_the_class_table(run: Run, scenes: Path, tmp_path: Path) -> None:
    """Class tables in another order, or gone: the renders are the same, and labels are matched by name."""
    shutil.copytree(scenes, tmp_path / "scenes")
    data = tmp_path / "scenes"
    trainer = train(tiny_config(of(data, "A", "B"), tmp_path / "runs", steps=3))
    before = load_run(trainer.base_dir)
    index = before.views("A")[0]
    cameras = dataset_of(before).cameras[index : index + 1]
    picture, labels = before.render(cameras), dataset_of(before)[index]["labels"]
    for scene in "AB":
        lines = (data / scene / "labelmap.txt").read_text().splitlines()
        (data / scene / "labelmap.txt").write_text("\n".join(sorted(lines, reverse=True)) + "\n")
    after = load_run(trainer.base_dir)
    assert dataset_of(after).classes[0].names != dataset_of(before).classes[0].names
    assert after.model.class_names == MERGED and torch.equal(dataset_of(after)[index]["labels"], labels)
    for scene in "AB":
        for name in ("labelmap.txt", "SegmentationClass_train", "multiview_GT_semantic"):
            path = data / scene / name
            path.unlink() if path.is_file() else shutil.rmtree(path)
    without = load_run(trainer.base_dir)
    assert without.model.class_names == MERGED
    for loaded in (after, without):
        assert torch.equal(loaded.render(cameras)["semantics"], picture["semantics"])


# ---------------------------------------------------------------- completing and tracking one of them


def test_labels_of_a_scene_without_any_and_tracks_of_one(scene: Path, scenes: Path, tmp_path: Path) -> None:
    """A scene without labels gets those of the others' classes; exact tracks are looked for in the scene's folder."""
    bare = without(scenes / "B", tmp_path / "B", "SegmentationClass_train", "multiview_GT_semantic", "*.txt")
    data = DynamicSceneDataParserConfig(data=tmp_path, scenes=(str(bare), str(scenes / "A"), str(scene)))
    with pytest.raises(SceneDataError, match=r"give class 'person'"):  # of other colours
        set_up(tiny_config(data, tmp_path / "runs"))
    made = make_scene(tmp_path / "made", SceneOptions(frames=3, size="24x16", rig_cameras=3))
    run = train(tiny_config(replace(data, scenes=(str(bare), str(made))), tmp_path / "runs", steps=3)).base_dir
    semflow("complete", run, tmp_path / "completed", "--scene", "B")
    files = sorted((tmp_path / "completed/SegmentationClass_train").iterdir())
    table = read_label_map(tmp_path / "completed/labelmap.txt", tmp_path / "completed/foreground_object.txt")
    assert len(files) == FRAMES["B"] and table.names == read_label_map(made / "labelmap.txt").names
    assert decode_labels(files[0], table).shape[::-1] == SIZES["B"]
    semflow("track", run, "--scene", "made", "--score", "--out", tmp_path / "tracks")
    assert {"average_jaccard", "moving_average_jaccard"} <= json.loads((tmp_path / "tracks.json").read_text()).keys()
    with pytest.raises(SystemExit):
        semflow("track", run, "--scene", "B", "--score", "--out", tmp_path / "tracks")
