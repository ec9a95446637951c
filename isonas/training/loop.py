"""The one training loop: forward, backward, step, and a validation after every epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from isonas.data.augment import augment, normalise
from isonas.errors import MemoryExhausted, TrainingError
from isonas.evaluation import EpochResult, Errors, errors_of
from isonas.training.chance import chance_of
from isonas.training.depthwise import speed_up_depthwise
from isonas.training.examples import Examples
from isonas.training.machine import Machine, keep_freed_memory
from isonas.training.pooling import speed_up_pooling
from isonas.training.recipe import Recipe
from isonas.training.step import Gradients, cuda_graph

_CHECKED_EVERY = 32

DIVERGED = 10
"""An epoch's mean loss, in multiples of chance's, from which on a training is given up."""


@contextmanager
def training_errors() -> Iterator[None]:
    """Turn what PyTorch raises where a network cannot be trained into a TrainingError.

    It is a MemoryExhausted where memory, a CPU's or a GPU's, is.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        exhausted = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(
            sign in reason for sign in _NO_MEMORY
        )
        kind = MemoryExhausted if exhausted else TrainingError
        raise kind(f"training stopped: {reason}") from error


# On a CPU PyTorch has no exception of its own for it, and oneDNN says it in words of its own.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")


def prepare(network: nn.Module, machine: Machine) -> None:
    """Bring a network to a machine, in place, in the form in which it trains fastest there."""
    network.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    machine.compute_exactly()
    if machine.device == "cpu":
        keep_freed_memory()
    if machine.device == "cpu" and machine.precision == "bf16":
        speed_up_depthwise(network)
    speed_up_pooling(network)


@dataclass(frozen=True)
class Checkpoint:
    """A network and its optimizer after an epoch, on the CPU; a `TrainingState`.

    `seconds` is what training took so far, validation included.
    """

    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    seconds: float = 0.0

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The network's parameters and buffers by name."""
        return {name: tensor.numpy() for name, tensor in self.network.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes tensors would go through /dev/shm, of which a container has 64 MB.
        arrays = (_each(part, Tensor, Tensor.numpy) for part in (self.network, self.optimizer))
        return _checkpoint_of, (*arrays, self.seconds)


def _checkpoint_of(network: dict[str, Any], optimizer: dict[str, Any], seconds: float) -> Checkpoint:
    def tensor(array: npt.NDArray[Any]) -> Tensor:
        # What has come through shared memory may not be written to.
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    network, optimizer = (_each(part, np.ndarray, tensor) for part in (network, optimizer))
    return Checkpoint(network, optimizer, seconds)


def _each(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Nested dictionaries and lists with everything of one kind in them changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(item, kind, change) for key, item in value.items()}
    return [_each(item, kind, change) for item in value] if isinstance(value, list) else value


def train(
    network: nn.Module,
    training: Examples,
    validation: Examples,
    recipe: Recipe,
    machine: Machine,
    *,
    classes: int,
    mirror: bool,
    seed: int,
    from_epoch: int = 0,
    to_epoch: int | None = None,
    optimizer_state: dict[str, Any] | None = None,
    seconds: float = 0.0,
    pieces: int = 1,
    timeout: float | None = None,
) -> Iterator[tuple[EpochResult, Checkpoint]]:
    """Train a network of `classes` outputs in place, yielding each epoch's result and the state after it.

    Epochs draw their random numbers from (seed, epoch), so training on from a checkpoint is the same
    as never having stopped; `seconds` are those that the checkpoint took. Each batch goes through the
    network in `pieces` of nearly equal size, whose gradients add up: images, augmentation, the loss's
    mean and the step are the same for any number of them. Batch norm is not: it takes its statistics
    from a piece, and its running ones move once a piece.

    Raises TrainingError where the loss is no longer a number, where an epoch's mean is DIVERGED times
    that of chance, and where training takes longer than `timeout` seconds in all.
    """
    deadline = time.perf_counter() + timeout - seconds if timeout is not None else math.inf
    optimizer = _optimizer(network, recipe)
    if optimizer_state is not None:
        # A copy, for steps would write to it, and a training may have to begin from it again.
        optimizer.load_state_dict(copy.deepcopy(optimizer_state))
    size = _batch_size(recipe, training)
    gradients = Gradients(
        network,
        machine,
        label_smoothing=recipe.label_smoothing,
        pieces=max(min(pieces, size // 2), 1),
        record=cuda_graph if machine.device == "cuda" else None,
    )
    chance = chance_of(training.labels, classes, recipe.label_smoothing)
    for epoch in range(from_epoch, recipe.epochs if to_epoch is None else to_epoch):
        began = time.perf_counter()
        loss = 0.0
        for mean in _epoch(network, optimizer, gradients, training, recipe, mirror, seed, epoch):
            if time.perf_counter() > deadline:
                raise TrainingError(
                    f"its training took longer than {timeout:g} s, in epoch {epoch + 1} of {recipe.epochs}"
                )
            if mean is not None:
                loss = mean
            if not math.isfinite(loss):
                raise TrainingError(f"the loss became {loss} in epoch {epoch + 1}")
        if loss > DIVERGED * chance.loss:
            raise TrainingError(
                f"training diverged: the mean loss of epoch {epoch + 1} was {loss:.3g}, that of chance is "
                f"{chance.loss:.3g}"
            )
        found = validation_errors(network, validation, machine, pieces)
        took = time.perf_counter() - began
        seconds += took
        result = EpochResult(
            epoch + 1,
            found.error,
            found.error_se,
            loss,
            took,
            micro_batch=-(-_batch_size(recipe, training) // pieces),
            learned=chance.is_beaten(loss, found.error, found.error_se),
            balanced_error=found.balanced_error,
            balanced_error_se=found.balanced_error_se,
        )
        yield result, _checkpoint(network, optimizer, seconds)


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    gradients: Gradients,
    training: Examples,
    recipe: Recipe,
    mirror: bool,
    seed: int,
    epoch: int,
) -> Iterator[float | None]:
    """Train one epoch, yielding after every step: now and then, and at its end, the mean loss so far."""
    generator = _generator(seed, epoch)
    count = recipe.epoch_images or len(training)
    order = _order(len(training), epoch * count, count, seed).to(training.pixels.device)
    size = _batch_size(recipe, training)
    steps = count // size
    gradients.total.zero_()
    network.train()
    for step in range(steps):
        rate = recipe.rate((epoch * steps + step + 1) / (recipe.epochs * steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels, labels = training.batch(order[step * size : (step + 1) * size])
        gradients(augment(pixels, mirror=mirror, generator=generator), labels)
        optimizer.step()
        # Reading the loss waits for a GPU.
        yield float(gradients.total) / (step + 1) if step % _CHECKED_EVERY == 0 else None
    yield float(gradients.total) / steps


def _batch_size(recipe: Recipe, training: Examples) -> int:
    return min(recipe.batch_size, recipe.epoch_images or len(training))


def _order(images: int, start: int, count: int, seed: int) -> Tensor:
    """Places start to start + count of an endless row of shuffled passes over all images."""
    passes = range(start // images, (start + count - 1) // images + 1)
    shuffled = [torch.randperm(images, generator=_generator(seed, -1 - number)) for number in passes]
    first = start - passes[0] * images
    return torch.cat(shuffled)[first : first + count]


def _generator(seed: int, stream: int) -> torch.Generator:
    # Epochs are streams from 0 up, passes over the images from -1 down.
    state = np.random.SeedSequence((seed, abs(stream), int(stream < 0))).generate_state(1)[0]
    return torch.Generator().manual_seed(int(state))


@torch.no_grad()
def validation_errors(network: nn.Module, images: Examples, machine: Machine, pieces: int = 1) -> Errors:
    """The errors of a network in evaluation mode, on images as they are.

    They are taken the machine's `validation_batch` at a time, or so many times fewer as there are `pieces`.
    """
    network.eval()
    right, true = [], []
    size = max(machine.validation_batch // pieces, 1)
    for start in range(0, len(images), size):
        end = start + size
        pixels, labels = images.batch(slice(start, end))
        with machine.autocast():
            logits = network(normalise(pixels))
        right.append(logits.argmax(1) == labels)
        true.append(labels)
    every = torch.cat(true).cpu().numpy()
    return errors_of(
        np.bincount(every[torch.cat(right).cpu().numpy()], minlength=logits.shape[1]),
        np.bincount(every, minlength=logits.shape[1]),
    )


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True, foreach=True)


def _checkpoint(network: nn.Module, optimizer: torch.optim.Optimizer, seconds: float) -> Checkpoint:
    def copied(state: dict[str, Any]) -> dict[str, Any]:
        copy: dict[str, Any] = _each(
            state, Tensor, lambda tensor: tensor.detach().to("cpu", copy=True).contiguous()
        )
        return copy

    return Checkpoint(copied(dict(network.state_dict())), copied(optimizer.state_dict()), seconds)
