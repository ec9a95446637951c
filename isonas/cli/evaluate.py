"""`isonas evaluate`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isonas.cli.options import UserPath, cache_option, image_options, json_option, machine_options
from isonas.cli.resolve import cache_folder
from isonas.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from isonas.data.dataset import Dataset, Images
    from isonas.training.weights_file import Weights

    Rows = npt.NDArray[np.int64]


@click.command()
@click.argument("checkpoint", type=UserPath())
@click.option(
    "--data",
    required=True,
    help="Images: clutter, digits, synthetic, imagenet32:DIR, parquet:PATH or folder:DIR.",
)
@image_options("as the weights were tested")
@machine_options("the network is put to the images", precision="fp32")
@cache_option
@json_option
def evaluate(checkpoint: Path, **options: Any) -> None:
    """Put images to trained weights: top-1, top-5, class by class.

    CHECKPOINT is the folder of a retraining (its best weights), or one of the weights files in it. Of
    the images of --data the held-back ones are taken, or all where none are held back; of those that the
    weights were trained on, the ones that validated them. Images are brought to the network as they were
    in that training, classes go by their names, and all of --data must be classes of the weights.

    \b
    Example:
      isonas evaluate runs/mine/retrain/isonet_l4_c32_r8_e3_se4_s2d --data clutter
    """
    from isonas.data.preprocessing import Fit
    from isonas.data.sources import open_dataset
    from isonas.report.retrain import print_evaluation
    from isonas.training.evaluate import as_called, right_answers
    from isonas.training.loop import prepare, training_errors
    from isonas.training.machine import probe_machine
    from isonas.training.weights_file import read_weights

    if not checkpoint.exists():
        raise UsageError(
            f"{checkpoint} is not there; give the folder of a retraining, or a weights file in it."
        )
    weights = read_weights(checkpoint)
    chain = weights.preprocessing
    if chain is None:
        click.echo(
            f"isonas: {checkpoint} does not say how its images were brought to the network; they are "
            "stretched to the source's own side, as was done then.",
            err=True,
        )
    fit = Fit(options["fit"] or (chain.fit if chain else Fit.STRETCH))
    image_side = options["image_side"] or (chain.side if chain else None)
    data = open_dataset(options["data"], cache_folder(options), image_side, fit)
    images, split, rows = _split(_by_name(data, weights, checkpoint), weights)
    machine = probe_machine(options["device"], options["threads"], options["precision"])
    # What was asked for is read as it is; else no more than in training.
    most = weights.input_side if chain is None or options["image_side"] else chain.read
    side = min(most, images.side)
    with machine.threads_set(), training_errors():
        network = weights.network()
        prepare(network, machine)
        right = right_answers(as_called(network, weights.input_side, side), images, side, machine, rows)
    counts = zip(weights.class_names, right.images, right.top1, right.top5, strict=True)
    found = {
        "checkpoint": str(checkpoint),
        "genome": str(weights.genome),
        "input": weights.input_side,
        "data": data.source,
        "split": split,
        "image_side": data.train.side,
        "fit": str(fit),
        "images": int(right.images.sum()),
        "top1": 1 - right.error,
        "top5": right.top5_accuracy,
        "error": right.error,
        "error_se": right.error_se,
        "per_class": [
            {
                "class": name,
                "images": int(count),
                "top1": int(top1) / int(count) if count else None,
                "top5": int(top5) / int(count) if count else None,
            }
            for name, count, top1, top5 in counts
            if name in data.class_names
        ],
    }
    if options["as_json"]:
        click.echo(json.dumps(found, indent=2))
    else:
        print_evaluation(found)


def _by_name(data: Dataset, weights: Weights, checkpoint: Path) -> Dataset:
    """The data set with its classes numbered as the weights number theirs; raises UsageError."""
    import numpy as np

    known = {name: number for number, name in enumerate(weights.class_names)}
    if unknown := [name for name in data.class_names if name not in known]:
        raise UsageError(
            f"{data.source} has a class {unknown[0]!r} that {checkpoint} was not trained on; its classes are "
            f"{_few(weights.class_names)}. Name those of the images alike."
        )
    if data.classes < len(known):
        click.echo(
            f"isonas: {data.source} has {data.classes} of the {len(known)} classes of {checkpoint}; the "
            "network may answer any of these.",
            err=True,
        )
    number = np.array([known[name] for name in data.class_names])

    def mapped(images: Images) -> Images:
        return replace(images, labels=number[images.labels])

    held_back = None if data.held_back is None else mapped(data.held_back)
    return replace(data, train=mapped(data.train), held_back=held_back)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _split(data: Dataset, weights: Weights) -> tuple[Images, str, Rows | None]:
    """The images to evaluate on, what they are called, and which rows of them (None: all)."""
    from isonas.data.dataset import split_validation
    from isonas.training.version import TRAINING_VERSION

    training = weights.training
    if data.held_back is not None:
        return data.held_back, "held-back split", None
    if training.get("data_fingerprint") != data.fingerprint:
        return data.train, "all images", None
    # Which images there are to split, and how they are split, depends on these as well.
    if (training.get("decoder"), training.get("training_version")) != (data.decoder, TRAINING_VERSION):
        return data.train, "all images, most of them trained on", None
    _, rows = split_validation(data.train, training["split_seed"])
    return data.train, "validation images; the others were trained on", rows
