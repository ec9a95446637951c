"""The command line: parsing and printing only. One file a command, imported when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click

import isonas
from isonas.errors import IsonasError

COMMANDS = {
    "search": "Search a space for the best genomes that the hardware can hold.",
    "resume": "Go on with a search that was stopped or killed.",
    "space": "Count a search space, and what of it a budget leaves.",
    "cost": "Print what a genome costs, layer by layer.",
    "front": "Print the Pareto front of runs.",
    "retrain": "Train a genome in full at its deployment input.",
    "evaluate": "Put images to trained weights: top-1, top-5, class by class.",
    "export": "Write a genome's trained network for PyTorch, or as C for a microcontroller.",
    "verify": "Compile and run exported C, and compare it with what was promised.",
    "fidelity": "Tell how well a run's short trainings rank its genomes.",
    "paper": "List the tables and figures of the paper, or run one.",
    "bench": "Measure isonas itself.",
}


class _Commands(click.Group):
    """Commands by name, each from the module of that name; errors as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"isonas.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except IsonasError as error:
            click.echo(f"isonas: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(130)
        except BrokenPipeError:
            raise
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            click.echo(f"isonas: {place}{error.strerror or error}.", err=True)
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(isonas.__version__, prog_name="isonas")
def main() -> None:
    """Neural architecture search over isometric convolutional networks.

    \b
    Example:
      isonas search                    a front on the embedded data, in minutes
      isonas cost isonet_l16_c64_r14_e6_se4_s2d
    """
