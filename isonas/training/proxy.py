"""The proxy: a short training of the genome itself on a smaller image.

The paper's finding (Table 4) is that internal resolution drives quality and input resolution matters
little. So the genome stays whole and only its input shrinks: the stem's block size falls, everything
behind the stem is the network that will be deployed.
"""

from __future__ import annotations

from functools import cached_property

import torch

from isonas.data.dataset import Dataset, Images, split_validation
from isonas.data.resize import downsample
from isonas.evaluation import Curve, TrainingState, trial_seed
from isonas.genome import Genome
from isonas.networks.build import build_network
from isonas.training.loop import Checkpoint, Examples, on_device, prepare, train, training_errors
from isonas.training.machine import Machine
from isonas.training.proxy_input import proxy_input
from isonas.training.recipe import Recipe


class ProxyEvaluator:
    """Trains genomes on a data set's training images; an `Evaluate`.

    A genome's result is a function of the data, the recipe, `seed` and the machine alone, whatever
    was evaluated before. `input_side` is the deployment input, `source_side` a limit on what is read
    (None: the images' own side).
    """

    def __init__(
        self,
        data: Dataset,
        recipe: Recipe,
        machine: Machine,
        *,
        input_side: int,
        seed: int,
        source_side: int | None = None,
    ) -> None:
        self._data = data
        self._recipe = recipe
        self._machine = machine
        self._input_side = input_side
        self._source_side = source_side or data.train.side
        self._seed = seed
        self._by_side: dict[int, tuple[Examples, Examples]] = {}

    @cached_property
    def _split(self) -> tuple[Images, Images]:
        images = self._data.train
        training, validation = split_validation(images.labels, self._seed)
        return (
            Images(images.pixels[training], images.labels[training]),
            Images(images.pixels[validation], images.labels[validation]),
        )

    def __call__(
        self, genome: Genome, from_epoch: int, to_epoch: int, state: TrainingState | None
    ) -> tuple[Curve, Checkpoint]:
        """See `isonas.evaluation.Evaluate`; `state` is a `Checkpoint` of the same genome."""
        checkpoint = state if isinstance(state, Checkpoint) else None
        side = proxy_input(genome.internal_resolution, self._source_side, self._input_side)
        seed = trial_seed(self._seed, genome)
        curve = []
        with self._machine.threads_set(), torch.random.fork_rng(), training_errors():
            torch.manual_seed(seed)
            training, validation = self._examples(side)
            network = build_network(genome, side, self._data.classes)
            if checkpoint is not None:
                network.load_state_dict(checkpoint.network)
            prepare(network, self._machine)
            epochs = train(
                network,
                training,
                validation,
                self._recipe,
                self._machine,
                mirror=self._data.mirror,
                seed=seed,
                from_epoch=from_epoch,
                to_epoch=to_epoch,
                optimizer_state=checkpoint.optimizer if checkpoint else None,
            )
            for result, after in epochs:
                curve.append(result)
                checkpoint = after
        if checkpoint is None:
            raise ValueError(f"no epoch lies between {from_epoch} and {to_epoch}")
        return tuple(curve), checkpoint

    def _examples(self, side: int) -> tuple[Examples, Examples]:
        if side not in self._by_side:
            training, validation = (
                on_device(downsample(part, side), self._machine.device) for part in self._split
            )
            self._by_side[side] = training, validation
        return self._by_side[side]
