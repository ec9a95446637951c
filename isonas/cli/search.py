"""`isonas search`."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isonas.cli.options import (
    RETRAIN,
    UserPath,
    budget_options,
    cache_option,
    data_option,
    deployment_options,
    explain_board,
    image_options,
    json_option,
    proxy_options,
    timeout_option,
    worker_options,
)
from isonas.cli.resolve import (
    cache_folder,
    claim_run,
    given_inputs,
    images_again,
    latest_run,
    new_inputs,
    parse_seconds,
    proxy_setting,
)
from isonas.errors import RunError, TrainingError
from isonas.search import SAMPLER_NAMES

if TYPE_CHECKING:
    from isonas.data.dataset import Dataset
    from isonas.search.engines import Engine
    from isonas.search.inputs import Inputs
    from isonas.search.study import Study


@click.command()
@click.argument("space", default="quick")
@data_option
@image_options("their median, up to 64; squares of one size keep theirs, up to 256")
@budget_options
@deployment_options
@click.option(
    "--objectives",
    default="error,arena_bytes,madds",
    show_default=True,
    help="error, or balanced_error where classes differ in size, and any of arena_bytes, madds, params.",
)
@click.option(
    "--trials",
    default=24,
    show_default=True,
    type=click.IntRange(1),
    help="Trials in all, those before a resume included.",
)
@click.option("--time-limit", help="Start no trial after this long, such as 90m, 2h or 600s.")
@proxy_options(epochs=4)
@click.option(
    "--sampler",
    default="ehvi",
    show_default=True,
    type=click.Choice(SAMPLER_NAMES),
    help="What proposes genomes.",
)
@click.option(
    "--early-stopping/--no-early-stopping",
    default=False,
    show_default=True,
    help="Stop a trial at a rung (1, …, a quarter, half of the epochs) where a new one promises more.",
)
@click.option(
    "--repeats",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Train each front member this often in all, with fresh seeds, and report the mean.",
)
@click.option(
    "--retrain",
    metavar="best|front|N",
    type=RETRAIN,
    help="Go on to retrain in full: the best, the whole front, or its N best. See isonas retrain.",
)
@timeout_option
@worker_options()
@cache_option
@click.option(
    "--run",
    "run",
    type=UserPath(),
    help="The run's folder. Default: runs/<space>-<data>-<n>.",
)
@click.option("--resume", is_flag=True, help="Go on with the run; changed inputs are refused.")
@json_option
@click.pass_context
def search(ctx: click.Context, /, **options: Any) -> None:  # fmt: skip
    """Search SPACE for the genomes that trade error against cost best.

    Every genome of the space is costed exactly; those that break a limit are never trained. The others
    are proposed one by one, trained briefly on small images, and logged. SPACE is a shipped space
    (quick, tiny, mcu, imagenet, paper) or the path of a YAML file. A killed search goes on with
    `isonas resume RUN`.

    \b
    Example:
      isonas search
      isonas search mcu --data parquet:imagenet64/ --board stm32f746 --trials 100
    """
    given = {name for name in options if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    limit = parse_seconds(options["time_limit"]) if options["time_limit"] else float("inf")
    if options["resume"]:
        run = options["run"] or latest_run(options["space"], options["data"])
        resume_run(run, options, given, limit)
    else:
        run = start_run(options, limit)
    if options["retrain"]:
        from isonas.cli.retrain import retrain_front

        retrain_front(run, options)


def start_run(options: dict[str, Any], time_limit: float) -> Path:
    """Resolve the options of a new search, make its folder and search there; returns the folder."""
    from isonas.search.inputs import create_run, refuse_existing
    from isonas.search.log import hold
    from isonas.search.study import study_of

    if options["run"]:
        refuse_existing(options["run"])
    inputs, data = new_inputs(options)
    if options["image_side"] and data.train.side != options["image_side"]:
        click.echo(
            f"isonas: {data.source} has squares of {data.train.side} pixels, which are kept; --image-side "
            f"{options['image_side']} is for photographs of mixed sizes, and for making squares smaller.",
            err=True,
        )
    study = study_of(inputs)
    run = options["run"] or claim_run(options["space"], options["data"])
    create_run(run, inputs, study.reference)
    with hold(run):
        _search(run, study, data, cache_folder(options), time_limit, options["as_json"])
    return run


def resume_run(run: Path, options: dict[str, Any], given: set[str], time_limit: float) -> None:
    """Go on with a run; options that were given must say what the run was started with.

    A run of another training version is refused untouched. The run is held before its images are opened,
    so that a run that another process holds is refused at once. What may change and did is in `study.yaml`
    from then on.
    """
    from isonas.search.inputs import read_run
    from isonas.search.log import hold
    from isonas.training.version import require_this_version

    require_this_version(run, read_run(run)[0].training_version)
    with hold(run):
        _resume_held(run, options, given, time_limit)


def _resume_held(run: Path, options: dict[str, Any], given: set[str], time_limit: float) -> None:
    from isonas.search.inputs import changed, read_run, versions
    from isonas.search.study import study_of

    recorded, reference, recorded_versions = read_run(run)
    source = options["data"] if "data" in given else None
    data = images_again(run, recorded, {**options, "data": source})
    inputs = given_inputs(recorded, options, given, data)
    if differing := changed(recorded, inputs):
        raise RunError(
            f"{run} was started with other inputs: {', '.join(differing)}; leave those out to go on with "
            "it, or start a new run."
        )
    for name, version in versions().items():
        if recorded_versions.get(name) != version:
            click.echo(
                f"isonas: {run} was started with {name} {recorded_versions.get(name)}, this is {version}; "
                "trials may differ from an uninterrupted run's.",
                err=True,
            )
    study = study_of(inputs, reference)
    _search(run, study, data, cache_folder(options), time_limit, options["as_json"], recorded)


def _search(
    run: Path,
    study: Study,
    data: Dataset,
    cache: Path,
    time_limit: float,
    as_json: bool,
    recorded: Inputs | None = None,
) -> None:
    """Search in a run that is held; `recorded` are its inputs so far, where it is resumed."""
    from isonas.report.front import front_csv, front_document, read_front
    from isonas.report.search import follow, follow_repeats, print_front, print_next
    from isonas.search.inputs import record_changes
    from isonas.search.log import RUNNING, read_trials, set_torn_aside, write_front
    from isonas.search.repeats import repeat_front
    from isonas.search.run import search as run_study
    from isonas.training.machine import require_device

    inputs = study.inputs
    if (note := explain_board(inputs.budget)) is not None:
        click.echo(note, err=True)
    if inputs.engine == "local":
        require_device(inputs.device)
    deadline = time.monotonic() + time_limit
    threads = "1 thread" if inputs.threads == 1 else f"{inputs.threads} threads"
    click.echo(
        f"{len(study.feasible.columns):,} of {len(study.space.columns):,} genomes are feasible; "
        f"searching in {run} ({inputs.device}, {inputs.precision}, {threads})",
        err=True,
    )
    _warn_of_high_resolution(study)
    for message in set_torn_aside(run):
        click.echo(f"isonas: {message}.", err=True)
    done = [trial for trial in read_trials(run)[0] if trial.state != RUNNING]
    if len(done) >= inputs.trials:
        click.echo(
            f"{len(done)} trials are done, and --trials {inputs.trials} asks for no more; a larger N "
            "searches on, to N in all.",
            err=True,
        )
    reasons: list[str] = []
    hopeless: TrainingError | None = None
    ended = len(done)
    try:
        with _engine(inputs, data, cache) as engine:
            if recorded is not None:
                # Not before there is an engine: one that cannot start must not be what a resume goes on with.
                record_changes(run, recorded, inputs)
            ending = run_study(study, run, engine, inputs.trials, deadline, _warn)
            ended = follow(study, done, ending, inputs.trials)
            if inputs.repeats > 1:
                again = repeat_front(study, run, engine, inputs.repeats, deadline)
                reasons = follow_repeats(study, again)
    except TrainingError as error:
        # What was trained before is shown all the same.
        hopeless = error
    except KeyboardInterrupt:
        click.echo(
            f"\nStopped; every finished trial is kept. Go on with: isonas resume {shlex.quote(str(run))}",
            err=True,
        )
        raise
    front = read_front([run])
    write_front(run, front_csv(front))
    if hopeless is not None:
        if front.members and not as_json:
            print_front(front)
        raise hopeless
    if ended < inputs.trials:
        why = "the time limit" if time.monotonic() >= deadline else "every feasible genome was trained"
        click.echo(f"Ended after {ended} of {inputs.trials} trials: {why}.", err=True)
    if fewer := sum(member.trial.trainings < inputs.repeats for member in front.members):
        time_up = time.monotonic() >= deadline
        why = "the time limit" if time_up else f"a training failed ({'; '.join(dict.fromkeys(reasons))})"
        _warn(
            f"{fewer} of {len(front.members)} front members were not trained {inputs.repeats} times in all: "
            f"{why}; go on with: isonas resume {shlex.quote(str(run))}"
        )
    if as_json:
        click.echo(json.dumps(front_document(front), indent=2))
    else:
        print_front(front)
        print_next(run, front)


def _warn(message: str) -> None:
    click.echo(f"isonas: {message}", err=True)


@contextmanager
def _engine(inputs: Inputs, data: Dataset, cache: Path) -> Iterator[Engine]:
    """Who trains, as the inputs say."""
    from isonas.data.dataset import in_memory
    from isonas.search.engines import Inline
    from isonas.search.workers import LocalWorkers
    from isonas.training.machine import visible_gpus
    from isonas.training.proxy import ProxyEvaluator, evaluator_of

    setting = proxy_setting(inputs, cache)
    if inputs.engine == "ray":
        from isonas.search.cluster import RayWorkers

        cpus, gpus = inputs.cpus_per_trial, inputs.gpus_per_trial
        start = partial(ProxyEvaluator, setting=setting)
        limit = inputs.workers or None
        with RayWorkers(start, in_memory(data), cpus=cpus, gpus=gpus, workers=limit) as cluster:
            yield cluster
        return
    if inputs.workers == 1:
        yield Inline(ProxyEvaluator(data, setting))
        return
    with LocalWorkers(
        partial(evaluator_of, setting), inputs.workers, gpus=visible_gpus(inputs.device)
    ) as workers:
        yield workers


def _warn_of_high_resolution(study: Study) -> None:
    highest = int(study.feasible.columns.internal_resolution.max())
    side = min(study.inputs.source_side, study.inputs.input)
    if highest > side / 2 and study.inputs.input > side:
        click.echo(
            f"isonas: internal resolutions up to {highest} are more than half of the {side} pixels that "
            "trials read, so the stem compresses little there and the gain of resolution is hidden; use "
            "larger images, or a space with lower ones.",
            err=True,
        )
