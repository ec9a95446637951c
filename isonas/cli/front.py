"""`isonas front`."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.options import UserPath, cache_option, json_option
from isonas.cli.resolve import cache_folder, inputs_again, proxy_setting
from isonas.errors import UsageError

if TYPE_CHECKING:
    from isonas.paper.baseline_training import Trained
    from isonas.paper.baselines import Network
    from isonas.report.front import Baseline, Front
    from isonas.search.inputs import Inputs


@click.command()
@click.argument("runs", nargs=-1, required=True, type=UserPath())
@click.option(
    "--mixed",
    is_flag=True,
    help="Put runs side by side though their genomes were not trained alike (epochs, batch, seed, …).",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print the front as CSV.")
@click.option(
    "--with",
    "names",
    multiple=True,
    metavar="NETWORKS",
    help="Put networks beside the front, costed as the run's genomes are: mobilenetv3 (MobileNetV3-Large at "
    "some widths), mobilenetv3_w0.5 (at one), paper (the isometric networks of the paper's Table 2), or a "
    "genome. May be given several times.",
)
@click.option(
    "--train",
    is_flag=True,
    help="Train them as the (first) run trains its genomes, MobileNetV3 at several peak learning rates of "
    "which the best counts, and keep their errors in RUN/baselines.json. Without it, errors that are kept "
    "there are shown.",
)
@click.option("--data", help="Where the run's images lie now, if they have moved; for --train.")
@cache_option
@json_option
def front(runs: tuple[Path, ...], as_csv: bool, as_json: bool, mixed: bool, **options: Any) -> None:
    """Print the Pareto front of one run, or the common front of several whose genomes were trained alike.

    \b
    Example:
      isonas front runs/sample
      isonas front runs/sample --with mobilenetv3 --with paper
      isonas front runs/quick-clutter-1 --with mobilenetv3_w0.5 --train
    """
    from isonas.report.front import front_csv, front_document, read_front
    from isonas.report.search import print_baselines, print_front

    if as_csv and as_json:
        raise UsageError("--csv and --json ask for two documents; give one of them.")
    found = read_front(runs, mixed=mixed)
    for message in found.unreadable:
        click.echo(f"isonas: {message}; it is left out here.", err=True)
    names = list(dict.fromkeys(options["names"]))
    if options["train"] and not names:
        raise UsageError(
            "--train says nothing of what to train; name networks by --with, such as mobilenetv3."
        )
    beside = _baselines(found, runs[0], names, options) if names else {}
    if as_json:
        document = front_document(found)
        if names:
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


def _baselines(
    found: Front, run: Path, names: list[str], options: dict[str, Any]
) -> dict[str, list[Baseline]]:
    """By name as given: what the names stand for, with costs, and the errors that the run has of them."""
    from isonas.cost import Deployment
    from isonas.paper.baseline_training import read_trained, with_errors
    from isonas.paper.baselines import chosen, costed

    at = Deployment(found.inputs.input, found.inputs.classes)
    networks = {}
    for name in names:
        networks[name], left_out = chosen(name, at)
        if left_out:
            click.echo(
                f"isonas: {len(left_out)} networks of {name} do not fit input {at.input} and are left out; "
                f"the first is {left_out[0]}.",
                err=True,
            )
    costs = {name: costed(members, at, found.inputs.budget) for name, members in networks.items()}
    if options["train"]:
        _train(run, found.inputs, list(chain.from_iterable(networks.values())), options)
    trained = read_trained(run)
    return {name: with_errors(members, trained) for name, members in costs.items()}


def _train(run: Path, recorded: Inputs, networks: list[Network], options: dict[str, Any]) -> None:
    from isonas.objectives import error_objective
    from isonas.paper.baseline_training import train_baselines
    from isonas.training.proxy import evaluator_of

    inputs = inputs_again(run, recorded, options)
    evaluate = evaluator_of(proxy_setting(inputs, cache_folder(options)))
    training = train_baselines(
        run,
        networks,
        evaluate,
        epochs=inputs.epochs,
        study_seed=inputs.seed,
        objective=error_objective(inputs.objectives),
    )
    try:
        for one in training:
            click.echo(f"{one.network}: {_outcome(one)} in {one.seconds:.1f} s", err=True)
    except KeyboardInterrupt:
        click.echo("\nStopped; every finished training is kept: give the same command again.", err=True)
        raise


def _outcome(one: Trained) -> str:
    """What came of a baseline, and of each peak learning rate that was tried."""
    if one.reason is not None:
        return one.reason
    by_rate = ", ".join(
        f"{rate:g}: {f'{error:.3f}' if error is not None else 'failed'}" for rate, error in one.errors_by_rate
    )
    rate = f" at peak rate {one.peak_rate:g}, the best of {by_rate}," if by_rate else ""
    return f"error {one.error:.3f} ± {one.error_se:.3f}{rate}"
