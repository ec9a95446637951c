"""`isonas export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.options import (
    EPOCH_IMAGES,
    UserPath,
    cache_option,
    image_options,
    json_option,
    machine_options,
)
from isonas.cli.resolve import selected_trials
from isonas.errors import UsageError
from isonas.paths import user_path

if TYPE_CHECKING:
    from isonas.data.dataset import Dataset
    from isonas.export.origin import Origin
    from isonas.genome import Genome
    from isonas.hardware import Budget
    from isonas.search.inputs import Inputs


@click.command()
@click.argument("what", metavar="RUN|GENOME|CHECKPOINT")
@click.option(
    "--select",
    help="Of a run: best, front, a trial's number, or a genome. Default: best.",
)
@click.option(
    "--format",
    "form",
    default="pytorch",
    show_default=True,
    type=click.Choice(["pytorch", "c"]),
    help="What to write: PyTorch files, or C99 in int8 for microcontrollers.",
)
@click.option("--data", help="Images to train on, and to choose int8 ranges from. Default: the run's.")
@click.option(
    "--epochs",
    type=click.IntRange(0),
    help="Train this long at the deployment input first; 0 exports untrained weights.",
)
@click.option("--epoch-images", type=EPOCH_IMAGES, help="Training images an epoch takes. Default: all.")
@click.option(
    "--input",
    "input_side",
    type=click.IntRange(1, 4096),
    help="Side of the deployment input in pixels. Default: the run's, else 224.",
)
@click.option(
    "--classes", type=click.IntRange(2, 1_000_000), help="Classes of an untrained GENOME. Default: 1000."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of a training. Default: the run's, else 0.")
@click.option(
    "--output",
    type=UserPath(),
    help="Folder to make. Default: export/<genome> in the run, or here.",
)
@image_options("the deployment input")
@machine_options("a training runs")
@cache_option
@json_option
def export(what: str, as_json: bool, **options: Any) -> None:  # fmt: skip
    """Write the network of a run's trial, of a GENOME, or of a CHECKPOINT, as files that PyTorch alone can
    load, or as C.

    CHECKPOINT is the folder of a retraining (its best weights), or one of the weights files in it. Of a
    RUN a trial that was retrained at this input is written with those weights. Any other front member is
    written from its proxy weights, its stem inflated to the deployment input: no training is needed. Where
    there are no weights, or the stem's factor is not whole, --epochs trains first. Every form is loaded
    again and compared before the folder appears.

    With --format c the folder holds C99 that needs nothing else: int8, one static arena, bit for bit the
    integer reference on which its top-1 was counted. `isonas verify` compiles and runs it.

    \b
    Example:
      isonas export runs/quick-clutter-1 --select best
      isonas export runs/quick-clutter-1/retrain/isonet_l8_c64_r8_e3_se0_s2d_m4_h0
      isonas export runs/quick-clutter-1 --format c --output net_c
      isonas export isonet_l4_c32_r8_e3_se4_s2d --data clutter --epochs 4 --input 32
    """
    if not options["epochs"]:
        unused = ["image_side", "fit", "epoch_images", "threads", "device", "precision"]
        # Untrained weights are drawn by a seed too, and int8 chooses its ranges from images.
        unused += ["seed"] * (options["epochs"] is None) + ["data"] * (options["form"] != "c")
        for name in unused:
            if options[name] not in (None, "auto"):
                typed = f"--{name.replace('_', '-')}"
                less = ", and --epochs 0 trains nothing" if options["epochs"] == 0 else ""
                raise UsageError(f"{typed} is for a training{less}; give --epochs N with it.")
    run = user_path(what)
    if run.is_file() or (run / "retrain.json").is_file():
        exports = [_of_checkpoint(run, options)]
    elif run.is_dir():
        exports = _of_run(run, options)
    elif what.startswith("isonet_"):
        exports = [_of_genome(what, options)]
    else:
        raise UsageError(f"{what!r} is neither a run, nor a genome (isonet_…), nor retrained weights.")
    taken = [folder for _, _, folder in exports if folder.exists()]
    if len(taken) == len(exports):
        raise UsageError(f"{taken[0]} exists; remove it, or give another folder with --output DIR.")
    for folder in taken:
        click.echo(f"{folder} exists and is left as it is", err=True)
    manifests = []
    for make, budget, folder in exports:
        if folder not in taken:
            manifest = _written(make, budget, folder, options)
            manifests.append(manifest)
            click.echo(f"wrote {folder} ({_WEIGHTS[manifest['origin']['weights']]})", err=True)
    if as_json:
        click.echo(json.dumps(manifests if options["select"] == "front" else manifests[0], indent=2))


_WEIGHTS = {
    "proxy": "the proxy's weights",
    "retrained": "retrained weights",
    "trained": "weights trained now",
    "untrained": "untrained weights",
}

Export = tuple[Callable[[], "Origin"], "Budget", Path]
"""What makes a network, the budget its memory is predicted under, and the folder to write."""


def _of_run(run: Path, options: dict[str, Any]) -> list[Export]:
    from isonas.export.origin import from_proxy, from_retraining
    from isonas.search.inputs import read_run
    from isonas.training.retrain_folder import is_retrained

    inputs, reference, _ = read_run(run)
    if options["classes"]:
        raise UsageError("--classes is for a GENOME; the classes of a run are those of its data.")
    side = options["input_side"] or inputs.input
    select = options["select"] or "best"
    trials = selected_trials(run, select, reference.objectives)
    base = options["output"] or run / "export"
    alone = options["output"] and select != "front"
    exports: list[Export] = []
    for trial in trials:
        retrained = run / "retrain" / str(trial.genome)
        if options["epochs"] is None and is_retrained(retrained, side):
            make = partial(from_retraining, retrained)
        elif options["epochs"] is None:
            make = partial(from_proxy, run, trial, inputs, side)
        else:
            make = partial(_trained, trial.genome, side, len(inputs.class_names), options, inputs)
        exports.append((make, inputs.budget, base if alone else base / str(trial.genome)))
    return exports


def _of_checkpoint(checkpoint: Path, options: dict[str, Any]) -> Export:
    from isonas.export.origin import from_retraining
    from isonas.hardware import Budget
    from isonas.search.inputs import STUDY_FILE, read_run

    for name in ("select", "epochs", "input_side", "classes"):
        if options[name] is not None:
            typed = "--input" if name == "input_side" else f"--{name}"
            raise UsageError(f"{typed} is not for a CHECKPOINT, which is exported as it was trained.")
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    kept, run = folder.resolve().parent, folder.resolve().parent.parent
    # A run's retraining is deployed where the run's genomes were to be.
    of_run = kept.name == "retrain" and (run / STUDY_FILE).is_file()
    budget = read_run(run)[0].budget if of_run else Budget()
    return partial(from_retraining, checkpoint), budget, options["output"] or folder / "export"


def _of_genome(text: str, options: dict[str, Any]) -> Export:
    from isonas.genome import parse_genome, stem_block
    from isonas.hardware import Budget

    genome = parse_genome(text)
    side = options["input_side"] or 224
    stem_block(genome, side)
    if options["epochs"] is None or (options["epochs"] and not options["data"]):
        raise UsageError(
            "a GENOME has no weights yet: give --data SOURCE and --epochs N to train it, or --epochs 0 to "
            "export it untrained."
        )
    if options["select"]:
        raise UsageError("--select is for a run; a GENOME is exported itself.")
    if options["epochs"] and options["classes"]:
        raise UsageError("--classes is for --epochs 0; a training takes the classes of its data.")
    make = partial(_trained, genome, side, options["classes"] or 1000, options, None)
    return make, Budget(), options["output"] or Path("export") / text


def _trained(
    genome: Genome, side: int, classes: int, options: dict[str, Any], inputs: Inputs | None
) -> Origin:
    """The network after `--epochs`, on `--data` or else the run's images."""
    from isonas.data.preprocessing import Fit
    from isonas.data.sources import open_dataset
    from isonas.data.store import default_cache
    from isonas.export.origin import from_training, untrained
    from isonas.training.machine import probe_machine
    from isonas.training.recipe import Recipe

    seed = options["seed"] if options["seed"] is not None else (inputs.seed if inputs else 0)
    if options["epochs"] == 0:
        return untrained(genome, side, classes, seed)
    source = options["data"] or (inputs.data if inputs else "")
    fit = Fit(options["fit"] or (inputs.fit if inputs else Fit.CROP))
    data = open_dataset(source, options["cache"] or default_cache(), options["image_side"] or side, fit)
    recipe = Recipe(options["epochs"], options["epoch_images"])
    machine = probe_machine(options["device"], options["threads"], options["precision"])
    return from_training(genome, data, recipe, machine, side, seed, _say)


def _written(
    make: Callable[[], Origin], budget: Budget, folder: Path, options: dict[str, Any]
) -> dict[str, Any]:
    from isonas.export.manifest import manifest_of
    from isonas.export.pytorch import export_pytorch

    origin = make()
    manifest = manifest_of(origin, options["form"], budget)
    if options["form"] == "c":
        from isonas.export.c_folder import export_c

        split_seed = int(origin.description.get("split_seed", 0))
        return export_c(origin, _images(origin, options), split_seed, manifest, folder)
    return export_pytorch(origin.network, origin.genome, origin.input_side, origin.examples, manifest, folder)


def _images(origin: Origin, options: dict[str, Any]) -> Dataset:
    """The images that int8 ranges are chosen from: those of `--data`, or those of the training."""
    from isonas.cli.resolve import cache_folder
    from isonas.data.sources import open_dataset

    source = options["data"] or origin.description.get("data")
    if not source:
        raise UsageError("int8 ranges are chosen from images; give those of the training with --data SOURCE.")
    chain = origin.preprocessing
    form = (chain.side, chain.fit) if chain else (origin.input_side,)
    return open_dataset(source, cache_folder(options), *form)


def _say(message: str) -> None:
    click.echo(message, err=True)
