"""Small studies with an evaluator that needs no training."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isonas.data.preprocessing import Fit
from isonas.errors import TrainingError
from isonas.evaluation import Curve, EpochResult, TrainingState
from isonas.genome import Genome, Stem
from isonas.hardware import Budget
from isonas.search.inputs import Inputs, create_run
from isonas.search.study import Study, study_of
from isonas.space import SearchSpace
from isonas.training.version import TRAINING_VERSION

SPACE = SearchSpace(
    name="tiny",
    input=32,
    classes=10,
    depth=(1, 2, 3, 4),
    channels=(32, 64),
    internal_resolution=(4, 8, 16),
    expansion=(1, 2),
    se_ratio=(Fraction(0), Fraction(1, 4)),
    stem=(Stem.S2D, Stem.CONV),
    head_features=(0,),
)
INPUTS = Inputs(
    space=SPACE,
    input=32,
    classes=10,
    budget=Budget(max_memory_bytes=100_000),
    objectives=("error", "arena_bytes", "madds"),
    sampler="tpe",
    seed=0,
    data="synthetic",
    data_fingerprint="none",
    data_side=32,
    class_names=tuple("0123456789"),
    image_side=None,
    fit=Fit.CROP,
    decoder=0,
    chance=0.9,
    epochs=2,
    epoch_images=None,
    batch_size=32,
    training_version=TRAINING_VERSION,
    proxy_input=None,
    device="cpu",
    precision="fp32",
    threads=1,
    early_stopping=False,
    trials=30,
    repeats=1,
    trial_timeout=None,
    workers=1,
    engine="local",
    cpus_per_trial=1.0,
    gpus_per_trial=0.0,
)


@dataclass(frozen=True)
class Weights:
    """A training state of one number."""

    value: float

    def weights(self) -> Mapping[str, npt.NDArray[Any]]:
        """The number under a name."""
        return {"value": np.array([self.value], np.float32)}


def error_of(genome: Genome) -> float:
    """A made-up error: better with more of everything, and some noise of the genome's own."""
    noise = zlib.crc32(str(genome).encode()) / 2**32
    size = genome.depth * genome.hidden * genome.internal_resolution
    return float(np.clip(0.95 - 0.1 * np.log10(size) - 0.05 * noise, 0.01, 0.9))


class Recorder:
    """An `Evaluate` that answers from `error_of` and remembers what it was asked."""

    def __init__(self, failing: frozenset[Genome] = frozenset(), epochs: int = 2) -> None:
        self.asked: list[Genome] = []
        self.epochs_trained = 0
        self._failing = failing
        self._epochs = epochs

    def __call__(
        self, genome: Genome, seed: int, from_epoch: int, to_epoch: int, state: TrainingState | None
    ) -> tuple[Curve, TrainingState]:
        """One result an epoch, after `epochs` of them `error_of`."""
        if from_epoch == 0:
            self.asked.append(genome)
        self.epochs_trained += to_epoch - from_epoch
        if genome in self._failing:
            raise TrainingError(f"{genome} was told to fail")
        error = error_of(genome)
        curve = tuple(
            EpochResult(epoch, error + 0.01 * (self._epochs - epoch), 0.01, 1.0)
            for epoch in range(from_epoch + 1, to_epoch + 1)
        )
        return curve, Weights(error)


def new_study(run: Path, **changes: Any) -> Study:
    """A study of `INPUTS`, changed as asked, with its run's folder made."""
    study = study_of(replace(INPUTS, **changes))
    create_run(run, study.inputs, study.reference)
    return study
