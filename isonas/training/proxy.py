"""The proxy: a short training of the genome itself on a smaller image.

The paper's finding (Table 4) is that internal resolution drives quality and input resolution matters
little. So the genome stays whole and only its input shrinks: the stem's block size falls, everything
behind the stem is the network that will be deployed.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from isonas.data.dataset import Dataset, split_validation
from isonas.data.preprocessing import Fit
from isonas.data.resize import downsample
from isonas.data.sources import open_dataset
from isonas.errors import MemoryExhausted, TrainingError
from isonas.evaluation import Curve, TrainingState
from isonas.genome import Genome
from isonas.networks.build import build_network
from isonas.training.deployed import Upsampled
from isonas.training.examples import Examples, images_held, on_device
from isonas.training.loop import (
    Checkpoint,
    prepare,
    train,
    training_errors,
    validation_errors,
)
from isonas.training.machine import Machine, require_device
from isonas.training.proxy_input import proxy_input
from isonas.training.recipe import Recipe

Rows = npt.NDArray[np.int64]

CACHED_BYTES = 5 * 2**20
CACHED_IMAGES = 32
KEPT_BYTES = 2**30
"""What images of several sides may take of memory together, before only those in use are kept."""
SMALLEST_PIECE = 4
"""Images below which a batch is not cut: batch norm needs some to take its statistics from."""


@dataclass(frozen=True)
class ProxySetting:
    """What decides a genome's training but the genome and its seed; names and numbers, no images.

    `data`, `cache`, `image_side` and `fit` are `open_dataset`'s, `input_side` is the deployment input and
    `source_side` a limit on what is read, in pixels; `split_seed` draws the validation images. A training
    that takes longer than `trial_timeout` seconds fails.
    """

    data: str
    cache: Path
    recipe: Recipe
    machine: Machine
    input_side: int
    source_side: int
    split_seed: int
    trial_timeout: float | None = None
    image_side: int | None = None
    fit: Fit = Fit.CROP


@dataclass(frozen=True)
class _Training:
    """One network's training over (from_epoch, to_epoch], on images of `image_side` pixels."""

    build: Callable[[], nn.Module]
    recipe: Recipe
    image_side: int
    seed: int
    from_epoch: int
    to_epoch: int
    checkpoint: Checkpoint | None
    pieces: int


class ProxyEvaluator:
    """Trains genomes on a data set's training images; an `Evaluate`.

    A genome's result is a function of the data, the setting and the trial's seed alone, whatever was
    evaluated before.
    """

    def __init__(self, data: Dataset, setting: ProxySetting) -> None:
        """Raises UsageError where the setting's device is not usable in this process."""
        require_device(setting.machine.device)
        self._data = data
        self._recipe = setting.recipe
        self._machine = setting.machine
        self._input_side = setting.input_side
        self._source_side = setting.source_side
        self._split_seed = setting.split_seed
        self._timeout = setting.trial_timeout
        self._by_side: dict[int, tuple[Examples, Examples]] = {}

    @cached_property
    def _split(self) -> tuple[Rows, Rows]:
        return split_validation(self._data.train, self._split_seed)

    def __call__(
        self, genome: Genome, seed: int, from_epoch: int, to_epoch: int, state: TrainingState | None
    ) -> tuple[Curve, Checkpoint]:
        """See `isonas.evaluation.Evaluate`; `state` is a `Checkpoint` of the same genome."""
        side = proxy_input(genome.internal_resolution, self._source_side, self._input_side)
        return self._trained(
            _Training(
                build=partial(build_network, genome, side, self._data.classes),
                recipe=self._recipe,
                image_side=side,
                seed=seed,
                from_epoch=from_epoch,
                to_epoch=to_epoch,
                checkpoint=state if isinstance(state, Checkpoint) else None,
                pieces=pieces_of(genome, self._recipe.batch_size, self._machine.device),
            )
        )

    def other(self, build: Callable[[int, int], nn.Module], seed: int, peak_rate: float | None) -> Curve:
        """Train a network that is no genome's over the whole schedule, as a trial is trained but for the
        peak learning rate (at batch size 32; None for a trial's).

        `build(input_side, classes)` makes it for the deployment input. It reads the whole image, of the
        source's side or the deployment input, whichever is less, upsampled bilinearly to the
        deployment input: so every feature map is as large as at deployment. Raises TrainingError.
        """
        side, whole = min(self._source_side, self._input_side), self._input_side

        def built() -> nn.Module:
            network = build(whole, self._data.classes)
            return network if side == whole else Upsampled(network, whole)

        recipe = replace(self._recipe, peak_rate=peak_rate or self._recipe.peak_rate)
        curve, _ = self._trained(_Training(built, recipe, side, seed, 0, recipe.epochs, None, 1))
        return curve

    def _trained(self, training: _Training) -> tuple[Curve, Checkpoint]:
        """Where memory does not hold a batch it is taken in twice as many pieces, from the same state."""
        while (trained := self._attempt(training)) is None:
            gc.collect()
            torch.cuda.empty_cache()
            training = replace(training, pieces=2 * training.pieces)
        return trained

    def _attempt(self, training: _Training) -> tuple[Curve, Checkpoint] | None:
        """None where memory does not hold a piece, and smaller ones are left."""
        try:
            return self._train(training)
        except MemoryExhausted as error:
            if self._recipe.batch_size // (2 * training.pieces) >= SMALLEST_PIECE:
                return None
            size = -(-self._recipe.batch_size // training.pieces)
            raise TrainingError(f"memory does not hold even {size} images at a time ({error})") from error

    def _train(self, training: _Training) -> tuple[Curve, Checkpoint]:
        checkpoint, curve = training.checkpoint, []
        with self._machine.threads_set(), self._machine.random_state_kept(), training_errors():
            torch.manual_seed(training.seed)
            examples, validation = self._examples(training.image_side)
            network = training.build()
            if checkpoint is not None:
                network.load_state_dict(checkpoint.network)
            prepare(network, self._machine)
            epochs = train(
                network,
                examples,
                validation,
                training.recipe,
                self._machine,
                classes=self._data.classes,
                mirror=self._data.mirror,
                seed=training.seed,
                from_epoch=training.from_epoch,
                to_epoch=training.to_epoch,
                optimizer_state=checkpoint.optimizer if checkpoint else None,
                seconds=checkpoint.seconds if checkpoint else 0.0,
                pieces=training.pieces,
                timeout=self._timeout,
            )
            for result, after in epochs:
                curve.append(result)
                checkpoint = after
        if checkpoint is None:
            raise ValueError(f"no epoch lies between {training.from_epoch} and {training.to_epoch}")
        return tuple(curve), checkpoint

    def held_back_error(self, genome: Genome, state: TrainingState) -> float | None:
        """1 − top-1 of a trained genome on the source's held-back images; None where it has none."""
        if self._data.held_back is None or not isinstance(state, Checkpoint):
            return None
        side = proxy_input(genome.internal_resolution, self._source_side, self._input_side)
        with self._machine.threads_set(), self._machine.random_state_kept(), training_errors():
            network = build_network(genome, side, self._data.classes)
            network.load_state_dict(state.network)
            prepare(network, self._machine)
            images = on_device(downsample(self._data.held_back, side), self._machine.device)
            return validation_errors(network, images, self._machine).error

    def _examples(self, side: int) -> tuple[Examples, Examples]:
        if side not in self._by_side:
            if not self._room_beside(side):
                self._by_side.clear()
                # Or what they took stays with this process, in pieces that may not hold the next.
                torch.cuda.empty_cache()
            with images_held(len(self._data.train), side):
                images = downsample(self._data.train, side)
                training, validation = (on_device(images, self._machine.device, rows) for rows in self._split)
            self._by_side[side] = training, validation
        return self._by_side[side]

    def _room_beside(self, side: int) -> bool:
        """Whether images of other sides are kept beside those of `side`: never on a GPU.

        Mapped ones take no memory of this process.
        """
        if self._machine.device != "cpu":
            return False
        kept = 3 * len(self._data.train) * sum(each**2 for each in (*self._by_side, side))
        return self._data.train.file is not None or kept <= KEPT_BYTES


def pieces_of(genome: Genome, batch_size: int, device: str) -> int:
    """In how many pieces a batch goes through a network, each of CACHED_IMAGES or more.

    On a CPU a hidden tensor of one piece, in two bytes an element, is held to CACHED_BYTES, for passes
    over larger ones are made at memory's speed. It depends on the genome alone, not on the machine's
    cache, so that results do not.
    """
    return pieces_for(genome.expansion * genome.channels * genome.internal_resolution**2, batch_size, device)


def pieces_for(hidden: int, batch_size: int, device: str) -> int:
    """`pieces_of` for any network whose largest hidden tensor has `hidden` elements for one image."""
    if device != "cpu":
        return 1
    hidden_bytes = 2 * hidden * batch_size
    return max(min(math.ceil(hidden_bytes / CACHED_BYTES), batch_size // CACHED_IMAGES), 1)


def evaluator_of(setting: ProxySetting) -> ProxyEvaluator:
    """Open the images, without a word on them, and make the evaluator; raises as `open_dataset` does."""
    data = open_dataset(setting.data, setting.cache, setting.image_side, setting.fit, tell=False)
    return ProxyEvaluator(data, setting)
