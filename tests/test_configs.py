"""The methods as nerfstudio's commands find, parse and store them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
import yaml
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.plugins.registry import discover_methods
from nerfstudio.plugins.registry_dataparser import discover_dataparsers

from semflow_nerfstudio.configs import methods
from semflow_nerfstudio.configs.schedulers import WarmupDecayConfig, follow_length
from semflow_nerfstudio.data.datamanager import SemFlowDataManagerConfig
from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig
from semflow_nerfstudio.model import SemanticFlowModel, SemanticFlowModelConfig
from semflow_nerfstudio.pipeline import SemanticFlowPipelineConfig

OWN = [value for value in vars(methods).values() if type(value).__name__ == "MethodSpecification"]
NAMES = [specification.config.method_name for specification in OWN]


def parse(command: str) -> Any:
    """What `ns-train` makes of a command line."""
    return tyro.cli(AnnotatedBaseConfigUnion, args=command.split())


def test_the_methods_are_found() -> None:
    found, descriptions = discover_methods()
    assert {"semantic-flow", "semantic-flow-lite"} <= set(NAMES) <= set(found)
    assert all(descriptions[name] for name in NAMES)
    assert isinstance(found["semantic-flow"].pipeline.model, SemanticFlowModelConfig)


def test_the_dataparsers_are_found() -> None:
    found, descriptions = discover_dataparsers()
    assert isinstance(found["dynamic-scene-data"], DynamicSceneDataParserConfig)
    assert isinstance(found["semflow-data"], SemFlowDataParserConfig)
    assert descriptions["dynamic-scene-data"] and descriptions["semflow-data"]


@pytest.mark.parametrize("module", ["nerfstudio.configs.method_configs", "semflow_nerfstudio.configs.methods"])
def test_a_fresh_interpreter_finds_them_whatever_is_imported_first(module: str) -> None:
    """nerfstudio loads dataparsers while its own modules are half imported, and swallows what goes wrong."""
    program = (
        f"import {module}\n"
        "from nerfstudio.configs.method_configs import all_methods\n"
        "from nerfstudio.configs.dataparser_configs import all_dataparsers\n"
        "print('FOUND', *(n for n in (*all_methods, *all_dataparsers) if n.startswith(('semantic', 'semflow', 'dyn'))))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = next(line for line in result.stdout.splitlines() if line.startswith("FOUND")).split()[1:]
    assert {*NAMES, "dynamic-scene-data", "semflow-data"} <= set(found)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_parses(name: str, tmp_path: Path) -> None:
    config = parse(f"{name} --data {tmp_path} dynamic-scene-data --downscale-factor 4 --labelled-frames completion-50")
    assert config.method_name == name and config.data == tmp_path
    parser = config.pipeline.datamanager.dataparser
    assert isinstance(config.pipeline, SemanticFlowPipelineConfig)
    assert isinstance(parser, DynamicSceneDataParserConfig)
    assert (parser.downscale_factor, parser.labelled_frames) == (4, "completion-50")


def test_options_reach_every_part_of_the_model() -> None:
    config = parse(
        "semantic-flow-lite --max-num-iterations 7 --pipeline.model.static-steps 9 "
        "--pipeline.model.scene.static.grid.num-levels 3 --pipeline.model.shared.attention mean "
        "--pipeline.model.render.window 5 --pipeline.model.losses.semantic 0.5 "
        "--pipeline.model.sampling.samples 11 --pipeline.datamanager.pixel-sampler.frames-per-batch 2"
    )
    model = config.pipeline.model
    assert config.max_num_iterations == 7 and model.static_steps == 9
    assert model.scene.static.grid.num_levels == 3 and model.shared.attention == "mean"
    assert model.render.window == 5 and model.losses.semantic == 0.5 and model.sampling.samples == 11
    assert config.pipeline.datamanager.pixel_sampler.frames_per_batch == 2


@pytest.mark.parametrize("parser", ["semflow-data", "dnerf-data", "dycheck-data", "nerfstudio-data", "blender-data"])
def test_other_dataparsers_can_be_named(parser: str) -> None:
    config = parse(f"semantic-flow-lite --data /somewhere {parser}")
    assert isinstance(config.pipeline.datamanager, SemFlowDataManagerConfig)
    assert parser.split("-", maxsplit=1)[0] in type(config.pipeline.datamanager.dataparser).__name__.lower()


def test_parsing_leaves_the_registered_configs_alone() -> None:
    parse("semantic-flow-lite --pipeline.model.static-steps 12345 --pipeline.datamanager.train-num-rays-per-batch 7")
    assert yaml.dump(methods.lite()) == yaml.dump(methods.semantic_flow_lite.config)
    assert parse("semantic-flow-lite").pipeline.model.static_steps != 12345


@pytest.mark.parametrize("name", NAMES)
def test_the_device_is_the_one_that_is_there(name: str) -> None:
    assert parse(name).machine.device_type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", NAMES)
def test_configs_survive_the_file(name: str, tmp_path: Path) -> None:
    config = parse(f"{name} --data {tmp_path} --output-dir {tmp_path} --experiment-name x dynamic-scene-data")
    config.set_timestamp()
    config.save_config()
    text = (config.get_base_dir() / "config.yml").read_text()
    loaded = yaml.load(text, Loader=yaml.Loader)
    assert isinstance(loaded, TrainerConfig) and yaml.dump(loaded) == text
    assert isinstance(loaded.pipeline.model, SemanticFlowModelConfig) and loaded.pipeline.model == config.pipeline.model
    assert loaded.pipeline.model._target is SemanticFlowModel


@pytest.mark.parametrize("specification", OWN, ids=NAMES)
def test_every_group_has_an_optimizer_and_a_schedule_over_the_whole_run(specification) -> None:
    config = specification.config
    for group, settings in config.optimizers.items():
        schedule = settings["scheduler"]
        assert isinstance(schedule, WarmupDecayConfig) and schedule.max_steps is None, group
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = settings["optimizer"].setup([parameter])
        rates = schedule.setup().get_scheduler(optimizer, settings["optimizer"].lr).state_dict()
        assert all(type(rate) is float for rate in rates["base_lrs"] + rates["_last_lr"])


def test_rates_fall_until_the_last_step_of_however_long_a_training() -> None:
    """Also one that is continued for longer, and where the schedule starts later: a checkpoint keeps no length."""
    config = WarmupDecayConfig(warmup_steps=10, final_ratio=0.05)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = config.setup().get_scheduler(optimizer, 2.0)
    follow_length(scheduler, 100)
    rate = scheduler.lr_lambdas[0]
    assert rate(0) == pytest.approx(1 / 11) and rate(10) == 1
    assert rate(55) == pytest.approx(0.05**0.5) and rate(100) == rate(1000) == pytest.approx(0.05)
    saved = scheduler.state_dict()
    follow_length(scheduler, 200)
    scheduler.load_state_dict(saved)
    assert scheduler.lr_lambdas[0](200) == pytest.approx(0.05) and scheduler.lr_lambdas[0](100) > 0.2
    follow_length(scheduler, 200, start=100)
    assert scheduler.lr_lambdas[0](110) == 1 and scheduler.lr_lambdas[0](200) == pytest.approx(0.05)
    follow_length(scheduler, 200, start=100, boost=3.0)
    assert scheduler.lr_lambdas[0](110) == 3 and scheduler.lr_lambdas[0](200) == pytest.approx(0.15)
    fixed = WarmupDecayConfig(max_steps=50).setup().get_scheduler(optimizer, 2.0)
    follow_length(fixed, 100)
    assert fixed.lr_lambdas[0](50) == pytest.approx(0.05), "a length that was asked for stays"


def test_files_of_older_versions_get_what_came_later() -> None:
    config = methods.lite(7)
    text = yaml.dump(config)
    model, data = config.pipeline.model, config.pipeline.datamanager
    for gone in ("sampling", "mover_ray_share"):
        del model.__dict__[gone]
    del model.render.__dict__["token_visibility"]
    del data.__dict__["corruption"], model.scene.static.__dict__["hidden_dim"]
    read = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert yaml.dump(read) == text
    del model.scene.__dict__["semantic_grid"]
    assert yaml.load(yaml.dump(config), Loader=yaml.Loader).pipeline.model.scene.semantic_grid is None


def test_command_lines_of_several_scenes_and_adaptations() -> None:
    """As the README writes them."""
    for parser in ("dynamic-scene-data", "semflow-data"):
        config = parse(f"semantic-flow-lite {parser} --data ROOT --scenes A B C --labelled-frames tracking-25")
        data = config.pipeline.datamanager.dataparser
        assert data.scenes == ("A", "B", "C") and data.labelled_frames == "tracking-25"
    model = parse(
        "semantic-flow-lite --max-num-iterations 1100 --pipeline.model.adapt-from RUN "
        "--pipeline.model.adapt-field-steps 1000 --pipeline.model.adapt-label-steps 100 "
        "--pipeline.model.adapt-freeze-shared True dynamic-scene-data --data NEW"
    ).pipeline.model
    assert (model.adapt_from, model.adapt_field_steps, model.adapt_label_steps) == (Path("RUN"), 1000, 100)
    assert model.adapt_freeze_shared
