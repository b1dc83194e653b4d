"""`semflow bench quality`: its rows, and a tiny measurement from the command to the record."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from nerfstudio.engine.trainer import TrainerConfig

from semflow_nerfstudio.benchmarking import quality
from semflow_nerfstudio.benchmarking.overrides import apply_overrides
from semflow_nerfstudio.benchmarking.quality_rows import FULL, GROUPS, ROWS, WITHHELD, QualityRow, chosen_rows
from semflow_nerfstudio.benchmarking.records import Records
from semflow_nerfstudio.cli.bench import Quality
from semflow_nerfstudio.cli.main import entrypoint
from semflow_nerfstudio.configs.methods import lite
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene
from semflow_nerfstudio.runs import evenly_spaced

EVERY_ROW = {row.name: row for group in GROUPS for row in ROWS[group]}
TINY = {
    "data.train_num_rays_per_batch": 128,
    "data.eval_num_rays_per_batch": 128,
    "model.static_steps": 2,
    "model.scene.static.grid.log2_hashmap_size": 10,
    "model.scene.dynamic.grid.log2_hashmap_size": 10,
    "model.sampling.proposal_samples": [12],
    "model.sampling.samples": 8,
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = SceneOptions(frames=4, size="64x36", rig_cameras=4)
    return make_scene(tmp_path_factory.mktemp("made") / "Yard", options)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without held-out views."""
    folder = make_scene(tmp_path_factory.mktemp("clip") / "Clip", SceneOptions(frames=4, size="64x36", rig_cameras=4))
    shutil.rmtree(folder / "multiview_GT")
    shutil.rmtree(folder / "multiview_GT_semantic")
    return folder


def test_names_belong_to_one_configuration_each() -> None:
    for group in GROUPS:
        assert all(EVERY_ROW[row.name] == row for row in ROWS[group])


@pytest.mark.parametrize("name", EVERY_ROW)
def test_every_row_is_a_configuration(name: str, scene: Path) -> None:
    row = EVERY_ROW[name]
    run = quality.QualityRun(replace(row, withheld=False), scene, 1, 7, 2)
    config = run.config()
    assert config.max_num_iterations == 7 and config.machine.seed == 1 and config.method_name == row.method
    assert run.reason_not_to() is None or "weights of" in str(run.reason_not_to())
    keys = {quality.QualityRun(other, scene, 1, 7, 2).key.fingerprint for other in EVERY_ROW.values()}
    assert len(keys) == len(EVERY_ROW)


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(scene: Path) -> None:
    one, other = (quality.QualityRun(FULL, scene, seed, 7, 2).config() for seed in (0, 1))
    assert one.get_base_dir().parent == other.get_base_dir().parent and one.get_base_dir() != other.get_base_dir()


def test_rows_are_chosen_by_group_and_word() -> None:
    assert len(chosen_rows(["all"])) == len(EVERY_ROW)
    assert [row.name for row in chosen_rows(["baselines"])] == ["full", "fields without time"]
    assert {row.name for row in chosen_rows(["robustness"], ["noise 5", "DIS"])} == {"flow noise 5 %", "flow from DIS"}
    with pytest.raises(ValueError, match="no group 'other'"):
        chosen_rows(["other"])
    with pytest.raises(ValueError, match="no row of these groups has 'nonsense'"):
        chosen_rows(["all"], ["nonsense"])


def test_overrides() -> None:
    config = apply_overrides(
        lite(5),
        {
            "model.render.window": 5,
            "data.corruption.flow_noise": 0.2,
            "data.corruption.drop": ["flow"],
            "max_num_iterations": 9,
        },
    )
    assert isinstance(config, TrainerConfig) and config.max_num_iterations == 9
    assert config.pipeline.model.render.window == 5  # type: ignore[attr-defined]
    corruption = config.pipeline.datamanager.corruption  # type: ignore[attr-defined]
    assert corruption.flow_noise == 0.2 and corruption.drop == ("flow",)
    with pytest.raises(ValueError, match=r"no setting 'model\.render\.windows'"):
        apply_overrides(lite(5), {"model.render.windows": 5})
    with pytest.raises(ValueError, match=r"render\.window is 4"):
        apply_overrides(lite(5), {"model.render.window": 4})
    assert lite(5).pipeline.model.render.window == 3  # type: ignore[attr-defined]


def test_runs_come_seed_by_seed(scene: Path, clip: Path) -> None:
    runs = quality.planned([FULL, ROWS["main"][0]], [scene, clip], [0, 1], steps=3)
    assert [(run.seed, run.scene.name, run.row.downscale) for run in runs[:5]] == [
        (0, "Yard", 4),
        (0, "Yard", 2),
        (0, "Clip", 4),
        (0, "Clip", 2),
        (1, "Yard", 4),
    ]
    assert [run.views for run in runs[:2]] == [24, None] and all(run.steps == 3 for run in runs)
    assert [run.reason_not_to() for run in runs[:3]] == [None, None, "the scene has no held-out views"]
    withheld, _ = quality.planned(WITHHELD, [scene], [0])
    assert withheld.reason_not_to() == "made of scenes without held-out views"


def quickly(row: QualityRow) -> QualityRow:
    return replace(row, overrides={**row.overrides, **TINY}, downscale=1)


def test_a_run_is_measured_once(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tuple(quickly(row) for row in ROWS["baselines"])
    monkeypatch.setattr("semflow_nerfstudio.benchmarking.quality_rows.ROWS", {**ROWS, "baselines": rows})
    command = Quality(
        [scene], ["baselines"], seeds=[0], results=tmp_path / "results", steps=4, views=3, out=tmp_path / "out"
    )
    command.main()
    files = sorted((tmp_path / "results").glob("*.json"))
    assert len(files) == 2 and not list((tmp_path / "out").rglob("*.ckpt"))
    other, full = (json.loads(file.read_text()) for file in files)
    assert (full["configuration"], other["configuration"]) == ("full", "fields without time")
    assert full["views"] == evenly_spaced(4 * 4 - 4, 3) and full["steps"] == 4 and full["train_seconds"] > 0
    for name in ("psnr", "dynamic_psnr", "ssim", "miou", "miou_dataset", "miou_moving", "boundary_f", "ece"):
        assert isinstance(full["scores"][name], float) and isinstance(other["scores"][name], float), name
    for name in ("flow_epe_moving", "depth_error", "depth_error_moving"):
        assert 0 < full["scores"][name] < 100, name
    assert set(full["baselines"]) == {"copy", "warp"} and "baselines" not in other
    assert full["baselines"]["copy"]["psnr"] == pytest.approx(full["scores"]["copy_psnr"])
    assert 0 < full["baselines"]["warp"]["miou"] < 1

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(quality, "measure", refuse)
    command.main()
    files[1].unlink()
    with pytest.raises(AssertionError, match="measured again"):
        command.main()
    capsys.readouterr()
    command.only_list = True
    command.main()
    said = capsys.readouterr().out
    assert "full, Yard, seed 0: to do" in said and "fields without time, Yard, seed 0: measured" in said


def test_built_in_scenes_are_made(tmp_path: Path) -> None:
    """Synchronised cameras are read from transforms.json; the scene is made once and found again."""
    row = next(row for row in ROWS["generated"] if row.make is not None and row.make.synchronised == 2)
    assert row.make is not None
    small = replace(quickly(row), make=replace(row.make, frames=4, rig_cameras=4, size="64x36"))
    (run,) = quality.planned([small], [], [0], steps=4, views=2, out=tmp_path)
    said: list[str] = []
    result = quality.measure(run, lambda what, done, total, note: said.append(what))
    assert run.scene.name == "built-in" and (run.scene / "transforms.json").is_file() and said[0] == "making the scene"
    assert 0 < result["scores"]["psnr"] < 50 and len(result["views"]) == 2
    (again,) = quality.planned([small], [Path("elsewhere")], [0], steps=4, views=2, out=tmp_path)
    assert again.scene == run.scene and again.key == run.key
    with pytest.raises(ValueError, match="--scenes is missing"):
        Quality(groups=["main", "generated"], out=tmp_path, only_list=True).main()


def test_withheld_labels(clip: Path, tmp_path: Path) -> None:
    run = quality.QualityRun(quickly(WITHHELD[0]), clip, 0, 4, None, tmp_path / "out")
    records = Records(tmp_path)
    records.write(run.key, quality.measure(run, lambda *_: None))
    result = records.find(run.key)
    assert result is not None and result["withheld_frames"] == [1] and result["views"] == [0]
    assert result["baselines"]["warped neighbours"]["miou_dataset"] > 0.3
    assert 0 <= result["scores"]["iou_floor"] <= 1


def test_the_command_line(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    words = "semflow bench quality --groups ablations --only residual --seeds 0 1 --list --scenes"
    monkeypatch.setattr("sys.argv", [*words.split(), str(scene), "--results", str(tmp_path)])
    entrypoint()
    said = capsys.readouterr().out.splitlines()
    assert said == [f"no residual, Yard, seed {seed}: to do" for seed in (0, 1)]
    monkeypatch.setattr("sys.argv", ["semflow", "bench", "tables", "--results", str(tmp_path)])
    entrypoint()
    assert "| no residual | - |" in capsys.readouterr().out
