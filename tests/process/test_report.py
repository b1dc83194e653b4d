"""The HTML report: whole, escaped, small, and without anything from elsewhere."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from clips import FRAMES, HEIGHT, WIDTH, draw, poses, write_llff
from label_files import palette_png
from PIL import Image
from processing import silent

from semflow_nerfstudio.cli.check import Check
from semflow_nerfstudio.cli.process import Process
from semflow_nerfstudio.process.check import check_scene, read_scene
from semflow_nerfstudio.process.labels.found import LabelSource
from semflow_nerfstudio.process.labels.step import label_scene
from semflow_nerfstudio.process.report import write_report
from semflow_nerfstudio.process.thumbnails import COLUMNS, MAX_ROWS, SIDE, choose

VOID = {"meta", "img", "line", "rect", "text"} - {"text"}


class Page(HTMLParser):
    """Tags, their attributes and texts; every tag that is opened has to be closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|\burl\(|@import|javascript", re.sub(r"base64,[^\"]*", "", text))
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "a", "form"} & {tag for tag, _ in page.tags}
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    return page


@pytest.fixture
def labelled(scene, tmp_path):
    folder = shutil.copytree(scene, tmp_path / "s")
    for k in (1, 4):
        ids = draw(k)[1].astype(np.uint8)
        ids[:20] = 255 * (k == 4) + ids[:20] * (k != 4)
        ids[0, 0] = 2
        palette_png(tmp_path / "davis" / f"shot_{k:02d}.png", ids)
    label_scene(folder, LabelSource(tmp_path / "davis"), silent)
    return folder


def pictures(page):
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
        for image in page.all("img")
    ]


def test_the_report_shows_everything(labelled, tmp_path):
    path = tmp_path / "out/report.html"
    Check(labelled, report=path).main()
    page = read(path)
    assert path.stat().st_size < 500_000
    names = [image["alt"] for image in page.all("img")]
    assert [names.count(name) for name in COLUMNS] == [FRAMES, FRAMES - 1, FRAMES, 2, 0]
    assert names.count("colours of flow") == 1
    shown = pictures(page)
    assert all(max(picture.shape[:2]) <= SIDE for picture in shown)
    frame = shown[names.index("frame")]
    assert frame.shape[1] / frame.shape[0] == pytest.approx(WIDTH / HEIGHT, abs=0.02)
    assert len(page.all("rect")) == 2 * (FRAMES - 1) and len(page.all("svg")) == 1
    for text in (
        "object 1",
        "labels are ignored",
        "shot_03.png",
        "2 of 6",
        "the others are learned without",
        "no sema",
    ):
        assert (text in page.text) == (text != "no sema")
    assert "the depth of movers" in page.text and "disparity or depth" in page.text


def test_labels_and_masks_are_drawn_where_they_are(labelled):
    page = read(write_report(labelled, check_scene(labelled)))
    names, shown = [image["alt"] for image in page.all("img")], pictures(page)
    label, frame = shown[names.index("labels")].astype(int), shown[names.index("labels") - 3].astype(int)
    inside = np.asarray(Image.fromarray(draw(1)[1]).resize(label.shape[1::-1], Image.Resampling.NEAREST))
    red = label[..., 0] - label[..., 1:].mean(axis=-1) - (frame[..., 0] - frame[..., 1:].mean(axis=-1)) * 0.35
    assert red[inside].mean() > red[~inside].mean() + 40  # object 1 has DAVIS's dark red


def test_wrong_poses_are_red(scene, tmp_path):
    folder = shutil.copytree(scene, tmp_path / "s")
    meta = json.loads((folder / "transforms.json").read_text())
    matrices = [frame["transform_matrix"] for frame in meta["frames"]]
    for frame, matrix in zip(meta["frames"], matrices[::-1], strict=True):
        frame["transform_matrix"] = matrix
    (folder / "transforms.json").write_text(json.dumps(meta))
    page = read(write_report(folder, check_scene(folder)))
    assert sum(rect["fill"] == "#b3261e" for rect in page.all("rect")) >= 3 and "do not fit the pictures" in page.text


def test_text_is_escaped(scene, tmp_path):
    evil = '<script>alert("x")</script>&'
    folder = shutil.copytree(scene, tmp_path / "s <b>")
    meta = json.loads((folder / "transforms.json").read_text())
    meta["classes"] = [{"name": evil}, {"name": "rest"}]
    frame = meta["frames"][0]
    (folder / "images/<i>.png").write_bytes((folder / frame["file_path"]).read_bytes())
    frame["file_path"] = "images/<i>.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    summary = check_scene(folder)
    summary.left_out.append(evil)
    summary.warnings.append(evil)
    summary.details[evil] = evil
    text = write_report(folder, summary).read_text()
    assert "<script" not in text and "<i>" not in text and "<b>.png" not in text and text.count("&lt;script&gt;") >= 5
    read(folder / "report.html")


def test_what_cannot_be_read_is_told(tmp_path, scene):
    folder = shutil.copytree(scene, tmp_path / "s")
    (folder / "images/shot_02.png").write_bytes(b"no image")
    path = tmp_path / "r.html"
    with pytest.raises(SystemExit):
        Check(folder, report=path).main()
    page = read(path)
    assert "shot_02.png cannot be read as an image" in page.text and not page.all("img")


def test_the_other_layout(clip, tmp_path):
    folder = shutil.copytree(clip, tmp_path / "Scene")
    write_llff(folder / "poses_bounds.npy", poses())
    page = read(write_report(folder, check_scene(folder), tmp_path / "r.html"))
    assert len(page.all("img")) == FRAMES and "motion is learned from colours alone" in page.text


def test_process_writes_it_and_names_what_was_left_out(clip, tmp_path, capsys):
    source = shutil.copytree(clip / "images", tmp_path / "images")
    shutil.copy(source / "shot_05.png", source / "shot_06.png")
    matrices = np.concatenate([poses(), poses()[-1:]])
    write_llff(tmp_path / "p.npy", matrices)
    Process(
        source=source, out=tmp_path / "s", poses=str(tmp_path / "p.npy"), near=3.0, far=9.0, jobs=1, report=True
    ).main()
    assert "report: " in capsys.readouterr().out
    page = read(tmp_path / "s/report.html")
    assert "shot_06.png is the same picture" in page.text and "Frames that were left out" in page.text


def test_few_frames_stand_for_many_and_labelled_ones_come_first():
    assert choose([False] * 5) == list(range(5))
    many = choose([False] * 500)
    assert len(many) == MAX_ROWS and many[0] == 0 and many[-1] == 499 and max(np.diff(many)) < 30
    some = choose([k in (3, 77, 401) for k in range(500)])
    assert {3, 77, 401} <= set(some) and len(some) == MAX_ROWS == len(set(some))
    assert len(choose([True] * 500)) == MAX_ROWS


def test_the_scene_is_read_from_its_file(scene):
    assert read_scene(scene / "transforms.json").size == (WIDTH, HEIGHT)
