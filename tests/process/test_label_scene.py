"""Labels as a step of `semflow process`, and alone on a scene that exists: stamped, kept, replaced."""

import json
import shutil

import numpy as np
import pytest
from clips import FRAMES, HEIGHT, WIDTH, draw
from label_files import box, palette_png, runs, write_json
from PIL import Image
from processing import make, silent

from semflow_nerfstudio.cli.label import Label
from semflow_nerfstudio.cli.process import Process
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.modalities import read_labels
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
from semflow_nerfstudio.process.check import check_scene
from semflow_nerfstudio.process.labels.found import LabelSource
from semflow_nerfstudio.process.labels.step import label_scene


def annotations(frames, names=("wall", "tile")):
    """COCO: the moving tile on these frames of the clip, on the wall."""
    images, shapes = [], []
    for k in frames:
        images.append({"id": k, "file_name": f"shot_{k:02d}.png", "width": WIDTH, "height": HEIGHT})
        mask = draw(k)[1]
        for category, part in ((1, [box(0, 0, WIDTH, HEIGHT)]), (2, {"counts": runs(mask), "size": [HEIGHT, WIDTH]})):
            shapes.append({"id": len(shapes), "image_id": k, "category_id": category, "segmentation": part})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": images, "annotations": shapes, "categories": categories}


@pytest.fixture
def labels(tmp_path):
    return write_json(tmp_path / "labels.json", annotations([0, 3]))


def parse(scene):
    return SemFlowDataParserConfig(data=scene, eval_mode="all").setup().get_dataparser_outputs("train")


def ids_of(scene, k):
    outputs = parse(scene)
    record = outputs.metadata["frames"][k]
    return read_labels(record.labels, outputs.metadata["scenes"][0].classes, WIDTH, HEIGHT)


def test_process_imports_labels_and_does_so_once(clip, tmp_path, labels, monkeypatch):
    options = {"poses": str(clip), "jobs": 1, "near": 3.0, "far": 9.0}
    source = LabelSource(labels, foreground=("tile",))
    summary = make(clip / "images", tmp_path / "s", labels=source, **options)
    assert summary.counts["labels"] == (2, FRAMES)
    classes = parse(tmp_path / "s").metadata["scenes"][0].classes
    assert classes.names == ("wall", "tile") and classes.foreground.tolist() == [False, True]
    np.testing.assert_array_equal(ids_of(tmp_path / "s", 3), draw(3)[1].astype(np.uint8))
    content = json.loads((tmp_path / "s/transforms.json").read_text())
    assert [frame.get("instances_path") for frame in content["frames"][:2]] == ["instances/shot_00.png", None]
    numbers = np.asarray(Image.open(tmp_path / "s/instances/shot_00.png"))
    assert len(np.unique(numbers)) == 2
    stamp = (tmp_path / "s/labels/shot_00.png").stat().st_mtime_ns
    make(clip / "images", tmp_path / "s", labels=source, **options)
    make(clip / "images", tmp_path / "s", **options)  # without --labels: those that there are stay
    assert (tmp_path / "s/labels/shot_00.png").stat().st_mtime_ns == stamp
    assert json.loads((tmp_path / "s/transforms.json").read_text()) == content
    write_json(labels, annotations([1]))
    make(clip / "images", tmp_path / "s", **options)
    assert sorted(path.name for path in (tmp_path / "s/labels").iterdir()) == ["shot_01.png"]
    labels.unlink()
    with pytest.raises(SceneDataError, match=r"is gone: restore it, pass --labels, or remove .*process/labels.json"):
        make(clip / "images", tmp_path / "s", **options)


def test_wrong_labels_are_refused_before_any_work(clip, tmp_path, labels):
    write_json(labels, {**annotations([0]), "categories": [{"id": 2, "name": "tile"}]})
    with pytest.raises(SceneDataError, match="has category 1"):
        make(clip / "images", tmp_path / "s", poses=str(clip), labels=LabelSource(labels))
    assert not (tmp_path / "s").exists()


def test_labels_of_frames_that_were_left_out_are_not_needed(clip, tmp_path, labels):
    options = {"poses": str(clip), "near": 3.0, "far": 9.0, "count": 5}  # leaves shot_03 out
    summary = make(clip / "images", tmp_path / "s", labels=LabelSource(labels), **options)
    assert summary.counts["labels"] == (1, 5)
    assert any("Labels of shot_03.png are not used" in warning for warning in summary.warnings)
    write_json(labels, {**annotations([0]), "images": [{**annotations([0])["images"][0], "file_name": "x.png"}]})
    with pytest.raises(SceneDataError, match=r"frames that do not exist: x.png"):
        make(clip / "images", tmp_path / "s", labels=LabelSource(labels), **options)


def test_an_interrupted_import_is_done_again(scene, tmp_path, labels, monkeypatch):
    folder = shutil.copytree(scene, tmp_path / "s")
    real = Image.Image.save

    def broken(self, path, *args, **kwargs):
        if "shot_03" in str(path):
            raise KeyboardInterrupt
        real(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        label_scene(folder, LabelSource(labels), silent)
    monkeypatch.undo()
    assert "classes" not in json.loads((folder / "transforms.json").read_text())
    label_scene(folder, LabelSource(labels), silent)
    assert len(list((folder / "labels").iterdir())) == 2 and ids_of(folder, 3).max() == 1


def test_label_alone_and_process_after_it(clip, scene, tmp_path, labels, capsys):
    folder = shutil.copytree(scene, tmp_path / "s")
    Label(folder, labels, background=None, foreground=("tile",)).main()
    assert "labels on 2 frames; classes: wall, tile" in capsys.readouterr().out
    np.testing.assert_array_equal(ids_of(folder, 0), draw(0)[1].astype(np.uint8))
    content = json.loads((folder / "transforms.json").read_text())
    summary = json.loads((folder / "process/summary.json").read_text())
    assert summary["counts"]["labels"] == [2, FRAMES] and "labels on 2 of 6" in summary["missing"]
    assert check_scene(folder).errors == []
    stamp = (folder / "labels/shot_00.png").stat().st_mtime_ns
    make(clip / "images", folder, poses=str(clip / "poses_bounds.npy"), jobs=1)
    assert json.loads((folder / "transforms.json").read_text()) == content
    assert (folder / "labels/shot_00.png").stat().st_mtime_ns == stamp
    # Labels that cannot be used leave them alone, even if that is found out late.
    palette_png(tmp_path / "masks/shot_01.png", draw(1)[1])
    palette_png(tmp_path / "masks/shot_02.png", 7 * draw(2)[1])
    write_json(tmp_path / "masks/classes.json", ["wall", "tile"])
    with pytest.raises(SceneDataError, match=r"shot_02.png has .* ids of no class"):
        label_scene(folder, LabelSource(tmp_path / "masks"), silent)
    assert sorted(path.name for path in (folder / "labels").iterdir()) == ["shot_00.png", "shot_03.png"]
    assert ids_of(folder, 3).max() == 1 and not (folder / "process/importing").exists()
    # Other labels replace them, in another format and with other classes.
    for k in (1, 2):
        palette_png(tmp_path / "davis" / f"shot_{k:02d}.png", draw(k)[1])
    found = label_scene(folder, LabelSource(tmp_path / "davis"), silent)
    assert list(found.files) == ["shot_01.png", "shot_02.png"]
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    assert ["labels_path" in frame for frame in frames] == [False, True, True, False, False, False]


def test_a_scene_from_elsewhere(scene, tmp_path, labels):
    folder = shutil.copytree(scene, tmp_path / "s")
    shutil.rmtree(folder / "process")
    found = label_scene(folder, LabelSource(labels), silent)
    assert list(found.files) == ["images/shot_00.png", "images/shot_03.png"]
    np.testing.assert_array_equal(ids_of(folder, 3), draw(3)[1].astype(np.uint8))
    assert (folder / "labels/images/shot_03.png").is_file()


def test_labels_from_elsewhere_are_not_touched(scene, tmp_path, labels):
    folder = shutil.copytree(scene, tmp_path / "s")
    (folder / "labels").mkdir()
    (folder / "labels/mine.png").write_bytes(b"mine")
    with pytest.raises(SceneDataError, match="has labels from elsewhere"):
        label_scene(folder, LabelSource(labels), silent)
    shutil.rmtree(folder / "labels")
    label_scene(folder, LabelSource(labels), silent)
    shutil.copy(labels, folder / "labels/labels.json")
    with pytest.raises(SceneDataError, match="move it out of"):
        label_scene(folder, LabelSource(folder / "labels/labels.json"), silent)
    assert (folder / "labels/labels.json").is_file()
    meta = json.loads((folder / "transforms.json").read_text())
    meta["frames"][0]["file_path"] = "../../x.png"
    write_json(folder / "transforms.json", meta)
    with pytest.raises(SceneDataError, match="outside of the scene"):
        label_scene(folder, LabelSource(labels), silent)


def test_a_scene_that_is_not_finished(scene, tmp_path, labels):
    folder = shutil.copytree(scene, tmp_path / "s")
    write_json(folder / "process/frames.json", {"key": "x", "done": False})
    with pytest.raises(SceneDataError, match="run `semflow process` again first"):
        label_scene(folder, LabelSource(labels), silent)


def test_options_for_labels_need_labels(clip, tmp_path):
    with pytest.raises(ValueError, match="say how to read --labels"):
        Process(source=clip / "images", out=tmp_path / "s", background="rest").main()
