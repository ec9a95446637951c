"""How fast the proxy trains, beside a plain loop over timm's loader, and beside the machine's limit."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from isonas.cost import Deployment, madds
from isonas.data.dataset import Dataset, split_validation
from isonas.data.sources import open_dataset
from isonas.errors import IsonasError, TrainingError
from isonas.evaluation import trial_seed
from isonas.genome import Genome
from isonas.space import columns_of
from isonas.training.machine import Machine, usable_cores
from isonas.training.proxy import ProxyEvaluator, ProxySetting
from isonas.training.proxy_input import proxy_input
from isonas.training.recipe import Recipe

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
"""Processor flags that decide how fast matrices are multiplied."""


@dataclass(frozen=True)
class Leg:
    """One whole trial in a process of its own.

    `seconds` runs from the process's start to its result: imports, decoding, training, validation.
    `epoch_seconds` is training and validation alone. `images` counts training images, epochs times
    images; `images_per_second` is by `seconds`.
    """

    seconds: float
    epoch_seconds: float
    images: int
    error: float

    @property
    def images_per_second(self) -> float:
        """Training images a second over the whole trial."""
        return self.images / self.seconds


@dataclass(frozen=True)
class Round:
    """The two legs of one paired run, one after the other on the same machine."""

    proxy: Leg
    plain: Leg

    @property
    def ratio(self) -> float:
        """How many times the plain loop's images a second the proxy's are, whole trials compared."""
        return self.proxy.images_per_second / self.plain.images_per_second

    @property
    def epochs_ratio(self) -> float:
        """The same of epochs alone, without start-up and decoding."""
        return (self.proxy.images / self.proxy.epoch_seconds) / (self.plain.images / self.plain.epoch_seconds)


@dataclass(frozen=True)
class ProxySpeed:
    """Paired rounds on one machine, and how much of its matrix product's speed the proxy uses.

    `peak_flops` are floating-point operations a second (two a MAdd) of a large matrix product, by
    precision, with the proxy's threads. `peak_share` is that of the proxy's epochs in its own precision:
    6 operations a MAdd and training image (forward, and twice as much backward), 2 a validation image.
    """

    genome: str
    side: int
    data: str
    machine: Machine
    batch_size: int
    plain_batch_size: int
    epochs: int
    validation_images: int
    processor: str
    flags: tuple[str, ...]
    peak_flops: dict[str, float]
    madds: int
    rounds: tuple[Round, ...]

    @property
    def ratio(self) -> float:
        """The rounds' median."""
        return statistics.median(each.ratio for each in self.rounds)

    @property
    def epochs_ratio(self) -> float:
        """The rounds' median of epochs alone."""
        return statistics.median(each.epochs_ratio for each in self.rounds)

    def peak_share(self, leg: Callable[[Round], Leg], precision: str) -> float:
        """The median share of a precision's peak that epochs of a leg reach."""
        shares = []
        for each in self.rounds:
            done = leg(each)
            operations = self.madds * (6 * done.images + 2 * self.validation_images * self.epochs)
            shares.append(operations / done.epoch_seconds / self.peak_flops[precision])
        return statistics.median(shares)


@dataclass(frozen=True)
class _Task:
    """What both legs are given; decoded images go to the folder `cache`, which is fresh."""

    genome: Genome
    data: str
    cache: Path
    side: int
    recipe: Recipe
    machine: Machine
    seed: int


def proxy_speed(
    genome: Genome,
    data: str,
    recipe: Recipe,
    plain_batch_size: int,
    machine: Machine,
    largest_input: int,
    seed: int,
    rounds: int,
) -> ProxySpeed:
    """Train a genome by the proxy and plainly, `rounds` times in turn, each from scratch.

    Images are read at the proxy's side for sources and inputs of at most `largest_input` pixels. The
    plain loop takes fp32, all of the machine's threads, as many loader processes as there are cores and
    batches of `plain_batch_size`. Raises what opening the images and training raise.
    """
    with tempfile.TemporaryDirectory() as folder:
        opened = open_dataset(data, Path(folder))
        images = split_validation(opened.train, seed)
        largest = min(largest_input, opened.train.side)
    side = proxy_input(genome.internal_resolution, largest, largest)
    plain_recipe = Recipe(recipe.epochs, recipe.epoch_images, min(plain_batch_size, len(images[0])))
    plain_machine = Machine(machine.device, "fp32", machine.threads)

    def leg(run: Callable[[_Task, Dataset], tuple[float, int, float]], recipe: Recipe, on: Machine) -> Leg:
        with tempfile.TemporaryDirectory() as cache:
            return _apart(run, _Task(genome, data, Path(cache), side, recipe, on, seed))

    found = [
        Round(leg(_by_proxy, recipe, machine), leg(_plainly, plain_recipe, plain_machine))
        for _ in range(rounds)
    ]
    return ProxySpeed(
        genome=str(genome),
        side=side,
        data=opened.source,
        machine=machine,
        batch_size=recipe.batch_size,
        plain_batch_size=plain_recipe.batch_size,
        epochs=recipe.epochs,
        validation_images=len(images[1]),
        processor=_processor(machine.device),
        flags=_flags(),
        peak_flops={precision: _peak_flops(machine, precision) for precision in ("fp32", machine.precision)},
        madds=int(madds(columns_of([genome]), Deployment(side, opened.classes))[0]),
        rounds=tuple(found),
    )


def _apart(run: Callable[[_Task, Dataset], tuple[float, int, float]], task: _Task) -> Leg:
    """Run a leg in a fresh process and take its time from outside."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_leg, args=(run, task, theirs))
    began = time.perf_counter()
    process.start()
    theirs.close()
    try:
        outcome = ours.recv()
    except EOFError:
        process.join()
        raise TrainingError(f"the process that trained ended with code {process.exitcode}") from None
    seconds = time.perf_counter() - began
    process.join()
    if isinstance(outcome, IsonasError):
        raise outcome
    epoch_seconds, images, error = outcome
    return Leg(seconds, epoch_seconds, images, error)


def _leg(run: Callable[[_Task, Dataset], tuple[float, int, float]], task: _Task, answer: Connection) -> None:
    try:
        answer.send(run(task, open_dataset(task.data, task.cache, tell=False)))
    except IsonasError as error:
        answer.send(error)


def _by_proxy(task: _Task, data: Dataset) -> tuple[float, int, float]:
    setting = ProxySetting(task.data, task.cache, task.recipe, task.machine, task.side, task.side, task.seed)
    seed = trial_seed(task.seed, task.genome)
    curve, _ = ProxyEvaluator(data, setting)(task.genome, seed, 0, task.recipe.epochs, None)
    images = len(split_validation(data.train, task.seed)[0])
    count = min(task.recipe.epoch_images or images, images)
    batch = min(task.recipe.batch_size, count)
    return sum(each.seconds for each in curve), count // batch * batch * task.recipe.epochs, curve[-1].error


def _plainly(task: _Task, data: Dataset) -> tuple[float, int, float]:
    from isonas.bench.plain import train_plainly

    torch.set_num_threads(task.machine.threads)
    seconds, images, error = train_plainly(
        task.genome, data, task.side, task.recipe, task.machine.device, usable_cores(), task.seed
    )
    return sum(seconds), images, error


def _peak_flops(machine: Machine, precision: str) -> float:
    side, dtype = (8192, torch.bfloat16) if machine.device == "cuda" else (2048, torch.bfloat16)
    if precision == "fp32":
        dtype = torch.float32
    matrix = torch.ones(side, side, dtype=dtype, device=machine.device)
    best = float("inf")
    with machine.threads_set():
        for _ in range(8):
            began = time.perf_counter()
            # Read back one number, which waits for a GPU to be done.
            (matrix @ matrix)[0, 0].item()
            best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {usable_cores()} cores"


def _flags() -> tuple[str, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    there = {
        flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()
    }
    return tuple(flag for flag in FLAGS if flag in there)
