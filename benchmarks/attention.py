"""Draw what the flow attention of a trained run sees: `python -m benchmarks.attention RUN OUT.png`.

A row for each of some movers: the pixel that is asked, then the frames of its flow's window. A circle marks where the
flow passes; its size, and the figure above, say how much of the attention that token gets (mean over heads).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy import ndarray
from PIL import Image, ImageDraw

from semflow_nerfstudio.flow.aggregation import FlowTokens
from semflow_nerfstudio.flow.attention import FlowAttention
from semflow_nerfstudio.runs import Run, load_run
from semflow_nerfstudio.surface_points import bank_camera

MARGIN, BAR = 4, 16
"""Pixels between pictures, and of the line of text above each."""


@torch.no_grad()
def attention_of(run: Run, frame: int, pixel: tuple[int, int]) -> list[tuple[int, float, tuple[float, float], float]]:
    """(frame, offset in frames, pixel there, share of the attention) of a pixel's flow, by time.

    Raises:
        ValueError: nothing moves at the pixel, or the run averages tokens instead.
    """
    model = run.model.eval()
    shared, scene = model.shared, model.scene(model.shown_scene)
    if shared is None or not isinstance(shared.attention, FlowAttention):
        raise ValueError("this run has no attention: it was trained without labels, or with the mean instead")
    attention, seen = shared.attention, []
    camera = bank_camera(model, model.shown_scene, frame)
    rays = camera.to(model.device).generate_rays(camera_indices=0, keep_shape=True)
    ray = rays[pixel[1] : pixel[1] + 1, pixel[0] : pixel[0] + 1].flatten()

    def keep(module: Any, arguments: tuple[FlowTokens]) -> None:
        seen.append(arguments[0])

    handle = attention.register_forward_pre_hook(keep)
    try:
        flow = model.render_scene(model.shown_scene, None, ray).rendered.flow
    finally:
        handle.remove()
    if flow is None or not len(flow.rays) or not seen:
        raise ValueError(f"nothing moves at pixel {pixel} of frame {frame}")
    heavy = flow.weights[0].topk(1).indices  # the sample that is mostly seen
    kept = (flow.weights[0] > 2 * model.config.render.min_semantic_weight).nonzero()[:, 0]
    row = int((kept == heavy).nonzero()[0])
    share = attention.received(seen[0])[row].mean(0)
    window, bank = flow.window, scene.bank
    views = bank.views[window.index[0]]
    result = []
    for column in range(views.shape[0]):
        for view in range(views.shape[1]):
            token, target = column * views.shape[1] + view, int(views[column, view])
            if float(seen[0].weight[row, token]) <= 0:
                continue
            at = bank.cameras.project(flow.trajectories[0, heavy, column], torch.tensor([target]))[0][0]
            offset = float(window.index[0, column] - window.index[0, window.center])
            result.append((target, offset, (float(at[0]), float(at[1])), float(share[token])))
    return result


def movers(run: Run, frame: int, count: int) -> list[tuple[int, int]]:
    """A pixel well inside each of the largest moving classes of a training frame."""
    from scipy.ndimage import distance_transform_edt

    model = run.model
    outputs = run.render(bank_camera(model, model.shown_scene, frame))
    label, moves = outputs["label"][..., 0].numpy(), outputs["dynamicness"][..., 0].numpy() > 0.5
    classes = sorted(np.unique(label[moves]), key=lambda c: -int((moves & (label == c)).sum()))
    deep = [np.asarray(distance_transform_edt(moves & (label == c))) for c in classes[:count]]
    return [(int(d.argmax() % d.shape[1]), int(d.argmax() // d.shape[1])) for d in deep]


def marked(image: ndarray, at: tuple[float, float], radius: float, text: str, scale: int) -> Image.Image:
    """A frame with a circle and a line of text above it."""
    height, width = image.shape[:2]
    picture = Image.new("RGB", (width * scale, height * scale + BAR), "white")
    picture.paste(Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.BICUBIC), (0, BAR))
    draw = ImageDraw.Draw(picture)
    x, y = at[0] * scale, at[1] * scale + BAR
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(255, 40, 40), width=2)
    draw.text((3, 2), text, fill="black")
    return picture


@dataclass
class Attention:
    """Draw what the flow attention of a run sees."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    out: Annotated[Path, tyro.conf.Positional]
    """The picture."""
    frame: int | None = None
    """Training frame that is asked; None: the middle one."""
    pixels: list[tuple[int, int]] = field(default_factory=list)
    """(x, y) of pixels that are asked; none: one in each of the largest movers."""
    count: int = 3
    """How many movers."""
    scale: int = 2
    """Enlargement."""

    def main(self) -> None:
        """Ask, draw, and print the figures."""
        run = load_run(self.run, "inference")
        bank = run.model.scene(run.model.shown_scene).bank
        frame = len(bank.images) // 2 if self.frame is None else self.frame
        rows = []
        for pixel in self.pixels or movers(run, frame, self.count):
            tokens = attention_of(run, frame, pixel)
            asked = (pixel[0] + 0.5, pixel[1] + 0.5)
            pictures = [marked(bank.images[frame].numpy(), asked, 3, f"asked: frame {frame}", self.scale)]
            for target, offset, at, share in tokens:
                text = f"{offset:+.0f}: {100 * share:.0f} %"
                pictures.append(marked(bank.images[target].numpy(), at, 2 + 30 * share, text, self.scale))
            rows.append(pictures)
            print(pixel, ", ".join(f"{offset:+.0f}: {share:.2f}" for _, offset, _, share in tokens))
        width, height = rows[0][0].size
        columns = max(map(len, rows))
        sheet = Image.new("RGB", (columns * (width + MARGIN), len(rows) * (height + MARGIN)), "white")
        for i, pictures in enumerate(rows):
            for j, picture in enumerate(pictures):
                sheet.paste(picture, (j * (width + MARGIN), i * (height + MARGIN)))
        self.out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(self.out)
        print(self.out)


if __name__ == "__main__":
    tyro.cli(Attention).main()
