"""The one loop of a search: ask, train to the next rung, judge, until enough trials are done."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from isonas.errors import IsonasError, LogError, TrainingError
from isonas.evaluation import TrainingState, trial_seed
from isonas.genome import stem_block
from isonas.search.engines import Engine, Outcome
from isonas.search.halving import judge, rungs_of
from isonas.search.log import COMPLETE, FAILED, RUNNING, STOPPED, Trial
from isonas.search.samplers import propose
from isonas.search.study import Study
from isonas.training.proxy_input import proxy_input

ALIKE_FAILURES = 3


@dataclass(frozen=True)
class Step:
    """A trial's row as it now stands, to be logged, and the network it trained, if it has just ended."""

    trial: Trial
    state: TrainingState | None = None


def drive(
    study: Study,
    logged: Mapping[int, Trial],
    engine: Engine,
    trials: int,
    deadline: float = float("inf"),
) -> Iterator[Step]:
    """Bring a study to `trials` trials, yielding each row before anything is built on it.

    `logged` trials that ended are kept; those that were running, and the numbers that are missing, are
    asked again under their numbers. No trial starts after `deadline` (of `time.monotonic`). Raises
    LogError where asking again gives another genome than was logged, TrainingError where the first
    trials all fail alike.
    """
    known = dict(logged)
    rungs = rungs_of(study.inputs.epochs, early_stopping=study.inputs.early_stopping)
    numbers = iter([n for n in range(trials) if n not in known or known[n].state == RUNNING])
    flying: set[int] = set()
    _stop_if_hopeless(known)
    while True:
        while len(flying) < engine.workers and time.monotonic() < deadline:
            if (number := next(numbers, None)) is None:
                break
            if (asked := _ask(study, known, number, flying)) is None:
                break
            yield Step(asked)
            known[number] = asked
            flying.add(number)
            engine.submit(number, asked.genome, asked.seed, 0, _after(asked.epochs, rungs), None)
        if not flying:
            return
        number, outcome = engine.next()
        if isinstance(outcome, IsonasError) and not isinstance(outcome, TrainingError):
            raise outcome
        trial = _trained(known[number], outcome)
        state = None if isinstance(outcome, IsonasError) else outcome[1]
        if trial.state == RUNNING and trial.epochs < study.inputs.epochs:
            lower = [known[other] for other in sorted(known) if other < number]
            trial = judge(trial, lower, study)
        if trial.state == RUNNING and trial.epochs < study.inputs.epochs:
            yield Step(trial)
            known[number] = trial
            to_epoch = _after(trial.epochs, rungs)
            engine.submit(number, trial.genome, trial.seed, trial.epochs, to_epoch, state)
            continue
        ended = trial.state if trial.state in (FAILED, STOPPED) else COMPLETE
        trial = replace(trial, state=ended, finished_at=_now())
        yield Step(trial, state)
        known[number] = trial
        flying.remove(number)
        _stop_if_hopeless(known)


def _ask(study: Study, known: Mapping[int, Trial], number: int, flying: set[int]) -> Trial | None:
    """The row of the next trial; None where every feasible genome is taken."""
    before = known.get(number)
    pending = set(before.pending if before is not None else ()) | {n for n in flying if n < number}
    history = [known[n] for n in range(number) if n in known]
    finished = [trial for trial in history if trial.number not in pending and trial.state != RUNNING]
    waiting = [trial for trial in history if trial.number in pending or trial.state == RUNNING]
    taken = np.zeros(len(study.feasible.columns), np.bool_)
    taken[study.feasible.rows([trial.genome for trial in history])] = True
    later = study.feasible.rows([trial.genome for n, trial in known.items() if n > number])
    proposal = propose(study, number, finished, waiting, taken)
    if proposal is not None and proposal.index in later:
        # Only where the log is not what this seed would have given; no genome is trained twice.
        taken[later] = True
        proposal = propose(study, number, finished, waiting, taken)
    if proposal is None:
        return None
    index = proposal.index
    genome = study.feasible.columns.genome(index)
    if before is not None and before.genome != genome:
        raise LogError(
            f"trial {number} was {before.genome} and would now be {genome}; the log or the versions of "
            "isonas and Optuna have changed, so start a new run."
        )
    inputs = study.inputs
    side = proxy_input(genome.internal_resolution, inputs.source_side, inputs.input)
    asked = Trial(
        number=number,
        state=RUNNING,
        genome=genome,
        params=int(study.costs.params[index]),
        madds=int(study.costs.madds[index]),
        peak_bytes=int(study.costs.peak_bytes[index]),
        weight_bytes=int(study.costs.weight_bytes[index]),
        proxy_input=side,
        proxy_k=stem_block(genome, side),
        seed=trial_seed(inputs.seed, genome),
        worker=platform.node(),
        started_at=_now(),
        optuna_state=proposal.optuna_state,
        pending=tuple(sorted(trial.number for trial in waiting)),
    )
    if before is None:
        return asked
    # Rungs that a killed search had passed are not judged again: others were judged by them since.
    return replace(
        asked,
        epochs=before.epochs,
        curve_epochs=before.curve_epochs,
        curve_error=before.curve_error,
        curve_error_se=before.curve_error_se,
        error=before.error,
        error_se=before.error_se,
        loss=before.loss,
        learned=before.learned,
    )


def _trained(trial: Trial, outcome: Outcome) -> Trial:
    if isinstance(outcome, IsonasError):
        return replace(trial, state=FAILED, reason=str(outcome))
    curve = outcome[0]
    last = curve[-1]
    # Training starts anew after a kill: what it gives takes the place of what was logged.
    kept = trial.epochs if trial.epochs < curve[0].epoch else 0
    seconds = sum(result.seconds for result in curve) + ((trial.train_seconds or 0.0) if kept else 0.0)
    return replace(
        trial,
        error=last.error,
        error_se=last.error_se,
        loss=last.loss,
        learned=last.learned,
        curve_epochs=trial.curve_epochs[:kept] + tuple(result.epoch for result in curve),
        curve_error=trial.curve_error[:kept] + tuple(result.error for result in curve),
        curve_error_se=trial.curve_error_se[:kept] + tuple(result.error_se for result in curve),
        epochs=last.epoch,
        train_seconds=seconds,
        micro_batch=last.micro_batch,
    )


def _after(epochs: int, rungs: tuple[int, ...]) -> int:
    return next((rung for rung in rungs if rung > epochs), rungs[-1])


def _stop_if_hopeless(known: Mapping[int, Trial]) -> None:
    ended = [trial for trial in known.values() if trial.state != RUNNING]
    reasons = [trial.reason for trial in ended if trial.state == FAILED]
    if len(ended) == len(reasons) == ALIKE_FAILURES and len(set(reasons)) == 1:
        raise TrainingError(
            f"the first {ALIKE_FAILURES} trials failed alike: {reasons[0]}; mend that and start anew."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
