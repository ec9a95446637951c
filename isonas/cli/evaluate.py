"""`isonas evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from isonas.cli.options import UserPath, cache_option, json_option, machine_options
from isonas.cli.resolve import cache_folder
from isonas.errors import UsageError


@click.command()
@click.argument("checkpoint", type=UserPath())
@click.option(
    "--data",
    required=True,
    help="Images: clutter, digits, synthetic, imagenet32:DIR, parquet:PATH or folder:DIR.",
)
@machine_options("the network is put to the images", precision="fp32")
@cache_option
@json_option
def evaluate(checkpoint: Path, **options: Any) -> None:
    """Put images to trained weights: top-1, top-5, class by class.

    CHECKPOINT is the folder of a retraining (its best weights), or one of the weights files in it. Of
    the images of --data the held-back ones are taken, or all where none are held back.

    \b
    Example:
      isonas evaluate runs/mine/retrain/isonet_l4_c32_r8_e3_se4_s2d --data clutter
    """
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
    data = open_dataset(options["data"], cache_folder(options))
    if data.classes != len(weights.class_names):
        raise UsageError(
            f"{data.source} has {data.classes} classes, {checkpoint} was trained on "
            f"{len(weights.class_names)}; give images of those."
        )
    if data.class_names != weights.class_names:
        click.echo(
            f"isonas: {data.source} names its classes otherwise than {checkpoint} does; they are taken in "
            "order.",
            err=True,
        )
    images = data.train if data.held_back is None else data.held_back
    machine = probe_machine(options["device"], options["threads"], options["precision"])
    side = min(weights.input_side, images.side)
    with machine.threads_set(), training_errors():
        network = weights.network()
        prepare(network, machine)
        right = right_answers(as_called(network, weights.input_side, side), images, side, machine)
    rows = zip(weights.class_names, right.images, right.top1, right.top5, strict=True)
    found = {
        "checkpoint": str(checkpoint),
        "genome": str(weights.genome),
        "input": weights.input_side,
        "data": data.source,
        "split": "all images" if data.held_back is None else "held-back split",
        "images": len(images),
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
            for name, count, top1, top5 in rows
        ],
    }
    if options["as_json"]:
        click.echo(json.dumps(found, indent=2))
    else:
        print_evaluation(found)
