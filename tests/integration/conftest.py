"""One tiny scene and one tiny run of it, shared by all integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import tyro
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.scripts import train as ns_train
from several_scenes import write_scenes
from tiny_runs import (
    FRAMES,
    HEIGHT,
    STEPS,
    WIDTH,
    TrainedRun,
    forget_writers,
    shrink,
    tiny_config,
    tiny_model,
    train,
)

from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.procedural import SceneOptions, make_scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in scene: four frames, four rig cameras."""
    options = SceneOptions(frames=FRAMES, size=f"{WIDTH}x{HEIGHT}", rig_cameras=FRAMES, synchronised=2)
    return make_scene(tmp_path_factory.mktemp("made") / "scene", options)


@pytest.fixture(scope="session")
def tiny_run(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run that the command line of `ns-train` asked for, with evaluation at every other step, at half size."""
    out = tmp_path_factory.mktemp("runs")
    command = (
        f"semantic-flow-lite --data {scene} --output-dir {out} --experiment-name tiny --vis tensorboard "
        f"--max-num-iterations {STEPS} --steps-per-save 3 --steps-per-eval-batch 2 --steps-per-eval-image 3 "
        "--steps-per-eval-all-images 4 --machine.seed 3 --logging.steps-per-log 2 "
        "dynamic-scene-data --downscale-factor 2"
    )
    config = tyro.cli(AnnotatedBaseConfigUnion, args=command.split())
    config.pipeline.model = tiny_model()
    shrink(config)
    ns_train.main(config)
    forget_writers()
    return TrainedRun(config.get_base_dir(), config)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two scenes, A and B, which differ in everything in which scenes may differ."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def run_of_two(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run of both scenes. Tests must not change it."""
    data = DynamicSceneDataParserConfig(data=scenes, scenes=("A", "B"))
    config = tiny_config(data, tmp_path_factory.mktemp("runs"), steps=STEPS)
    return TrainedRun(train(config).base_dir, config)
