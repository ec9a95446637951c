"""Bringing an experiment's folder to all of its trainings, however often that is interrupted.

results.parquet   one row a finished training, replaced whole after each
unfinished.pt     the training under way, after its last saved epoch
weights/          weights of cells that others start from
report.json figure.png figure.svg   made from the results, each time
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from isonas.atomic import write_atomically
from isonas.data.dataset import Dataset
from isonas.errors import LogError, MemoryExhausted, RunError, TrainingError, UsageError
from isonas.evaluation import EpochResult
from isonas.paper.counts import count
from isonas.paper.experiment import Cell, Experiment
from isonas.paper.images import Part, part_of
from isonas.paper.results import (
    RESULTS,
    Counts,
    Results,
    Settings,
    Training,
    changed,
    read_results,
    weights_path,
    write_results,
)
from isonas.training.augmentation import check_randaugment
from isonas.training.deployed import Upsampled
from isonas.training.examples import on_device
from isonas.training.loop import Checkpoint, prepare, train, training_errors
from isonas.training.machine import Machine
from isonas.training.proxy import SMALLEST_PIECE, pieces_for
from isonas.training.recipe import Recipe
from isonas.training.recipes import FullRecipe
from isonas.training.retrain import Terms, optimizer_of, train_in_full
from isonas.training.retrain_folder import Epoch, State, write_document, writing
from isonas.training.version import TRAINING_VERSION, require_this_version

_UNFINISHED = "unfinished.pt"
_SAVED_EVERY_SECONDS = 60.0
_SAME_IMAGES = ("experiment", "scale", "data_fingerprint", "class_names")
_ANEW = "start anew in another folder with --run DIR"


@dataclass(frozen=True)
class Plan:
    """What is to be trained, on what: `seeds` fresh starts of every cell, numbered from 0."""

    experiment: Experiment
    scale: str
    part: Part
    settings: Settings
    machine: Machine
    seeds: int


def plan_of(
    experiment: Experiment,
    scale: str,
    data: Dataset,
    machine: Machine,
    seeds: int | None,
    *,
    recipe: FullRecipe | None = None,
    micro_batch: int | None = None,
) -> Plan:
    """The plan of an experiment at a scale, on a source's images, under the scale's recipe or another.

    Raises DataError where the images cannot be split, UsageError where they do not fill a batch of the
    other recipe or that is not a multiple of the micro-batch.
    """
    at = experiment.scales[scale]
    part = part_of(data, at.classes, at.images)
    if recipe is not None:
        _check(recipe, len(part.training_rows), micro_batch)
    settings = Settings(
        experiment=experiment.id,
        scale=scale,
        data=data.source,
        data_fingerprint=data.fingerprint,
        class_names=part.class_names,
        images=len(part.training_rows),
        scored_images=len(part.scored_rows),
        scored_on=part.scored_on,
        image_side=part.training.side,
        fit=data.fit,
        decoder=data.decoder,
        recipe=recipe or at.recipe,
        micro_batch=micro_batch,
        device=machine.device,
        precision=machine.precision,
        threads=machine.threads,
        training_version=TRAINING_VERSION,
        cells={cell.name: f"{cell.network} at {cell.input_side}" for cell in experiment.cells(scale)},
    )
    return Plan(experiment, scale, part, settings, machine, seeds or at.seeds)


def _check(recipe: FullRecipe, images: int, micro_batch: int | None) -> None:
    if recipe.batch_size > images:
        raise UsageError(
            f"the recipe's batch of {recipe.batch_size} is more than the {images:,} training images; give a "
            "YAML file with a smaller batch_size as --recipe, or more images."
        )
    if micro_batch and not _shares(recipe, -(-recipe.batch_size // micro_batch)):
        raise UsageError(
            f"--micro-batch {micro_batch} does not share out the recipe's batch of {recipe.batch_size}; give "
            "one that divides it, an even one where the recipe mixes images."
        )
    check_randaugment(recipe)
    optimizer_of(nn.Linear(1, 1), recipe)


def planned(plan: Plan) -> str:
    """What is going to be trained, as understood."""
    settings = plan.settings
    optimizer = settings.recipe.optimizer if isinstance(settings.recipe, FullRecipe) else "SGD"
    return (
        f"{plan.experiment.id} at the {plan.scale} scale: {len(settings.cells)} networks from {plan.seeds} "
        f"seed{'s' * (plan.seeds != 1)}, {settings.images:,} images of {settings.classes} classes of "
        f"{settings.data} ({settings.image_side} pixels a side), {settings.recipe.epochs} epochs of "
        f"{optimizer} at batch {settings.recipe.batch_size}, {settings.precision} on {settings.device}, "
        f"scored on {settings.scored_images:,} images ({settings.scored_on}),"
    )


def trainings(folder: Path, plan: Plan) -> Iterator[tuple[Training, Results]]:
    """Train what the folder has not yet; yields each new training and all results so far.

    All cells are trained from one seed before any from the next: stopped at any time, what is there is
    the whole experiment, with fewer seeds. A cell whose start, another cell's weights, failed to train
    is left out. A training goes on from its last saved epoch. Raises RunError where the folder holds
    results under other settings, or of another training version and not all of them; LogError where it
    cannot be used.
    """
    with _held(folder):
        _, done = _recorded(folder, plan)
        counts: dict[str, Counts] = {}
        while (missing := _missing(plan, done)) is not None:
            done.append(_trained(folder, plan, *missing, counts))
            write_results(folder / RESULTS, plan.settings, done)
            (folder / _UNFINISHED).unlink(missing_ok=True)
            yield done[-1], Results(plan.settings, plan.seeds, tuple(done), folder)


def results_of(folder: Path, plan: Plan) -> Results:
    """The results that the folder holds, under the settings it records; raises as `trainings` does."""
    settings, done = _recorded(folder, plan)
    return Results(settings, plan.seeds, tuple(done), folder)


def _missing(plan: Plan, done: list[Training]) -> tuple[Cell, int] | None:
    """The cell to train next, and the seed."""
    have = {(one.cell, one.seed) for one in done}
    failed = {(one.cell, one.seed) for one in done if one.reason is not None}
    for seed in range(plan.seeds):
        for cell in plan.experiment.cells(plan.scale):
            if (cell.name, seed) not in have and (cell.after, seed) not in failed:
                return cell, seed
    return None


def _recorded(folder: Path, plan: Plan) -> tuple[Settings, list[Training]]:
    found = read_results(folder / RESULTS)
    if found is None:
        return plan.settings, []
    recorded, done = found
    differing = changed(recorded, plan.settings)
    older = recorded.training_version != TRAINING_VERSION
    if older:
        if _missing(plan, done) is not None:
            require_this_version(folder, recorded.training_version, _ANEW)
        # How that version trained is reported as it was, and need not be how this one does.
        differing = [key for key in differing if key in _SAME_IMAGES]
    if differing:
        raise RunError(
            f"{folder} holds results of other settings: {', '.join(differing)}; give those as they were, "
            "or another folder with --run DIR."
        )
    return (recorded if older else plan.settings), done


@dataclass
class _Standing:
    """Where a training stands: its curve so far, the state after its last epoch, and how it is cut."""

    curve: list[EpochResult]
    state: Checkpoint | State | None
    pieces: int = 1


def _trained(folder: Path, plan: Plan, cell: Cell, seed: int, counts: dict[str, Counts]) -> Training:
    """One cell trained from one seed, or from where it was left; `counts` are those known by cell.

    Where memory does not hold a batch it is taken in twice as many pieces, from the last epoch on.
    """
    weights = load(weights_path(folder, cell.after, seed).read_bytes()) if cell.after else {}

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cell.build(len(plan.part.class_names), weights)

    if cell.name not in counts:
        counts[cell.name] = count(build(), cell.input_side)
    standing = _left(folder, cell, seed)
    standing.pieces = _pieces(plan, counts[cell.name])
    before = sum(result.seconds for result in standing.curve)
    began = time.monotonic()
    reason: str | None = None
    while True:
        try:
            _train(folder, plan, cell, seed, build, standing)
        except MemoryExhausted as failure:
            recipe = plan.settings.recipe
            if not _shares(recipe, 2 * standing.pieces):
                size = -(-recipe.batch_size // standing.pieces)
                reason = f"memory does not hold even {size} images at a time ({failure})"
        except TrainingError as failure:
            reason = str(failure)
        if reason is not None or len(standing.curve) == plan.settings.recipe.epochs:
            break
        gc.collect()
        torch.cuda.empty_cache()
        standing.pieces *= 2
    last = standing.curve[-1] if standing.curve and reason is None else None
    return Training(
        cell=cell.name,
        seed=seed,
        network=cell.network,
        input_side=cell.input_side,
        internal_resolution=cell.internal_resolution,
        counts=counts[cell.name],
        accuracy=1 - last.error if last else None,
        accuracy_se=last.error_se if last else None,
        curve_accuracy=tuple(1 - result.error for result in standing.curve),
        curve_loss=tuple(result.loss for result in standing.curve),
        seconds=before + time.monotonic() - began,
        reason=reason,
        micro_batch=last.micro_batch if last else None,
    )


def _pieces(plan: Plan, counts: Counts) -> int:
    """In how many pieces a batch is begun: as --micro-batch says, else by a CPU's cache as the proxy's."""
    recipe = plan.settings.recipe
    if plan.settings.micro_batch is not None:
        return -(-recipe.batch_size // plan.settings.micro_batch)
    largest = counts.activations.get("activations_largest_without_input", 0)
    pieces = pieces_for(largest, recipe.batch_size, plan.machine.device)
    while pieces > 1 and not _shares(recipe, pieces):
        pieces -= 1
    return pieces


def _shares(recipe: Recipe | FullRecipe, pieces: int) -> bool:
    """Whether a recipe's batch may go through a network in so many pieces."""
    size, rest = divmod(recipe.batch_size, pieces)
    if isinstance(recipe, FullRecipe) and (rest or ((recipe.mixup or recipe.cutmix) and size % 2)):
        return False
    return size >= SMALLEST_PIECE


def _train(
    folder: Path, plan: Plan, cell: Cell, seed: int, build: Callable[[], nn.Module], standing: _Standing
) -> None:
    """Train to the end, `standing` moving with every epoch; raises TrainingError."""
    saved = time.monotonic()
    with plan.machine.threads_set(), training_errors():
        network, epochs = _epochs(plan, cell, seed, build, standing)
        for result, standing.state in epochs:
            standing.curve.append(result)
            if time.monotonic() - saved >= _SAVED_EVERY_SECONDS:
                _leave(folder, cell, seed, standing)
                saved = time.monotonic()
        if any(other.after == cell.name for other in plan.experiment.cells(plan.scale)):
            if isinstance(standing.state, State):
                network.load_state_dict(standing.state.average)
            _keep(weights_path(folder, cell.name, seed), network)


Epochs = Iterator[tuple[EpochResult, Checkpoint | State]]


def _epochs(
    plan: Plan, cell: Cell, seed: int, build: Callable[[], nn.Module], standing: _Standing
) -> tuple[nn.Module, Epochs]:
    """A fresh network, and the epochs that remain of its training."""
    machine, part, recipe = plan.machine, plan.part, plan.settings.recipe
    network, state, first = build(), standing.state, len(standing.curve)
    if isinstance(recipe, FullRecipe):
        return network, _full_epochs(plan, recipe, cell, seed, network, standing)
    training, scored = part.at(cell.input_side)
    whole = network if training.side == cell.input_side else Upsampled(network, cell.input_side)
    if isinstance(state, Checkpoint):
        whole.load_state_dict(state.network)
    prepare(whole, machine)
    return network, train(
        whole,
        on_device(training, machine.device, part.training_rows),
        on_device(scored, machine.device, part.scored_rows),
        recipe,
        machine,
        classes=len(part.class_names),
        mirror=part.mirror,
        seed=seed,
        from_epoch=first,
        optimizer_state=state.optimizer if isinstance(state, Checkpoint) else None,
        pieces=standing.pieces,
    )


def _full_epochs(
    plan: Plan, recipe: FullRecipe, cell: Cell, seed: int, network: nn.Module, standing: _Standing
) -> Epochs:
    """Epochs under a retraining's recipe; the results are those of the weights' moving average."""
    machine, part = plan.machine, plan.part
    terms = Terms(
        input_side=cell.input_side,
        recipe=recipe,
        micro_batch=max(recipe.batch_size // standing.pieces, 1),
        seed=seed,
        device=machine.device,
        precision=machine.precision,
        threads=machine.threads,
    )
    workers = 0 if machine.device == "cpu" else min(8, machine.threads)
    state = standing.state if isinstance(standing.state, State) else None
    for after in train_in_full(
        lambda: network,
        terms,
        part.dataset(),
        part.training_rows,
        part.scored,
        part.scored_rows,
        state=state,
        workers=workers,
    ):
        row = after.history[-1]
        se = math.sqrt(row.average_error * (1 - row.average_error) / len(part.scored_rows))
        yield (
            EpochResult(row.epoch, row.average_error, se, row.loss, row.seconds, terms.micro_batch),
            after,
        )


def _left(folder: Path, cell: Cell, seed: int) -> _Standing:
    """Where this training was left; nothing where it was not begun."""
    path = folder / _UNFINISHED
    if not path.exists():
        return _Standing([], None)
    try:
        with path.open("rb") as stream:
            left: dict[str, Any] = torch.load(stream, weights_only=True, map_location="cpu")
        if (left["cell"], left["seed"]) != (cell.name, seed):
            return _Standing([], None)
        require_this_version(folder, left.get("training_version", 1), _ANEW)
        curve = [EpochResult(**result) for result in left["curve"]]
        state = left["state"]
        if "history" in state:
            return _Standing(
                curve, State(**{**state, "history": tuple(Epoch(**e) for e in state["history"])})
            )
        return _Standing(curve, Checkpoint(**state))
    except RunError:
        raise
    except Exception as error:
        # A torn or foreign file raises whatever its bytes happen to mean.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LogError(f"{path} cannot be read ({reason}); remove it to train that one anew.") from None


def _leave(folder: Path, cell: Cell, seed: int, standing: _Standing) -> None:
    assert standing.state is not None
    state = dict(vars(standing.state))
    if isinstance(standing.state, State):
        state["history"] = [asdict(row) for row in standing.state.history]
    document = {
        "training_version": TRAINING_VERSION,
        "cell": cell.name,
        "seed": seed,
        "curve": [asdict(result) for result in standing.curve],
        "state": state,
    }
    with writing(folder):
        write_document(folder / _UNFINISHED, document)


def _keep(path: Path, network: nn.Module) -> None:
    tensors: Mapping[str, Tensor] = network.state_dict()
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda stream: stream.write(content))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder, made where it is not there, held for writing by this process alone."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise LogError(f"{folder} is being written by another process; wait for it, or end it.") from None
    try:
        yield
    finally:
        lock.release()
