"""What a scene's share of a training batch costs: the losses that its data, the stage and the labels allow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semflow_nerfstudio.renderer import RenderConfig
from semflow_nerfstudio.sampling.proposal import proposal_losses
from semflow_nerfstudio.scene import Scene
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.scene_outputs import SceneOutputs
from semflow_nerfstudio.shared import SharedNetworks
from semflow_nerfstudio.training.backgrounds import random_background
from semflow_nerfstudio.training.label_transport import LabelTransport
from semflow_nerfstudio.training.losses import surface_loss
from semflow_nerfstudio.training.objective import LossWeights, dynamic_losses, static_losses, taught_first
from semflow_nerfstudio.training.observed import Observed, given_distance, left_out
from semflow_nerfstudio.training.silhouettes import Silhouettes


@dataclass
class Stage:
    """Where in the schedule a training step is."""

    step: int
    static: bool
    """Whether only the static field is rendered."""
    moves: bool
    """Whether anything may move at all."""
    dynamic_step: int
    """Steps since the second stage began."""

    @property
    def direction(self) -> int:
        """The neighbouring time that this step's passes along the flow go to: +1 the next, -1 the previous."""
        return 1 if self.step % 2 else -1


@dataclass
class SceneObjective:
    """The losses of one scene's rays."""

    weights: LossWeights
    render: RenderConfig
    advected_rays: int
    """Moving rays of a whole batch in the passes of the dynamic field alone."""
    whole_image: bool
    """Whether the dynamic field alone has to look like the whole image (the paper), not the movers only."""
    random_background: bool
    """Whether colours are compared in front of random backgrounds where images have no transparency."""
    carry_labels: LabelTransport
    silhouettes: Silhouettes

    def __call__(
        self,
        scene: Scene,
        shared: SharedNetworks | None,
        part: SceneOutputs,
        seen: Observed,
        stage: Stage,
        share: float,
    ) -> dict[str, Tensor]:
        """Weighted losses; also counts the labels for the calibration and the class prior.

        Args:
            scene: The scene.
            shared: The networks that read flows; None where nothing is labelled.
            part: Its rays of the batch, rendered.
            seen: What is known about them.
            stage: Where in the schedule this step is.
            share: Its rays' share of the batch.
        """
        out, w = part.rendered, self.weights
        if self.random_background:
            seen = replace(seen, behind=random_background(scene, seen.image))
        if not stage.moves:
            seen = replace(seen, motion=torch.zeros_like(seen.frame, dtype=torch.uint8))
        if seen.motion is not None and not stage.static:
            seen = seen.without(left_out(seen.motion, out.mover_rays))
        if shared is not None:
            count_labels(scene, shared, part, seen, stage)
        if stage.static:
            losses = static_losses(scene, out, seen, w)
        else:
            seen = self.carry_labels(scene, out, seen, stage.dynamic_step)
            advected = math.ceil(share * self.advected_rays)
            losses = dynamic_losses(
                scene, out, seen, w, self.render, stage.direction, advected, everywhere=self.whole_image
            )
            silhouette = self.silhouettes.loss(scene, out, seen, stage.direction) if w.silhouette > 0 else None
            if silhouette is not None:
                losses["silhouette"] = w.silhouette * silhouette
        return losses | sampling_losses(part, seen, w, stage)


def count_labels(scene: Scene, shared: SharedNetworks, part: SceneOutputs, seen: Observed, stage: Stage) -> None:
    """Let the calibration and the class prior see the labels that this step teaches with full weight."""
    labels, logits = seen.labels, part.rendered.logits
    if labels is None or logits is None:
        return
    if stage.static and seen.motion is not None:  # it is taught what does not move alone
        labels = torch.where(seen.static, labels, IGNORE_LABEL)
    if seen.label_weight is not None:
        labels = torch.where(seen.label_weight < 1, IGNORE_LABEL, labels)
    shared.class_prior.update(labels)
    shared.calibration.update(scene.among_own(logits), labels)


def sampling_losses(part: SceneOutputs, seen: Observed, w: LossWeights, stage: Stage) -> dict[str, Tensor]:
    """Losses of the proposal densities, which also learn from the given depth directly."""
    interlevel, distortion = proposal_losses(part.proposed, part.rendered.weights.total)
    result = {"interlevel": w.proposal * interlevel, "distortion": w.distortion * distortion}
    if seen.inverse_depth is None or w.proposal_surface <= 0:
        return result
    known, given = given_distance(seen)
    if stage.static:
        known = known & taught_first(seen)
    for samples, weights in zip(part.proposed.ray_samples[:-1], part.proposed.weights, strict=True):
        if weights.requires_grad:
            middle = (samples.frustums.starts + samples.frustums.ends)[..., 0] / 2
            loss = surface_loss(weights[..., 0], middle, given, known, w.surface_tolerance)
            result["proposal_surface"] = result.get("proposal_surface", 0.0) + w.proposal_surface * loss
    return result
