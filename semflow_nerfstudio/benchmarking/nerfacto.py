"""nerfacto with its torch implementation: what a training step of nerfstudio's default method costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.models import nerfacto
from torch import nn

from semflow_nerfstudio.benchmarking.workbench import LATE, synchronize


def nerfacto_seconds(
    trainer: Trainer, samples: int, proposal_samples: int, repeats: int, progress: Callable[[int, int], None]
) -> list[float]:
    """Seconds of training steps on the trainer's rays: drawing them, forward, losses, backward, optimizer.

    Args:
        trainer: Whose datamanager gives the rays.
        samples: Final samples of a ray.
        proposal_samples: Samples of the only proposal pass.
        repeats: Steps that are timed, after one that is not.
        progress: Told (done, total).
    """
    manager: Any = trainer.pipeline.datamanager
    device = trainer.pipeline.model.device
    config = nerfacto.NerfactoModelConfig(
        implementation="torch",
        num_nerf_samples_per_ray=samples,
        num_proposal_iterations=1,
        num_proposal_samples_per_ray=(proposal_samples,),
    )
    config.proposal_net_args_list = config.proposal_net_args_list[:1]
    config.camera_optimizer.mode = "off"
    dataset = manager.train_dataset
    # Its constructor would download the weights of a network that scores images, which no training step asks for.
    with patch("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", lambda **options: nn.Identity()):
        model = config.setup(scene_box=dataset.scene_box, num_train_data=len(dataset), metadata={}, device=str(device))
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-15)
    seconds = []
    for k in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        # Late in training, when the proposal network is updated in one of six steps.
        model.proposal_sampler.step_cb(10 * LATE + k)
        rays, batch = manager.next_train(k)
        optimizer.zero_grad(set_to_none=True)
        outputs = model(rays)
        losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
        torch.stack([loss.reshape(()) for loss in losses.values()]).sum().backward()
        optimizer.step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        progress(k + 1, repeats + 1)
    return seconds[1:]
