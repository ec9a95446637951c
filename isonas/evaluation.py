"""What a search asks of whatever trains its genomes, in this process or elsewhere."""

from __future__ import annotations

import math
import os
import platform
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isonas.genome import Genome


@dataclass(frozen=True)
class Errors:
    """How often a network was wrong, as fractions.

    `error` is 1 − top-1 over all images, `balanced_error` 1 − the mean over classes of the share of their
    images that were right (recall); classes without an image have no part in it. The standard errors
    are binomial, those of the classes independent.
    """

    error: float
    error_se: float
    balanced_error: float
    balanced_error_se: float


def errors_of(right: npt.NDArray[np.int64], images: npt.NDArray[np.int64]) -> Errors:
    """The errors where, class by class, so many of so many images were `right`; both (classes,)."""
    count = int(images.sum())
    error = (count - int(right.sum())) / count
    seen = images > 0
    recall = right[seen] / images[seen]
    variance = float((recall * (1 - recall) / images[seen]).sum()) / len(recall) ** 2
    return Errors(
        error, math.sqrt(error * (1 - error) / count), 1 - float(recall.mean()), math.sqrt(variance)
    )


def chance_error(objective: str, images: npt.NDArray[np.int64]) -> float:
    """The error of the best constant answer, where classes have so many `images` (classes,).

    For `error` that is always the largest class, for `balanced_error` any class that has images.
    """
    if objective == "balanced_error":
        return 1 - 1 / int((images > 0).sum())
    count = int(images.sum())
    return (count - int(images.max())) / count


@dataclass(frozen=True)
class EpochResult:
    """How a network stood after one epoch (counted from 1).

    `error` and `balanced_error` are `Errors` on the validation images, `loss` the mean training loss of
    the epoch, `seconds` its time by the clock, validation included. `micro_batch` is the most images
    that went through the network at a time. `worker` is where it was trained, `host/process`: a result
    is made by the process that trains. `learned` is false where neither the loss nor the error is below
    that of chance (`isonas.training.chance`).
    """

    epoch: int
    error: float
    error_se: float
    loss: float
    seconds: float = field(default=0.0, compare=False)
    micro_batch: int | None = None
    learned: bool = True
    worker: str = field(default_factory=lambda: f"{platform.node()}/{os.getpid()}", compare=False)
    balanced_error: float | None = None
    balanced_error_se: float | None = None


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
