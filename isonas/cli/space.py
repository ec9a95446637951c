"""`isonas space`."""

from __future__ import annotations

import json
from typing import Any

import click

from isonas.cli.options import (
    budget_from,
    budget_options,
    deployment_options,
    explain_board,
    json_option,
)


@click.command()
@click.argument("space", default="quick")
@budget_options
@deployment_options
@json_option
def space(space: str, input_side: int | None, classes: int | None, as_json: bool, **budget: Any) -> None:
    """Count the genomes of SPACE, how many of them a budget leaves, and which gene values those have.

    SPACE is a shipped space (quick, tiny, mcu, imagenet, paper) or the path of a YAML file.

    \b
    Example:
      isonas space mcu --board stm32f746
    """
    from dataclasses import replace

    from isonas.report.space import print_space, space_report
    from isonas.space import load_space

    loaded = load_space(space)
    if input_side is not None:
        loaded = replace(loaded, input=input_side)
    limits = budget_from(budget)
    if (note := explain_board(limits)) is not None:
        click.echo(note, err=True)
    report = space_report(loaded, classes or loaded.classes, limits)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        print_space(loaded, report, limits)
