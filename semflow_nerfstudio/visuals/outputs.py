"""What a user sees of a rendered image: every output is a float picture of one or three channels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.rendering.compositing import entropy
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.visuals.colors import colorize_labels, flow_to_rgb, overlay

SEEN = 0.5
"""Where less of the light than this stops, an edited scene shows nothing that could have a class."""


def camera_outputs(
    rays: dict[str, Float[Tensor, "H W C"]],
    camera: Cameras,
    class_colors: Float[Tensor, "C 3"],
    shown: Bool[Tensor, "C"],
    opacity: float,
    flow_scale: float,
    edited: bool = False,
) -> dict[str, Float[Tensor, "H W C"]]:
    """Turn what rays returned into displayable outputs.

    Args:
        rays: The model's outputs of every ray, with `logits` (calibrated), `here` and `there` (scene units) among them.
        camera: The camera that the image was rendered for.
        class_colors: RGB in [0, 1].
        shown: Which classes are coloured; pictures of classes leave the others black or as they are.
        opacity: Of the classes' colours in the overlay.
        flow_scale: Motion, as a share of the image width, that gets the full colour.
        edited: Whether things may be taken away, so that there are pixels that show nothing: they have no class.
    """
    outputs = {name: rays[name] for name in ("rgb", "accumulation", "depth")}
    if "logits" in rays:
        probabilities = rays["logits"].softmax(-1)
        label = probabilities.argmax(-1)
        if edited:
            label = torch.where(rays["accumulation"][..., 0] > SEEN, label, IGNORE_LABEL)
        colored = torch.isin(label, shown.to(label.device).nonzero()[:, 0])
        outputs["semantics"] = colorize_labels(torch.where(colored, label, IGNORE_LABEL), class_colors)
        outputs["semantics_overlay"] = overlay(rays["rgb"], outputs["semantics"], opacity, colored)
    outputs |= {name: rays[name] for name in ("static_rgb", "dynamic_rgb", "dynamicness")}
    outputs["flow"] = flow_to_rgb(object_flow(rays["here"], rays["there"], camera), flow_scale * rays["rgb"].shape[1])
    if "logits" in rays:
        outputs["semantic_entropy"] = entropy(probabilities)[..., None]
        outputs["semantic_confidence"] = probabilities.amax(-1, keepdim=True)
        outputs["label"] = label[..., None].float()
    return outputs


def object_flow(here: Float[Tensor, "H W 3"], there: Float[Tensor, "H W 3"], camera: Cameras) -> Float[Tensor, "H W 2"]:
    """Motion in pixels of what a free camera sees, as that same camera would see it."""
    camera = camera.flatten()[:1] if camera.shape else camera.reshape((1,))
    pose = camera.camera_to_worlds.to(here)
    intrinsics = torch.cat([camera.fx, camera.fy, camera.cx, camera.cy], dim=-1).to(here)
    pinhole = FrameCameras(pose, intrinsics, here.shape[1], here.shape[0])
    first = torch.zeros(here.shape[:2], dtype=torch.long, device=here.device)
    return pinhole.project(there, first)[0] - pinhole.project(here, first)[0]
