"""`isonas resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from isonas.cli.options import UserPath, cache_option, json_option, timeout_option, worker_options
from isonas.cli.resolve import parse_seconds
from isonas.cli.search import resume_run


@click.command()
@click.argument("run", type=UserPath())
@click.option("--trials", type=click.IntRange(1), help="Trials in all. Default: as at the start.")
@click.option("--time-limit", help="Start no trial after this long, such as 90m, 2h or 600s.")
@click.option("--data", help="Where the same images lie now, if they have moved.")
@timeout_option
@worker_options(resuming=True)
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    help="Trainings of each front member in all. Default: as at the start.",
)
@cache_option
@json_option
@click.pass_context
def resume(ctx: click.Context, /, run: Path, **options: Any) -> None:
    """Go on with the search in the folder RUN, as if it had never stopped.

    Finished trials are kept, those in flight are done again under their numbers, and the trials after
    them are those of an uninterrupted search.

    \b
    Example:
      isonas resume runs/quick-clutter-1 --trials 48
    """
    given = {name for name in options if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    limit = parse_seconds(options["time_limit"]) if options["time_limit"] else float("inf")
    resume_run(run, options, given, limit)
