"""Bringing an experiment's folder to all of its trainings, however often that is interrupted.

results.parquet   one row a finished training, replaced whole after each
unfinished.pt     the training under way, after its last saved epoch
weights/          weights of cells that others start from
report.json figure.png figure.svg   made from the results, each time
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
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
from isonas.errors import LogError, RunError, TrainingError
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
from isonas.training.deployed import Upsampled
from isonas.training.examples import on_device
from isonas.training.loop import Checkpoint, prepare, train, training_errors
from isonas.training.machine import Machine
from isonas.training.retrain_folder import write_document, writing
from isonas.training.version import TRAINING_VERSION, require_this_version

_UNFINISHED = "unfinished.pt"
_SAVED_EVERY_SECONDS = 60.0
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


def plan_of(experiment: Experiment, scale: str, data: Dataset, machine: Machine, seeds: int | None) -> Plan:
    """The plan of an experiment at a scale, on a source's images; raises DataError."""
    at = experiment.scales[scale]
    part = part_of(data, at.classes, at.images)
    settings = Settings(
        experiment=experiment.trainings,
        scale=scale,
        data=data.source,
        data_fingerprint=data.fingerprint,
        class_names=part.class_names,
        images=len(part.training),
        scored_images=len(part.scored),
        scored_on=part.scored_on,
        image_side=part.training.side,
        fit=data.fit,
        decoder=data.decoder,
        recipe=at.recipe,
        device=machine.device,
        precision=machine.precision,
        threads=machine.threads,
        training_version=TRAINING_VERSION,
        cells={cell.name: f"{cell.network} at {cell.input_side}" for cell in experiment.cells(scale)},
    )
    return Plan(experiment, scale, part, settings, machine, seeds or at.seeds)


def trainings(folder: Path, plan: Plan) -> Iterator[tuple[Training, Results]]:
    """Train what the folder has not yet; yields each new training and all results so far.

    All cells are trained from one seed before any from the next: stopped at any time, what is there is
    the whole experiment, with fewer seeds. A cell whose start, another cell's weights, failed to train
    is left out. A training goes on from its last saved epoch. Raises RunError
    where the folder holds results under other settings or of another training version, LogError where it
    cannot be used.
    """
    with _held(folder):
        done = _recorded(folder, plan.settings)
        have = {(one.cell, one.seed) for one in done}
        counts: dict[str, Counts] = {}
        for seed in range(plan.seeds):
            for cell in plan.experiment.cells(plan.scale):
                failed = {one.cell for one in done if one.seed == seed and one.reason is not None}
                if (cell.name, seed) not in have and cell.after not in failed:
                    done.append(_trained(folder, plan, cell, seed, counts))
                    write_results(folder / RESULTS, plan.settings, done)
                    (folder / _UNFINISHED).unlink(missing_ok=True)
                    yield done[-1], Results(plan.settings, plan.seeds, tuple(done), folder)


def results_of(folder: Path, plan: Plan) -> Results:
    """The results that the folder holds; raises as `trainings` does."""
    return Results(plan.settings, plan.seeds, tuple(_recorded(folder, plan.settings)), folder)


def _recorded(folder: Path, settings: Settings) -> list[Training]:
    found = read_results(folder / RESULTS)
    if found is None:
        return []
    recorded, done = found
    require_this_version(folder, recorded.training_version, _ANEW)
    if differing := changed(recorded, settings):
        raise RunError(
            f"{folder} holds results of other settings: {', '.join(differing)}; give those as they were, "
            "or another folder with --run DIR."
        )
    return done


def _trained(folder: Path, plan: Plan, cell: Cell, seed: int, counts: dict[str, Counts]) -> Training:
    """One cell trained from one seed, or from where it was left; `counts` are those known by cell."""
    machine, part = plan.machine, plan.part
    weights = load(weights_path(folder, cell.after, seed).read_bytes()) if cell.after else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = cell.build(len(part.class_names), weights)
    if cell.name not in counts:
        counts[cell.name] = count(network, cell.input_side)
    training, scored = part.at(cell.input_side)
    whole = network if training.side == cell.input_side else Upsampled(network, cell.input_side)
    curve, checkpoint = _left(folder, cell, seed)
    before = sum(result.seconds for result in curve)
    began = saved = time.monotonic()
    reason = None
    try:
        with machine.threads_set(), training_errors():
            if checkpoint is not None:
                whole.load_state_dict(checkpoint.network)
            prepare(whole, machine)
            for result, after in train(
                whole,
                on_device(training, machine.device),
                on_device(scored, machine.device),
                plan.settings.recipe,
                machine,
                mirror=part.mirror,
                seed=seed,
                from_epoch=len(curve),
                optimizer_state=checkpoint.optimizer if checkpoint else None,
            ):
                curve.append(result)
                if time.monotonic() - saved >= _SAVED_EVERY_SECONDS:
                    _leave(folder, cell, seed, curve, after)
                    saved = time.monotonic()
        if any(other.after == cell.name for other in plan.experiment.cells(plan.scale)):
            _keep(weights_path(folder, cell.name, seed), network)
    except TrainingError as failure:
        reason = str(failure)
    last = curve[-1] if curve and reason is None else None
    return Training(
        cell=cell.name,
        seed=seed,
        network=cell.network,
        input_side=cell.input_side,
        internal_resolution=cell.internal_resolution,
        counts=counts[cell.name],
        accuracy=1 - last.error if last else None,
        accuracy_se=last.error_se if last else None,
        curve_accuracy=tuple(1 - result.error for result in curve),
        curve_loss=tuple(result.loss for result in curve),
        seconds=before + time.monotonic() - began,
        reason=reason,
    )


def _left(folder: Path, cell: Cell, seed: int) -> tuple[list[EpochResult], Checkpoint | None]:
    """Where this training was left: its curve and its state; nothing where it was not begun."""
    path = folder / _UNFINISHED
    if not path.exists():
        return [], None
    try:
        with path.open("rb") as stream:
            left: dict[str, Any] = torch.load(stream, weights_only=True, map_location="cpu")
        if (left["cell"], left["seed"]) != (cell.name, seed):
            return [], None
        require_this_version(folder, left.get("training_version", 1), _ANEW)
        curve = [EpochResult(**result) for result in left["curve"]]
        return curve, Checkpoint(left["network"], left["optimizer"])
    except RunError:
        raise
    except Exception as error:
        # A torn or foreign file raises whatever its bytes happen to mean.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LogError(f"{path} cannot be read ({reason}); remove it to train that one anew.") from None


def _leave(folder: Path, cell: Cell, seed: int, curve: list[EpochResult], after: Checkpoint) -> None:
    document = {
        "training_version": TRAINING_VERSION,
        "cell": cell.name,
        "seed": seed,
        "curve": [asdict(result) for result in curve],
        "network": after.network,
        "optimizer": after.optimizer,
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
