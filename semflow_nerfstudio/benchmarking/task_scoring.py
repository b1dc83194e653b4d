"""Scores a trained row of `semflow bench tasks` on held-out views, beside what needs no training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from semflow_nerfstudio.benchmarking.task_rows import Row
from semflow_nerfstudio.data.label_propagation import fill_holes
from semflow_nerfstudio.data.protocols import labelled_frames
from semflow_nerfstudio.evaluation.carried_labels import LabelCarrying
from semflow_nerfstudio.evaluation.task_scores import TaskScores
from semflow_nerfstudio.runs import Run, evenly_spaced

Scores = dict[str, dict[str, dict[str, float]]]
"""By protocol, then by method: what `TaskScores` says."""


def score(
    run: Run, row: Row, scene: int = 0, views: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Scores:
    """Scores of a scene's held-out views.

    Rows that are scored as the same protocol are scored on the same views, whatever they were trained on.

    Args:
        run: The trained row.
        row: What it is.
        scene: Index of the scene among the run's.
        views: Held-out views for each protocol, evenly spread; None: all.
        progress: Told (done, total).

    Returns:
        Of the methods model, and where the row has baselines flow_2d and warped; copy, where training had labels.
    """
    dataset: Any = run.pipeline.datamanager.eval_dataset
    train_set: Any = run.pipeline.datamanager.train_dataset
    views_of = {spec: protocol_views(dataset, train_set, scene, spec, views) for spec in row.scored_as}
    shown = sorted({index for chosen in views_of.values() for index in chosen})
    names, foreground = run.model.class_names, run.model.get_buffer("foreground").tolist()
    carrying = LabelCarrying(run) if row.baselines else None
    tables: dict[str, dict[str, TaskScores]] = {spec: {} for spec in row.scored_as}
    for done, index in enumerate(shown):
        camera = dataset.cameras[index : index + 1]
        truth = dataset.label_image(index)
        outputs = run.render(camera)
        found = {"model": outputs["label"][..., 0].numpy().astype(np.uint8)}
        if carrying is not None:
            found["flow_2d"] = carrying.carried(camera, outputs["depth"])
            found["warped"] = carrying.warped(camera, outputs["depth"])
        found |= _copy(train_set, camera, scene)
        for spec, chosen in views_of.items():
            if index in chosen:
                for method, labels in found.items():
                    tables[spec].setdefault(method, TaskScores(names, foreground)).add(labels, truth)
        if progress is not None:
            progress(done + 1, len(shown))
    return {spec: {method: table.result() for method, table in methods.items()} for spec, methods in tables.items()}


def protocol_times(spec: str, count: int) -> set[int]:
    """Indices of the times of a clip on which a protocol is scored: those without labels, or else all."""
    times = set(range(count))
    return times - set(labelled_frames(spec, count)) or times


def protocol_views(dataset: Any, train_set: Any, scene: int, spec: str, count: int | None) -> list[int]:
    """Indices of the evaluation views on which a protocol is scored: those of the times without labels.

    Args:
        dataset: The evaluation data set; it may hold other times and scenes as well.
        train_set: The training data set, which knows the clip's times.
        scene: Index of the scene.
        spec: A protocol; with one that labels all times, all views count.
        count: How many, evenly spread; None: all.
    """
    times = np.asarray(train_set.scenes[scene].distinct_times)
    scored = protocol_times(spec, len(times))
    found = []
    for index, frame in enumerate(dataset.frames):
        time = int(np.abs(times - float(dataset.cameras.times[index, 0])).argmin())
        if frame.scene == scene and time in scored:
            found.append(index)
    return found if count is None else [found[k] for k in evenly_spaced(len(found), count)]


def _copy(train_set: Any, camera: Any, scene: int) -> dict[str, np.ndarray]:
    """The labels of the scene's labelled training frame of the nearest time, shown in place of a rendering."""
    labelled = np.array([frame.scene == scene and frame.labels is not None for frame in train_set.frames])
    if not labelled.any():
        return {}
    gap = np.abs(train_set.cameras.times[:, 0].numpy() - float(camera.times.reshape(-1)[0]))
    frame = int(np.where(labelled, gap, np.inf).argmin())
    return {"copy": fill_holes(train_set.label_image(frame))}
