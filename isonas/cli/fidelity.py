"""`isonas fidelity`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.options import UserPath, cache_option, json_option
from isonas.cli.resolve import cache_folder, inputs_again, parse_seconds, proxy_setting
from isonas.errors import RunError, TrainingError, UsageError

if TYPE_CHECKING:
    from isonas.search.inputs import Inputs
    from isonas.search.log import Trial

LONGER = 4


@click.command()
@click.argument("run", type=UserPath())
@click.option(
    "--sample",
    default=24,
    show_default=True,
    type=click.IntRange(5),
    help="Complete trials to train longer, spread over internal resolutions and errors.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help=f"Epochs of the longer training. Default: {LONGER} times the run's.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes that train side by side, each with the run's threads. Default: as many as the run's.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Of the sample and the bootstrap.",
)
@click.option("--data", help="Where the same images lie now, if they have moved.")
@click.option("--time-limit", help="Start no training after this long, such as 90m, 2h or 600s.")
@cache_option
@json_option
def fidelity(run: Path, **options: Any) -> None:
    """Train genomes of RUN longer, and tell how well its short trainings ranked them.

    A sample of the complete trials is trained again from fresh seeds. Kendall's τ and the overlap of the
    best quarter say how far the proxy's order agrees with the longer training's, beside the orders of
    params and of MAdds, which cost no training at all.

    The trainings are kept in RUN/fidelity-<epochs>.parquet. Where this was killed, the same command goes
    on; a larger --sample or another --seed trains only what is not there.

    \b
    Example:
      isonas fidelity runs/quick-clutter-1 --sample 12 --epochs 16
    """
    from isonas.bench.fidelity import FEWEST, compared, document, fidelity_table, rankings, stratified
    from isonas.bench.table import read_table
    from isonas.report.console import console
    from isonas.search.inputs import read_run
    from isonas.search.log import COMPLETE, read_trials

    recorded, _, _ = read_run(run)
    limit = parse_seconds(options["time_limit"]) if options["time_limit"] else float("inf")
    epochs = options["epochs"] or LONGER * recorded.epochs
    if epochs <= recorded.epochs:
        raise UsageError(
            f"--epochs {epochs} is no longer than the {recorded.epochs} of {run}; give more of them."
        )
    logged, unreadable = read_trials(run)
    for message in unreadable:
        click.echo(f"isonas: {message}; it is left out here.", err=True)
    complete = [trial for trial in logged if trial.state == COMPLETE]
    if len(complete) < FEWEST:
        raise RunError(
            f"{run} has {len(complete)} complete trials, and fewer than {FEWEST} have no ranking worth "
            "a figure; search on with isonas resume."
        )
    inputs = inputs_again(run, recorded, options)

    sample = stratified(complete, options["sample"], options["seed"])
    table = run / f"fidelity-{epochs}.parquet"
    _train(table, inputs, sample, epochs, options, time.monotonic() + limit)
    genomes = compared(sample, read_table(table).trainings if table.exists() else ())
    if len(genomes) < len(sample):
        click.echo(f"isonas: {len(genomes)} of {len(sample)} genomes were trained longer.", err=True)
    if len(genomes) < FEWEST:
        raise TrainingError(
            f"only {len(genomes)} of {len(sample)} genomes were trained longer, and {FEWEST} are needed; "
            "give the same command again, or a larger --sample where trainings failed."
        )
    found = rankings(genomes, options["seed"])
    if options["as_json"]:
        click.echo(json.dumps(document(str(run), (recorded.epochs, epochs), found), indent=2))
    else:
        console().print(fidelity_table((recorded.epochs, epochs), found))


def _train(
    table: Path, inputs: Inputs, sample: list[Trial], epochs: int, options: dict[str, Any], deadline: float
) -> None:
    """Bring the table to one longer training of every genome of the sample."""
    from dataclasses import replace
    from functools import partial

    from isonas.bench.fidelity import FRESH
    from isonas.bench.record import record, trainer_of

    longer = replace(inputs, epochs=epochs, trial_timeout=None)
    # A cluster's trainings side by side say nothing of what this machine can hold.
    workers = options["workers"] or (inputs.workers if inputs.engine == "local" else 1)
    recording = record(
        table,
        longer,
        [trial.genome for trial in sample],
        1,
        partial(trainer_of, proxy_setting(longer, cache_folder(options)), longer.seed),
        first_seed=FRESH,
        workers=workers,
        deadline=deadline,
    )
    proxy = {trial.genome: trial.own_error for trial in sample}
    try:
        for training, have, wanted in recording:
            outcome = f"error {training.error[-1]:.3f}" if training.error else f"failed: {training.reason}"
            click.echo(
                f"{have}/{wanted} {training.genome}: {outcome} after {epochs} epochs, "
                f"{proxy[training.genome]:.3f} after {inputs.epochs}, in {training.seconds:.1f} s",
                err=True,
            )
    except KeyboardInterrupt:
        click.echo("\nStopped; every finished training is kept: give the same command again.", err=True)
        raise
