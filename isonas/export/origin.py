"""Where an exported network's weights come from: a retraining, a trial's proxy training, a training now, or
nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from isonas.data.dataset import Dataset
from isonas.data.preprocessing import DECODER, Fit, Preprocessing, preprocessing
from isonas.errors import ExportError, GenomeError
from isonas.genome import Genome, stem_block
from isonas.networks.build import build_network, inflate_stem, inflation_factor
from isonas.networks.isometric import IsometricNet
from isonas.search.inputs import Inputs
from isonas.search.log import Trial
from isonas.search.weights import load_weights, weights_path
from isonas.training.deployed import train_deployed
from isonas.training.machine import Machine
from isonas.training.recipe import Recipe
from isonas.training.retrain_folder import read_result
from isonas.training.weights_file import read_weights

_EXAMPLES = 8


@dataclass(frozen=True)
class Origin:
    """A network at its deployment input, and how it came by its weights.

    `description` goes into the manifest; `examples` are normalised images, (N, 3, side, side).
    `preprocessing` is of the images that the network was tested on, None where nobody wrote it down.
    """

    network: IsometricNet
    genome: Genome
    input_side: int
    class_names: tuple[str, ...]
    description: dict[str, Any]
    examples: Tensor
    preprocessing: Preprocessing | None


def from_proxy(run: Path, trial: Trial, inputs: Inputs, input_side: int) -> Origin:
    """A trial's network with its proxy weights, the stem inflated to `input_side` pixels.

    Raises ExportError where the run keeps no weights of it or the stem's factor is not whole.
    """
    weights = load_weights(run, trial.number)
    if weights is None:
        raise ExportError(
            f"{run} keeps no weights of trial {trial.number}; give --epochs N to train it first."
        )
    try:
        factor = inflation_factor(trial.genome, trial.proxy_input, input_side)
    except GenomeError as error:
        raise ExportError(f"{error} Give --epochs N to do that first.") from None
    classes = len(inputs.class_names)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    small_side = trial.genome.internal_resolution * stem_block(trial.genome, trial.proxy_input)
    small = build_network(trial.genome, small_side, classes)
    try:
        small.load_state_dict(tensors)
    except RuntimeError:
        raise ExportError(
            f"{weights_path(run, trial.number)} does not hold the weights of trial {trial.number}; remove it "
            "and give --epochs N to train them again."
        ) from None
    network = build_network(trial.genome, input_side, classes)
    network.load_state_dict(inflate_stem(tensors, trial.genome, trial.proxy_input, input_side))
    examples = _noise(input_side)
    description = {
        "weights": "proxy",
        "run": str(run),
        "data": inputs.data,
        "split_seed": inputs.seed,
        "trial": trial.number,
        "epochs": trial.epochs,
        "validation_error": trial.error,
        "validation_error_se": trial.error_se,
        "proxy_input": trial.proxy_input,
        "stem_inflation": factor,
        "stem_inflation_parity_error": _inflation_parity(small, network, small_side, examples),
    }
    chain = _inflated(inputs, trial.proxy_input, small_side, input_side)
    return Origin(network, trial.genome, input_side, inputs.class_names, description, examples, chain)


def from_retraining(checkpoint: Path) -> Origin:
    """The network of a retraining's folder (its best weights) or of a weights file, as it was trained.

    Raises LogError where there are no weights that can be read.
    """
    weights = read_weights(checkpoint)
    result = read_result(checkpoint if checkpoint.is_dir() else checkpoint.parent)
    description = {
        "weights": "retrained",
        "checkpoint": str(checkpoint),
        **weights.training,
        "test_error": None,
        "test_error_se": None,
    }
    if checkpoint.is_dir() and result is not None:
        for split in ("validation", "test"):
            if result.get(split) is not None:
                description |= {f"{split}_{name}": result[split][name] for name in ("error", "error_se")}
    side = weights.input_side
    return Origin(
        weights.network(),
        weights.genome,
        side,
        weights.class_names,
        description,
        _noise(side),
        weights.preprocessing,
    )


def from_training(
    genome: Genome,
    data: Dataset,
    recipe: Recipe,
    machine: Machine,
    input_side: int,
    seed: int,
    say: Callable[[str], None],
) -> Origin:
    """A genome trained now at `input_side` pixels; `say` is told of every epoch.

    Raises TrainingError where it cannot be trained.
    """
    if data.train.side < input_side:
        say(
            f"isonas: {data.source} has {data.train.side}×{data.train.side} images, upsampled here to the "
            f"deployment input {input_side}; --input {data.train.side} would train and deploy at theirs."
        )
    training = train_deployed(genome, data, recipe, machine, input_side=input_side, seed=seed)
    for result, trained in training:
        network = trained
        say(f"epoch {result.epoch}/{recipe.epochs}: error {result.error:.3f}, loss {result.loss:.3f}")
    description = {
        "weights": "trained",
        "data": data.source,
        "epochs": recipe.epochs,
        "epoch_images": recipe.epoch_images,
        "tested_on": "validation split" if data.held_back is None else "held-back split",
        "test_error": result.error,
        "test_error_se": result.error_se,
        "seed": seed,
        "split_seed": seed,
    }
    chain = preprocessing(data.fit, data.train.side, input_side, data.decoder)
    return Origin(network, genome, input_side, data.class_names, description, _noise(input_side), chain)


def untrained(genome: Genome, input_side: int, classes: int, seed: int) -> Origin:
    """A genome with fresh weights: for measuring memory and speed on a device before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(genome, input_side, classes)
    names = tuple(str(number) for number in range(classes))
    description = {"weights": "untrained", "seed": seed}
    chain = preprocessing(Fit.CROP, input_side, input_side, DECODER)
    return Origin(network, genome, input_side, names, description, _noise(input_side), chain)


def _inflated(inputs: Inputs, read: int, small_side: int, input_side: int) -> Preprocessing | None:
    """What makes the inflated stem read what the proxy read: its image, each pixel repeated.

    None of a run of the first training version, whose photographs were decoded otherwise.
    """
    if inputs.training_version < 2:
        return None
    side, decoder = inputs.data_side, inputs.decoder
    if input_side % small_side:
        return preprocessing(inputs.fit, side, input_side, decoder)
    upsampled = max(read, small_side)
    return Preprocessing(inputs.fit, side, read, upsampled, input_side // upsampled, decoder)


def _noise(side: int) -> Tensor:
    return torch.randn(_EXAMPLES, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _inflation_parity(small: IsometricNet, large: IsometricNet, small_side: int, images: Tensor) -> float:
    """Largest logit difference between the large network and the small one on box-averaged images."""
    averaged = images
    if images.shape[-1] > small_side:
        averaged = functional.avg_pool2d(images, images.shape[-1] // small_side)
    elif images.shape[-1] < small_side:
        averaged = functional.interpolate(
            images, (small_side, small_side), mode="bilinear", align_corners=False
        )
    return float((small.eval()(averaged) - large.eval()(images)).abs().max())
