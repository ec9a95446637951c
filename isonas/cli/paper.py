"""`isonas paper`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isonas.cli.options import UserPath, cache_option, image_options, json_option, machine_options
from isonas.errors import UsageError

if TYPE_CHECKING:
    from isonas.paper.experiment import Experiment
    from isonas.paper.results import Results

SCALES = ("smoke", "small", "full")


@click.command()
@click.argument("name", metavar="[ID]", required=False)
@click.option(
    "--scale",
    default="small",
    show_default=True,
    type=click.Choice(SCALES),
    help="smoke: seconds, to see that it runs; small: about an hour on one core; full: the paper's networks "
    "and inputs.",
)
@click.option(
    "--data",
    help="Images, for an ID that trains: clutter, digits, synthetic, imagenet32:DIR, parquet:PATH or "
    "folder:DIR.",
)
@click.option(
    "--run",
    type=UserPath(file_okay=False),
    help="Folder of the results. Default: runs/paper-<id>-<scale>.",
)
@click.option("--seeds", type=click.IntRange(1, 1000), help="Fresh starts of every network, in all.")
@image_options("the largest input of the experiment, at least 64")
@click.option(
    "--recipe",
    help="mobilenetv3 (the paper's: RMSProp, 600 epochs), another of retrain's recipes, or a YAML file. "
    "Default: one cycle of SGD; 90 epochs at the full scale.",
)
@click.option(
    "--micro-batch",
    type=click.IntRange(4),
    help="Images that go through a network at a time. Default: the whole batch, fewer where memory or a "
    "CPU's cache does not hold it.",
)
@machine_options("networks train")
@cache_option
@json_option
def paper(name: str | None, as_json: bool, **options: Any) -> None:
    """List the tables and figures of the paper, or run the one called ID.

    Without an ID the list says which of them train. table1, table2 and fig8 count networks and need no
    data. The others train on the images of --data and keep every finished training in the folder's
    results.parquet: where this was killed, the same command goes on, and more --seeds add to what is
    there. Each prints its tables and writes report.json; figure.png and figure.svg need matplotlib, without
    which the rest is done all the same.

    \b
    Example:
      isonas paper table4 --data parquet:imagenet100-64
    """
    from isonas.paper import EXPERIMENTS

    if name is None:
        _list(as_json)
        return
    if name not in EXPERIMENTS:
        raise UsageError(f"isonas paper {name!r} is unknown; give one of {', '.join(EXPERIMENTS)}.")
    import importlib

    from isonas.paper.draw import can_draw
    from isonas.paper.outcome import document, print_report, write_outcome
    from isonas.paper.results import Results

    experiment: Experiment = importlib.import_module(f"isonas.paper.{name}").EXPERIMENT
    scale = options["scale"]
    folder = options["run"] or Path("runs") / f"paper-{experiment.id}-{scale}"
    if experiment.scales:
        results = _train(experiment, folder, options)
    else:
        if unused := _typed_but(("name", "scale", "run", "as_json")):
            is_not = "is" if len(unused) == 1 else "are"
            click.echo(f"isonas: {name} trains nothing; {', '.join(unused)} {is_not} not used.", err=True)
        results = Results(None, 0, ())
    report = experiment.report(results)
    made = write_outcome(folder, experiment, results, report)
    if as_json:
        click.echo(json.dumps(document(experiment, results, report), indent=2))
    else:
        print_report(experiment, results, report)
    click.echo(f"isonas: wrote {', '.join(str(path) for path in made)}.", err=True)
    if not can_draw():
        click.echo(
            "isonas: no figure was drawn, for matplotlib is not installed; get it with pip install "
            "'isonas[plot]' and give the same command again.",
            err=True,
        )


def _train(experiment: Experiment, folder: Path, options: dict[str, Any]) -> Results:
    from isonas.cli.resolve import cache_folder
    from isonas.data.preprocessing import Fit
    from isonas.data.sources import open_dataset
    from isonas.paper.outcome import training_line, write_outcome
    from isonas.paper.run import plan_of, planned, results_of, trainings
    from isonas.training.machine import probe_machine
    from isonas.training.recipes import load_recipe

    if options["data"] is None:
        raise UsageError(
            f"isonas paper {experiment.id} trains networks; give the images with --data, such as "
            "--data clutter or --data parquet:PATH."
        )
    recipe = load_recipe(options["recipe"]) if options["recipe"] else None
    largest = max(64, experiment.largest_input(options["scale"]))
    fit = Fit(options["fit"] or Fit.CROP)
    data = open_dataset(options["data"], cache_folder(options), options["image_side"] or largest, fit)
    machine = probe_machine(options["device"], options["threads"], options["precision"])
    plan = plan_of(
        experiment,
        options["scale"],
        data,
        machine,
        options["seeds"],
        recipe=recipe,
        micro_batch=options["micro_batch"],
    )
    click.echo(f"isonas: {planned(plan)} in {folder}.", err=True)
    total = plan.seeds * len(experiment.cells(options["scale"]))
    try:
        for training, results in trainings(folder, plan):
            click.echo(training_line(training, results, total), err=True)
            if len(results.trainings) % len(experiment.cells(options["scale"])) == 0:
                # A whole seed more: what is known so far can be looked at.
                write_outcome(folder, experiment, results, experiment.report(results))
    except KeyboardInterrupt:
        click.echo("\nStopped; every finished training is kept: give the same command again.", err=True)
        raise
    return results_of(folder, plan)


def _typed_but(used: tuple[str, ...]) -> list[str]:
    """The options on the command line but for some, as they are written."""
    context = click.get_current_context()
    return [
        option.opts[0]
        for option in context.command.params
        if option.name not in used
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]


def _list(as_json: bool) -> None:
    from isonas.paper import EXPERIMENTS

    if as_json:
        click.echo(json.dumps({name: asdict(entry) for name, entry in EXPERIMENTS.items()}, indent=2))
        return
    for name, entry in EXPERIMENTS.items():
        click.echo(
            f"{name:8}  {'trains' if entry.trains else 'counts'}  {entry.title} (section {entry.sections})"
        )
    click.echo(
        "\nisonas paper ID runs one. What trains needs images (--data); what counts needs no data and takes "
        "seconds. Figures need matplotlib, without which tables and findings are given all the same.",
        err=True,
    )
