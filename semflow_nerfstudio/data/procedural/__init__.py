"""The built-in procedural scene: a small courtyard with moving objects, ray-traced analytically with numpy."""

from semflow_nerfstudio.data.procedural.options import SceneOptions
from semflow_nerfstudio.data.procedural.render import RenderedView, render_view
from semflow_nerfstudio.data.procedural.rig import RigCamera
from semflow_nerfstudio.data.procedural.scene import ProceduralScene, build_scene
from semflow_nerfstudio.data.procedural.write import make_scene

__all__ = [
    "ProceduralScene",
    "RenderedView",
    "RigCamera",
    "SceneOptions",
    "build_scene",
    "make_scene",
    "render_view",
]
