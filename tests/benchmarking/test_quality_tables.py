"""Tables of measured and of missing results."""

from typing import Any

import pytest

from semflow_nerfstudio.benchmarking.quality_rows import ROWS
from semflow_nerfstudio.benchmarking.quality_tables import NOT_MEASURED, TABLES, latest, spread


def record(
    row: str, seed: int = 0, scene: str = "Alley", measured: str = "2030-01-01", **others: Any
) -> dict[str, Any]:
    scores = {
        "psnr": 25.0 + seed,
        "miou": 0.8,
        "depth_error": 0.0213,
        "iou_road": 0.9,
        "iou_car": 0.5,
        "iou_tree": None,
    }
    return {
        "configuration": row,
        "scene": scene,
        "seed": seed,
        "measured": measured,
        "steps": 100,
        "views": [0, 3],
        "train_seconds": 90.0,
        "scores": scores | {"miou_dataset": 0.7},
        **others,
    }


def cells(table: str) -> tuple[list[str], list[list[str]]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(row) for row in rows}) == 1 and set(rows[1]) == {"---"}
    return rows[0], rows[2:]


@pytest.mark.parametrize("name", TABLES)
def test_without_any_result_every_row_says_so(name: str) -> None:
    _, rows = cells(TABLES[name]([]))
    assert rows and all(NOT_MEASURED in row for row in rows)


def test_mean_and_half_of_the_range_over_seeds() -> None:
    assert spread([0.5], ".2f") == "0.50" and spread([0.5, 0.6], ".2f") == "0.55 ± 0.05"
    assert spread([None, 0.02], ".1f", 100) == "2.0" and spread([None], ".1f") == spread([], ".1f") == NOT_MEASURED


def test_ablations() -> None:
    records = [record("full"), record("full", 1), record("no residual"), record("full", scene="Zoo")]
    head, rows = cells(TABLES["quality-ablations"](records))
    assert len(rows) == 2 * len(ROWS["ablations"])
    full = dict(zip(head, rows[0], strict=True))
    assert (full["configuration"], full["scene"], full["seeds"], full["views"]) == ("full", "Alley", "0, 1", "2")
    assert (full["steps"], full["training"], full["PSNR"]) == ("100", "1.5 min", "25.5 ± 0.5")
    assert full["depth error, %"] == "2.1 ± 0.0" and full["ECE"] == NOT_MEASURED
    by_name = {(row[0], row[1]): row for row in rows}
    assert by_name["no residual", "Alley"][2] == "0" and by_name["no residual", "Zoo"][2] == "-"


def test_the_last_measurement_of_a_row_counts() -> None:
    old, new = record("full", measured="2030-01-01"), record("full", measured="2030-01-02", steps=200)
    assert latest([new, old]) == [new] and latest([old, new]) == [new]
    _, rows = cells(TABLES["quality-robustness"]([new, old]))
    assert rows[0][4] == "200"


def test_seeds_with_other_settings_are_not_averaged() -> None:
    short, long = ({"overrides": {"steps": steps}, "steps": steps} for steps in (100, 200))
    records = [record("full", 0, **short), record("full", 1, measured="2030-01-02", **long), record("full", 2, **long)]
    _, rows = cells(TABLES["quality-ablations"](records))
    assert (rows[0][2], rows[0][4]) == ("1, 2", "200")


def test_baselines_stand_beside_the_field() -> None:
    baselines = {"copy": {"psnr": 10.0}, "warp": {"psnr": 20.0}}
    records = [record("full", baselines=baselines), record("fields without time", 1)]
    records += [record("half size", 2, baselines={"copy": {"psnr": 30.0}})]
    head, rows = cells(TABLES["quality-baselines"](records))
    assert [row[head.index("PSNR")] for row in rows] == ["10.0", "20.0", "25.0", "26.0", "30.0", NOT_MEASURED, "27.0"]
    assert (
        [row[2] for row in rows] == ["1/4"] * 4 + ["1/2"] * 3
        and rows[2][0] == "all of it"
        and rows[0][head.index("moving")] == NOT_MEASURED
    )


def test_withheld_labels_beside_warped_ones() -> None:
    row = ROWS["withheld"][0]
    warped = {"warped neighbours": {"miou_dataset": 0.6, "iou_road": 0.8, "iou_car": 0.4}}
    head, rows = cells(TABLES["quality-withheld"]([record(row.name, baselines=warped)]))
    assert head == ["labels from", "scene", "mIoU, data set", "car", "road"]
    assert rows[0][2:] == ["0.700", "0.500", "0.900"] and rows[-1][2:] == ["0.600", "0.400", "0.800"]
    assert rows[1][:3] == ["model, logits from points", "Alley", NOT_MEASURED]
