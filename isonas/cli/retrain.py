"""`isonas retrain`."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.options import UserPath, cache_option, image_options, json_option
from isonas.cli.resolve import selected_trials
from isonas.cli.retrain_inputs import Job, older_result, proxy_weights, resolved
from isonas.errors import IsonasError, MemoryExhausted, TrainingError, UsageError
from isonas.paths import user_path

if TYPE_CHECKING:
    from isonas.data.dataset import Dataset, Images
    from isonas.training.distributed import Processes
    from isonas.training.retrain_folder import Retraining


@click.command()
@click.argument("what", metavar="RUN|GENOME")
@click.option("--select", help="Of a run: best, front, a trial's number, or a genome. Default: best.")
@click.option("--data", help="Images to train on. Default: the run's.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the images. Default: the recipe's.")
@click.option("--recipe", help="adamw, lamb, mobilenetv3 (the paper's), or a YAML file. Default: adamw.")
@click.option("--batch-size", type=click.IntRange(2), help="Images of a step. Default: the recipe's.")
@click.option(
    "--micro-batch",
    type=click.IntRange(2),
    help="Images of one forward pass (batch norm sees these alone), gradients are accumulated up to the "
    "batch. Default: a process's share of the batch; on a CPU less, as fits its cache, but at least 32.",
)
@click.option(
    "--input",
    "input_side",
    type=click.IntRange(1, 4096),
    help="Side of the deployment input in pixels. Default: the run's, else 224.",
)
@image_options("the deployment input")
@click.option(
    "--warm-start", is_flag=True, default=None, help="Start from the trial's own weights, the stem inflated."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Default: the run's, else 0.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to train. Default: auto.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    help="Number format; auto measures whether bf16 is fast here. Default: auto.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads of a process. Default: all usable.")
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    help="Processes that prepare images, for each that trains. Default: none on a CPU, up to 8 for a GPU.",
)
@click.option(
    "--run",
    "folder",
    type=UserPath(file_okay=False),
    help="Folder to train in. Default: retrain/<genome> in the run, or here.",
)
@cache_option
@json_option
@click.pass_context
def retrain(ctx: click.Context, /, what: str, **options: Any) -> None:
    """Train the network of a run's trial, or a GENOME, in full at its deployment input.

    The epoch to keep is chosen on images carved from the training data; the held-back images are put to
    the chosen weights once, at the end. A killed training goes on by the same command. Under torchrun
    each process takes a share of every batch; they need a folder that all of them see.

    \b
    Example:
      isonas retrain runs/quick-clutter-1 --select best --epochs 50
      isonas retrain isonet_l4_c32_r8_e3_se4_s2d --data clutter --input 32
      torchrun --nproc-per-node 8 -m isonas retrain runs/mine --recipe mobilenetv3
    """
    from isonas.training.distributed import joined

    with joined(options["device"] or "auto") as processes:
        try:
            results = retrain_all(what, options, processes)
        except IsonasError as error:
            # What was typed is wrong for all processes alike; one of them says so.
            if processes.rank and isinstance(error, UsageError):
                ctx.exit(error.exit_code)
            raise
        if options["as_json"] and not processes.rank:
            click.echo(json.dumps(results if options["select"] == "front" else results[0], indent=2))


def retrain_all(what: str, options: dict[str, Any], processes: Processes) -> list[dict[str, Any]]:
    """Retrain what was selected, one after the other; returns each one's `result.json`."""
    return [_retrained(job, options, processes) for job in _jobs(what, options)]


def retrain_front(run: Path, options: dict[str, Any]) -> None:
    """Go on from a search to the retraining of `options["retrain"]`: best, front, or its N best."""
    from isonas.report.front import read_front
    from isonas.report.retrain import print_comparison
    from isonas.training.distributed import Processes

    members = read_front([run]).members
    wanted = options["retrain"]
    count = len(members) if wanted == "front" else 1 if wanted == "best" else int(wanted)
    own = ("device", "precision", "threads", "cache", "as_json")
    plain = {**dict.fromkeys(parameter.name for parameter in retrain.params), **{n: options[n] for n in own}}
    results = [
        result
        for member in members[:count]
        for result in retrain_all(str(run), {**plain, "select": str(member.trial.genome)}, Processes())
    ]
    if len(results) > 1 and not options["as_json"]:
        print_comparison(results)


def _jobs(what: str, options: dict[str, Any]) -> list[Job]:
    from isonas.genome import parse_genome
    from isonas.search.inputs import read_run

    run, base = user_path(what), options["folder"]
    if run.is_dir():
        inputs, reference, _ = read_run(run)
        select = options["select"] or "best"
        trials = selected_trials(run, select, reference.objectives)
        jobs = []
        for trial in trials:
            name = str(trial.genome)
            alone = base is not None and select != "front"
            folder = base if alone else (base or run / "retrain") / name
            # By name: the best may be another one by then.
            chosen = "front" if select == "front" else name
            again = f"isonas retrain {shlex.quote(str(run))} --select {chosen}"
            jobs.append(Job(trial.genome, folder, again + _typed(base), run, trial, inputs))
        return jobs
    if not what.startswith("isonet_"):
        raise UsageError(f"{what!r} is neither a run nor a genome (isonet_…).")
    for name in ("select", "warm_start"):
        if options[name]:
            raise UsageError(
                f"--{name.replace('_', '-')} is for a run; a GENOME is trained itself, from scratch."
            )
    genome = parse_genome(what)
    return [Job(genome, base or Path("retrain") / what, f"isonas retrain {what}" + _typed(base))]


def _typed(folder: Path | None) -> str:
    return f" --run {shlex.quote(str(folder))}" if folder else ""


def _retrained(job: Job, options: dict[str, Any], processes: Processes) -> dict[str, Any]:
    from isonas.report.retrain import print_result
    from isonas.training.retrain_folder import hold, read_result

    result = older_result(job, options)
    if result is None:
        with processes.first_alone():
            retraining, data, crops = resolved(job, options, processes)
        result = read_result(job.folder)
    if result is None:
        try:
            with nullcontext() if processes.rank else hold(job.folder):
                result = _trained(job, retraining, data, crops, options, processes)
        except KeyboardInterrupt:
            if not processes.rank:
                click.echo(f"\nStopped; every finished epoch is kept. Go on with: {job.again}", err=True)
            raise
    elif not processes.rank:
        click.echo(
            f"{job.folder} is trained already; give another folder with --run DIR to do it again.", err=True
        )
    if not options["as_json"] and not processes.rank:
        print_result(job.folder, result)
    return result


def _trained(
    job: Job,
    retraining: Retraining,
    data: Dataset,
    crops: Images | None,
    options: dict[str, Any],
    processes: Processes,
) -> dict[str, Any]:
    """Train to the last epoch, the first process writing; returns the result."""
    from isonas.data.dataset import split_validation
    from isonas.report.retrain import epochs_drawn
    from isonas.training.machine import Machine
    from isonas.training.retrain import plan, result_of, retrain
    from isonas.training.retrain_folder import (
        derive,
        load_state,
        retraining_document,
        save_state,
        write_result,
    )
    from isonas.training.weights_file import read_weights

    before = load_state(job.folder)
    done, epochs = (len(before.history) if before else 0), retraining.recipe.epochs
    training, validation = split_validation(data.train, retraining.split_seed)
    steps, accumulate = plan(retraining, len(training), processes)
    if not processes.rank:
        click.echo(
            f"{retraining.genome} at input {retraining.input_side} in {job.folder}: {len(training):,} "
            f"images, {epochs} epochs of {steps} steps of {processes.count} × {accumulate} × "
            f"{retraining.micro_batch} images ({retraining.device}, {retraining.precision}, "
            f"{retraining.threads} threads)"
            + _cut_from(retraining)
            + (f", going on after epoch {done}" if done else ""),
            err=True,
        )
    weights = proxy_weights(job, retraining) if retraining.warm_start and before is None else None
    workers = options["workers"]
    if workers is None:
        workers = 0 if retraining.device == "cpu" else min(8, retraining.threads)
    drawn = nullcontext((_nothing, _nothing)) if processes.rank else epochs_drawn(epochs, done, steps)
    state = before
    try:
        with drawn as (stepped, ended):
            for state in retrain(
                retraining,
                data,
                state=before,
                crops=crops,
                weights=weights,
                processes=processes,
                workers=workers,
                stepped=stepped,
            ):
                if not processes.rank:
                    save_state(job.folder, retraining, state)
                    ended(state.history[-1])
    except MemoryExhausted as exhausted:
        raise TrainingError(
            f"memory does not hold {retraining.micro_batch} images at a time ({exhausted}); start in another "
            f"folder with a --micro-batch below {retraining.micro_batch}."
        ) from exhausted
    if processes.rank or state is None:
        return {}
    derive(job.folder, retraining, state)
    machine = Machine(retraining.device, "fp32", retraining.threads)
    best = read_weights(job.folder)
    error = state.best_error
    result = {
        **retraining_document(retraining),
        "input": retraining.input_side,
        "processes": processes.count,
        "best": {
            "epoch": state.best_epoch,
            "average": state.best_average,
            "error": error,
            "error_se": (error * (1 - error) / len(validation)) ** 0.5,
            "images": len(validation),
        },
        "validation": result_of(best, data.train, machine, validation),
        "test": result_of(best, data.held_back, machine) if data.held_back else None,
        "how_chosen": "the epoch and the kind of weights with the lowest error on validation images carved "
        "from the training data; the held-back images (test) were read once, after that choice; validation "
        "and test are of the chosen weights in fp32",
        "seconds": sum(row.seconds for row in state.history),
    }
    write_result(job.folder, result)
    return result


def _cut_from(retraining: Retraining) -> str:
    """Where training crops are cut from, if not from the images that the network is tested on."""
    side = retraining.crop_side
    return f", crops cut from {side}×{side} pixels" if side and side != retraining.image_side else ""


def _nothing(*_: object) -> None:
    """What the other processes draw."""
