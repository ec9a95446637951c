"""What a search asks of whatever trains its genomes, in this process or elsewhere."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isonas.genome import Genome


@dataclass(frozen=True)
class EpochResult:
    """How a network stood after one epoch (counted from 1).

    `error` is 1 − top-1 on the validation images, `error_se` its binomial standard error, `loss` the
    mean training loss of the epoch, `seconds` its time by the clock, validation included.
    `micro_batch` is the most images that went through the network at a time. `learned` is false where
    neither the loss nor the error is below that of chance (`isonas.training.chance`).
    """

    epoch: int
    error: float
    error_se: float
    loss: float
    seconds: float = field(default=0.0, compare=False)
    micro_batch: int | None = None
    learned: bool = True


class TrainingState(Protocol):
    """All that training on from an epoch needs, and the weights in it."""

    def weights(self) -> Mapping[str, npt.NDArray[Any]]:
        """The network's parameters and buffers by name."""


Curve = tuple[EpochResult, ...]

Evaluate = Callable[[Genome, int, int, int, TrainingState | None], tuple[Curve, TrainingState]]
"""`evaluate(genome, seed, from_epoch, to_epoch, state)` trains on from `state` (None at epoch 0).

It returns one result for each epoch in (from_epoch, to_epoch] and the state after the last. Two calls,
0 to m and m to n, do what one call 0 to n does. `seed` is `trial_seed`'s. Raises TrainingError where the
genome cannot be trained.
"""


def trial_seed(study_seed: int, network: Genome | str, repeat: int = 0) -> int:
    """The seed of one network's initial weights, batches and augmentation, below 2³².

    `network` is a genome or another network's name; `repeat` counts trainings of the same one from 0.
    """
    repeated = (repeat,) if repeat else ()
    sequence = np.random.SeedSequence((study_seed, zlib.crc32(str(network).encode()), *repeated))
    return int(sequence.generate_state(1)[0])
