"""A picture that shows a run at a glance: truth beside rendering at several times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from semflow_nerfstudio.visuals.colors import colorize_labels
from semflow_nerfstudio.visuals.layout import Picture, overview_grid, to_picture
from semflow_nerfstudio.visuals.render_video import as_picture, depth_limits

if TYPE_CHECKING:
    from semflow_nerfstudio.runs import Run


def overview(run: Run, rows: int = 3) -> Picture:
    """Ground truth, colour, ground-truth semantics, semantics, flow and depth of held-out views at several times.

    Each time shows the held-out view that lies in the middle of its time's views.
    """
    dataset: Any = run.pipeline.datamanager.eval_dataset
    times = dataset.cameras.times[:, 0]
    distinct = times.unique()
    near, far = depth_limits(run)
    columns: dict[str, list[Picture | None]] = {}
    shown = []
    for wanted in torch.linspace(0, len(distinct) - 1, rows + 2)[1:-1].round().long():
        views = (times == distinct[wanted]).nonzero()[:, 0]
        index = int(views[len(views) // 2])
        batch = dataset.get_data(index)
        rendered = run.render(dataset.cameras[index : index + 1])
        pictures: dict[str, Picture | None] = {"ground truth": to_picture(batch["image"][..., :3])}
        pictures["colour"] = as_picture("rgb", rendered["rgb"])
        if "semantics" in rendered:
            labels = batch.get("labels")
            truth = None
            if labels is not None:
                truth = to_picture(colorize_labels(labels[..., 0].long(), run.model.class_colors.cpu()))
            pictures["ground-truth semantics"] = truth
            pictures["semantics"] = as_picture("semantics", rendered["semantics"])
        pictures["flow"] = as_picture("flow", rendered["flow"])
        pictures["depth"] = as_picture("depth", rendered["depth"], near, far)
        for name, picture in pictures.items():
            columns.setdefault(name, []).append(picture)
        shown.append(float(distinct[wanted]))
    return overview_grid(columns, shown)
