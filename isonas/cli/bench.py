"""`isonas bench`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import Any

import click

from isonas.cli.bench_proxy import proxy
from isonas.cli.options import (
    UserPath,
    budget_from,
    budget_options,
    cache_option,
    data_option,
    deployment_options,
    json_option,
    proxy_options,
)
from isonas.cli.resolve import cache_folder, new_inputs, parse_seconds, proxy_setting
from isonas.errors import UsageError
from isonas.search import SAMPLER_NAMES


@click.group()
def bench() -> None:
    """Measure isonas itself.

    \b
    Example:
      isonas bench cost
    """


bench.add_command(proxy)


@bench.command("cost")
@click.argument("space", required=False)
@budget_options
@json_option
def cost(space: str | None, as_json: bool, **budget: object) -> None:
    """Time the exact costing of a whole search space under a budget.

    The default space has more than a million genomes; without a limit the budget is 512 KiB, 3 M params
    and 200 M MAdds. Beside it stands fvcore, which traces networks one by one, where it is installed
    (pip install fvcore).

    \b
    Example:
      isonas bench cost mcu --board stm32f746
    """
    from isonas.bench.cost import BUDGET, MILLION, cost_speed
    from isonas.hardware import Budget
    from isonas.space import load_space

    limits = budget_from(budget)
    if limits == Budget(memory_model=limits.memory_model, dtype=limits.dtype):
        limits = replace(BUDGET, memory_model=limits.memory_model, dtype=limits.dtype)
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


@bench.command("proposals", short_help="Time proposals in a large space, after many trials.")
@click.argument("space", default="million")
@click.option("--sampler", default="ehvi", show_default=True, type=click.Choice(SAMPLER_NAMES))
@click.option(
    "--trials",
    default="0,1000",
    show_default=True,
    help="Trials that have ended before, such as 0,1000,10000.",
)
@json_option
def proposals(space: str, sampler: str, trials: str, as_json: bool) -> None:
    """Time a sampler's proposals in SPACE and tell the memory they take; nothing is trained.

    SPACE is million or five-million, which are built in, a shipped space or the path of a YAML file. The
    trials before are invented.

    \b
    Example:
      isonas bench proposals five-million --trials 0,1000,10000
    """
    from isonas.bench.proposals import SPACES, proposal_speed
    from isonas.hardware import format_bytes
    from isonas.space import load_space

    try:
        counts = [int(part) for part in trials.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 0:
        raise UsageError(f"--trials {trials!r}: give counts of trials with commas between, such as 0,1000.")
    speed = proposal_speed(SPACES[space] if space in SPACES else load_space(space), sampler, counts)
    if as_json:
        click.echo(json.dumps(asdict(speed), indent=2))
        return
    click.echo(
        f"{speed.space}: {speed.feasible:,} genomes enumerated and costed in {speed.enumerate_seconds:.1f} s."
    )
    for timed in speed.proposals:
        click.echo(
            f"{speed.sampler} after {timed.trials:,} trials: {timed.median_seconds:.2f} s a proposal, "
            f"{timed.longest_seconds:.2f} s the longest."
        )
    if speed.peak_memory_bytes is not None:
        click.echo(f"Peak memory {format_bytes(speed.peak_memory_bytes)}.")


@bench.command("record", short_help="Train a space's genomes several times each, into a table.")
@click.argument("space", default="tiny")
@data_option
@budget_options
@deployment_options
@click.option(
    "--table",
    type=UserPath(dir_okay=False),
    required=True,
    help="The Parquet file to write; trainings that it holds already are kept.",
)
@click.option(
    "--sample", type=click.IntRange(1), help="Genomes, drawn by --seed. Default: all feasible ones."
)
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1), help="Trainings of each genome."
)
@click.option("--time-limit", help="Start no training after this long, such as 90m, 2h or 600s.")
@proxy_options(epochs=9)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Processes that train side by side, the threads shared out among them.",
)
@cache_option
@json_option
def record(**options: Any) -> None:
    """Train the genomes of SPACE, several times each, into a table to compare samplers on.

    The table holds the validation error after every epoch, the error on held-back images, and what
    each training took. A killed recording goes on when the same command is given again; more --seeds
    or a larger --sample extend it. A table that is not finished is a smaller table.

    \b
    Example:
      isonas bench record tiny --table tiny.parquet --workers 2 --threads 1
    """
    from functools import partial

    from isonas.bench.record import genomes_to_record, record, trainer_of

    limit = parse_seconds(options["time_limit"]) if options["time_limit"] else float("inf")
    unsearched = {
        "objectives": "error,arena_bytes,madds",
        "sampler": "random",
        "trials": 1,
        "repeats": 1,
        "trial_timeout": None,
        "early_stopping": False,
        "engine": "local",
        "cpus_per_trial": None,
        "gpus_per_trial": None,
    }
    inputs, _ = new_inputs({**options, **unsearched})
    genomes = genomes_to_record(inputs, options["sample"])
    start = partial(trainer_of, proxy_setting(inputs, cache_folder(options)), inputs.seed)
    deadline = time.monotonic() + limit
    have, wanted, core_seconds = 0, len(genomes) * options["seeds"], 0.0
    recording = record(
        options["table"],
        inputs,
        genomes,
        options["seeds"],
        start,
        workers=options["workers"],
        deadline=deadline,
    )
    for training, have, wanted in recording:
        core_seconds += training.core_seconds
        outcome = f"error {training.error[-1]:.3f}" if training.error else f"failed: {training.reason}"
        click.echo(
            f"{have}/{wanted} {training.genome} seed {training.seed}: {outcome} in "
            f"{training.seconds:.1f} s ({training.core_seconds:.1f} core seconds)",
            err=True,
        )
    document = {"table": str(options["table"]), "trainings": have, "wanted": wanted}
    if options["as_json"]:
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"{options['table']} holds {have} of {wanted} trainings.")


@bench.command("samplers", short_help="Replay samplers on a recorded table and compare them.")
@click.argument("table", type=UserPath(dir_okay=False))
@click.option(
    "--sampler",
    "samplers",
    multiple=True,
    default=SAMPLER_NAMES,
    type=click.Choice(SAMPLER_NAMES),
    help="What to compare; may be given several times. Default: all. (gp takes about a second a trial.)",
)
@click.option(
    "--against",
    type=click.Choice(SAMPLER_NAMES),
    help="The sampler that the others are tested against. Default: ehvi, else the first.",
)
@click.option(
    "--seeds", default=20, show_default=True, type=click.IntRange(2, 100_000), help="Replays of each sampler."
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    help="Trials of a replay. Default: the largest budget, or all genomes if they are fewer.",
)
@click.option(
    "--budgets",
    help="Trials at which samplers are compared, such as 10,50,100. Default: 10,20,30,50,75,100,150,200.",
)
@click.option(
    "--trainings",
    type=click.IntRange(2),
    help="Trainings of each genome to use. Default: as many as any genome has.",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Trainings side by side, in simulated time.",
)
@click.option(
    "--early-stopping/--no-early-stopping",
    default=False,
    show_default=True,
    help="Stop trials at rungs, as a search does.",
)
@click.option(
    "--log",
    type=UserPath(exists=True, file_okay=False),
    help="Log every replay as a search is logged, in a temporary folder inside this one, to time that too.",
)
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Processes that replay side by side.",
)
@click.option(
    "--plot",
    type=UserPath(dir_okay=False),
    help="Draw hypervolume against trials and seconds into this .svg or .png.",
)
@json_option
def samplers(**options: Any) -> None:  # fmt: skip
    """Replay samplers on the recorded TABLE: the search's own loop, trainings answered from the table.

    A search sees one training of each genome; its front is scored by the others. Time is simulated from
    the recorded processor seconds, so trainings side by side and early stopping are too. What a sampler
    takes to propose is measured by the real clock and stands apart.

    \b
    Example:
      isonas bench samplers tiny.parquet --sampler ehvi --sampler tpe --sampler random --plot tiny.svg
      isonas bench samplers tiny.parquet --workers 64 --log .
    """
    from isonas.bench.arena import read_arena
    from isonas.bench.plot import plot, require_plot
    from isonas.bench.replay import Setting
    from isonas.bench.samplers import plan_of, shoot_out
    from isonas.bench.standings import document, tables
    from isonas.report.console import console, counting

    if options["plot"]:
        require_plot(options["plot"])
    arena = read_arena(options["table"], options["trainings"])
    plan = plan_of(
        arena,
        options["samplers"],
        seeds=options["seeds"],
        trials=options["trials"],
        budgets=_budgets(options["budgets"]) if options["budgets"] else None,
        against=options["against"],
        setting=Setting(options["workers"], options["early_stopping"], options["log"]),
    )
    with counting("replays", plan.seeds * len(plan.samplers)) as count:
        shootout = shoot_out(arena, plan, options["jobs"], lambda _: count())
    if options["plot"]:
        plot(shootout, options["plot"])
    if options["as_json"]:
        click.echo(json.dumps({"table": str(options["table"]), **document(shootout)}, indent=2))
    else:
        console().print(tables(shootout))


def _budgets(text: str) -> list[int]:
    try:
        budgets = [int(part) for part in text.split(",")]
    except ValueError:
        budgets = []
    if not budgets or min(budgets) < 1:
        raise UsageError(f"--budgets {text!r}: give counts of trials with commas between, such as 10,50,100.")
    return budgets
