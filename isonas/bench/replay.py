"""One search replayed on a table: the real loop, asked and told in simulated time, training nothing."""

from __future__ import annotations

import heapq
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isonas.bench.arena import Arena, View, seconds_of
from isonas.errors import LogError, TrainingError
from isonas.evaluation import EpochResult
from isonas.genome import Genome
from isonas.pareto import hypervolume, non_dominated
from isonas.search.drive import drive
from isonas.search.engines import Outcome
from isonas.search.inputs import create_run
from isonas.search.log import COMPLETE, FAILED, RUNNING, STOPPED, Trial, hold
from isonas.search.run import search
from isonas.search.study import Study


@dataclass(frozen=True)
class Length:
    """How far a replay goes: at least so many ended trials and so many simulated seconds, or to where
    every genome of the table was asked for. Samplers are so compared at equal trials and equal seconds,
    whatever the genomes that they prefer take to train."""

    trials: int
    seconds: float


@dataclass(frozen=True)
class Setting:
    """What replays have in common: who trains, whether trials are stopped early, and whether (and in
    which folder) each is logged as a search is."""

    workers: int = 1
    early_stopping: bool = False
    log: Path | None = None


@dataclass(frozen=True)
class Shares:
    """Hypervolume after each ended trial, by the three meanings of 100% that `isonas.bench.arena` has."""

    table: tuple[float, ...]
    best: tuple[float, ...]
    seen: tuple[float, ...]


@dataclass(frozen=True)
class Replay:
    """What came of one search, trial by trial in the order in which they ended.

    `ended` are simulated seconds since the start; `shares` are the hypervolumes of the front so far.
    `training_seconds` are the simulated ones of all these trials together. `driver_seconds` are by the
    real clock: all that the loop took to bring each trial to its end (ask, tell, and the log where there
    is one).
    """

    sampler: str
    seed: int
    ended: tuple[float, ...]
    shares: Shares
    training_seconds: float
    stopped: int
    failed: int
    duplicates: int
    infeasible: int
    driver_seconds: tuple[float, ...] = field(compare=False)


def replay(arena: Arena, sampler: str, seed: int, length: Length, setting: Setting) -> Replay:
    """Search the table from one seed; the search sees training `seed` modulo their number.

    Raises LogError where the log cannot be written.
    """
    training = seed % len(arena.views)
    engine = SimulatedEngine(arena, training, setting.workers)
    study = replace(
        arena.study,
        inputs=replace(
            arena.study.inputs,
            sampler=sampler,
            seed=seed,
            early_stopping=setting.early_stopping,
            trials=length.trials,
            workers=setting.workers,
        ),
    )
    trials: list[Trial] = []
    ended: list[float] = []
    driver_seconds: list[float] = []
    with _ending(study, engine, len(arena.rows), setting.log) as ending:
        began = time.perf_counter()
        for trial in ending:
            driver_seconds.append(time.perf_counter() - began)
            trials.append(trial)
            ended.append(engine.now)
            if len(trials) >= length.trials and engine.now >= length.seconds:
                break
            began = time.perf_counter()
    states, asked = Counter(trial.state for trial in trials), Counter(trial.genome for trial in trials)
    return Replay(
        sampler=sampler,
        seed=seed,
        ended=tuple(ended),
        shares=shares_of(arena.views[training], arena.rows, trials),
        training_seconds=math.fsum(trial.train_seconds or 0.0 for trial in trials),
        stopped=states[STOPPED],
        failed=states[FAILED],
        duplicates=asked.total() - len(asked),
        infeasible=sum(trial.genome not in arena.rows for trial in trials),
        driver_seconds=tuple(driver_seconds),
    )


def shares_of(view: View, rows: Mapping[Genome, int], trials: Sequence[Trial]) -> Shares:
    """The shares of the table's hypervolume after each ended trial."""
    complete: list[int] = []
    scored, seen = [], []
    now = seen_now = 0.0
    for trial in trials:
        if trial.state == COMPLETE:
            complete.append(rows[trial.genome])
            front = np.array(complete)[non_dominated(view.seen[complete])]
            now, seen_now = hypervolume(view.scored[front]), hypervolume(view.seen[front])
        scored.append(now)
        seen.append(seen_now)
    return Shares(
        table=tuple(value / view.reached for value in scored),
        best=tuple(value / view.best for value in scored),
        seen=tuple(value / view.seen_best for value in seen),
    )


@contextmanager
def _ending(
    study: Study, engine: SimulatedEngine, trials: int, log: Path | None
) -> Iterator[Iterator[Trial]]:
    """The trials of a search as they end, logged in a folder of their own that is then removed."""
    if log is None:
        steps = drive(study, {}, engine, trials, give_up=False)
        yield (step.trial for step in steps if step.trial.state != RUNNING)
        return
    try:
        folder = tempfile.TemporaryDirectory(dir=log, prefix="replay-")
    except OSError as error:
        raise LogError(f"{log} cannot be written ({error.strerror}); give another --log FOLDER.") from None
    with folder as name:
        run = Path(name) / "run"
        create_run(run, study.inputs, study.reference)
        with hold(run):
            yield search(study, run, engine, trials)


@dataclass(frozen=True)
class RecordedState:
    """Stands for a trained network: as many weights as it has parameters, all zero."""

    params: int

    def weights(self) -> Mapping[str, npt.NDArray[Any]]:
        """One array, so that a log writes what it would write."""
        return {"weights": np.zeros(self.params, np.float32)}


class SimulatedEngine:
    """Answers from the trainings of one seed, on a clock that only trainings move.

    A training takes its recorded seconds, in equal parts an epoch; one that failed takes all of them,
    whatever it was asked for. Asking and telling take no simulated time.
    """

    def __init__(self, arena: Arena, training: int, workers: int) -> None:
        self.workers = workers
        self.now = 0.0
        """Simulated seconds since the start."""
        self._arena = arena
        self._training = training
        self._flying: list[tuple[float, int, int, Outcome]] = []
        self._submitted = 0

    def submit(self, key: int, *arguments: Any) -> None:
        """Start a training now; the arguments are those of `isonas.evaluation.Evaluate`."""
        genome, _, from_epoch, to_epoch, _ = arguments
        seconds, outcome = self._answer(genome, from_epoch, to_epoch)
        # Of trainings that end together, the one that was started first is first.
        heapq.heappush(self._flying, (self.now + seconds, self._submitted, key, outcome))
        self._submitted += 1

    def next(self) -> tuple[int, Outcome]:
        """Move the clock to the next training's end: its key and its result."""
        self.now, _, key, outcome = heapq.heappop(self._flying)
        return key, outcome

    def _answer(self, genome: Genome, from_epoch: int, to_epoch: int) -> tuple[float, Outcome]:
        arena = self._arena
        if genome not in arena.rows:
            return 0.0, TrainingError(f"{genome} is not in the table")
        training = arena.trainings[genome][self._training]
        seconds = seconds_of(training, arena.study.inputs.device)
        if training.reason is not None:
            return seconds, TrainingError(f"{genome} failed when it was recorded: {training.reason}")
        part = seconds / len(training.error)
        curve = tuple(
            EpochResult(epoch, error, math.sqrt(error * (1 - error) / arena.images), math.nan, part)
            for epoch, error in enumerate(training.error[from_epoch:to_epoch], from_epoch + 1)
        )
        state = RecordedState(int(arena.study.costs.params[arena.rows[genome]]))
        return part * len(curve), (curve, state)
