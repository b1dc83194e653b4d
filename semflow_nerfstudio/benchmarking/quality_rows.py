"""The rows of `semflow bench quality`: what differs from the default configuration in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from semflow_nerfstudio.data.procedural import SceneOptions

Group = Literal["main", "ablations", "robustness", "baselines", "withheld", "generated"]
GROUPS: tuple[Group, ...] = get_args(Group)

MAIN_STEPS, SMALL_STEPS, WITHHELD_STEPS, GENERATED_STEPS = 3000, 600, 1000, 700
"""Training steps: at half size (more were no better), of rows that are compared with each other (about two minutes at
quarter size), of a real clip, and of built-in scenes."""
SMALL_VIEWS = 24
"""Held-out views, evenly spread over all, that rows at quarter size are scored on."""


@dataclass(frozen=True)
class QualityRow:
    """One configuration."""

    name: str
    """Name in files and tables."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings by dotted name (`overrides.apply_overrides`)."""
    method: str = "semantic-flow-lite"
    """Method whose configuration is changed."""
    downscale: float = 4
    """Size of the images: one over this."""
    steps: int = SMALL_STEPS
    views: int | None = SMALL_VIEWS
    """Held-out views, evenly spread; None: all."""
    baselines: bool = False
    """Whether to score what a field must beat beside it."""
    withheld: bool = False
    """Train without the labels of every third frame, and score these frames at their own cameras."""
    make: SceneOptions | None = None
    """Measured on a built-in scene with these options; None: on the scenes that are given."""


FULL = QualityRow("full", baselines=True)
MAIN = QualityRow("half size", downscale=2, steps=MAIN_STEPS, views=None, baselines=True)
EVERY_SAMPLE, EVERY_RAY = 10_000, 2**31 - 1


def _row(name: str, **overrides: Any) -> QualityRow:
    return QualityRow(name, {key.replace("__", "."): value for key, value in overrides.items()})


POINTS = {"model.render.flow_features": False}
"""Logits from the points alone, without what their flows meet."""
ENCODERS = ("resnet18", "resnet50", "r3d_18", "dinov2")
ABLATIONS = (
    FULL,
    QualityRow("logits from points", POINTS),
    _row("mean instead of attention", model__shared__attention="mean"),
    _row("no displacement", model__shared__use_displacement=False),
    _row("no consistency", model__losses__consistency=0.0),
    _row(
        "uniform weights instead of densities",
        model__render__semantic_weights="uniform",
        model__render__static_samples=EVERY_SAMPLE,
        model__render__flow_samples=EVERY_SAMPLE,
    ),
    _row(
        "semantics on all samples",
        model__render__static_samples=EVERY_SAMPLE,
        model__render__flow_samples=EVERY_SAMPLE,
    ),
    _row(
        "plain and dense",
        model__render__static_samples=EVERY_SAMPLE,
        model__render__flow_samples=EVERY_SAMPLE,
        model__mover_ray_share=1.0,
        model__advected_rays=EVERY_RAY,
        model__encoder_every=1,
    ),
    _row("occupancy grid instead of proposals", model__sampler="occupancy"),
    _row("no flow loss", model__losses__optical_flow=0.0),
    _row("window K = 1", model__render__window=1),
    _row("window K = 5", model__render__window=5),
    _row("window K = 7", model__render__window=7),
    _row("window K = 3 over the whole clip", model__render__window_stride=0),
    _row("window K = 5 over the whole clip", model__render__window=5, model__render__window_stride=0),
    _row("no residual", model__scene__residual=False),
    _row("stopped gradient", model__render__semantic_gradient="stopped"),
    _row("all of the labels' gradient", model__render__label_gradient=1.0),
    _row(
        "all of the labels' gradient, no grid of their own",
        model__render__label_gradient=1.0,
        model__scene__semantic_grid=None,
    ),
    _row("visibility of tokens", model__render__token_visibility=4),
    _row("no surface loss", model__losses__surface=0.0),
    _row("black background", model__random_background=False),
    _row("nothing said of what movers hide", model__losses__hidden=0.0),
    _row("disparity not aligned", data__align_disparity=False),
    _row("no colour one frame away", model__losses__advected_color=0.0),
    _row("rigidity", model__losses__rigidity=0.1),
    _row("silhouettes", data__silhouettes=True),
    _row("robust flow loss", model__losses__flow_robust_scale=2.0),
    _row("surfaces not shown to the sampling", model__losses__proposal_surface=0.0),
    _row("no line of sight", model__losses__line_of_sight_static=0.0),
    _row("Euler steps", model__render__integrator="euler"),
    _row("the paper's compositing", model__render__compositing="paper"),
    _row("flow loss of the paper's weight", model__losses__optical_flow=0.02),
    _row("depth-guided blending", model__losses__depth_guided_blend=1.0),
    *(_row(f"encoder {name}", data__frame_features__encoder=name) for name in ENCODERS),
    QualityRow("the paper's choices", method="semantic-flow-paper"),
)


def _noise(share: float, kind: str = "sudden") -> dict[str, Any]:
    return {"data.corruption.flow_noise": share, "data.corruption.flow_noise_kind": kind}


ROBUSTNESS = (
    FULL,
    QualityRow("flow noise 1 %", _noise(0.01)),
    QualityRow("flow noise 5 %", _noise(0.05)),
    QualityRow("flow noise 10 %", _noise(0.1)),
    QualityRow("flow noise 10 %, robust flow loss", _noise(0.1) | {"model.losses.flow_robust_scale": 2.0}),
    QualityRow("flow noise 10 %, smooth", _noise(0.1, "smooth")),
    _row("flow from DIS", data__corruption__flow_source="dis"),
    _row("flow masks off", data__corruption__flow_masks=False),
    _row("disparity missing", data__corruption__drop=["disparity"]),
    _row("flow missing", data__corruption__drop=["flow"]),
    _row("motion masks missing", data__corruption__drop=["motion_mask"]),
    _row("wrong labels 5 %", data__corruption__wrong_labels=0.05),
    _row("wrong labels 10 %", data__corruption__wrong_labels=0.1),
    _row("labels at a quarter of the resolution", data__corruption__label_scale=0.25),
)
BASELINES = (FULL, _row("fields without time", model__time=False))
WITHHELD_LABELS = QualityRow(
    "labels of every third frame withheld", downscale=2, steps=WITHHELD_STEPS, views=None, withheld=True
)
WITHHELD = (
    WITHHELD_LABELS,
    replace(WITHHELD_LABELS, name="labels of every third frame withheld, logits from points", overrides=POINTS),
)
BUILT_IN = SceneOptions(size="160x90")


def _generated(name: str, **options: Any) -> QualityRow:
    return QualityRow(name, downscale=1, steps=GENERATED_STEPS, make=replace(BUILT_IN, **options))


GENERATED = (
    _generated("built-in scene"),
    replace(_generated("built-in scene, logits from points"), overrides=POINTS),
    _generated("twice as fast", speed=2.0),
    _generated("four times as fast", speed=4.0),
    _generated("changing light", lighting="changing"),
    _generated("one camera that stands still", synchronised=1),
    _generated("2 synchronised cameras", synchronised=2),
    _generated("4 synchronised cameras", synchronised=4),
)
ROWS: dict[Group, tuple[QualityRow, ...]] = {
    "main": (MAIN,),
    "ablations": ABLATIONS,
    "robustness": ROBUSTNESS,
    "baselines": BASELINES,
    "withheld": WITHHELD,
    "generated": GENERATED,
}


def chosen_rows(groups: Sequence[str], only: Sequence[str] = ()) -> list[QualityRow]:
    """Rows of groups (or "all"), each once, in order.

    Args:
        groups: Keys of `ROWS`, or "all".
        only: Keep rows whose name holds one of these words.

    Raises:
        ValueError: an unknown group, or a word that no row's name holds.
    """
    names = list(GROUPS) if "all" in groups else groups
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise ValueError(f"there is no group '{unknown[0]}': use {', '.join(GROUPS)} or all.")
    rows = list({row.name: row for name in names for row in ROWS[name]}.values())  # type: ignore[index]
    for word in only:
        if not any(word in row.name for row in rows):
            raise ValueError(f"no row of these groups has '{word}' in its name: see --list.")
    return [row for row in rows if not only or any(word in row.name for word in only)]
