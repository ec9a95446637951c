"""`isonas front`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from isonas.cli.options import json_option


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--csv", "as_csv", is_flag=True, help="Print the front as CSV.")
@json_option
def front(runs: tuple[Path, ...], as_csv: bool, as_json: bool) -> None:
    """Print the Pareto front of one run, or the common front of several.

    \b
    Example:
      isonas front runs/sample
    """
    from isonas.report.front import front_csv, front_document, read_front
    from isonas.report.search import print_front

    found = read_front(runs)
    for message in found.unreadable:
        click.echo(f"isonas: {message}; it is left out here.", err=True)
    if as_json:
        click.echo(json.dumps(front_document(found), indent=2))
    elif as_csv:
        click.echo(front_csv(found), nl=False)
    else:
        print_front(found)
