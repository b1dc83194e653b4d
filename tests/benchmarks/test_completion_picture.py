"""The picture of completed labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.completion_picture import EDGE, WIDTH, main
from semflow_nerfstudio.data.layout import read_scene_folder
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "scene"
    make_scene(folder, SceneOptions(frames=4, size="32x18"))
    return folder


def write_completed(folder: Path, names: list[str], confidence: list[int]) -> None:
    for sub in ("labels", "confidence"):
        (folder / sub).mkdir(parents=True)
    for name, value in zip(names, confidence, strict=True):
        Image.new("RGB", (32, 18), (0, 200, 0)).save(folder / "labels" / f"{name}.png")
        Image.new("L", (32, 18), value).save(folder / "confidence" / f"{name}.png")


def test_a_column_a_frame_and_white_edges_where_labels_were_given(scene: Path, tmp_path: Path) -> None:
    names = [path.stem for path in read_scene_folder(scene).images]
    write_completed(tmp_path / "completed", names, [255, 100, 100, 255])
    main(scene, tmp_path / "completed", tmp_path / "out.png", 3)
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    height, width = 135 + 2 * EDGE, WIDTH + 2 * EDGE
    assert picture.shape == (3 * height, 3 * width, 3)
    assert picture[0, ::width].tolist() == [[255] * 3, [0] * 3, [255] * 3]
    assert picture[height + height // 2, width // 2].tolist() == [0, 200, 0]
    assert picture[2 * height + height // 2, width + width // 2].tolist() == [100] * 3
    image = picture[EDGE : height - EDGE, EDGE : width - EDGE]
    assert image.std() > 5, "the image itself"


def test_frames_that_are_missing_are_said(scene: Path, tmp_path: Path) -> None:
    write_completed(tmp_path / "completed", ["00000"], [255])
    with pytest.raises(SystemExit, match="1 frames"):
        main(scene, tmp_path / "completed", tmp_path / "out.png")
