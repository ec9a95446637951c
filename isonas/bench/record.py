"""Training the genomes of a space one after the other, into a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np

from isonas.bench.table import Training, read_table, write_table
from isonas.cost import Deployment
from isonas.errors import IsonasError, LogError, RunError, TrainingError
from isonas.evaluation import trial_seed
from isonas.genome import Genome
from isonas.hardware import costs, require_feasible
from isonas.search.inputs import Inputs, changed
from isonas.search.workers import LocalWorkers
from isonas.training.proxy import ProxySetting, evaluator_of
from isonas.training.version import require_this_version

Train = Callable[[Genome, int], Training]


def genomes_to_record(inputs: Inputs, sample: int | None) -> list[Genome]:
    """The feasible genomes in an order drawn by the study's seed; the first `sample` of them.

    A larger sample therefore holds every smaller one. Raises BudgetError where nothing is feasible.
    """
    columns = replace(inputs.space, input=inputs.input).columns
    of = costs(columns, Deployment(inputs.input, inputs.classes), inputs.budget)
    feasible = require_feasible(columns, of, inputs.budget)
    order = np.random.default_rng(inputs.seed).permutation(feasible)
    return [columns.genome(int(index)) for index in order[:sample]]


def record(
    path: Path,
    inputs: Inputs,
    genomes: list[Genome],
    seeds: int,
    start: Callable[[], Train],
    *,
    first_seed: int = 0,
    workers: int,
    deadline: float = float("inf"),
) -> Iterator[tuple[Training, int, int]]:
    """Bring a table to `seeds` trainings of every genome: each new one, how many are in, of how many.

    They are numbered from `first_seed`. What the table holds already is kept. All trainings of one
    genome follow each other, so that an unfinished table is a smaller table. Nothing starts after
    `deadline` (of `time.monotonic`). Raises RunError where the table was recorded with other inputs or of
    another training version, LogError where it cannot be used.
    """
    lock = filelock.FileLock(f"{path}.lock", timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise LogError(f"{path} is being recorded by another process; wait for it, or end it.") from None
    except OSError as error:
        raise LogError(
            f"{path} cannot be written ({error.strerror}); mend that, or give another place."
        ) from None
    try:
        trainings = _recorded(path, inputs)
        done = {(training.genome, training.seed) for training in trainings}
        numbers = range(first_seed, first_seed + seeds)
        wanted = [(genome, seed) for genome in genomes for seed in numbers]
        missing = [pair for pair in wanted if pair not in done]
        have = len(wanted) - len(missing)
        with LocalWorkers(start, min(workers, max(len(missing), 1))) as pool:
            waiting, flying = iter(enumerate(missing)), 0
            while True:
                while flying < pool.workers and time.monotonic() < deadline:
                    if (item := next(waiting, None)) is None:
                        break
                    pool.submit(item[0], *item[1])
                    flying += 1
                if not flying:
                    return
                _, training = pool.next()
                flying -= 1
                if isinstance(training, IsonasError):
                    raise training
                trainings.append(training)
                have += 1
                write_table(path, inputs, trainings)
                yield training, have, len(wanted)
    finally:
        lock.release()


def _recorded(path: Path, inputs: Inputs) -> list[Training]:
    if not path.exists():
        return []
    table = read_table(path)
    require_this_version(path, table.inputs.training_version, "record a new table")
    if differing := changed(table.inputs, inputs):
        raise RunError(
            f"{path} was recorded with other inputs: {', '.join(differing)}; give those as they were, or "
            "move that table away."
        )
    return list(table.trainings)


def trainer_of(setting: ProxySetting, study_seed: int) -> Train:
    """What trains one genome over the whole schedule, in the process that calls this."""
    evaluate = evaluator_of(setting)

    def train(genome: Genome, seed: int) -> Training:
        began, cores_began = time.perf_counter(), time.process_time()
        error: tuple[float, ...] = ()
        reason = state = None
        try:
            curve, state = evaluate(
                genome, trial_seed(study_seed, genome, seed), 0, setting.recipe.epochs, None
            )
            error = tuple(result.error for result in curve)
        except TrainingError as failure:
            reason = str(failure)
        seconds, cores = time.perf_counter() - began, time.process_time() - cores_began
        return Training(
            genome=genome,
            seed=seed,
            error=error,
            test_error=evaluate.held_back_error(genome, state) if state is not None else None,
            seconds=seconds,
            core_seconds=cores,
            reason=reason,
        )

    return train
