"""What scenes share: frame encoder, flow attention, semantic networks (paper sections 3.3 and 3.4).

Nothing here reads a scene's own fields, so it can be trained on several scenes and taken to a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semflow_nerfstudio.fields.mlp import full_precision
from semflow_nerfstudio.flow.aggregation import FlowFeatureAggregation, look_up
from semflow_nerfstudio.flow.attention import FlowAttention, MeanAggregation
from semflow_nerfstudio.flow.feature_basis import FeatureBasis
from semflow_nerfstudio.flow.feature_maps import Maps
from semflow_nerfstudio.flow.frame_bank import FrameBank
from semflow_nerfstudio.flow.frame_encoders import ConvEncoder
from semflow_nerfstudio.flow.semantic_network import SemanticNetwork
from semflow_nerfstudio.flow.timeline import TimeWindow
from semflow_nerfstudio.saved_config import SavedConfig
from semflow_nerfstudio.training.calibration import Calibration
from semflow_nerfstudio.training.class_prior import ClassPrior

Visibility = Callable[[Float[Tensor, "P 3"], Float[Tensor, "P 1"], Int[Tensor, "P"]], Float[Tensor, "P"]]
"""(points in scene units, times in [0, 1], frames) -> how visible the points are in the frames, in [0, 1]."""


@dataclass
class SharedConfig(SavedConfig):
    """Size of the shared networks."""

    encoder_width: int = 16
    """Channels of the frame encoder's feature maps."""
    encoder_hidden: int = 16
    """Channels inside the small convolutional encoder."""
    encoder_stride: int = 2
    """Pixels per cell of the feature maps."""
    attention: Literal["attention", "mean"] = "attention"
    """How the tokens of a flow are joined."""
    attention_width: int = 32
    """Width of the tokens inside the attention."""
    attention_heads: int = 2
    """Heads of the attention."""
    attention_layers: int = 1
    """Layers of the attention."""
    num_frequencies: int = 3
    """Octaves that encode a token's displacement and time offset."""
    displacement_scale: float = 10.0
    """Displacements in scene units are multiplied by this before they are encoded."""
    use_displacement: bool = True
    """Whether tokens know their displacement."""
    pooled_frames: int = 3
    """Frames whose features are pooled for a static point: those spread over the clip, or others where none of them
    sees it."""
    pooled_candidates: int = 12
    """Frames that these are taken from, with views as different as possible; no fewer than `pooled_frames`."""
    hidden_dim: int = 64
    """Width of the semantic networks."""


class SharedNetworks(nn.Module):
    """Frame encoder, flow attention and the two semantic networks."""

    def __init__(
        self,
        config: SharedConfig,
        num_classes: int,
        feature_dim: int | None = None,
        basis: FeatureBasis | None = None,
    ) -> None:
        """Make the networks.

        Args:
            config: Their size.
            num_classes: C.
            feature_dim: Channels of the frames' frozen features; None where the encoder is trained along.
            basis: What compressed these features; None: a checkpoint will say.
        """
        super().__init__()
        self.config = config
        self.encoder: ConvEncoder | None = None
        if feature_dim is None:
            self.encoder = ConvEncoder(config.encoder_width, config.encoder_hidden, config.encoder_stride)
        else:
            self.basis = FeatureBasis() if basis is None else basis.copied()
        width = feature_dim or config.encoder_width
        self.aggregate = FlowFeatureAggregation(
            config.displacement_scale if config.use_displacement else 0.0, config.num_frequencies
        )
        token_dim = width + self.aggregate.encoding_dim
        self.attention: FlowAttention | MeanAggregation
        if config.attention == "attention":
            self.attention = FlowAttention(
                token_dim, config.attention_width, config.attention_heads, config.attention_layers
            )
        else:
            self.attention = MeanAggregation(token_dim, config.attention_width)
        self.flow_network = SemanticNetwork(config.attention_width, num_classes, config.hidden_dim)
        self.static_network = SemanticNetwork(width, num_classes, config.hidden_dim)
        self.calibration = Calibration()
        self.class_prior = ClassPrior(num_classes)

    def encode(self, bank: FrameBank, frames: Int[Tensor, "F"] | None = None) -> Float[Tensor, "F h w C"]:
        """Feature maps of some or all frames of a scene, channels last; frozen ones in half precision on a GPU."""
        if self.encoder is None:
            assert bank.features is not None
            maps = bank.features if frames is None else bank.features[frames]
            return maps.float() if maps.device.type == "cpu" else maps
        images = bank.pixels(torch.arange(len(bank.images), device=bank.images.device) if frames is None else frames)
        return full_precision(self.encoder(images)).permute(0, 2, 3, 1).contiguous()

    def flow_logits(
        self,
        maps: Maps,
        bank: FrameBank,
        window: TimeWindow,
        trajectories: Float[Tensor, "R k K 3"],
        points: Float[Tensor, "R k 3"],
        times: Float[Tensor, "R 1"],
        tau: Tensor | float,
        visibility: Visibility | None = None,
    ) -> Float[Tensor, "R k C"]:
        """Trajectories -> tokens -> attention -> one logit vector for each flow.

        `visibility` says how visible a token's point is in its frame, beyond lying in its view; None: fully.
        """
        rays, samples, _, _ = trajectories.shape
        frame = bank.views[window.index]  # R K V
        views = frame.shape[-1]
        token_times = bank.timeline.time(window.index.to(times))
        offset = (token_times - times) / tau

        def per_token(values: Tensor) -> Tensor:
            return values[:, None].expand(rays, samples, values.shape[1]).flatten(0, 1)

        path = trajectories.repeat_interleave(views, dim=2).flatten(0, 1)
        frames, weight = per_token(frame.flatten(1)), per_token(window.weight.repeat_interleave(views, dim=1))
        if visibility is not None:
            at = per_token(token_times.repeat_interleave(views, dim=1))
            asked = (weight > 0) & (frames >= 0)
            seen = visibility(path[asked].detach(), at[asked][:, None], frames[asked])
            weight = weight.masked_scatter(asked, weight[asked] * seen)
        offsets = per_token(offset.repeat_interleave(views, dim=1))
        tokens = self.aggregate(maps, bank.cameras, path, points.reshape(-1, 3), frames, offsets, weight)
        return self.flow_network(self.attention(tokens)).unflatten(0, (rays, samples))

    def pooled_frames(self, bank: FrameBank) -> Int[Tensor, "p"]:
        """The frames whose features are pooled for static points that they see."""
        return bank.evenly_spaced(self.config.pooled_frames)

    def static_logits(self, maps: Maps, bank: FrameBank, points: Float[Tensor, "R k 3"]) -> Float[Tensor, "R k C"]:
        """Image features pooled over frames that see the points -> logits.

        Those of `pooled_frames(bank)` that see a point; where none of them does, the first as many of the candidates
        that do, whose views differ most. So a point costs the same however long the clip is.
        """
        flat, cameras = points.reshape(-1, 3), bank.cameras
        candidates = bank.spread(self.config.pooled_frames, self.config.pooled_candidates)
        asked = candidates.expand(len(flat), -1)
        pixels, depth = cameras.project(flat[:, None].expand(*asked.shape, 3), asked)
        seen = cameras.visible(pixels, depth)
        own = self.config.pooled_frames
        seen = torch.cat([seen[:, :own], seen[:, own:] & ~seen[:, :own].any(1, keepdim=True)], dim=1)
        order = torch.arange(len(candidates), device=flat.device)
        chosen = (seen * len(candidates) - order).topk(min(self.config.pooled_frames, len(candidates))).indices
        pixels, frames = pixels.gather(1, chosen[..., None].expand(*chosen.shape, 2)), candidates[chosen]
        found = look_up(maps, frames.flatten(), pixels.reshape(-1, 2), cameras.width, cameras.height)
        weight = seen.gather(1, chosen)[..., None].to(flat)
        pooled = (weight * found.unflatten(0, chosen.shape)).sum(1) / weight.sum(1).clamp(min=1)
        return self.static_network(pooled).unflatten(0, points.shape[:-1])
