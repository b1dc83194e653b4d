"""What rendering a batch of rays gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from semflow_nerfstudio.fields.dynamic_field import DynamicFieldOutputs
from semflow_nerfstudio.flow.timeline import TimeWindow
from semflow_nerfstudio.rendering.compositing import BlendedWeights, composite, field_weights
from semflow_nerfstudio.rendering.edited import EditedSamples, turned
from semflow_nerfstudio.rendering.samples import Samples, pick


@dataclass
class FlowPass:
    """The flows of Q of the rays: k samples each, the heaviest of the dynamic field."""

    rays: Int[Tensor, "Q"]
    """Which rays."""
    rows: Int[Tensor, "Q"] | slice
    """Which rows of the dynamic field's outputs they are."""
    picked: Int[Tensor, "Q k"]
    """Which of their samples."""
    points: Float[Tensor, "Q k 3"]
    """Where the fields are read: in an edited scene not always where it shows."""
    times: Float[Tensor, "Q 1"]
    """And when."""
    window: TimeWindow
    trajectories: Float[Tensor, "Q k K 3"]
    weights: Float[Tensor, "Q k"]
    """Movers' share of the full weights."""
    shared_logits: Float[Tensor, "Q k C"] | None = None
    """Logits of the flows, without the scene's residual."""
    logits: Float[Tensor, "Q k C"] | None = None
    turn: Float[Tensor, "Q k 3 3"] | None = None
    """In an edited scene, how motions turn and scale on their way to the picture."""
    drift: Float[Tensor, "Q k 3"] | None = None
    """And what is added to a motion to the next frame."""

    def displacement(self, step: int) -> Float[Tensor, "Q k 3"]:
        """Motion to the window's time `step` frames from the last one at or before the rays' times."""
        motion = self.trajectories[:, :, self.window.center + step] - self.points
        if self.turn is None or self.drift is None:
            return motion
        return turned(motion, self.turn) + step * self.drift

    def exists(self, step: int) -> Tensor:
        """Bool (Q,): whether that time exists."""
        return self.window.exists[:, self.window.center + step]


@dataclass
class Rendered:
    """One batch of R rays, rendered. Distances are along the ray in scene units."""

    samples: Samples
    rgb: Float[Tensor, "R 3"]
    """Both fields, without background."""
    weights: BlendedWeights
    distance: Float[Tensor, "R"]
    static_rgb: Float[Tensor, "R 3"]
    """The static field alone."""
    static_weights: Float[Tensor, "R S"]
    dynamic_share_rgb: Float[Tensor, "R 3"]
    """The movers' share of `rgb`."""
    mover_rays: Int[Tensor, "M"] | slice = field(default_factory=lambda: slice(None))
    """The rays that the dynamic field was evaluated on; the others show the static field alone."""
    dynamic: DynamicFieldOutputs | None = None
    """The dynamic field at the samples of the M mover rays."""
    dynamic_alphas: Float[Tensor, "M S"] | None = None
    flow: FlowPass | None = None
    logits: Float[Tensor, "R C"] | None = None
    """Both fields' logits, composited."""
    static_logits: Float[Tensor, "R C"] | None = None
    """The static field's logits, composited with its own weights."""
    shared_logits: Float[Tensor, "R C"] | None = None
    """`logits` without the scene's residuals, where they were asked for; their gradient shapes no densities."""

    @property
    def accumulation(self) -> Float[Tensor, "R"]:
        return 1 - self.weights.transmittance

    @property
    def dynamicness(self) -> Float[Tensor, "R"]:
        """The movers' share of what is seen."""
        return self.weights.dynamic.sum(-1)

    @property
    def dynamic_weights(self) -> Float[Tensor, "M S"]:
        """Weights of the dynamic field alone, on the mover rays."""
        assert self.dynamic_alphas is not None
        return field_weights(self.dynamic_alphas)


def seen_points(out: Rendered) -> Float[Tensor, "R 3"]:
    """Where what a ray sees is: at the expected distance."""
    return out.samples.origins + out.samples.directions * out.distance[:, None]


def seen_source(out: Rendered) -> tuple[Float[Tensor, "R 3"], Float[Tensor, "R 1"]]:
    """Where and when the fields are read for most of what a ray sees: in an edited scene not always where it shows."""
    samples, most = out.samples, out.weights.total.argmax(-1, keepdim=True)
    times = samples.source_times() if isinstance(samples, EditedSamples) else samples.times.expand_as(samples.starts)
    return pick(samples.sources, most)[:, 0], times.gather(1, most)


def seen_motion(out: Rendered, step: int) -> Float[Tensor, "Q 3"]:
    """How far what the flow pass's rays see moves in `step` frames: movers move, the rest does not."""
    assert out.flow is not None
    total = out.weights.total[out.flow.rays].sum(-1, keepdim=True).clamp(min=1e-6)
    return composite(out.flow.weights, out.flow.displacement(step)) / total
