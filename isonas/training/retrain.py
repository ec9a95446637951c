"""Full training of a genome at its deployment input: augmentation, a moving average of the weights,
gradient accumulation, one process or several.

Every random number comes from (seed, epoch, step or image), and a step's images from (seed, epoch): so
training on from the state after any epoch is the same as never having stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from isonas.data.augment import normalise
from isonas.data.dataset import Dataset, Images, Labels, split_validation
from isonas.errors import TrainingError, UsageError
from isonas.networks.build import build_network
from isonas.training.augmentation import (
    AugmentedImages,
    Key,
    loader,
    mixing,
    randomness_kept,
    reseed,
    reseed_batch,
)
from isonas.training.distributed import Processes
from isonas.training.evaluate import as_called, right_answers
from isonas.training.loop import prepare, training_errors
from isonas.training.machine import Machine
from isonas.training.recipes import FullRecipe
from isonas.training.retrain_folder import Epoch, Retraining, State
from isonas.training.weights_file import Weights

_WEIGHTS, _ORDER = 2, 3
"""Streams of random numbers beside those of images and batches."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What of a `Retraining` decides the training of a network that is no genome's."""

    input_side: int
    recipe: FullRecipe
    micro_batch: int
    seed: int
    device: str
    precision: str
    threads: int


def retrain(
    retraining: Retraining,
    data: Dataset,
    *,
    state: State | None = None,
    crops: Images | None = None,
    weights: dict[str, Tensor] | None = None,
    processes: Processes | None = None,
    workers: int = 0,
    stepped: Callable[[], None] = lambda: None,
) -> Iterator[State]:
    """Train on from `state`, or from `weights`, or from fresh ones; yields the state after every epoch.

    `data` are all images; validation images are carved from its training images, and nothing is read
    of its held-back split. `crops` are the same training images, larger, to cut training crops from.
    `stepped` is called after every step. Raises UsageError where the batch does not fit the images or the
    processes, TrainingError where the loss is no longer a number.
    """
    chosen, carved = split_validation(data.train, retraining.split_seed)

    def build() -> nn.Module:
        network = build_network(retraining.genome, retraining.input_side, data.classes)
        if weights is not None:
            network.load_state_dict(weights)
        return network

    yield from train_in_full(
        build,
        retraining,
        data,
        chosen,
        data.train,
        carved,
        state=state,
        crops=crops,
        processes=processes,
        workers=workers,
        stepped=stepped,
    )


def train_in_full(
    build: Callable[[], nn.Module],
    retraining: Retraining | Terms,
    data: Dataset,
    chosen: Labels,
    scored: Images,
    scored_rows: Labels | None = None,
    *,
    state: State | None = None,
    crops: Images | None = None,
    processes: Processes | None = None,
    workers: int = 0,
    stepped: Callable[[], None] = lambda: None,
) -> Iterator[State]:
    """`retrain` for any network: what `build` makes, on the `chosen` rows of the training images.

    It is scored after every epoch on `scored_rows` of `scored`, or on all of them.
    """
    processes = processes or Processes()
    recipe = retraining.recipe
    rows = np.arange(len(scored)) if scored_rows is None else scored_rows
    steps, accumulate = plan(retraining, len(chosen), processes)
    machine = Machine(retraining.device, retraining.precision, retraining.threads)
    side = min(retraining.input_side, data.train.side)
    with machine.threads_set(), randomness_kept(machine), training_errors():
        reseed(retraining.seed, _WEIGHTS)
        network = build()
        prepare(network, machine)
        average = _average(network, recipe)
        _drop_out(network, recipe)
        optimizer = optimizer_of(network, recipe)
        if state is not None:
            network.load_state_dict(state.network)
            average.module.load_state_dict(state.average)
            optimizer.load_state_dict(state.optimizer)
        called = processes.wrapped(as_called(network, retraining.input_side, side))
        images = AugmentedImages(crops or data.train, side, recipe, mirror=data.mirror, seed=retraining.seed)
        first = len(state.history) if state else 0
        keys = _keys(retraining, chosen, steps, range(first, recipe.epochs), processes, accumulate)
        batches = loader(images, keys, workers)
        mix = mixing(recipe, data.classes, machine.device)

        for epoch in range(first, recipe.epochs):
            began = time.perf_counter()
            called.train()
            total = torch.zeros((), device=machine.device)
            for step in range(steps):
                rate = recipe.rate_at((epoch * steps + step + 1) / (recipe.epochs * steps))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                for micro in range(accumulate):
                    pixels, labels = (part.to(machine.device) for part in next(batches))
                    reseed_batch(retraining.seed, epoch, step, processes.rank * accumulate + micro)
                    inputs, targets = mix(normalise(pixels), labels)
                    with _synchronised(called, micro == accumulate - 1):
                        with machine.autocast():
                            logits = called(inputs)
                        loss = functional.cross_entropy(logits.float(), targets) / accumulate
                        loss.backward()  # type: ignore[no-untyped-call]
                    total += loss.detach()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                average.update(network, epoch * steps + step + 1)
                stepped()
            loss_mean = float(processes.sum(total)) / (steps * processes.count)
            if not math.isfinite(loss_mean):
                raise TrainingError(
                    f"the loss became {loss_mean} in epoch {epoch + 1}; lower the recipe's rate, or give "
                    "--precision fp32."
                )
            for net in (network, average.module):
                processes.average_buffers(net)
            error, average_error = (
                _error(as_called(net, retraining.input_side, side), scored, rows, side, machine, processes)
                for net in (network, average.module)
            )
            seconds = time.perf_counter() - began
            row = Epoch(epoch + 1, loss_mean, rate, error, average_error, seconds)
            state = _state_after(row, network, average.module, optimizer, state)
            yield state


def plan(retraining: Retraining | Terms, images: int, processes: Processes) -> tuple[int, int]:
    """Steps of an epoch, and micro-batches that each process takes in a step.

    Raises UsageError where the batch is larger than the images or cannot be shared out.
    """
    batch, micro = retraining.recipe.batch_size, retraining.micro_batch
    if batch > images:
        raise UsageError(
            f"a batch of {batch} images is more than the {images} training images; give a smaller "
            "--batch-size."
        )
    if batch % (micro * processes.count):
        raise UsageError(
            f"a batch of {batch} images is not shared out evenly by {processes.count} "
            f"process{'es' * (processes.count > 1)} in micro-batches of {micro}; give a --micro-batch that "
            f"divides {batch / processes.count:g}, or another --batch-size."
        )
    recipe = retraining.recipe
    if (recipe.mixup or recipe.cutmix) and micro % 2:
        raise UsageError(
            f"mixup takes images in pairs, so a micro-batch of {micro} is refused; give an even one."
        )
    return images // batch, batch // (micro * processes.count)


def optimizer_of(network: nn.Module, recipe: FullRecipe) -> torch.optim.Optimizer:
    """timm's optimizer of a recipe; raises UsageError where timm has none of that name or such options."""
    from timm.optim._optim_factory import create_optimizer_v2, list_optimizers

    if recipe.optimizer not in list_optimizers():
        raise UsageError(
            f"optimizer {recipe.optimizer!r} is unknown to timm; give adamw, lamb or rmsproptf, say."
        )
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            network,
            recipe.optimizer,
            lr=recipe.peak_rate,
            weight_decay=recipe.weight_decay,
            **recipe.optimizer_options,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer {recipe.optimizer} refuses its options: {error}.") from None
    return optimizer


def result_of(
    weights: Weights, images: Images, machine: Machine, rows: Labels | None = None
) -> dict[str, Any]:
    """Top-1 and top-5 of weights on images, or some rows of them, in fp32: what an export computes."""
    plain = Machine(machine.device, "fp32", machine.threads)
    side = min(weights.input_side, images.side)
    with plain.threads_set(), training_errors():
        network = weights.network()
        prepare(network, plain)
        right = right_answers(as_called(network, weights.input_side, side), images, side, plain, rows)
    return {
        "images": int(right.images.sum()),
        "top1": 1 - right.error,
        "top5": right.top5_accuracy,
        "error": right.error,
        "error_se": right.error_se,
    }


def _keys(
    retraining: Retraining | Terms,
    chosen: Labels,
    steps: int,
    epochs: range,
    processes: Processes,
    accumulate: int,
) -> Iterator[list[Key]]:
    """This process's micro-batches of the chosen images over all epochs, each in an order of its own."""
    batch, micro = retraining.recipe.batch_size, retraining.micro_batch
    for epoch in epochs:
        seed = np.random.SeedSequence((retraining.seed, _ORDER, epoch)).generate_state(1)[0]
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(int(seed)))
        for step in range(steps):
            for number in range(processes.rank * accumulate, (processes.rank + 1) * accumulate):
                start = step * batch + number * micro
                yield [(epoch, int(index)) for index in chosen[order[start : start + micro].numpy()]]


def _average(network: nn.Module, recipe: FullRecipe) -> Any:
    """The moving average of weights and running statistics, its decay rising with the steps: 1 − n^(−2/3),
    up to the recipe's."""
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(network, decay=recipe.average_decay, use_warmup=True)


def _drop_out(network: nn.Module, recipe: FullRecipe) -> None:
    """Dropout before the classifier, the network's last FC."""

    def dropped(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (functional.dropout(inputs[0], recipe.dropout, layer.training),)

    if recipe.dropout:
        *_, classifier = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
        classifier.register_forward_pre_hook(dropped)


def _synchronised(called: nn.Module, last: bool) -> Any:
    """Gradients are exchanged once a step, with the last micro-batch."""
    if isinstance(called, DistributedDataParallel) and not last:
        return called.no_sync()
    return nullcontext()


def _error(
    network: nn.Module, images: Images, rows: Labels, side: int, machine: Machine, processes: Processes
) -> float:
    """1 − top-1 on rows of the images, each process counting its share of them."""
    right = right_answers(network, images, side, machine, rows[processes.rank :: processes.count])
    count = torch.tensor(int(right.top1.sum()), device=machine.device)
    return 1 - int(processes.sum(count)) / len(rows)


def _state_after(
    row: Epoch, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, before: State | None
) -> State:
    weights, averaged = (_copied(dict(net.state_dict())) for net in (network, average))
    history = (*(before.history if before else ()), row)
    common = (weights, averaged, _copied(optimizer.state_dict()), history)
    error = min(row.error, row.average_error)
    if before is not None and before.best_error <= error:
        return State(*common, before.best, before.best_epoch, before.best_average, before.best_error)
    is_average = row.average_error <= row.error
    return State(*common, averaged if is_average else weights, row.epoch, is_average, error)


def _copied(value: Any) -> Any:
    """Tensors on the CPU with their strides: an optimizer's norms add up in the order of memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
