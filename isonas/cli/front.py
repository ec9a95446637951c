"""`isonas front`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isonas.cli.options import json_option

if TYPE_CHECKING:
    from isonas.report.front import Baseline, Front


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--csv", "as_csv", is_flag=True, help="Print the front as CSV.")
@click.option(
    "--with",
    "families",
    multiple=True,
    type=click.Choice(["mobilenetv3", "paper"]),
    help="Put these beside the front, costed as the run's genomes are: MobileNetV3-Large at some widths; "
    "the isometric networks of the paper's Table 2. They are not trained, so they have no error.",
)
@json_option
def front(runs: tuple[Path, ...], as_csv: bool, families: tuple[str, ...], as_json: bool) -> None:
    """Print the Pareto front of one run, or the common front of several.

    \b
    Example:
      isonas front runs/sample
      isonas front runs/sample --with mobilenetv3 --with paper
    """
    from isonas.report.front import front_csv, front_document, read_front
    from isonas.report.search import print_baselines, print_front

    found = read_front(runs)
    for message in found.unreadable:
        click.echo(f"isonas: {message}; it is left out here.", err=True)
    beside = _baselines(found, dict.fromkeys(families)) if families else {}
    if as_json:
        document = front_document(found)
        if families:
            document["baselines"] = {
                name: [asdict(baseline) for baseline in members] for name, members in beside.items()
            }
        click.echo(json.dumps(document, indent=2))
    elif as_csv:
        click.echo(front_csv(found, tuple(chain.from_iterable(beside.values()))), nl=False)
    else:
        print_front(found)
        for name, members in beside.items():
            print_baselines(name, members, found)


def _baselines(found: Front, families: Iterable[str]) -> dict[str, list[Baseline]]:
    from isonas.cost import Deployment
    from isonas.paper.baselines import baselines

    at = Deployment(found.inputs.input, found.inputs.classes)
    beside = {}
    for name in families:
        beside[name], left_out = baselines(name, at, found.inputs.budget)
        if left_out:
            click.echo(
                f"isonas: {len(left_out)} networks of {name} do not fit input {at.input} and are left out; "
                f"the first is {left_out[0]}.",
                err=True,
            )
    return beside
