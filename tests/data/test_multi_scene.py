"""Several scenes in one data set: merged classes, each scene's own units and sizes, fair batches."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from several_scenes import FRAMES, MERGED, SIZES, write_scenes
from tiny_scenes import drawn_pixels, edit_transforms, same, write_transforms

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.datamanager import SemFlowDataManager, SemFlowDataManagerConfig
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.frame_sampler import SemFlowPixelSamplerConfig
from semflow_nerfstudio.data.labels import (
    ClassTable,
    default_colors,
    extend_class_table,
    make_class_table,
    merge_class_tables,
)
from semflow_nerfstudio.data.multi_scene import scene_folder, scene_names, scene_paths
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


def table(file: str, *classes: tuple[str, tuple[int, int, int] | None], foreground: tuple[str, ...] = ()) -> ClassTable:
    colors = [color for _, color in classes]
    given = None if None in colors else [color for color in colors if color is not None]
    return make_class_table(Path(file), [name for name, _ in classes], given, list(foreground))


def manage(root: Path, test_mode: str = "val", **config) -> SemFlowDataManager:
    parser = DynamicSceneDataParserConfig(data=root, scenes=("A", "B"))
    config = {"train_num_rays_per_batch": 256, "eval_num_rays_per_batch": 64, "dataparser": parser, **config}
    config.setdefault("derive_motion_masks", False)
    return SemFlowDataManagerConfig(**config).setup(device="cpu", test_mode=test_mode)


# ---------------------------------------------------------------- class tables


def test_classes_are_merged_by_name() -> None:
    one = table("a", ("sky", (0, 0, 9)), ("cat", (9, 0, 0)), foreground=("cat",))
    other = table("b", ("cat", (9, 0, 0)), ("tree", (0, 9, 0)), ("sky", (0, 0, 9)))
    merged = merge_class_tables([one, other])
    assert merged.names == ("sky", "cat", "tree")
    assert merged.colors.tolist() == [[0, 0, 9], [9, 0, 0], [0, 9, 0]]
    assert merged.foreground.tolist() == [False, True, False]  # the second table says nothing about the foreground
    assert other.ids_in(merged.names)[:4].tolist() == [1, 2, 0, 255]


def test_classes_without_colours_get_free_ones() -> None:
    first = tuple(default_colors(1)[0].tolist())
    plain = table("a", ("sky", None), ("cat", None))
    merged = merge_class_tables([plain, table("b", ("cat", (9, 0, 0)), ("tree", first))])
    assert merged.names == ("sky", "cat", "tree")
    assert merged.colors[1:].tolist() == [[9, 0, 0], list(first)]
    assert len({tuple(color) for color in merged.colors.tolist()}) == 3


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (table("b.txt", ("cat", (1, 1, 1))), "give class 'cat' the colours 9,0,0 and 1,1,1"),
        (table("b.txt", ("dog", (9, 0, 0))), "give colour 9,0,0 to the classes 'cat' and 'dog'"),
        (
            table("b.txt", ("cat", (9, 0, 0)), ("sky", (0, 0, 9)), foreground=("sky",)),
            "disagree whether 'cat' is foreground",
        ),
    ],
    ids=["two colours", "two names", "foreground"],
)
def test_contradictions_name_both_files(other: ClassTable, words: str) -> None:
    one = table("a.txt", ("sky", (0, 0, 9)), ("cat", (9, 0, 0)), foreground=("cat",))
    with pytest.raises(SceneDataError, match=rf"^a\.txt and b\.txt {words}.*: ") as error:
        merge_class_tables([one, other])
    assert "\n" not in str(error.value)


def test_new_classes_come_after_the_known_ones() -> None:
    known = ClassTable(("a", "b"), np.array([[1, 1, 1], [2, 2, 2]], np.uint8), np.array([True, False]))
    own = table("own", ("c", (1, 1, 1)), ("b", (7, 7, 7)), ("d", (4, 4, 4)), foreground=("b", "c"))
    extended = extend_class_table(known, own)
    assert extended.names == ("a", "b", "c", "d")
    assert extended.colors[[0, 1, 3]].tolist() == [[1, 1, 1], [2, 2, 2], [4, 4, 4]]
    assert extended.colors[2].tolist() not in ([1, 1, 1], [2, 2, 2], [4, 4, 4])
    assert extended.foreground.tolist() == [True, True, True, False]
    assert extend_class_table(known, None) is known


# ---------------------------------------------------------------- names and places


def test_scenes_are_names_or_paths(tmp_path: Path) -> None:
    for name in ("root/A", "elsewhere/B"):
        (tmp_path / name).mkdir(parents=True)
    outside = str(tmp_path / "elsewhere/B")
    assert scene_paths(tmp_path / "root", ["A", outside]) == [tmp_path / "root/A", tmp_path / "elsewhere/B"]
    with pytest.raises(SceneDataError, match=r"root/C does not exist: give --scenes names in .*root \(A\) or paths"):
        scene_paths(tmp_path / "root", ["A", "C"])
    with pytest.raises(SceneDataError, match="listed 2 times"):
        scene_paths(tmp_path / "root", ["A", str(tmp_path / "root/A")])


def test_folder_of_a_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one scene or several, a folder or a transforms file in it, in `data` or anywhere."""
    for name in ("data/A", "other/B"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "transforms.json").touch()
    monkeypatch.chdir(tmp_path)
    alone = SemFlowDataParserConfig(data=tmp_path / "data/A/transforms.json")
    assert scene_folder(alone) == scene_folder(DynamicSceneDataParserConfig(data=tmp_path / "data/A"))
    several = SemFlowDataParserConfig(
        data=Path("data"), scenes=("A", "other/B", str(tmp_path / "data/A/transforms.json"))
    )
    assert [scene_folder(several, k).resolve() for k in range(3)] == [
        tmp_path / n for n in ("data/A", "other/B", "data/A")
    ]


def test_scenes_of_one_name_are_told_apart() -> None:
    paths = [Path("/x/one/scene"), Path("/x/two/scene"), Path("/x/third")]
    assert scene_names(paths) == ["one_scene", "two_scene", "third"]
    assert scene_names([Path("/x/A/transforms.json"), Path("/x/B")]) == ["A", "B"]


# ---------------------------------------------------------------- the data set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def manager(root: Path) -> SemFlowDataManager:
    return manage(root)


def test_every_scene_is_as_it_is_alone(manager: SemFlowDataManager, root: Path) -> None:
    dataset, first = manager.train_dataset, 0
    assert dataset.table is not None and dataset.table.names == MERGED
    scenes = manager.train_dataset.metadata["scene_frames"]
    assert list(scenes) == ["A", "B"]
    for name, together in scenes.items():
        parser = DynamicSceneDataParserConfig(data=root / name)
        config = SemFlowDataManagerConfig(dataparser=parser, derive_motion_masks=False)
        single = config.setup(device="cpu", test_mode="val")
        (alone,) = single.train_dataset.metadata["scene_frames"].values()
        assert (alone.name, alone.near, alone.far, alone.bounded) == (name, together.near, together.far, True)
        for field in ("times", "distinct_times", "images", "next_frame", "previous_frame", "aabb", "world_transform"):
            assert torch.equal(getattr(alone, field), getattr(together, field)), field
        assert torch.equal(alone.cameras.camera_to_worlds, together.cameras.camera_to_worlds)
        assert torch.equal(alone.cameras.intrinsics, together.cameras.intrinsics)
        assert alone.world_scale == together.world_scale and alone.has == together.has
        assert together.class_names == MERGED
        own = single.train_dataset.table
        assert own is not None and len(together.times) == FRAMES[name]
        for k in range(FRAMES[name]):
            item, expected = dataset[first + k], single.train_dataset[k]
            assert item["image"].shape == (*SIZES[name][::-1], 3) and torch.equal(item["image"], expected["image"])
            names = np.array(own.names)[expected["labels"]]
            assert (np.array(MERGED)[item["labels"]] == names).all()
            for key in expected.keys() - {"image_idx", "labels"}:
                assert torch.equal(item[key].nan_to_num(-1), expected[key].nan_to_num(-1)), key
        first += FRAMES[name]
    assert (dataset[5]["motion_mask"] == 255).all()  # B has none, A does


def test_batches_mix_scenes_in_equal_shares(manager: SemFlowDataManager) -> None:
    """A has four frames and B three: each gets half of the rays."""
    for step in range(4):
        rays, batch = manager.next_train(step)
        scene = (batch["indices"][:, 0] >= FRAMES["A"]).long()
        assert torch.equal(rays.metadata["scene"][:, 0], scene) and scene.sum() == 128
        for index, (width, height) in enumerate(SIZES.values()):
            assert (batch["image_size"][scene == index] == torch.tensor([width, height])).all()
            assert (batch["indices"][scene == index][:, 1] < height).all()
    assert set(batch["labels"].unique().tolist()) <= {0, 1, 2, 3}


def test_few_frames_still_reach_every_scene() -> None:
    """More scenes than frames in a batch take turns; a short scene gets as many rays as a long one."""
    images = {"image": torch.zeros(9, 4, 6, 3), "image_idx": torch.arange(9)}
    for frames_per_batch, expected in ((4, {0, 1, 2}), (2, {0, 1, 2})):
        sampler = SemFlowPixelSamplerConfig(frames_per_batch=frames_per_batch, min_rays_per_frame=1).setup(
            num_rays_per_batch=60
        )
        sampler.scene_of_frame = torch.tensor([0] * 7 + [1, 2])
        seen = torch.zeros(3)
        for _ in range(60):
            scene = sampler.scene_of_frame[sampler.sample(images)["indices"][:, 0]]
            counts = torch.bincount(scene, minlength=3)
            assert counts.sum() == 60 and counts[counts > 0].float().std() <= 0.5
            seen += counts
        assert set(seen.nonzero()[:, 0].tolist()) == expected
        assert (seen / seen.sum() - 1 / 3).abs().max() < 0.12


def test_evaluation_cameras_carry_their_scene(manager: SemFlowDataManager) -> None:
    dataset = manager.eval_dataset
    scene = dataset.cameras.metadata["scene"][:, 0].tolist()
    assert scene == [frame.scene for frame in dataset.frames] == sorted(scene) and set(scene) == {0, 1}


def test_transforms_files(tmp_path: Path) -> None:
    """The same for several transforms.json: by folder or file, of which one has a depth range and no depth."""
    write_transforms(tmp_path / "A", near=1.0, far=6.0)
    write_transforms(tmp_path / "B", count=3)

    def strip(meta: dict) -> None:
        meta["classes"] = [*reversed(meta["classes"]), {"name": "dog", "color": [1, 2, 3], "foreground": True}]
        for frame in meta["frames"]:
            del frame["depth_path"]

    edit_transforms(tmp_path / "B", strip)
    parser = SemFlowDataParserConfig(data=tmp_path, scenes=("A", "B/transforms.json"), eval_mode="all")
    manager = SemFlowDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode="val")
    scenes = manager.train_dataset.metadata["scene_frames"]
    assert list(scenes) == ["A", "B"] and scenes["A"].bounded and not scenes["B"].bounded
    assert scenes["A"].near is not None and scenes["B"].near is None
    assert scenes["A"].world_scale != scenes["B"].world_scale
    assert {"depth", "inverse_depth"} <= scenes["A"].has and "depth" not in scenes["B"].has
    alone = SemFlowDataParserConfig(data=tmp_path / "A", eval_mode="all")
    single = SemFlowDataManagerConfig(dataparser=alone).setup(device="cpu", test_mode="val").train_dataset
    assert torch.equal(manager.train_dataset[0]["depth"], single[0]["depth"])
    assert manager.train_dataset[4]["depth"].isnan().all()
    assert manager.train_dataset.table.names == MERGED


def test_a_labelled_frame_that_is_not_there_names_its_scene(root: Path) -> None:
    """B is shorter than A."""
    parser = DynamicSceneDataParserConfig(data=root, scenes=("A", "B"), labelled_frames="0,3")
    with pytest.raises(SceneDataError, match=rf"'0,3' but {root / 'B'} has no frame 3: use indices from 0 to 2\."):
        manage(root, dataparser=parser)


def test_inference_reads_every_scene_at_full_size(root: Path) -> None:
    parser = DynamicSceneDataParserConfig(data=root, scenes=("A", "B"), downscale_factor=2)
    for mode, divisor in (("test", 2), ("inference", 1)):
        cameras = SemFlowDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode=mode).eval_dataset.cameras
        assert cameras.width.unique().tolist() == [width // divisor for width, _ in SIZES.values()]


# ---------------------------------------------------------------- labels that are not to be read


def test_labels_of_unlabelled_frames_are_never_read(root: Path, tmp_path: Path) -> None:
    """Without their files, batches and the labels that are carried to other frames are the same, in every scene."""
    bare = Path(shutil.copytree(root, tmp_path / "scenes"))
    for frame in ("A/SegmentationClass_train/001", "A/SegmentationClass_train/003", "B/SegmentationClass_train/001"):
        (bare / f"{frame}.png").unlink()
    managers = [
        manage(
            folder,
            dataparser=DynamicSceneDataParserConfig(data=folder, scenes=("A", "B"), labelled_frames="0,2"),
            pixel_sampler=SemFlowPixelSamplerConfig(frames_per_batch=None),
        )
        for folder in (root, bare)
    ]
    before, after = (drawn_pixels(manager) for manager in managers)
    assert before.keys() == after.keys() and "carried_labels" in before
    assert all(same(before[key], after[key]) for key in before)
    labelled = before["indices"][(before["labels"] != IGNORE_LABEL)[:, 0], 0]
    assert set(labelled.tolist()) == {0, 2, 4, 6}, "frames 0 and 2 of each scene"
    sources = [manager.train_dataset.metadata["label_sources"] for manager in managers]
    assert set(sources[0]) == set(sources[1]) == {"A", "B"}
    for name, source in sources[0].items():
        assert torch.equal(source.labels, sources[1][name].labels)
        assert torch.equal(source.wanted, sources[1][name].wanted)


def test_hidden_labels_may_be_broken_or_missing(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "scenes")
    broken = tmp_path / "scenes"
    (broken / "A/labelmap.txt").write_text("nonsense")
    for file in broken.glob("A/SegmentationClass_train/*.png"):
        file.write_bytes(b"broken")
    shutil.rmtree(broken / "B/SegmentationClass_train")
    with pytest.raises(SceneDataError, match=r"labelmap\.txt"):
        manage(broken)
    manager = manage(broken, hidden_labels="all")
    assert manager.train_dataset.table is None
    for dataset in (manager.train_dataset, manager.eval_dataset):
        assert not dataset.has("labels") and "labels" not in dataset[0]


def test_hidden_training_labels_leave_those_of_the_evaluation(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "scenes")
    for file in tmp_path.glob("scenes/*/SegmentationClass_train/*.png"):
        file.write_bytes(b"broken")
    manager = manage(tmp_path / "scenes", hidden_labels="training")
    assert not manager.train_dataset.has("labels")
    assert len(manager.eval_dataset) == len(manage(root).eval_dataset)
    assert (manager.eval_dataset[0]["labels"] < 4).all()


def test_labels_in_the_order_of_known_classes(root: Path) -> None:
    """A run's classes come first; in evaluation, pixels of classes that it does not know are not scored."""
    known = ClassTable(("dog", "cat", "background"), default_colors(3), np.array([True, False, False]))
    manager, plain = manage(root, known_classes=known), manage(root)
    assert manager.train_dataset.table.names == ("dog", "cat", "background", "person", "balloon")
    names = np.array(MERGED)[plain.train_dataset[5]["labels"]]
    assert (np.array(manager.train_dataset.table.names)[manager.train_dataset[5]["labels"]] == names).all()
    plain.use_classes(known)
    labels = plain.eval_dataset[0]["labels"].numpy()
    assert set(np.unique(labels)) == {2, 255}


def test_a_scene_shows_what_its_own_labels_name(tmp_path: Path) -> None:
    """Not what its table names, which may be that of a whole data set; without labels it may show anything."""
    root = write_scenes(tmp_path)

    def own(**config) -> list[list[str] | None]:
        scenes = manage(root, **config).train_dataset.metadata["scene_frames"].values()
        return [
            None
            if s.own_classes is None
            else [n for n, shown in zip(s.class_names, s.own_classes, strict=True) if shown]
            for s in scenes
        ]

    assert own() == [["background", "person", "balloon"], ["background", "balloon", "dog"]]
    with (root / "A/labelmap.txt").open("a") as file:
        file.write("zebra:9,9,9::\n")
    assert own() == [["background", "person", "balloon"], ["background", "balloon", "dog"]]
    assert own(test_mode="test") == [None, None], "the checkpoint says"
    shutil.rmtree(root / "B/SegmentationClass_train")
    assert own() == [["background", "person", "balloon"], None]
    alone = SemFlowDataManagerConfig(dataparser=DynamicSceneDataParserConfig(data=root / "A")).setup(device="cpu")
    (scene,) = alone.train_dataset.metadata["scene_frames"].values()
    assert scene.own_classes is None
