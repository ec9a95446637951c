"""Training a genome at its deployment input, before an export that has no weights to start from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonas.data.dataset import Dataset, split_validation
from isonas.data.resize import downsample
from isonas.evaluation import EpochResult, trial_seed
from isonas.genome import Genome
from isonas.networks.build import build_network
from isonas.networks.isometric import IsometricNet
from isonas.training.examples import on_device
from isonas.training.loop import prepare, train, training_errors
from isonas.training.machine import Machine
from isonas.training.recipe import Recipe


class Upsampled(nn.Module):
    """A network behind a bilinear upsampling of its images to `side` pixels."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network = network
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Images of any size to logits."""
        large = functional.interpolate(x, (self.side, self.side), mode="bilinear", align_corners=False)
        logits: Tensor = self.network(large)
        return logits


def train_deployed(
    genome: Genome, data: Dataset, recipe: Recipe, machine: Machine, *, input_side: int, seed: int
) -> Iterator[tuple[EpochResult, IsometricNet]]:
    """Train at `input_side` pixels, yielding each epoch's result and the network as it stands.

    Images are area-downsampled to the input, or upsampled bilinearly where they are smaller. Errors
    are on the data's held-back split, or on a validation split where it has none. Raises
    TrainingError where the loss is no longer a number.
    """
    training, validation, kept, carved = data.train, data.held_back, None, None
    if validation is None:
        validation = training
        kept, carved = split_validation(training, seed)
    side = min(input_side, training.side)
    seed = trial_seed(seed, genome)
    with machine.threads_set(), machine.random_state_kept(), training_errors():
        torch.manual_seed(seed)
        network = build_network(genome, input_side, data.classes)
        whole = network if side == input_side else Upsampled(network, input_side)
        prepare(whole, machine)
        for result, _ in train(
            whole,
            on_device(downsample(training, side), machine.device, kept),
            on_device(downsample(validation, side), machine.device, carved),
            recipe,
            machine,
            classes=data.classes,
            mirror=data.mirror,
            seed=seed,
        ):
            yield result, network
