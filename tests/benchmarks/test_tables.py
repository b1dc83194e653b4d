"""The README's result tables: they agree with the result files, and are made right from made-up ones."""

import json
from pathlib import Path

import pytest

from benchmarks import tables
from semflow_nerfstudio.benchmarking import task_rows
from semflow_nerfstudio.benchmarking.quality_rows import ROWS
from semflow_nerfstudio.benchmarking.records import Records, write_json

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
    "points": 65536,
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
    assert path.name.split("_")[0] in ("scene", "dnerf", "encodings", "poses", "core", "own", "instances", "tracks")
    assert result["machine"]["cpu"] and result["machine"]["torch"]


def test_measured_rows_are_rows_that_there_are() -> None:
    """A record of a row that was renamed would be in no table."""
    known = {row.name for rows in ROWS.values() for row in rows}
    for record in Records(tables.RESULTS / "quality").all():
        assert record["configuration"] in known and record["machine"]["cpu"] and record["commit"]


def test_measured_tasks_are_rows_that_there_are() -> None:
    known = {row.name for row in task_rows.rows()}
    for record in Records(tables.RESULTS / "tasks").all():
        assert record["configuration"] in known and record["machine"]["cpu"] and record["commit"]


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


def test_own_video(results: Path) -> None:
    clip = {"scene": "hand", "labels": "none", "frames": 78, "size": [128, 96], "epipolar_error": 0.189, "steps": 1000}
    scores = {"psnr": 30.81, "copy_psnr": 28.3, "copy_miou": None}
    (results / "own_video_hand.json").write_text(json.dumps(clip | {"train_seconds": 159.2, "scores": scores}))
    expected = ["hand", "none", "78", "128x96", "0.19 px", "1000", "159 s", "30.8", "28.3", "-", "-"]
    assert body(tables.own_video_table()) == [expected]


def test_encodings(results: Path) -> None:
    measured, missing = body(tables.encoding_table())
    assert measured == ["Some CPU, 2 threads", "65,536", "3", "8x15", "-", "numba", "12.3 ms", "40.0 ms", "5.2x", "-"]
    assert missing[1:] == ["65,536", "4", "8x15", "frames", "triton", "not measured", "not measured", "-", "-"]
    on_gpu = ENCODINGS | {"machine": {"cpu": "Some CPU", "threads": 2, "gpu": "Some GPU"}}
    on_gpu["rows"] = [row | {"forward_gb_per_s": 867.8} for row in ENCODINGS["rows"]]
    (results / "encodings_cpu.json").write_text(json.dumps(on_gpu))
    assert body(tables.encoding_table())[0][::9] == ["Some GPU", "868 GB/s"]


SPEED = {
    "measured": "2026-01-01T00:00:00",
    "machine": {"cpu": "Some CPU", "threads": 2},
    "commit": "abc1234",
    "train_ms_per_ray": 0.7512,
    "dense_ms_per_ray": 12.34,
    "nerfacto_ms_per_ray": 1.5,
    "render_ms_per_ray": 0.3456,
    "hash_ratio_8x15": 15.26,
    "hash_ratio_16x19": "not measured",
    "frame_memory": {"full_hd_gb_extrapolated": 2.34},
    "stages": {"backward": 0.5, "losses": 0.104},
    "semantic_samples": [
        {"samples": "4", "logit_error_mean": 0.0123, "logit_error_max": 0.5, "labels_changed": 0.0015}
    ],
}
SCALE = {
    "measured": "2026-01-01T00:00:00",
    "machine": {"cpu": "Some CPU", "threads": 2},
    "options": {"size": "480x270"},
    "rows": [{"frames": 12, "ms_per_step": 512.3, "cpu_ms_per_step": 800.1, "resident_mb": 1234.0, "peak_mb": 2345.0}],
    "summary": {
        "time_ratio": 1.051,
        "cpu_time_ratio": 1.02,
        "resident_mb_per_frame": 3.21,
        "peak_mb_per_frame": 3.9,
        "resident_gb_of_300_frames": 2.0,
        "peak_gb_of_300_frames": 3.04,
    },
}


def test_speed(results: Path) -> None:
    write_json(results / "speed" / "a.json", SPEED)
    expected = ["0.75 ms", "12.3 ms", "1.50 ms", "0.35 ms", "not measured", "15.3x", "not measured", "2.3 GB"]
    measured, missing = body(tables.TABLES["speed"]())
    assert measured == ["Some CPU, 2 threads", "abc1234", *expected]
    assert missing == ["GPU", *["not measured"] * 9]
    on_gpu = SPEED | {"machine": SPEED["machine"] | {"gpu": "Some GPU"}}
    write_json(results / "speed" / "b.json", on_gpu)
    assert [cells[0] for cells in body(tables.TABLES["speed"]())] == ["Some CPU, 2 threads", "Some GPU"]
    stages = tables.TABLES["stages"]()
    assert stages.splitlines()[0] == "| machine | backward | losses |"
    assert body(stages)[1] == ["Some GPU", "50 %", "10 %"]
    assert body(tables.TABLES["samples"]())[0][1:] == ["4", "0.0123", "0.500", "0.15 %"]


def test_core(results: Path) -> None:
    rows = {
        name: {"forward_ms": 1.0, "forward_backward_ms": 2.55} for name in ("static_field", "dynamic_field", "flow")
    }
    rows["rendering"] = {"forward_ms": 64.0}
    result = {
        "machine": {"gpu": "Some GPU", "cpu": "Some CPU", "threads": 2, "commit": "abc1234"},
        "backend": "triton",
        "rows": rows,
        "render_ms_per_ray": 0.0005,
    }
    result |= {"training_pass_ms_per_ray": 0.0009, "options": {"rays": 129600, "samples": 48}}
    write_json(results / "core_a.json", result)
    write_json(results / "core_b.json", result | {"options": {"rays": 1024, "samples": 64}})
    whole, batch = body(tables.TABLES["core"]())
    assert whole[:4] == ["Some GPU", "abc1234", "triton", "129600 x 48"]
    assert whole[4:] == [*["2.5 ms"] * 3, "0.9 µs", "0.50 µs", "15.6 frames/s"]
    assert batch[3] == "1024 x 64" and batch[-1] == "-"


def test_scale(results: Path) -> None:
    write_json(results / "scale" / "a.json", SCALE)
    rows = [cells[2:] for cells in body(tables.TABLES["scale"]())]
    assert rows[0] == ["12", "512 ms", "800 ms", "1.23 GB", "2.35 GB"]
    assert rows[1] == ["growth", "1.05x", "1.02x", "3.2 MB a frame", "3.9 MB a frame"]
    assert rows[2] == ["300, extrapolated", "-", "-", "2.0 GB", "3.0 GB"]


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
