"""What a user sees of a rendered image: every output is a float picture of one or three channels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.rendering.compositing import entropy
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.visuals.colors import colorize_labels, flow_to_rgb, overlay
from semflow_nerfstudio.visuals.display import Display, Membership, highlighted, target_mask

HIGHLIGHTED = {"rgb", "semantics", "semantics_overlay"}
"""Outputs that show a highlight."""


class ShownClasses(NamedTuple):
    """A run's classes."""

    names: tuple[str, ...]
    colors: Float[Tensor, "C 3"]
    """RGB in [0, 1]."""
    foreground: Bool[Tensor, "C"]


SEEN = 0.5
"""Where less of the light than this stops, an edited scene shows nothing that could have a class."""


def camera_outputs(
    rays: dict[str, Float[Tensor, "H W C"]],
    camera: Cameras,
    classes: ShownClasses,
    shown: Bool[Tensor, "C"],
    display: Display,
    opacity: float,
    flow_scale: float,
    edited: bool = False,
    membership: Membership | None = None,
) -> dict[str, Float[Tensor, "H W C"]]:
    """Turn what rays returned into displayable outputs, whose names do not depend on the display.

    Args:
        rays: The model's outputs of every ray, with `logits` (calibrated), `here` and `there` (scene units) among them.
        camera: The camera that the image was rendered for.
        classes: Names, colours and which of them are foreground.
        shown: Which classes are coloured; pictures of classes leave the others black or as they are.
        display: How classes are shown.
        opacity: Of the classes' colours in the overlay, where the display does not say.
        flow_scale: Motion, as a share of the image width, that gets the full colour.
        edited: Whether things may be taken away, so that there are pixels that show nothing: they have no class.
        membership: Which instance a point belongs to.
    """
    outputs = {name: rays[name] for name in ("rgb", "accumulation", "depth")}
    if "logits" in rays:
        probabilities = rays["logits"].softmax(-1)
        label = probabilities.argmax(-1)
        if edited:
            label = torch.where(rays["accumulation"][..., 0] > SEEN, label, IGNORE_LABEL)
        coloring = shown.to(label.device) & display.listed(classes.names, label.device)
        colored = torch.isin(label, coloring.nonzero()[:, 0])
        strength = opacity if display.opacity is None else display.opacity
        outputs["semantics"] = colorize_labels(torch.where(colored, label, IGNORE_LABEL), classes.colors)
        outputs["semantics_overlay"] = overlay(rays["rgb"], outputs["semantics"], strength, colored)
    outputs |= {name: rays[name] for name in ("static_rgb", "dynamic_rgb", "dynamicness")}
    outputs["flow"] = flow_to_rgb(object_flow(rays["here"], rays["there"], camera), flow_scale * rays["rgb"].shape[1])
    if "logits" in rays:
        chosen = display.probability_class(classes.names, classes.foreground.tolist())
        outputs["class_probability"] = probabilities[..., chosen : chosen + 1]
        outputs["semantic_entropy"] = entropy(probabilities)[..., None]
        outputs["semantic_confidence"] = probabilities.amax(-1, keepdim=True)
        outputs["label"] = label[..., None].float()
    if display.highlight:
        masks = [target_mask(rays, target, classes.names, membership) for target in display.highlight]
        mask = torch.stack(masks).any(0)
        for name in HIGHLIGHTED & set(outputs):
            outputs[name] = highlighted(outputs[name], mask)
    return outputs


def object_flow(here: Float[Tensor, "H W 3"], there: Float[Tensor, "H W 3"], camera: Cameras) -> Float[Tensor, "H W 2"]:
    """Motion in pixels of what a free camera sees, as that same camera would see it."""
    camera = camera.flatten()[:1] if camera.shape else camera.reshape((1,))
    pose = camera.camera_to_worlds.to(here)
    intrinsics = torch.cat([camera.fx, camera.fy, camera.cx, camera.cy], dim=-1).to(here)
    pinhole = FrameCameras(pose, intrinsics, here.shape[1], here.shape[0])
    first = torch.zeros(here.shape[:2], dtype=torch.long, device=here.device)
    return pinhole.project(there, first)[0] - pinhole.project(here, first)[0]
