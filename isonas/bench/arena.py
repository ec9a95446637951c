"""A recorded table arranged for replays: what a search sees of it, and what it is scored by.

A search sees one training of each genome, and its front is chosen by that training's error, luck
included. So the front is scored by the other trainings of the genomes that it holds: their mean error.
The hypervolume of that is given as a share, and 100% may mean three things:

- `table`, the one that is compared and drawn: what a search reaches that has trained the whole table,
  chooses its front by what it saw, and is scored alike. Every search ends there. On the way it may lie
  above, where chance spared it a genome that looks better than it is.
- `best`: the whole table's front under the scoring error, the most that any choice could reach. No
  search can be sure to reach it: what tells its front is what no search sees. As it picks what was
  lucky in the scoring, it lies above the truth.
- `seen`: plainly, the front scored by the very error that chose it, against the whole table's. It
  never falls and ends at 100%, and it rewards luck.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from isonas.bench.table import Table, Training, read_table
from isonas.errors import LogError, UsageError
from isonas.genome import Genome
from isonas.hardware import Costs
from isonas.objectives import Reference, reference_of
from isonas.pareto import Floats, hypervolume, non_dominated
from isonas.search.feasible import feasible_set
from isonas.search.study import Study, study_of

GENOMES_AT_LEAST = 10
TRAININGS_AT_LEAST = 2

_FAILED_ERROR = 1.0
"""What counts as the error of a training that failed: no network, no right answer."""

_IMAGES_AT_MOST = 100_000
_IMAGES = 2_000
"""Validation images, where the errors are no counts of any number of images."""


@dataclass(frozen=True)
class View:
    """The table to a search that sees the trainings of one seed: points scaled to the reference box.

    `seen` and `scored` are (genomes, objectives), with the error of that training and with the mean
    error of the others. `seen_best` and `best` are the hypervolumes of the whole table's front under
    either, `reached` that of the front chosen by what is seen and scored by the others.
    """

    seen: Floats
    scored: Floats
    seen_best: float
    best: float
    reached: float


@dataclass(frozen=True)
class Arena:
    """A table's genomes that have all their trainings, as a study, and what is known of them.

    `trainings` are by genome, in the order of their seeds; `views` are by training. `left_out` counts
    genomes with fewer trainings, `images` the validation images. Seconds are those of `seconds_of`.
    """

    study: Study
    trainings: dict[Genome, tuple[Training, ...]]
    rows: dict[Genome, int]
    views: tuple[View, ...]
    images: int
    mean_seconds: float
    left_out: int


def read_arena(path: Path, trainings: int | None = None) -> Arena:
    """Read a table and use the first `trainings` trainings of its genomes (None: as many as any has).

    Raises LogError for a table that cannot be read or contradicts itself, UsageError for one that is
    too small.
    """
    table = read_table(path)
    found: dict[Genome, dict[int, Training]] = {}
    for training in table.trainings:
        _check(path, training, table.inputs.epochs)
        if training.seed in found.setdefault(training.genome, {}):
            raise LogError(f"{path} holds {training.genome} seed {training.seed} twice; record it anew.")
        found[training.genome][training.seed] = training
    used = trainings or max((len(by_seed) for by_seed in found.values()), default=0)
    if used < TRAININGS_AT_LEAST:
        raise UsageError(
            f"{path} has {used} trainings of each genome to use, and at least {TRAININGS_AT_LEAST} are "
            "needed, one to search by and others to score by; record more with --seeds."
        )
    kept = {
        genome: tuple(by_seed[seed] for seed in range(used))
        for genome, by_seed in found.items()
        if set(range(used)) <= set(by_seed)
    }
    if len(kept) < GENOMES_AT_LEAST:
        raise UsageError(
            f"{path} holds {len(kept)} genomes with {used} trainings, and at least {GENOMES_AT_LEAST} are "
            "needed; go on with the recording{' or use fewer --trainings' * (used > TRAININGS_AT_LEAST)}."
        )
    return _arena(path, table, kept, used, len(found) - len(kept))


def seconds_of(training: Training, device: str) -> float:
    """What a training takes on the simulated clock: processor seconds, which a machine that was busy
    while it recorded stretches least; on a GPU, where those say nothing, seconds by the clock."""
    return training.core_seconds if device == "cpu" else training.seconds


def _check(path: Path, training: Training, epochs: int) -> None:
    errors = training.error if training.reason is None else ()
    times = (training.seconds, training.core_seconds)
    if (
        training.seed < 0
        or (training.reason is None and len(errors) != epochs)
        or not all(0 <= error <= 1 for error in errors)
        or not all(0 < seconds < math.inf for seconds in times)
    ):
        raise LogError(
            f"{path} contradicts itself at {training.genome} seed {training.seed}: it needs {epochs} errors "
            "in [0, 1] and times above 0; record that table anew."
        )


def _arena(
    path: Path, table: Table, kept: dict[Genome, tuple[Training, ...]], used: int, left_out: int
) -> Arena:
    study = _restricted(path, study_of(table.inputs), list(kept))
    genomes = [study.feasible.columns.genome(row) for row in range(len(study.feasible.columns))]
    finals = np.array(
        [[t.error[-1] if t.reason is None else _FAILED_ERROR for t in kept[genome]] for genome in genomes]
    )
    seconds = [seconds_of(training, table.inputs.device) for genome in genomes for training in kept[genome]]
    views = tuple(_view(study.reference, study.costs, finals, seen) for seen in range(used))
    if not all(view.reached > 0 and view.seen_best > 0 for view in views):
        raise UsageError(
            f"no genome of {path} is better than chance within its costs, so there is no front to search "
            "for; record it with more --epochs."
        )
    return Arena(
        study=study,
        trainings=kept,
        rows={genome: row for row, genome in enumerate(genomes)},
        views=views,
        images=_validation_images([error for runs in kept.values() for run in runs for error in run.error]),
        mean_seconds=math.fsum(seconds) / len(seconds),
        left_out=left_out,
    )


def _restricted(path: Path, study: Study, genomes: Sequence[Genome]) -> Study:
    """The study whose feasible set, and reference box, are those of the given genomes alone."""
    try:
        rows = np.sort(study.feasible.rows(genomes))
    except LogError:
        raise LogError(
            f"{path} holds genomes that its own space and budget do not; record it anew."
        ) from None
    costs, inputs = study.costs.where(rows), study.inputs
    return replace(
        study,
        feasible=feasible_set(study.feasible.columns.where(rows)),
        costs=costs,
        reference=reference_of(inputs.objectives, costs, inputs.chance),
    )


def _view(reference: Reference, costs: Costs, finals: Floats, training: int) -> View:
    seen = _points(reference, costs, finals[:, training])
    scored = _points(reference, costs, np.delete(finals, training, axis=1).mean(axis=1))
    reached = hypervolume(scored[non_dominated(seen)])
    return View(seen, scored, hypervolume(seen), hypervolume(scored), reached)


def _points(reference: Reference, costs: Costs, errors: Floats) -> Floats:
    named = {
        name: errors if name == reference.error else getattr(costs, name) for name in reference.objectives
    }
    return np.stack([reference.scale(name, values) for name, values in named.items()], axis=1)


def _validation_images(errors: Sequence[float]) -> int:
    """Errors are counts of images divided by their number: the smallest number that all of them fit."""
    images = 1
    for error in Counter(errors):
        images = math.lcm(images, Fraction(error).limit_denominator(_IMAGES_AT_MOST).denominator)
        if images > _IMAGES_AT_MOST:
            return _IMAGES
    return images
