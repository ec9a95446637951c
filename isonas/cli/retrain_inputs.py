"""From the options of a retraining to its inputs, recorded in its folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.resolve import cache_folder
from isonas.errors import ExportError, RunError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from isonas.data.dataset import Dataset, Images
    from isonas.genome import Genome
    from isonas.search.inputs import Inputs
    from isonas.search.log import Trial
    from isonas.training.distributed import Processes
    from isonas.training.machine import Machine
    from isonas.training.recipes import FullRecipe
    from isonas.training.retrain_folder import Retraining


@dataclass(frozen=True)
class Job:
    """A genome to train in a folder; from a run's trial, unless it was named alone."""

    genome: Genome
    folder: Path
    again: str
    run: Path | None = None
    trial: Trial | None = None
    inputs: Inputs | None = None


def resolved(
    job: Job, options: dict[str, Any], processes: Processes
) -> tuple[Retraining, Dataset, Images | None]:
    """What to train: as the folder records it, or as typed, and then recorded there; and its images, with
    the larger ones that training crops are cut from, where there are any."""
    from isonas.data.preprocessing import Fit
    from isonas.data.sources import open_dataset
    from isonas.genome import stem_block
    from isonas.training.machine import require_device
    from isonas.training.retrain_folder import begin, read_result, read_retraining
    from isonas.training.version import require_this_version

    recorded = read_retraining(job.folder)
    if recorded is not None and read_result(job.folder) is None:
        require_this_version(
            job.folder, recorded.training_version, "start a new retraining in another folder with --run DIR"
        )
    source = options["data"] or (recorded.data if recorded else job.inputs.data if job.inputs else None)
    if source is None:
        raise UsageError(
            "a GENOME alone has no images: give --data SOURCE, and --input R for another than 224."
        )
    fit = Fit(options["fit"] or (recorded.fit if recorded else job.inputs.fit if job.inputs else Fit.CROP))
    input_side = options["input_side"] or (job.inputs.input if job.inputs else 224)
    side = options["image_side"] or (recorded.image_side if recorded else input_side)
    data = open_dataset(source, cache_folder(options), side, fit, tell=not processes.rank)
    if recorded is None:
        crops = _crops(source, data, _crop_side(input_side, data, options), options, processes)
        retraining = _new(job, options, data, crops, input_side, processes)
        stem_block(job.genome, retraining.input_side)
        _check(job, retraining, data, processes)
        if not processes.rank:
            begin(job.folder, retraining)
        return retraining, data, crops
    crops = _crops(source, data, recorded.crop_side, options, processes)
    given = _given(job, options, recorded, data)
    require_device(given.device)
    return given, data, crops


def older_result(job: Job, options: dict[str, Any]) -> dict[str, Any] | None:
    """What came of a finished retraining of another training version, None where there is none.

    Its images are not opened: they may be decoded otherwise now. Raises RunError where other inputs are
    typed than it was started with.
    """
    from isonas.training.retrain_folder import read_result, read_retraining
    from isonas.training.version import TRAINING_VERSION

    recorded, result = read_retraining(job.folder), read_result(job.folder)
    if recorded is None or result is None or recorded.training_version == TRAINING_VERSION:
        return None
    _given(job, options, recorded, None)
    return result


def _given(job: Job, options: dict[str, Any], recorded: Retraining, data: Dataset | None) -> Retraining:
    """What is recorded with what is typed over it, on the images of `data` where they are opened.

    Raises RunError where that differs.
    """
    from isonas.evaluation import trial_seed
    from isonas.training.recipes import load_recipe
    from isonas.training.retrain_folder import changed

    over = {name: options[name] for name in ("input_side", "threads", "warm_start", "micro_batch")}
    if options["seed"] is not None:
        over["seed"] = trial_seed(options["seed"], job.genome)
    over |= {name: options[name] for name in ("device", "precision") if options[name] != "auto"}
    recipe = load_recipe(options["recipe"]) if options["recipe"] else recorded.recipe
    if options["recipe"]:
        kept = {name: getattr(recorded.recipe, name) for name in ("epochs", "batch_size")}
        recipe = replace(recipe, **kept)
    if data is not None:
        over |= {
            "data": data.source,
            "data_fingerprint": data.fingerprint,
            "class_names": data.class_names,
            "image_side": data.train.side if recorded.image_side else None,
            # Squares of pixels are fitted to nothing, whatever is typed.
            "fit": data.fit if data.decoder else None,
            "decoder": data.decoder,
        }
    given = replace(
        recorded,
        genome=job.genome,
        recipe=_over(recipe, options),
        **{name: value for name, value in over.items() if value is not None},
    )
    if differing := changed(recorded, given):
        raise RunError(
            f"{job.folder} was started with other inputs: {', '.join(differing)}; leave those out to go on "
            "with it, or give another folder with --run DIR."
        )
    return given


def _crop_side(input_side: int, data: Dataset, options: dict[str, Any]) -> int:
    """The side of what training crops are cut from: no less than what the network is tested on."""
    from isonas.training.augmentation import crop_side
    from isonas.training.recipes import load_recipe

    recipe = load_recipe(options["recipe"] or "adamw")
    return max(data.train.side, crop_side(min(input_side, data.train.side), recipe))


def _crops(
    source: str, data: Dataset, side: int | None, options: dict[str, Any], processes: Processes
) -> Images | None:
    """The training images in squares of `side` pixels, None where there are no others than `data`'s.

    What there is to know of the source was told as `data` was opened.
    """
    import numpy as np

    from isonas.data.sources import open_dataset

    if side is None or side == data.train.side or not data.decoder:
        return None
    crops = open_dataset(source, cache_folder(options), side, data.fit, held_back=False, tell=False).train
    if not np.array_equal(crops.labels, data.train.labels):
        if not processes.rank:
            click.echo(
                f"isonas: of {data.source} other images can be decoded to {side} pixels than to "
                f"{data.train.side}; training crops are cut from the latter.",
                err=True,
            )
        return None
    return None if crops.side == data.train.side else crops


def _new(
    job: Job,
    options: dict[str, Any],
    data: Dataset,
    crops: Images | None,
    input_side: int,
    processes: Processes,
) -> Retraining:
    from isonas.evaluation import trial_seed
    from isonas.training.distributed import processes_here
    from isonas.training.machine import probe_machine, usable_cores
    from isonas.training.recipes import load_recipe
    from isonas.training.retrain_folder import Retraining
    from isonas.training.version import TRAINING_VERSION

    recipe = _over(load_recipe(options["recipe"] or "adamw"), options)
    seed = options["seed"] if options["seed"] is not None else (job.inputs.seed if job.inputs else 0)
    if options["batch_size"] is None:
        recipe = _fitted(recipe, data, job.inputs.seed if job.inputs else seed, processes)
    threads = options["threads"] or max(usable_cores() // processes_here(), 1)
    machine = probe_machine(options["device"] or "auto", threads, options["precision"] or "auto")
    return Retraining(
        genome=job.genome,
        input_side=input_side,
        data=data.source,
        data_fingerprint=data.fingerprint,
        class_names=data.class_names,
        recipe=recipe,
        micro_batch=options["micro_batch"] or _micro_batch(job.genome, recipe, machine, processes),
        seed=trial_seed(seed, job.genome),
        split_seed=job.inputs.seed if job.inputs else seed,
        device=machine.device,
        precision=machine.precision,
        threads=machine.threads,
        image_side=data.train.side,
        fit=data.fit,
        crop_side=(crops or data.train).side,
        decoder=data.decoder,
        training_version=TRAINING_VERSION,
        trial=job.trial.number if job.trial else None,
        proxy_error=job.trial.error if job.trial else None,
        warm_start=bool(options["warm_start"]),
    )


def _fitted(recipe: FullRecipe, data: Dataset, split_seed: int, processes: Processes) -> FullRecipe:
    """The recipe, its batch halved until the training images hold one, which is told."""
    from isonas.data.dataset import split_validation

    images, batch = len(split_validation(data.train, split_seed)[0]), recipe.batch_size
    while batch > images and batch % 4 == 0:
        batch //= 2
    if batch != recipe.batch_size and not processes.rank:
        click.echo(
            f"isonas: a batch is {batch} images, not the recipe's {recipe.batch_size}: there are {images} "
            "training images.",
            err=True,
        )
    return replace(recipe, batch_size=batch)


def _micro_batch(genome: Genome, recipe: FullRecipe, machine: Machine, processes: Processes) -> int:
    """A process's share of a batch, halved on a CPU as far as the proxy would cut it."""
    from isonas.training.proxy import pieces_of

    share = max(recipe.batch_size // processes.count, 1)
    pieces = pieces_of(genome, share, machine.device)
    while pieces > 1 and share % 4 == 0:
        share, pieces = share // 2, -(-pieces // 2)
    return share


def _over(recipe: FullRecipe, options: dict[str, Any]) -> FullRecipe:
    given = {name: options[name] for name in ("epochs", "batch_size") if options[name] is not None}
    return replace(recipe, **given)


def _check(job: Job, retraining: Retraining, data: Dataset, processes: Processes) -> None:
    """Find what cannot be trained before there is a folder, and warn of small images."""
    from isonas.data.dataset import split_validation
    from isonas.networks.build import build_network
    from isonas.training.augmentation import check_randaugment
    from isonas.training.retrain import optimizer_of, plan

    training, _ = split_validation(data.train, retraining.split_seed)
    plan(retraining, len(training), processes)
    check_randaugment(retraining.recipe)
    optimizer_of(build_network(retraining.genome, retraining.input_side, data.classes), retraining.recipe)
    if retraining.warm_start and job.inputs and data.class_names != job.inputs.class_names:
        raise UsageError(
            f"{data.source} has other classes than {job.run}, whose weights do not fit them; leave "
            "--warm-start out to train from scratch."
        )
    if retraining.warm_start:
        _check_split(job, retraining, data)
        proxy_weights(job, retraining)
    if data.train.side < retraining.input_side and not processes.rank:
        click.echo(
            f"isonas: {data.source} has {data.train.side}×{data.train.side} images, upsampled here to the "
            f"deployment input {retraining.input_side}; --input {data.train.side} would train and deploy at "
            "theirs.",
            err=True,
        )


def _check_split(job: Job, retraining: Retraining, data: Dataset) -> None:
    """Refuse to start from weights that may have been trained on images which would validate here."""
    from isonas.training.version import require_this_version

    assert job.inputs is not None
    require_this_version(job.run, job.inputs.training_version, "leave --warm-start out")
    searched = (job.inputs.data_fingerprint, job.inputs.decoder, job.inputs.seed)
    if searched != (data.fingerprint, data.decoder, retraining.split_seed):
        raise UsageError(
            f"{data.source} has other images than {job.run} was searched on, or they are decoded otherwise; "
            "its weights may have been trained on some that would validate here; give the run's own images, "
            "or leave --warm-start out to train from scratch."
        )


def proxy_weights(job: Job, retraining: Retraining) -> dict[str, Tensor]:
    """The trial's own weights, at the deployment input; raises UsageError where there are none that fit."""
    from isonas.export.origin import from_proxy

    assert job.run is not None
    assert job.trial is not None
    assert job.inputs is not None
    try:
        origin = from_proxy(job.run, job.trial, job.inputs, retraining.input_side)
    except ExportError as error:
        reason = str(error).split("; ")[0].split(" Give ")[0].rstrip(".")
        raise UsageError(f"{reason}; leave --warm-start out to train from scratch.") from None
    return dict(origin.network.state_dict())
