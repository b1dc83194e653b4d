import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.visuals.camera_path import CropBox, from_camera_path_json, to_camera_path_json
from semflow_nerfstudio.visuals.trajectories import RenderView, orbit, to_cameras


def matrix(x: float) -> list[float]:
    """Row by row: 90 degrees about z, then moved to (x, 2, 3)."""
    return [0, -1, 0, x, 1, 0, 0, 2, 0, 0, 1, 3, 0, 0, 0, 1]


def content(times: list[Any]) -> dict[str, Any]:
    cameras: list[dict[str, Any]] = [
        {"camera_to_world": matrix(float(i)), "fov": 60.0, "aspect": 2.0} for i in range(len(times))
    ]
    for camera, time in zip(cameras, times, strict=True):
        if time is not None:
            camera["render_time"] = time
    return {
        "camera_type": "perspective",
        "render_width": 200,
        "render_height": 100,
        "fps": 10,
        "seconds": len(times) / 10,
        "camera_path": cameras,
    }


def write(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "path.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_poses_lenses_sizes_and_rates_are_read(tmp_path):
    path = from_camera_path_json(write(tmp_path, content([0.0, 0.5, 1.0])))
    assert len(path.views) == 3 and path.fps == pytest.approx(10.0) and path.crop is None
    view = path.views[1]
    expected = torch.tensor([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]], dtype=torch.float64)
    assert torch.equal(view.camera_to_world, expected)
    assert view.fx == view.fy == pytest.approx(50 / math.tan(math.radians(30)))
    assert (view.cx, view.cy, view.width, view.height, view.time) == (100.0, 50.0, 200, 100, 0.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([-0.07, 0.2, 1.0, 1.09], [0.0, 0.2, 1.0, 1.0]),
        ([None, None, None], [0.0, 0.5, 1.0]),
        ([None], [0.0]),
        ([0.2, None, 0.6, None], [0.2, 0.4, 0.6, 0.6]),
        ([0.2, None, 1.4], [0.2, 0.8, 1.0]),
        ([0.3, 0.3], [0.3, 0.3]),
    ],
)
def test_times_are_clamped_and_missing_ones_filled(tmp_path, given, expected):
    path = from_camera_path_json(write(tmp_path, content(given)))
    assert [view.time for view in path.views] == pytest.approx(expected)


def test_rate_and_optional_parts(tmp_path):
    value = content([0.0, 1.0])
    del value["camera_type"]
    value["crop"] = {
        "crop_center": [0, 0.5, 0],
        "crop_scale": [1, 2, 3],
        "crop_rot": [0, 0, 1.5],
        "crop_bg_color": {"r": 255, "g": 0, "b": 51},
    }
    value["seconds"] = 0.5
    path = from_camera_path_json(write(tmp_path, value))
    assert path.fps == pytest.approx(4.0) and path.crop == CropBox((0, 0.5, 0), (0, 0, 1.5), (1, 2, 3), (1, 0, 0.2))
    del value["seconds"]
    assert from_camera_path_json(write(tmp_path, value)).fps == 10.0
    del value["fps"]
    assert from_camera_path_json(write(tmp_path, value)).fps == 24.0
    value["camera_path"][0]["camera_to_world"] = [matrix(7.0)[i : i + 4] for i in range(0, 16, 4)]
    assert from_camera_path_json(write(tmp_path, value)).views[0].camera_to_world[0, 3] == 7.0


def test_round_trip_also_through_nerfstudios_own_reader(tmp_path):
    from nerfstudio.cameras.camera_paths import get_path_from_json

    pose = torch.tensor([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]], dtype=torch.float64)
    reference = RenderView(pose, 90.0, 90.0, 100.0, 50.0, 200, 100)
    views = orbit(reference, 3.0, 30, angle=4.0, time=(0.1, 0.9))
    target = tmp_path / "new" / "path.json"
    to_camera_path_json(views, target, fps=15.0)
    assert [file.name for file in target.parent.iterdir()] == ["path.json"]
    path = from_camera_path_json(target)
    assert path.fps == pytest.approx(15.0) and len(path.views) == 30
    for view, again in zip(views, path.views, strict=True):
        torch.testing.assert_close(again.camera_to_world, view.camera_to_world)
        assert (again.fx, again.fy, again.cx, again.cy) == pytest.approx((90.0, 90.0, 100.0, 50.0))
        assert (again.width, again.height) == (200, 100) and again.time == view.time

    stored = json.loads(target.read_text())
    stock, own = get_path_from_json(stored), to_cameras(path.views)
    torch.testing.assert_close(stock.camera_to_worlds, own.camera_to_worlds)
    torch.testing.assert_close(stock.fx.float(), own.fx)
    torch.testing.assert_close(stock.times, own.times)
    assert torch.equal(stock.width.long(), own.width) and torch.equal(stock.height.long(), own.height)
    assert 2 <= len(stored["keyframes"]) <= 8
    assert stored["keyframes"][-1]["matrix"] == stored["camera_path"][-1]["camera_to_world"]
    with pytest.raises(ValueError, match="at least one view"):
        to_camera_path_json([], target)


def broken(**changes: Any) -> dict[str, Any]:
    value = content([0.0, 1.0])
    for key, change in changes.items():
        if key in ("camera_to_world", "fov", "render_time"):
            value["camera_path"][1][key] = change
        else:
            value[key] = change
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{ not json", "no readable JSON"),
        ("[1, 2]", "no cameras under 'camera_path'"),
        (broken(camera_path=[]), "no cameras under 'camera_path'"),
        (broken(camera_path=[1]), "camera 0 of 'camera_path' is no object"),
        (broken(camera_type="equirectangular"), "camera_type is 'equirectangular'"),
        (broken(render_width=None), "'render_width' must be a whole number"),
        (broken(render_height=10.5), "'render_height' must be a whole number"),
        (broken(camera_to_world=[1, 2, 3]), "camera 1 of 'camera_path' has no camera_to_world of 16 numbers"),
        (broken(camera_to_world=None), "camera 1 of 'camera_path' has no camera_to_world of 16 numbers"),
        (broken(camera_to_world=[float("nan")] * 16), "no rotation and translation"),
        (broken(camera_to_world=[2 * v for v in matrix(0)[:12]] + [0, 0, 0, 1]), "no rotation and translation"),
        (broken(camera_to_world=[matrix(5)[4 * c + r] for r in range(4) for c in range(4)]), "row by row"),
        (broken(fov=None), "'fov' between 0 and 180 degrees, got None"),
        (broken(fov=0), "'fov' between 0 and 180 degrees, got 0"),
        (broken(render_time="noon"), "'render_time' of camera 1"),
        (broken(render_time=float("nan")), "'render_time' of camera 1"),
        (broken(seconds=0), "'seconds' must be a positive number"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path, value, message):
    path = write(tmp_path, value)
    with pytest.raises(SceneDataError) as error:
        from_camera_path_json(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SceneDataError, match=r"nowhere.json: there is no camera path here"):
        from_camera_path_json(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ("all", "'crop_center' of its crop must be three numbers"),
        ({"crop_center": [0, 0, "x"], "crop_scale": [1, 1, 1]}, "'crop_center' of its crop must be three numbers"),
        ({"crop_center": [0, 0, 0], "crop_scale": [1, 0, 1]}, "'crop_scale' must be above 0"),
        ({"crop_center": [0, 0, 0], "crop_scale": [1, 1, 1], "crop_bg_color": {"r": 1}}, "'crop_bg_color' of its crop"),
    ],
)
def test_a_crop_that_cannot_be_honoured_is_reported(tmp_path, crop, message):
    value = content([0.0, 1.0]) | {"crop": crop}
    with pytest.raises(SceneDataError, match=message):
        from_camera_path_json(write(tmp_path, value))
