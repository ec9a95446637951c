"""The one training loop: forward, backward, step, and a validation after every epoch."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from isonas.data.augment import augment, normalise
from isonas.data.dataset import Images
from isonas.data.store import mapped_for_random
from isonas.errors import MemoryExhausted, TrainingError
from isonas.evaluation import EpochResult
from isonas.training.chance import chance_of
from isonas.training.depthwise import speed_up_depthwise
from isonas.training.machine import Machine, keep_freed_memory
from isonas.training.pooling import speed_up_pooling
from isonas.training.recipe import Recipe

_UPLOAD = 8192
_CHECKED_EVERY = 32

DIVERGED = 10
"""An epoch's mean loss, in multiples of chance's, from which on a training is given up."""


@dataclass(frozen=True)
class Examples:
    """uint8 images (N, 3, S, S) and labels (N,) on the device they are trained on.

    Where `rows` (N,) is given, `pixels` holds more images than these, and example i is its rows[i]-th.
    """

    pixels: Tensor
    labels: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, chosen: Tensor | slice) -> Tensor:
        """The pixels of some of the examples."""
        return self.pixels[chosen if self.rows is None else self.rows[chosen]]


def on_device(images: Images, device: str, rows: npt.NDArray[np.int64] | None = None) -> Examples:
    """Images as tensors on a device ("cpu" or "cuda"): all, or those of some `rows`.

    Mapped images stay in their file on a CPU, and reach a GPU some at a time: memory never holds all.
    """
    chosen = np.arange(len(images)) if rows is None else rows
    labels = torch.from_numpy(images.labels[chosen]).to(device)
    if images.file is None:
        return Examples(torch.from_numpy(images.pixels[chosen]).to(device), labels)
    if device == "cpu":
        with warnings.catch_warnings():
            # PyTorch has no read-only tensors, and warns; nothing here writes to images.
            warnings.simplefilter("ignore", UserWarning)
            pixels = torch.from_numpy(mapped_for_random(images))
        return Examples(pixels, labels, torch.from_numpy(chosen))
    pixels = torch.empty((len(chosen), *images.pixels.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(chosen), _UPLOAD):
        part = slice(start, start + _UPLOAD)
        pixels[part] = torch.from_numpy(images.pixels[chosen[part]])
    return Examples(pixels, labels)


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
    if machine.device == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
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


def train(
    network: nn.Module,
    training: Examples,
    validation: Examples,
    recipe: Recipe,
    machine: Machine,
    *,
    mirror: bool,
    seed: int,
    from_epoch: int = 0,
    to_epoch: int | None = None,
    optimizer_state: dict[str, Any] | None = None,
    seconds: float = 0.0,
    pieces: int = 1,
    timeout: float | None = None,
) -> Iterator[tuple[EpochResult, Checkpoint]]:
    """Train in place, yielding each epoch's result and the state after it.

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
        optimizer.load_state_dict(optimizer_state)
    classes = 1 + int(max(training.labels.max(), validation.labels.max()))
    chance = chance_of(training.labels, classes, recipe.label_smoothing)
    for epoch in range(from_epoch, recipe.epochs if to_epoch is None else to_epoch):
        began = time.perf_counter()
        loss = 0.0
        for mean in _epoch(network, optimizer, training, recipe, machine, mirror, seed, epoch, pieces):
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
        error = validation_error(network, validation, machine, pieces)
        error_se = math.sqrt(error * (1 - error) / len(validation))
        took = time.perf_counter() - began
        seconds += took
        micro_batch = -(-_batch_size(recipe, training) // pieces)
        learned = chance.is_beaten(loss, error, error_se)
        result = EpochResult(epoch + 1, error, error_se, loss, took, micro_batch, learned)
        yield result, _checkpoint(network, optimizer, seconds)


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: Examples,
    recipe: Recipe,
    machine: Machine,
    mirror: bool,
    seed: int,
    epoch: int,
    pieces: int,
) -> Iterator[float | None]:
    """Train one epoch, yielding after every step: now and then, and at its end, the mean loss so far."""
    generator = _generator(seed, epoch)
    count = recipe.epoch_images or len(training)
    order = _order(len(training), epoch * count, count, seed).to(training.labels.device)
    size = _batch_size(recipe, training)
    pieces = max(min(pieces, size // 2), 1)
    steps = count // size
    total = torch.zeros((), device=training.labels.device)
    network.train()
    for step in range(steps):
        rate = recipe.rate((epoch * steps + step + 1) / (recipe.epochs * steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = order[step * size : (step + 1) * size]
        batch = augment(training.images(chosen), mirror=mirror, generator=generator)
        labels = training.labels[chosen]
        for piece, piece_labels in zip(batch.tensor_split(pieces), labels.tensor_split(pieces), strict=True):
            with machine.autocast():
                logits = network(normalise(piece))
            loss = functional.cross_entropy(
                logits.float(), piece_labels, label_smoothing=recipe.label_smoothing
            )
            loss = loss * (len(piece) / size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # Reading the loss waits for a GPU.
        yield float(total) / (step + 1) if step % _CHECKED_EVERY == 0 else None
    yield float(total) / steps


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
def validation_error(network: nn.Module, images: Examples, machine: Machine, pieces: int = 1) -> float:
    """1 − top-1 of a network in evaluation mode, on images as they are.

    They are taken the machine's `validation_batch` at a time, or so many times fewer as there are `pieces`.
    """
    network.eval()
    wrong = 0
    size = max(machine.validation_batch // pieces, 1)
    for start in range(0, len(images), size):
        end = start + size
        with machine.autocast():
            logits = network(normalise(images.images(slice(start, end))))
        wrong += int((logits.argmax(1) != images.labels[start:end]).sum())
    return wrong / len(images)


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True, foreach=True)


def _checkpoint(network: nn.Module, optimizer: torch.optim.Optimizer, seconds: float) -> Checkpoint:
    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to("cpu", copy=True).contiguous()
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        return [copied(item) for item in value] if isinstance(value, list) else value

    return Checkpoint(copied(dict(network.state_dict())), copied(optimizer.state_dict()), seconds)
