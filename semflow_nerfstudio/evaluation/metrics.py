"""Image, flow and depth metrics. Images are (H, W, 3), RGB in [0, 1]."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from urllib.parse import urlparse

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from semflow_nerfstudio.evaluation.segmentation import (
    LabelImage,
    as_labels,
    confusion_matrix,
    segmentation_scores,
)
from semflow_nerfstudio.scene_frames import IGNORE_LABEL


def psnr(prediction: Float[Tensor, "*image 3"], truth: Float[Tensor, "*image 3"]) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB for a range of 1; infinite for equal images."""
    return -10 * torch.log10(torch.mean((prediction - truth) ** 2))


def dynamic_psnr(
    prediction: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"], mask: Bool[Tensor, "H W"]
) -> Float[Tensor, ""]:
    """PSNR in dB over the pixels of `mask` (those that move); NaN where there are none."""
    return psnr(prediction[mask], truth[mask])


def ssim(prediction: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> Float[Tensor, ""]:
    """Structural similarity (11 x 11 Gaussian window, range 1); both sides are at least 11 pixels."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(_as_batch(prediction), _as_batch(truth), data_range=1.0)
    assert isinstance(value, Tensor)
    return value


def lpips(
    prediction: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"], weights: Path | None = None
) -> Float[Tensor, ""] | None:
    """LPIPS with AlexNet features, or None where its weights are not at hand. Nothing is ever downloaded.

    Args:
        prediction: rendered image; values are clamped to [0, 1].
        truth: ground truth, on the same device.
        weights: torchvision's AlexNet checkpoint; by default the one in the torch hub cache. That it is missing or
            unreadable is said once.
    """
    network = _lpips_network(weights or alexnet_cache_path())
    if network is None:
        return None
    network = network.to(prediction.device)
    with torch.no_grad():
        return network(_as_batch(prediction).clamp(0, 1), _as_batch(truth).clamp(0, 1), normalize=True).squeeze()


def alexnet_cache_path() -> Path:
    """Where the torch hub cache keeps torchvision's AlexNet checkpoint."""
    from torchvision.models import AlexNet_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(AlexNet_Weights.DEFAULT.url).path).name


@functools.cache
def _lpips_network(weights: Path) -> nn.Module | None:
    if not weights.is_file():
        print(f"LPIPS is left out: AlexNet's weights are not at {weights} and nothing is downloaded.")
        return None
    # torchmetrics' public class downloads AlexNet in its constructor. Its network takes a random one (fork_rng: a run
    # must not depend on whether the weights are there), into which the weights are then loaded.
    from torchmetrics.functional.image.lpips import _LPIPS

    with torch.random.fork_rng(devices=[]):
        network = _LPIPS(net="alex", pnet_rand=True)
    try:
        alexnet = torch.load(weights, map_location="cpu", weights_only=True)
        slots = {name.split(".", 1)[1]: name for name in network.net.state_dict()}
        network.net.load_state_dict({slot: alexnet[f"features.{layer}"] for layer, slot in slots.items()})
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        print(f"LPIPS is left out: {weights} is no AlexNet checkpoint ({type(error).__name__}); delete or replace it.")
        return None
    return network.eval()


def flow_end_point_error(
    prediction: Float[Tensor, "*image 2"], truth: Float[Tensor, "*image 2"], mask: Bool[Tensor, "*image"] | None = None
) -> Float[Tensor, ""]:
    """Mean distance in pixels between flow vectors (u right, v down) over `mask` (default: all); NaN if it is empty."""
    error = torch.linalg.vector_norm(prediction - truth, dim=-1)
    return error.mean() if mask is None else error[mask].mean()


def depth_relative_error(
    prediction: Float[Tensor, "*image"], truth: Float[Tensor, "*image"], mask: Bool[Tensor, "*image"] | None = None
) -> Float[Tensor, ""]:
    """Mean |prediction - truth| / truth of depths in the same units.

    Pixels whose true depth is not a positive finite number are left out, as are those outside `mask`; NaN if none is
    left.
    """
    known = torch.isfinite(truth) & (truth > 0)
    if mask is not None:
        known = known & mask
    return ((prediction[known] - truth[known]).abs() / truth[known]).mean()


def copy_baseline(
    train_image: Float[Tensor, "H W 3"],
    train_labels: LabelImage | None,
    gt_image: Float[Tensor, "H W 3"],
    gt_labels: LabelImage | None,
) -> dict[str, float]:
    """Scores of showing the training image and labels of the same time in place of a rendering.

    Returns:
        `copy_psnr`, `copy_miou` (NaN without labels). What a field must beat.
    """
    miou = float("nan")
    if train_labels is not None and gt_labels is not None:
        copied, true = as_labels(train_labels), as_labels(gt_labels)
        # Per-image scores know only the classes that occur, so all ids below the ignore label may be classes.
        miou = segmentation_scores(confusion_matrix(copied, true, num_classes=IGNORE_LABEL)).miou
    return {"copy_psnr": float(psnr(train_image, gt_image)), "copy_miou": miou}


def _as_batch(image: Float[Tensor, "H W 3"]) -> Float[Tensor, "1 3 H W"]:
    return image.permute(2, 0, 1)[None]
