"""The built-in procedural scene: layout, exactness, difficulty, and what its options do."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from scipy.ndimage import binary_dilation, uniform_filter

from semflow_nerfstudio.cameras import FrameCameras, pixel_centers
from semflow_nerfstudio.cli.make_scene import MakeScene
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.procedural import SceneOptions, build_scene, make_scene, render_view
from semflow_nerfstudio.data.procedural.geometry import Box, Capsule, Cylinder, Ellipsoid, first_hit
from semflow_nerfstudio.data.procedural.ground_truth import optical_flow
from semflow_nerfstudio.data.procedural.objects import CLASS_COLORS, CLASS_NAMES, FOREGROUND_CLASSES
from semflow_nerfstudio.data.procedural.render import trace

WIDTH, HEIGHT, FRAMES = 96, 54, 12
OPTIONS = SceneOptions(size=f"{WIDTH}x{HEIGHT}", synchronised=2)
TINY = SceneOptions(frames=3, rig_cameras=2, size="48x27")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_scene(tmp_path_factory.mktemp("made") / "scene", OPTIONS)


def read_labels(path: Path) -> np.ndarray:
    image = np.array(Image.open(path))
    matches = (image[..., None, :] == np.array(CLASS_COLORS)).all(-1)
    assert (matches.sum(-1) == 1).all(), f"{path} has a colour of no class"
    return matches.argmax(-1)


def read_depths(folder: Path) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.load(folder / f"gt_depth/{k:03d}.npz")["depth"] for k in range(FRAMES)]))


def read_cameras(folder: Path) -> FrameCameras:
    matrices = torch.from_numpy(np.load(folder / "poses_bounds.npy")[:, :15].reshape(-1, 3, 5))
    down, right, back, position, hwf = matrices.unbind(-1)
    height, width, focal = hwf.T
    return FrameCameras(
        torch.stack([right, -down, back, position], dim=-1),
        torch.stack([focal, focal, width / 2, height / 2], dim=-1),
        int(width[0]),
        int(height[0]),
    )


def lift(cameras: FrameCameras, frame: int, depth: torch.Tensor, offset: float = 0.0) -> torch.Tensor:
    """World points of a frame's pixels."""
    fx, fy, cx, cy = cameras.intrinsics[frame]
    pixels = pixel_centers(WIDTH, HEIGHT).double() + offset
    x, y = (pixels[..., 0] - cx) / fx, -(pixels[..., 1] - cy) / fy
    local = torch.stack([x, y, -torch.ones_like(x)], dim=-1) * depth[..., None]
    pose = cameras.camera_to_worlds[frame]
    return local @ pose[:, :3].T + pose[:, 3]


def mean_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    scores = []
    for label in np.union1d(predicted, truth):
        a, b = predicted == label, truth == label
        scores.append((a & b).sum() / (a | b).sum())
    return float(np.mean(scores))


def test_all_files_of_the_layout_are_there(folder: Path) -> None:
    numbers = [f"{k:03d}" for k in range(FRAMES)]
    flows = [f"{n}_fwd.npz" for n in numbers[:-1]] + [f"{n}_bwd.npz" for n in numbers[1:]]
    views = [f"{t + 1:08d}/cam{c + 1:02d}" for t in range(FRAMES) for c in range(FRAMES)]
    expected = {"poses_bounds.npy", "labelmap.txt", "foreground_object.txt", "gt_tracks.npz", "transforms.json"}
    for name, ending in (("images", "png"), ("SegmentationClass_train", "png"), ("motion_masks", "png")):
        expected |= {f"{name}/{n}.{ending}" for n in numbers}
    for name, ending in (("instances", "png"), ("disp", "npy"), ("gt_depth", "npz")):
        expected |= {f"{name}/{n}.{ending}" for n in numbers}
    expected |= {f"{name}/{flow}" for name in ("flow", "gt_flow") for flow in flows}
    expected |= {f"multiview_GT/{view}.jpg" for view in views}
    expected |= {f"multiview_GT_semantic/{view}.png" for view in views}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("synchronised/")} == expected


def test_formats(folder: Path) -> None:
    for name, mode in (
        ("images", "RGB"),
        ("SegmentationClass_train", "RGB"),
        ("motion_masks", "L"),
        ("instances", "L"),
    ):
        with Image.open(folder / name / "000.png") as image:
            assert (image.mode, image.size) == (mode, (WIDTH, HEIGHT))
    flow = np.load(folder / "flow/000_fwd.npz")
    assert flow["flow"].shape == (HEIGHT, WIDTH, 2) and flow["flow"].dtype == np.float32
    assert flow["mask"].shape == (HEIGHT, WIDTH) and flow["mask"].dtype == bool
    assert np.load(folder / "disp/000.npy").shape == (HEIGHT, WIDTH)
    assert np.load(folder / "poses_bounds.npy").shape == (FRAMES, 17)
    table = (folder / "labelmap.txt").read_text().splitlines()
    assert table[0].startswith("#") and table[1] == "floor:{},{},{}::".format(*CLASS_COLORS[0])
    assert [line.split(":")[0] for line in table[1:]] == list(CLASS_NAMES)
    assert (folder / "foreground_object.txt").read_text().split() == list(FOREGROUND_CLASSES)
    instances = np.array(Image.open(folder / "instances/003.png"))
    assert (instances // 10 == read_labels(folder / "SegmentationClass_train/003.png")).all()
    mask = np.array(Image.open(folder / "motion_masks/003.png")) > 0
    movers = np.isin(instances // 10, [CLASS_NAMES.index(name) for name in FOREGROUND_CLASSES])
    assert (mask == movers).all() and mask.any()


def test_frame_k_is_what_camera_k_saw_at_time_k(folder: Path) -> None:
    for k in (0, 7):
        test_view = f"{k + 1:08d}/cam{k + 1:02d}"
        labels = read_labels(folder / f"multiview_GT_semantic/{test_view}.png")
        assert (labels == read_labels(folder / f"SegmentationClass_train/{k:03d}.png")).all()
        image = np.array(Image.open(folder / f"images/{k:03d}.png")).astype(float)
        jpeg = np.array(Image.open(folder / f"multiview_GT/{test_view}.jpg")).astype(float)
        assert np.abs(image - jpeg).mean() < 3


def test_same_seed_gives_the_same_bytes_and_another_seed_another_scene(tmp_path: Path) -> None:
    options = replace(TINY, synchronised=1, flow_noise=0.3, disparity_noise=0.05)
    first, second = (make_scene(tmp_path / name, options) for name in ("first", "second"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 30
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    other = make_scene(tmp_path / "other", replace(options, seed=1))
    for name in ("poses_bounds.npy", "images/000.png", "SegmentationClass_train/000.png", "gt_tracks.npz"):
        assert (first / name).read_bytes() != (other / name).read_bytes()


def test_depth_poses_and_flow_agree_with_the_project_s_conventions(folder: Path) -> None:
    cameras, depths = read_cameras(folder), read_depths(folder).double()
    errors, errors_of_integer_centers = [], []
    for k, step, ending in [(k, 1, "fwd") for k in range(FRAMES - 1)] + [(k, -1, "bwd") for k in range(1, FRAMES)]:
        file = np.load(folder / f"gt_flow/{k:03d}_{ending}.npz")
        static = torch.from_numpy(np.array(Image.open(folder / f"motion_masks/{k:03d}.png")) == 0)
        chosen = torch.from_numpy(file["mask"]) & static
        landed = pixel_centers(WIDTH, HEIGHT) + torch.from_numpy(file["flow"])
        target = torch.full((HEIGHT, WIDTH), k + step)
        for offset, collected in ((0.0, errors), (-0.5, errors_of_integer_centers)):
            pixels, _ = cameras.project(lift(cameras, k, depths[k], offset), target)
            collected.append((pixels + -offset - landed).norm(dim=-1)[chosen])
    assert torch.cat(errors).median() < 1e-4
    assert torch.cat(errors).quantile(0.99) < 1e-3
    assert torch.cat(errors_of_integer_centers).median() > 0.01
    bounds = np.load(folder / "poses_bounds.npy")[:, 15:]
    assert (bounds[:, 0] < depths.amin((1, 2)).numpy()).all() and (bounds[:, 1] > depths.amax((1, 2)).numpy()).all()
    assert depths.min() > 2.5 and depths.max() < 10


def test_forward_then_backward_flow_returns(folder: Path) -> None:
    """Also on movers: the flow of the pixel that a visible point lands on leads back to about where it came from."""
    for k in (2, 8):
        forward, backward = (
            np.load(folder / f"gt_flow/{k:03d}_fwd.npz"),
            np.load(folder / f"gt_flow/{k + 1:03d}_bwd.npz"),
        )
        instance = [np.array(Image.open(folder / f"instances/{i:03d}.png")) for i in (k, k + 1)]
        landed = np.floor(pixel_centers(WIDTH, HEIGHT).numpy() + forward["flow"]).astype(int)
        column, row = landed[..., 0].clip(0, WIDTH - 1), landed[..., 1].clip(0, HEIGHT - 1)
        moving = (instance[0] >= 50) & forward["mask"] & (instance[1][row, column] == instance[0])
        error = np.linalg.norm(forward["flow"] + backward["flow"][row, column], axis=-1)
        assert moving.sum() > 100 and np.median(error[moving]) < 0.5


def test_tracks_agree_with_flow_depth_and_instances(folder: Path) -> None:
    tracks = np.load(folder / "gt_tracks.npz")
    points, visible, frame = tracks["points"], tracks["visible"], tracks["query_frame"]
    count = len(points)
    assert points.shape == (count, FRAMES, 2) and visible.shape == (count, FRAMES) and count >= 200
    assert tracks["rig_points"].shape == (count, FRAMES, FRAMES, 2)
    everyone = np.arange(count)
    assert visible[everyone, frame].all() and 0.2 < visible.mean() < 1
    assert np.isin(tracks["instance"] // 10, [CLASS_NAMES.index(n) for n in FOREGROUND_CLASSES]).mean() > 0.4
    cameras, depths = read_cameras(folder), read_depths(folder).numpy()
    positions = torch.from_numpy(tracks["positions"]).double()
    pixels, depth = cameras.project(positions, torch.arange(FRAMES).expand(count, FRAMES))
    assert np.abs(pixels.numpy() - points).max() < 1e-3
    column, row = (points[everyone, frame] - 0.5).round().astype(int).T
    assert np.abs(points[everyone, frame] - 0.5 - np.stack([column, row], axis=-1)).max() < 1e-3
    assert np.abs(depth.numpy()[everyone, frame] - depths[frame, row, column]).max() < 1e-4
    for p in np.flatnonzero(frame < FRAMES - 1):
        k = frame[p]
        flow = np.load(folder / f"gt_flow/{k:03d}_fwd.npz")
        assert np.abs(points[p, k + 1] - points[p, k] - flow["flow"][row[p], column[p]]).max() < 1e-3
        assert visible[p, k + 1] == flow["mask"][row[p], column[p]]
        instance = np.array(Image.open(folder / f"instances/{k:03d}.png"))
        assert instance[row[p], column[p]] == tracks["instance"][p]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_scene_is_as_hard_as_it_should_be(seed: int) -> None:
    options = SceneOptions(seed=seed, size="96x54")
    scene = build_scene(options)
    movers = [index for index, thing in enumerate(scene.objects) if thing.moves]
    assert len({scene.objects[index].class_id for index in movers}) >= 2
    scores, classes, own_motion = [], set(), {index: [] for index in movers}
    for time in range(options.frames):
        views = [render_view(scene, camera, time, color=False) for camera in scene.cameras]
        own = views[time]
        scores += [mean_iou(own.label, view.label) for k, view in enumerate(views) if k != time]
        classes |= set(np.unique(own.label))
        assert all(0.04 <= view.moving.mean() <= 0.15 for view in views)
        flow, _ = optical_flow(scene, own, scene.cameras[time], time, scene.cameras[time], time + 1)
        speed = np.linalg.norm(flow, axis=-1) / options.width
        assert speed[~own.moving].max() < 1e-9
        for index in movers:
            own_motion[index].append(speed[own.object_id == index])
    assert np.mean(scores) <= 0.60
    assert len(classes) >= 6
    assert all(np.concatenate(speeds).mean() >= 0.02 for speeds in own_motion.values())


def test_static_surroundings_have_detail_at_four_pixels(folder: Path) -> None:
    image = np.array(Image.open(folder / "images/002.png")).astype(float).mean(-1)
    labels = read_labels(folder / "SegmentationClass_train/002.png")
    detail = np.abs(image - uniform_filter(image, 4))
    for name in ("floor", "wall", "crate", "pillar", "plant"):
        assert detail[labels == CLASS_NAMES.index(name)].mean() > 3, name


@pytest.mark.parametrize("name", ["person", "crate_4"])
def test_leaving_an_object_out_changes_only_what_it_covered(name: str) -> None:
    scene, without = build_scene(OPTIONS), build_scene(replace(OPTIONS, leave_out=name))
    index = [thing.name for thing in scene.objects].index(name)
    for k in (1, 5):
        full, rest = (render_view(s, s.cameras[k], k) for s in (scene, without))
        covered = full.object_id == index
        assert covered.sum() > 20
        assert (full.depth[~covered] == rest.depth[~covered]).all() and (
            rest.depth[covered] > full.depth[covered]
        ).all()
        assert (full.label[~covered] == rest.label[~covered]).all()
        assert (full.instance[~covered] == rest.instance[~covered]).all()
        assert not (rest.instance == scene.objects[index].instance_id).any()
        # Anti-aliasing mixes the object into the pixels around it.
        outside = np.logical_not(binary_dilation(covered, iterations=2))
        assert (full.color[outside] == rest.color[outside]).all()
        assert np.abs(full.color[covered].astype(float) - rest.color[covered]).mean() > 10


def test_synchronised_cameras_are_written_as_transforms_json(folder: Path) -> None:
    document = json.loads((folder / "transforms.json").read_text())
    frames = {frame["file_path"]: frame for frame in document["frames"]}
    assert len(frames) == FRAMES * FRAMES
    train, test = set(document["train_filenames"]), set(document["test_filenames"])
    assert train | test == set(frames) and not train & test and len(train) == 2 * FRAMES
    assert not {frames[name]["camera"] for name in train} & {frames[name]["camera"] for name in test}
    for frame in document["frames"]:
        assert all((folder / path).is_file() for key, path in frame.items() if key.endswith("_path"))
        assert ("flow_forward_path" in frame) == (frame["file_path"] in train and frame["time"] < 1)
        assert ("flow_backward_path" in frame) == (frame["file_path"] in train and frame["time"] > 0)
    assert (document["w"], document["h"]) == (WIDTH, HEIGHT)
    assert [entry["name"] for entry in document["classes"] if entry["foreground"]] == list(FOREGROUND_CLASSES)
    frame = next(frame for frame in document["frames"] if "flow_forward_path" in frame)
    camera = int(frame["camera"][3:]) - 1
    pose = read_cameras(folder).camera_to_worlds[camera].numpy()
    assert np.allclose(np.array(frame["transform_matrix"])[:3], pose)
    depth = np.array(Image.open(folder / frame["depth_file_path"])) * document["depth_unit_scale_factor"]
    scene = build_scene(OPTIONS)
    view = render_view(scene, scene.cameras[camera], 0)
    assert np.abs(depth - view.depth).max() < 0.001
    moving = np.array(Image.open(folder / frame["motion_mask_path"])) > 0
    flow = np.load(folder / frame["flow_forward_path"])["flow"]
    assert np.abs(flow[~moving]).max() < 1e-4 and np.abs(flow[moving]).mean() > 1


def test_disparity_and_flow_options(tmp_path: Path, folder: Path) -> None:
    fits = []
    for k in range(3):
        inverse = 1 / np.load(folder / f"gt_depth/{k:03d}.npz")["depth"].ravel().astype(float)
        disparity = np.load(folder / f"disp/{k:03d}.npy").ravel()
        fits.append(np.polyfit(inverse, disparity, 1))
        assert np.abs(np.polyval(fits[-1], inverse) - disparity).max() < 1e-3 * np.ptp(disparity)
    assert len({round(scale) for scale, _ in fits}) == 3 and min(scale for scale, _ in fits) > 0
    made = make_scene(tmp_path / "scene", replace(TINY, disparity="exact", flow_noise=0.3))
    assert np.allclose(np.load(made / "disp/001.npy") * np.load(made / "gt_depth/001.npz")["depth"], 1)
    error = np.load(made / "flow/000_fwd.npz")["flow"] - np.load(made / "gt_flow/000_fwd.npz")["flow"]
    assert 0.27 < error.std() < 0.33
    noisy = make_scene(tmp_path / "noisy", replace(TINY, disparity="exact", disparity_noise=0.05))
    ratio = np.load(noisy / "disp/001.npy") * np.load(noisy / "gt_depth/001.npz")["depth"]
    assert 0.04 < ratio.std() < 0.06


def test_lighting() -> None:
    options = replace(OPTIONS, synchronised=0)
    constant, changing = build_scene(options), build_scene(replace(options, lighting="changing"))
    brightness = []
    for time in (0, 11):
        views = [render_view(scene, scene.cameras[4], time) for scene in (constant, changing)]
        assert (views[0].part_id == views[1].part_id).all()
        brightness.append([view.color[~view.moving].mean() for view in views])
    assert brightness[0][0] == brightness[0][1] and abs(brightness[0][0] - brightness[1][0]) < 3
    assert brightness[1][1] < 0.8 * brightness[0][1]


def test_speed() -> None:
    steps = {}
    for speed in (1.0, 2.0, 0.0):
        scene = build_scene(replace(TINY, speed=speed))
        moved = np.linalg.norm(np.diff([scene.poses(5.0), scene.poses(6.0)], axis=0)[0, :, :, 3], axis=-1)
        steps[speed] = moved[[scene.objects[o].moves for o in scene.part_object]].mean()
    assert steps[0.0] == 0 and 1.7 < steps[2.0] / steps[1.0] < 2.3
    assert not render_view(scene, scene.cameras[0], 2, color=False).moving.any()


def test_primitives_are_entered_where_their_implicit_surfaces_are(seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    half = np.array([0.5, 0.7, 0.9])

    def capsule(p: np.ndarray) -> np.ndarray:
        axis = np.stack([0 * p[:, 0], 0 * p[:, 1], p[:, 2].clip(-0.6, 0.6)], axis=-1)
        return np.linalg.norm(p - axis, axis=-1) - 0.4

    cases = [
        (Box((0.5, 0.7, 0.9)), lambda p: (np.abs(p) - half).max(-1)),
        (Ellipsoid((0.5, 0.7, 0.9)), lambda p: np.linalg.norm(p / half, axis=-1) - 1),
        (Cylinder(0.4, 0.6), lambda p: np.maximum(np.hypot(p[:, 0], p[:, 1]) - 0.4, np.abs(p[:, 2]) - 0.6)),
        (Capsule(0.4, 0.6), capsule),
    ]
    origin = np.array([1.5, -2.0, 0.8])
    directions = rng.normal(0, 0.6, (2000, 3)) - origin
    for shape, implicit in cases:
        t = first_hit(shape, origin, directions)
        steps = np.linspace(0, 3, 1501)
        inside = np.stack([implicit(origin + s * directions) < 0 for s in steps])
        first = np.where(inside.any(0), steps[inside.argmax(0)], np.inf)
        hit = np.isfinite(first)
        assert 200 < hit.sum() < 1900
        assert (np.abs(t[hit] - first[hit]) < 0.0021).all()
        assert (np.isfinite(t) == hit).mean() > 0.99  # the samples miss rays that graze
        points = origin + t[hit, None] * directions[hit]
        assert np.abs(implicit(points)).max() < 1e-9
        normals = shape.normals(points)
        assert np.allclose(np.linalg.norm(normals, axis=-1), 1)
        assert (implicit(points + 1e-4 * normals) > 0).all() and ((normals * directions[hit]).sum(-1) < 1e-9).all()


def test_tracing_by_screen_boxes_finds_what_testing_everything_finds() -> None:
    scene = build_scene(TINY)
    camera, poses = scene.cameras[1], scene.poses(1.0)
    pixels = camera.pixel_grid()
    depth, part_id = trace(scene, camera, pixels, poses)
    directions = camera.directions(pixels)
    found = np.stack(
        [
            first_hit(part.shape, (camera.origin - pose[:, 3]) @ pose[:, :3], directions @ pose[:, :3])
            for part, pose in zip(scene.parts, poses, strict=True)
        ]
    )
    assert (found.argmin(0) == part_id).all() and np.allclose(found.min(0), depth, rtol=1e-12)


def test_a_scene_is_whole_or_not_there(tmp_path: Path) -> None:
    out = tmp_path / "scene"

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_scene(out, TINY, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    make_scene(out, TINY)
    (out / "mine.txt").write_text("kept")
    with pytest.raises(SceneDataError, match="not empty"):
        make_scene(out, TINY)
    assert (out / "mine.txt").read_text() == "kept"
    make_scene(out, replace(TINY, frames=2), overwrite=True)
    assert not (out / "mine.txt").exists() and len(list((out / "images").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["scene"]


def test_there_are_never_more_cameras_than_poses(tmp_path: Path) -> None:
    made = make_scene(tmp_path / "scene", replace(TINY, rig_cameras=12))
    assert len(list(made.glob("multiview_GT/00000001/*"))) == 3 == len(np.load(made / "poses_bounds.npy"))
    poses = np.load(make_scene(tmp_path / "few", TINY) / "poses_bounds.npy")
    assert (poses[0, :15] == poses[2, :15]).all() and (poses[0, :15] != poses[1, :15]).any()


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"frames": 1}, "frames must be at least 2"),
        ({"rig_cameras": 0}, "rig_cameras"),
        ({"size": "240"}, "240x135, not 240"),
        ({"size": "8x8"}, "at least 16 pixels"),
        ({"speed": float("nan")}, "speed"),
        ({"synchronised": 2}, "synchronised must be less than"),
        ({"lighting": "dim"}, "constant or changing, not dim"),
        ({"disparity": "metric"}, "relative or exact, not metric"),
        ({"leave_out": "cart"}, "leave_out must be one of crate_1"),
        ({"leave_out": "floor"}, "not floor"),
    ],
)
def test_wrong_options_are_named_before_anything_is_written(tmp_path: Path, wrong: dict, part: str) -> None:
    with pytest.raises(SceneDataError, match=part):
        make_scene(tmp_path / "scene", replace(TINY, **wrong))
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = [str(tmp_path / "scene"), "--frames", "2", "--rig-cameras", "2", "--size", "48x27", "--seed", "5"]
    tyro.cli(MakeScene, args=arguments).main()
    assert "2 frames of 48x27" in " ".join(capsys.readouterr().out.split())
    expected = make_scene(tmp_path / "same", SceneOptions(frames=2, rig_cameras=2, size="48x27", seed=5))
    assert (tmp_path / "scene/images/001.png").read_bytes() == (expected / "images/001.png").read_bytes()
    with pytest.raises(SystemExit, match="not empty"):
        tyro.cli(MakeScene, args=arguments).main()
