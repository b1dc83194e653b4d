"""The truth for editing: where an object that is left out would be, and what of it could be known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.procedural import SceneOptions, build_scene, make_scene, render_view
from semflow_nerfstudio.data.procedural.removal import Removal, object_index, with_moved
from semflow_nerfstudio.data.procedural.write import COVERED

OPTIONS = SceneOptions(frames=4, size="64x36", rig_cameras=4)


@pytest.mark.parametrize("name", ["person", "crate_4"])
def test_masks_against_depth_and_against_one_pixel_at_a_time(name: str) -> None:
    removal = Removal(OPTIONS, name)
    scene, rest = removal.scene, removal.rest
    index = object_index(scene, name)
    for time, k in ((1, 0), (2, 3)):
        covered, revealed = removal.masks(time, k)
        full = render_view(scene, scene.cameras[k], time, color=False)
        behind = render_view(rest, rest.cameras[k], time, color=False)
        assert (covered == (full.object_id == index)).all() and covered.sum() > 10
        assert not (revealed & ~covered).any()
        # What is behind stands still, so its world points project into the training frames directly.
        still = covered & ~behind.moving
        rows, columns = np.nonzero(still)
        directions = rest.cameras[k].directions(np.stack([columns + 0.5, rows + 0.5], axis=-1))
        points = rest.cameras[k].origin + directions * behind.depth[still][:, None]
        certain, possible = np.zeros((2, len(points)), dtype=bool)
        for frame in range(OPTIONS.frames):
            camera = scene.cameras[frame]
            pixels, depth = camera.project(points)
            view = render_view(scene, camera, frame, color=False)
            u, v = np.floor(pixels).astype(int).T
            inside = np.flatnonzero((u >= 1) & (u < 63) & (v >= 1) & (v < 35) & (depth > 0))
            around = [view.depth[v[inside] + i, u[inside] + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
            ratio = np.abs(np.stack(around) / depth[inside] - 1)
            certain[inside] |= (ratio < 0.03).all(0)
            possible[inside] |= (ratio < 0.2).any(0)
            possible |= (np.abs(pixels - [32, 18]) > [31, 17]).any(-1) & camera.in_view(pixels, depth)
        # The picture has pixels, the mask exact rays: near silhouettes the picture cannot say.
        assert not (certain & ~revealed[still]).any() and not (revealed[still] & ~possible).any()
        assert certain.any() or name == "crate_4"


def test_what_an_object_that_never_moves_hides_from_everywhere_is_not_revealed() -> None:
    """A single camera that stands still sees the same of a crate at all times."""
    removal = Removal(replace(OPTIONS, rig_cameras=1), "crate_4")
    covered, revealed = removal.masks(2, 0)
    assert covered.any() and not revealed.any()


def test_scenes_without_an_object_say_where_it_would_be(tmp_path: Path) -> None:
    options = replace(OPTIONS, leave_out="person", rig_cameras=2)
    folder = make_scene(tmp_path / "scene", options)
    removal = Removal(options, "person")
    for time, k in ((0, 1), (3, 0)):
        mask = np.array(Image.open(folder / f"multiview_removed/{time + 1:08d}/cam{k + 1:02d}.png"))
        covered, revealed = removal.masks(time, k)
        assert (mask == np.where(revealed, 255, np.where(covered, COVERED, 0))).all() and (mask == 255).any()
    assert not (make_scene(tmp_path / "whole", replace(options, leave_out="")) / "multiview_removed").exists()


def test_a_moved_object_stands_elsewhere_and_nothing_else_changes() -> None:
    scene = build_scene(OPTIONS)
    moved = with_moved(scene, "ball", (0.0, 0.0, 0.4))
    index = object_index(scene, "ball")
    for time in (0, 2):
        before, after = (scene.poses(float(time)), moved.poses(float(time)))
        own = scene.object_parts[index]
        np.testing.assert_allclose(after[own, :, 3] - before[own, :, 3], np.tile([0, 0, 0.4], (len(own), 1)), atol=1e-9)
        np.testing.assert_array_equal(np.delete(after, own, 0), np.delete(before, own, 0))
    first, second = (render_view(s, s.cameras[0], 0, color=False) for s in (scene, moved))
    rows = [np.nonzero(view.object_id == index)[0].mean() for view in (first, second)]
    assert rows[1] < rows[0] - 2
    crate = with_moved(scene, "crate_4", (0.1, 0.0, 0.0))
    assert not crate.objects[object_index(crate, "crate_4")].moves


def test_objects_that_are_not_there() -> None:
    with pytest.raises(SceneDataError, match="no object 'cart': use one of floor, wall_back"):
        with_moved(build_scene(OPTIONS), "cart", (0, 0, 1))
    with pytest.raises(SceneDataError, match="leave_out must be one of"):
        Removal(OPTIONS, "cart")
