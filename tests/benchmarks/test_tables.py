"""The README's result tables: they agree with the result files, and are made right from made-up ones."""

import json
from pathlib import Path

import pytest

from benchmarks import tables

FILES = sorted(tables.RESULTS.glob("*.json"))

SCENE = {
    "scene": "Alley",
    "downscale_factor": 4.0,
    "labelled_frames": "completion-50",
    "seed": 3,
    "train_seconds": 241.6,
    "scores": {
        "eval_views": 24,
        "psnr": 21.456,
        "dynamic_psnr": 18.04,
        "ssim": 0.71251,
        "miou": 0.8,
        "miou_moving": None,
        "copy_psnr": 17.0,
        "copy_miou": 0.51,
    },
}
DNERF = {
    "scene": "lego",
    "scale": 0.25,
    "seed": 0,
    "train_seconds": 300.2,
    "scores": {"eval_views": 20, "psnr": 25.55, "ssim": 0.9},
}
ENCODINGS = {
    "machine": {"cpu": "Some CPU", "threads": 2},
    "rows": [
        {
            "encoding": "numba",
            "dimensions": 3,
            "configuration": "8x15",
            "times": "",
            "forward_ms": 12.34,
            "forward_backward_ms": 40.0,
            "times_faster": 5.25,
        },
        {
            "encoding": "triton",
            "dimensions": 4,
            "configuration": "8x15",
            "times": "frames",
            "milliseconds": "not measured",
            "why": "needs CUDA",
        },
    ],
}
EMPTY = "".join(f"<!-- table: {name} -->\n<!-- end of table -->\n\nwords\n" for name in tables.TABLES)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up folder of results that the tables are made from."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for name, result in (("scene_alley", SCENE), ("dnerf_lego", DNERF), ("encodings_cpu", ENCODINGS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    return tmp_path


def body(table: str) -> list[list[str]]:
    """Cells below the head of a Markdown table, whose rows all have as many."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(cells) for cells in rows}) == 1 and set(rows[1]) == {"---"}
    return rows[2:]


# ---------------------------------------------------------------- what is in the repository


def test_readme_shows_what_was_measured() -> None:
    text = tables.README.read_text(encoding="utf-8")
    assert tables.render(text) == text, "run `make tables`"


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_result_files_are_json_that_a_table_shows(path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{path.name} holds {constant}, which is not JSON")

    result = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert path.name.split("_")[0] in ("scene", "dnerf", "encodings", "poses")
    assert result["machine"]["cpu"] and result["machine"]["torch"]


# ---------------------------------------------------------------- made-up results


def test_numbers() -> None:
    assert tables.number(None, ".3f") == "not measured"
    assert tables.number(0.12345, ".3f") == "0.123" and tables.number(0, ".1f") == "0.0"


def test_scenes(results: Path) -> None:
    (results / "scene_zoo.json").write_text(json.dumps(SCENE | {"scene": "Zoo", "downscale_factor": 2}))
    rows = body(tables.scene_table())
    expected = ["Alley", "1/4", "completion-50", "3", "24", "242 s", "21.5", "18.0", "0.713", "0.800"]
    assert rows[0] == [*expected, "not measured", "not measured", "17.0", "0.510"]
    assert [cells[:2] for cells in rows] == [["Alley", "1/4"], ["Zoo", "1/2"]]


def test_dnerf(results: Path) -> None:
    assert body(tables.dnerf_table()) == [["lego", "0.25", "0", "20", "300 s", "25.6", "0.900"]]


def test_encodings(results: Path) -> None:
    measured, missing = body(tables.encoding_table())
    assert measured == ["Some CPU, 2 threads", "3", "8x15", "-", "numba", "12.3 ms", "40.0 ms", "5.2x"]
    assert missing == ["Some CPU, 2 threads", "4", "8x15", "frames", "triton", "not measured", "not measured", "-"]
    on_gpu = ENCODINGS | {"machine": {"cpu": "Some CPU", "threads": 2, "gpu": "Some GPU"}}
    (results / "encodings_cpu.json").write_text(json.dumps(on_gpu))
    assert body(tables.encoding_table())[0][0] == "Some GPU"


def test_tables_go_between_their_markers_and_the_rest_stays(results: Path) -> None:
    text = tables.render("# Title\n\n" + EMPTY)
    for make in tables.TABLES.values():
        assert f"-->\n{make()}\n<!-- end of table -->\n\nwords\n" in text
    assert text.startswith("# Title\n\n<!-- table: scenes -->\n") and text.count("words") == len(tables.TABLES)
    assert tables.render(text) == text
    (results / "dnerf_lego.json").unlink()
    again = tables.render(text)
    assert "lego" in text and "lego" not in again and tables.render(again) == again


@pytest.mark.parametrize("name", tables.TABLES)
def test_missing_markers_are_named(results: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"no table '{name}'"):
        tables.render(EMPTY.replace(f"table: {name}", "table: other"))
