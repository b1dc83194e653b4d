"""The `semflow` command: one file a subcommand, thin."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from semflow_nerfstudio.cli.bench import Bench
from semflow_nerfstudio.cli.check import Check
from semflow_nerfstudio.cli.complete import Complete
from semflow_nerfstudio.cli.demo import Demo
from semflow_nerfstudio.cli.evaluate import Evaluate
from semflow_nerfstudio.cli.export import Export
from semflow_nerfstudio.cli.label import Label
from semflow_nerfstudio.cli.make_scene import MakeScene
from semflow_nerfstudio.cli.process import Process
from semflow_nerfstudio.cli.render import Render
from semflow_nerfstudio.cli.select import Select
from semflow_nerfstudio.cli.track import Track

Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[MakeScene, tyro.conf.subcommand("make-scene")]
    | Annotated[Process, tyro.conf.subcommand("process")]
    | Annotated[Label, tyro.conf.subcommand("label")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Evaluate, tyro.conf.subcommand("eval")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Select, tyro.conf.subcommand("select")]
    | Annotated[Complete, tyro.conf.subcommand("complete")]
    | Annotated[Track, tyro.conf.subcommand("track")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


def entrypoint() -> None:
    """Run a subcommand; wrong input ends with one sentence, not a traceback."""
    command = tyro.cli(tyro.conf.OmitSubcommandPrefixes[Command], description=__doc__)  # type: ignore[valid-type]
    try:
        command.main()
    except (OSError, ValueError) as error:
        Console(stderr=True).print(f"[bold red]semflow:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("[bold red]semflow:[/] interrupted", highlight=False)
        sys.exit(130)


if __name__ == "__main__":
    entrypoint()
