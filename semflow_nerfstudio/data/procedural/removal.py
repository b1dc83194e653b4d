"""Exact truth for editing: what a scene looks like with an object taken out or moved, and what could be known of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.procedural.ground_truth import attach, carry, visibility, world_points
from semflow_nerfstudio.data.procedural.motion import shifted
from semflow_nerfstudio.data.procedural.options import SceneOptions
from semflow_nerfstudio.data.procedural.render import render_view
from semflow_nerfstudio.data.procedural.scene import ProceduralScene, build_scene


def with_moved(scene: ProceduralScene, name: str, offset: tuple[float, float, float]) -> ProceduralScene:
    """The scene with an object displaced at all times, its light as it was.

    Raises:
        SceneDataError: there is no such object.
    """
    index = object_index(scene, name)
    things = list(scene.objects)
    things[index] = replace(things[index], motion=shifted(things[index].motion, offset))
    return replace(scene, objects=tuple(things))


def object_index(scene: ProceduralScene, name: str) -> int:
    """Index of an object by its name.

    Raises:
        SceneDataError: there is none of that name.
    """
    names = [thing.name for thing in scene.objects]
    if name not in names:
        raise SceneDataError(f"there is no object '{name}': use one of {', '.join(names)}.")
    return names.index(name)


class Removal:
    """An object of the scene, and what is behind it."""

    def __init__(self, options: SceneOptions, name: str) -> None:
        """The scene of these options, with and without the object `name`.

        Raises:
            SceneDataError: an option makes no sense, or there is no such object that can be left out.
        """
        self.rest = build_scene(replace(options, leave_out=name))
        self.scene = build_scene(replace(options, leave_out=""))
        self._index = object_index(self.scene, name)

    def masks(self, time: int, k: int) -> tuple[Bool[ndarray, "H W"], Bool[ndarray, "H W"]]:
        """What rig camera `k` sees at a time, at pixel centres.

        Returns:
            Where the object covers something; and where what it covers there is seen by a training frame, that frame's
            own occlusions by the object and all others included: what a model can know.
        """
        camera, rig = self.rest.cameras[k], self.rest.cameras
        covered = render_view(self.scene, camera, time, color=False).object_id == self._index
        behind = render_view(self.rest, camera, time, color=False)
        chosen = covered.ravel()
        part = behind.part_id.ravel()[chosen]
        local = attach(world_points(behind, camera).reshape(-1, 3)[chosen], part, self.rest.poses(time))
        seen = np.zeros(len(part), dtype=bool)
        for frame in range(self.rest.options.frames):
            observer = rig[frame % len(rig)]
            pixels, depth = observer.project(carry(local[~seen], part[~seen], self.rest.poses(frame)))
            seen[~seen] = visibility(self.scene, observer, pixels, depth, self.scene.poses(frame))
        revealed = np.zeros_like(covered)
        revealed[covered] = seen
        return covered, revealed
