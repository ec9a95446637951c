"""`isonas bench`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from isonas.cli.options import budget_from, budget_options, json_option


@click.group()
def bench() -> None:
    """Measure isonas itself.

    \b
    Example:
      isonas bench cost
    """


@bench.command("cost")
@click.argument("space", required=False)
@budget_options
@json_option
def cost(space: str | None, as_json: bool, **budget: object) -> None:
    """Time the exact costing of a whole search space under a budget.

    The default space has more than a million genomes, the default budget is 512 KiB, 3 M params and
    200 M MAdds. Beside it stands fvcore, which traces networks one by one, where it is installed
    (pip install fvcore).

    \b
    Example:
      isonas bench cost mcu --board stm32f746
    """
    from isonas.bench.cost import BUDGET, MILLION, cost_speed
    from isonas.space import load_space

    limits = budget_from(budget) if any(budget.values()) else BUDGET
    speed = cost_speed(load_space(space) if space else MILLION, limits)
    if as_json:
        click.echo(json.dumps(asdict(speed), indent=2))
        return
    click.echo(
        f"{speed.space}: {speed.genomes:,} genomes enumerated, costed and held to a budget in "
        f"{speed.seconds:.2f} s ({speed.genomes_per_second:,.0f} a second); {speed.feasible:,} keep it."
    )
    if speed.traced_per_second is None or speed.ratio is None:
        click.echo("fvcore is not installed; pip install fvcore puts it beside.")
    else:
        click.echo(
            f"fvcore, tracing {speed.traced} of them: {speed.traced_per_second:.2f} a second, "
            f"{speed.ratio:,.0f} times fewer."
        )
