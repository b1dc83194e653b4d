"""Measure edits: take an object out and compare with what was behind it; move it and see where it is then.

    python -m benchmarks.editing builtin [--object person] [--run RUN] [--run-without RUN]
    python -m benchmarks.editing courtyard --scene PATH/TO/Courtyard [--run RUN]

`builtin` makes the built-in scene with and without an object, trains both (or takes runs of them), and scores the views
that the generator knows exactly. `courtyard` trains on a scene that comes with `multiview_GT_without_person/`. Each
writes one JSON under `benchmarks/results/editing/` and a picture beside the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy import ndarray
from PIL import Image

from benchmarks.machine import describe
from semflow_nerfstudio.cli.report import finite, print_scores, progress, write_json
from semflow_nerfstudio.configs.methods import LITE_STEPS, lite
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene, render_view
from semflow_nerfstudio.data.procedural.removal import Removal, object_index, with_moved
from semflow_nerfstudio.editing.scene_state import SceneState, Vector, class_target, hide, place
from semflow_nerfstudio.runs import Run, load_run, train

RESULTS = Path(__file__).parent / "results" / "editing"
MIN_PIXELS = 40
"""Centroids of less of an object than this say little."""
SEMANTIC_FOLDERS = ("multiview_GT_semantic", "multiview_GT_semantic_without_person")
"""Labels of the test views of a scene like Courtyard, with and without its person."""


def trained(
    scene: Path, out: Path, steps: int, seed: int, known: Path | None, downscale_factor: int = 1
) -> tuple[Run, float | None]:
    """A run of a scene: the known one, or a new one and the seconds that it took."""
    if known is not None:
        return load_run(known), None
    config = lite(steps)
    manager = config.pipeline.datamanager
    assert isinstance(manager, SemFlowDataManagerConfig)
    manager.data = scene
    manager.dataparser = DynamicSceneDataParserConfig(data=scene, downscale_factor=downscale_factor)
    config.output_dir, config.experiment_name, config.machine.seed = out, scene.name, seed
    with progress(f"Training on {scene.name}") as update:
        return train(config, lambda step, psnr: update(step + 1, steps, f"psnr {psnr:.1f}"))


class Pixels:
    """Squared errors of some pixels of many images."""

    def __init__(self) -> None:
        self.error, self.count = 0.0, 0

    def add(self, image: ndarray, truth: ndarray, mask: ndarray) -> None:
        """Count the pixels of a mask; colours in [0, 1]."""
        self.error += float(np.square(image[mask] - truth[mask]).sum())
        self.count += int(mask.sum()) * 3

    @property
    def psnr(self) -> float:
        """Of all pixels together; NaN where there are none."""
        return float("nan") if self.count == 0 else -10 * float(np.log10(max(self.error / self.count, 1e-10)))


def view_of(path: Path) -> tuple[int, int]:
    """(time, camera) from 0 of a test view `.../00000001/cam01.jpg`."""
    return int(path.parent.name) - 1, int(path.stem.removeprefix("cam")) - 1


def colors_of(path: Path, size: tuple[int, int]) -> ndarray:
    """An image in [0, 1] at (width, height), area-averaged."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX), dtype=np.float32) / 255


def test_views(run: Run) -> list[tuple[int, Path]]:
    """Index and image file of every held-out view."""
    dataset: Any = run.pipeline.datamanager.eval_dataset
    return list(enumerate(Path(file) for file in dataset.image_filenames))


def render_view_of(run: Run, index: int) -> dict[str, torch.Tensor]:
    """Outputs of a held-out view, edited as the run's scene state says."""
    dataset: Any = run.pipeline.datamanager.eval_dataset
    return run.render(dataset.cameras[index : index + 1])


def side_by_side(pictures: Iterable[ndarray], path: Path) -> None:
    """Save pictures in [0, 1] in a row."""
    row = np.concatenate(list(pictures), axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((row.clip(0, 1) * 255).round().astype(np.uint8)).save(path)


@dataclass
class Builtin:
    """The built-in scene: removal against the same model trained without the object, and a move against the truth."""

    object: str = "person"
    """The object that is taken out and moved; the only one of its class."""
    offset: Vector = (0.9, 0.0, 0.0)
    """How far it is moved, in the scene's world units."""
    size: str = "160x90"
    """Width x height of the images."""
    frames: int = 12
    """Frames of the clip."""
    steps: int = 1300
    """Training steps."""
    views: int | None = None
    """Score this many of the held-out views, evenly spread, instead of all."""
    seed: int = 0
    """Seed of scene and training."""
    run: Path | None = None
    """A run of the scene with the object, instead of training one."""
    run_without: Path | None = None
    """A run of the scene without it, likewise."""
    alone: bool = False
    """Do not train without the object: leaves out what the removal is compared with."""
    out: Path = field(default_factory=lambda: Path("outputs/benchmarks/editing"))
    """Where scenes, runs and pictures go."""

    def main(self) -> None:
        """Make, train, edit, score."""
        options = SceneOptions(frames=self.frames, size=self.size, seed=self.seed)
        removal = Removal(options, self.object)
        whole, rest = self.out / f"scene_{self.size}_{self.seed}", self.out / f"without_{self.object}_{self.seed}"
        if self.run is None:
            make_scene(whole, options, overwrite=True)
        run, seconds = trained(whole, self.out, self.steps, self.seed, self.run)
        without = None
        if not self.alone:
            if self.run_without is None:
                make_scene(rest, replace(options, leave_out=self.object), overwrite=True)
            without, _ = trained(rest, self.out, self.steps, self.seed, self.run_without)
        views = test_views(run)
        if self.views is not None:
            chosen = np.linspace(0, len(views) - 1, self.views).round().astype(int)
            views = [views[i] for i in chosen]
        scores = self.removed(run, without, removal, views) | self.moved(run, removal, views)
        result = {
            "benchmark": "editing",
            "scene": "built-in",
            **{name: getattr(self, name) for name in ("object", "size", "frames", "steps", "seed")},
            "offset": list(self.offset),
            "views": len(views),
            "train_seconds": seconds,
            "machine": describe(run.model.device),
            "scores": finite(scores),
        }
        write_json(RESULTS / f"builtin_{self.object}_seed{self.seed}.json", result)
        print_scores(finite(scores), f"{self.object} of the built-in scene, {len(views)} held-out views")

    def removed(
        self, run: Run, without: Run | None, removal: Removal, views: list[tuple[int, Path]]
    ) -> dict[str, float]:
        """PSNR on the pixels that the object covers and whose background a training frame shows."""
        thing = removal.scene.objects[object_index(removal.scene, self.object)]
        state = hide(SceneState(), class_target(thing.class_name))
        kinds = ["unedited", "removed", *(["trained_without"] if without else [])]
        totals, hidden = {kind: Pixels() for kind in kinds}, Pixels()
        for number, (index, file) in enumerate(views):
            time, k = view_of(file)
            covered, revealed = removal.masks(time, k)
            if not covered.any():
                continue
            truth = render_view(removal.rest, removal.rest.cameras[k], time).color.astype(np.float32) / 255
            run.edit(SceneState())
            pictures = {"unedited": render_view_of(run, index)["rgb"].numpy()}
            run.edit(state)
            pictures["removed"] = render_view_of(run, index)["rgb"].numpy()
            if without is not None:
                pictures["trained_without"] = render_view_of(without, index)["rgb"].numpy()
            for kind, image in pictures.items():
                totals[kind].add(image, truth, revealed)
            hidden.add(pictures["removed"], truth, covered & ~revealed)
            if number == len(views) // 2:
                side_by_side([*pictures.values(), truth], self.out / f"removed_{self.object}.png")
        run.edit(SceneState())
        scores = {f"psnr_{kind}": total.psnr for kind, total in totals.items()}
        if without is not None:
            scores["psnr_behind"] = scores["psnr_trained_without"] - scores["psnr_removed"]
        return scores | {"pixels": totals["removed"].count // 3, "psnr_never_seen": hidden.psnr}

    def moved(self, run: Run, removal: Removal, views: list[tuple[int, Path]]) -> dict[str, float]:
        """Distance in pixels of the moved object's label centroid from the truth's, where all of it is in view."""
        scene = with_moved(removal.scene, self.object, self.offset)
        target = object_index(scene, self.object)
        thing = scene.objects[target]
        label = thing.class_id
        state = place(SceneState(), class_target(thing.class_name), in_scene_units(run, self.offset))
        before, after = [], []
        for number, (index, file) in enumerate(views):
            time, k = view_of(file)
            camera = scene.cameras[k]
            truth = render_view(scene, camera, time).label == label
            still = render_view(removal.scene, camera, time, color=False).label == label
            at_border = np.ones_like(truth)
            at_border[1:-1, 1:-1] = False
            if min(truth.sum(), still.sum()) < MIN_PIXELS or (truth & at_border).any():
                continue
            run.edit(SceneState())
            before.append(centroid_distance(render_view_of(run, index)["label"][..., 0].numpy() == label, still))
            run.edit(state)
            outputs = render_view_of(run, index)
            after.append(centroid_distance(outputs["label"][..., 0].numpy() == label, truth))
            if number == len(views) // 2:
                shown = (outputs[name].numpy() for name in ("rgb", "semantics"))
                side_by_side(shown, self.out / f"moved_{self.object}.png")
        run.edit(SceneState())
        return {
            "move_views": len(after),
            "centroid_px": float(np.mean(after)) if after else float("nan"),
            "centroid_px_worst": float(np.max(after)) if after else float("nan"),
            "centroid_px_unmoved": float(np.mean(before)) if before else float("nan"),
        }


def in_scene_units(run: Run, offset: Vector) -> Vector:
    """A way in the data set's world units as scene units of a run."""
    dataset: Any = run.pipeline.datamanager.train_dataset
    frames = next(iter(dataset.metadata["scene_frames"].values()))
    x, y, z = (frames.world_scale * frames.world_transform[:, :3] @ torch.tensor(offset)).tolist()
    return (x, y, z)


def centroid_distance(mask: ndarray, truth: ndarray) -> float:
    """Distance in pixels of the centroids of two masks; infinite where the first is empty."""
    if not mask.any():
        return float("inf")
    centers = [np.array([axis.mean() for axis in np.nonzero(m)]) for m in (mask, truth)]
    return float(np.linalg.norm(centers[0] - centers[1]))


@dataclass
class Courtyard:
    """A scene that comes with views of some cameras without its person."""

    scene: Path
    """Folder in the Semantic Dynamic Scene layout, with `multiview_GT_without_person/`."""
    target: str = "class:person"
    """What is taken out."""
    downscale_factor: int = 4
    """Size of the images."""
    steps: int = LITE_STEPS
    """Training steps."""
    seed: int = 0
    """Seed."""
    run: Path | None = None
    """A run of the scene, instead of training one."""
    out: Path = field(default_factory=lambda: Path("outputs/benchmarks/editing"))
    """Where runs and pictures go."""

    def main(self) -> None:
        """Train, edit, score."""
        truth_files = sorted((self.scene / "multiview_GT_without_person").glob("*/cam*.*"))
        if not truth_files:
            raise ValueError(f"{self.scene}: it has no multiview_GT_without_person/ with views")
        run, seconds = trained(self.scene, self.out, self.steps, self.seed, self.run, self.downscale_factor)
        by_view = {view_of(file): index for index, file in test_views(run)}
        state = hide(SceneState(), self.target)
        edited, plain, elsewhere, pixels = Pixels(), Pixels(), Pixels(), 0
        used = [file for file in truth_files if view_of(file) in by_view]
        for number, file in enumerate(used):
            index = by_view[view_of(file)]
            run.edit(SceneState())
            before = render_view_of(run, index)["rgb"].numpy()
            run.edit(state)
            after = render_view_of(run, index)["rgb"].numpy()
            size = (after.shape[1], after.shape[0])
            truth, whole = (colors_of(path, size) for path in (file, self.whole_view(file)))
            person = self.person(file, size)
            edited.add(after, truth, person)
            plain.add(before, truth, person)
            elsewhere.add(after, truth, ~person)
            pixels += int(person.sum())
            if number == len(used) // 2:
                side_by_side([whole, before, after, truth], self.out / "courtyard_without_person.png")
        scores = {
            "psnr_unedited": plain.psnr,
            "psnr_removed": edited.psnr,
            "psnr_elsewhere": elsewhere.psnr,
            "pixels": pixels,
        }
        result = {
            "benchmark": "editing",
            "scene": self.scene.name,
            "object": self.target.removeprefix("class:"),
            "size": f"1/{self.downscale_factor}",
            "steps": self.steps,
            "seed": self.seed,
            "views": len(used),
            "train_seconds": seconds,
            "machine": describe(run.model.device),
            "scores": finite(scores),
        }
        write_json(RESULTS / f"{self.scene.name.lower()}_{result['object']}_seed{self.seed}.json", result)
        print_scores(finite(scores), f"{self.target} taken out of {self.scene.name}, {len(used)} held-out views")

    def whole_view(self, file: Path) -> Path:
        """The same view with the person."""
        return next((self.scene / "multiview_GT" / file.parent.name).glob(f"{file.stem}.*"))

    def person(self, file: Path, size: tuple[int, int]) -> ndarray:
        """Pixels that the person covers: those whose label is another without it, at half or more of a pixel."""
        names = [self.scene / name / file.parent.name for name in SEMANTIC_FOLDERS]
        images = []
        for folder in names:
            with Image.open(next(folder.glob(f"{file.stem}.*"))) as image:
                images.append(np.asarray(image.convert("RGB")))
        differs = Image.fromarray((images[0] != images[1]).any(-1).astype(np.uint8) * 255)
        return np.asarray(differs.resize(size, Image.Resampling.BOX)) >= 127  # half of 255


if __name__ == "__main__":
    tyro.cli(Builtin | Courtyard).main()  # type: ignore[arg-type]
