"""nerfstudio's trainer in two processes: averaged gradients, the same parameters everywhere, and one that writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nerfstudio.engine.trainer import Trainer
from tiny_runs import STATIC_STEPS, forget_writers, manager_config, model_of, parameters, set_up, tiny_config
from torch import Tensor

from semflow_nerfstudio.runs import seed_everything

RANKS = 2
STEPS = STATIC_STEPS + 3
STAGES = {"static": 0, "dynamic": STATIC_STEPS + 1}


def config(scene: Path, out: Path) -> Any:
    made = tiny_config(scene, out, STEPS)
    made.vis = "tensorboard"
    made.set_timestamp()
    return made


def losses_of(trainer: Trainer, half: int, rays: Any, batch: dict[str, Tensor], step: int) -> Tensor:
    """Summed losses of half of a batch, by way of the pipeline; random numbers belong to the half."""
    size = len(rays) // RANKS
    part = slice(half * size, (half + 1) * size)
    trainer.pipeline.datamanager.next_train = lambda step: (rays[part], {k: v[part] for k, v in batch.items()})
    model_of(trainer).set_step(step)
    seed_everything(100 + half)
    _, losses, _ = trainer.pipeline.get_train_loss_dict(step)
    return torch.stack(list(losses.values())).sum()


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model_of(trainer).named_parameters() if p.grad is not None}


def work(rank: int, meeting: str, scene: Path, out: Path) -> None:
    """One process: gradients of its half of a batch in both stages, then a whole run of its own batches."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)
    seed_everything(rank)  # as nerfstudio's launcher does: the first process's parameters count
    trainer = config(scene, out / str(rank)).setup(local_rank=rank, world_size=RANKS)
    trainer.setup()
    seed_everything(7)
    draw = trainer.pipeline.datamanager.next_train
    rays, batch = draw(0)
    report: dict[str, Any] = {"rays": rays, "batch": batch, "start": parameters(trainer), "gradients": {}}
    for stage, step in STAGES.items():
        trainer.optimizers.zero_grad_all()
        losses_of(trainer, rank, rays, batch, step).backward()
        report["gradients"][stage] = gradients(trainer)
    seed_everything(rank)
    trainer.pipeline.datamanager.next_train = draw
    trainer.train()
    report |= {"end": parameters(trainer), "rays_per_batch": len(rays)}
    torch.save(report, out / f"report{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def out(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left on disk."""
    folder = tmp_path_factory.mktemp("distributed")
    mp.spawn(work, args=((folder / "meeting").as_uri(), scene, folder), nprocs=RANKS)
    return folder


@pytest.fixture(scope="module")
def reports(out: Path) -> list[dict[str, Any]]:
    return [torch.load(out / f"report{rank}.pt", weights_only=False) for rank in range(RANKS)]


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_are_those_of_one_process(
    stage: str, reports: list[dict[str, Any]], scene: Path, tmp_path: Path
) -> None:
    alone = set_up(config(scene, tmp_path))
    forget_writers()
    model_of(alone).load_state_dict(reports[0]["start"], strict=False)
    rays, batch = reports[0]["rays"], reports[0]["batch"]
    alone.optimizers.zero_grad_all()
    (sum(losses_of(alone, half, rays, batch, STAGES[stage]) for half in range(RANKS)) / RANKS).backward()
    expected = gradients(alone)
    for report in reports:
        for name, gradient in expected.items():
            scale = gradient.abs().max()
            assert (report["gradients"][stage][name] - gradient).abs().max() <= 1e-4 * scale + 1e-12, name
        for name, gradient in report["gradients"][stage].items():
            assert name in expected or not gradient.any(), name
    trained = {name for name, gradient in expected.items() if gradient.any()}
    assert any("static_field" in name for name in trained)
    assert any("dynamic_field" in name for name in trained) == (stage == "dynamic")


def test_color_gradients_of_halves_are_those_of_the_whole_batch(
    reports: list[dict[str, Any]], scene: Path, tmp_path: Path
) -> None:
    """Where a loss is a plain mean over rays, two processes do what one does with all the rays at once."""
    alone = set_up(config(scene, tmp_path))
    forget_writers()
    model = model_of(alone)
    rays, batch = reports[0]["rays"], reports[0]["batch"]
    sampler = next(iter(model.samplers.values())).sampler
    sampler.initial_sampler.train_stratified = sampler.pdf_sampler.train_stratified = False
    model.config.mover_ray_share = 1.0
    model.objective.random_background = False  # or each call would draw its own
    model.set_step(STAGES["dynamic"])
    size = len(rays) // RANKS
    parts = [slice(0, len(rays)), *(slice(k * size, (k + 1) * size) for k in range(RANKS))]
    found = []
    for part in parts:
        alone.optimizers.zero_grad_all()
        model(rays[part], {k: v[part] for k, v in batch.items()})["losses"]["color"].backward()
        found.append(gradients(alone))
    whole, *halves = found
    assert whole
    for name, gradient in whole.items():
        mean = sum(half[name] for half in halves) / RANKS
        assert (mean - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-12, name


def test_all_processes_end_with_the_same_parameters(reports: list[dict[str, Any]]) -> None:
    first, second = (report["end"] for report in reports)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert [name for name in first if not torch.equal(first[name], reports[0]["start"][name])]


def test_only_the_first_process_writes(out: Path) -> None:
    written = [[path for path in (out / str(rank)).rglob("*") if path.is_file()] for rank in range(RANKS)]
    assert any(path.suffix == ".ckpt" for path in written[0]) and written[1] == []
    assert any(path.name == "dataparser_transforms.json" for path in written[0])


def test_one_process_goes_on_from_their_checkpoint(
    out: Path, reports: list[dict[str, Any]], scene: Path, tmp_path: Path
) -> None:
    resumed = config(scene, tmp_path)
    (checkpoint,) = (out / "0").rglob("*.ckpt")
    resumed.load_dir = checkpoint.parent
    loaded = parameters(set_up(resumed))
    forget_writers()
    assert all(torch.equal(loaded[name], value) for name, value in reports[0]["end"].items())
    assert manager_config(resumed).train_num_rays_per_batch == reports[0]["rays_per_batch"]
