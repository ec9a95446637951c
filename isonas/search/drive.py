"""The one loop of a search: ask, train to the next rung, judge, until enough trials are done."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from isonas.errors import IsonasError, TrainingError
from isonas.evaluation import TrainingState, trial_seed
from isonas.genome import stem_block
from isonas.search.engines import Engine, Outcome
from isonas.search.halving import judge, rungs_of
from isonas.search.log import COMPLETE, FAILED, RUNNING, STOPPED, Trial
from isonas.search.samplers import Proposal, propose
from isonas.search.study import Study
from isonas.training.proxy_input import proxy_input

FIRST_FAILED = 3
RECENT, RECENT_FAILED = 12, 11
"""A search stops where its first 3 trials fail alike, or 11 of the last 12: where half of the genomes fail,
chance alone brings that about once in three hundred times."""


class Hopeless(TrainingError):
    """A search whose trials fail alike: the message says how many and why, as the start of a sentence."""


@dataclass(frozen=True)
class Step:
    """A trial's row as it now stands, to be logged, and the network it trained, if it has just ended.

    `note` is a sentence for the user, where there is something to say."""

    trial: Trial
    state: TrainingState | None = None
    note: str | None = None


def drive(
    study: Study,
    logged: Mapping[int, Trial],
    engine: Engine,
    trials: int,
    deadline: float = float("inf"),
    *,
    give_up: bool = True,
) -> Iterator[Step]:
    """Bring a study to `trials` trials, yielding each row before anything is built on it.

    `logged` trials that ended are kept; those that were running, and the numbers that are missing, are
    asked again under their numbers. Where that gives another genome than was logged, the logged one is
    kept. No trial starts after `deadline` (of `time.monotonic`). Raises LogError where the log holds a
    genome that is not feasible here and, where it may `give_up`, Hopeless where trials fail alike.
    """
    known = dict(logged)
    rungs = rungs_of(study.inputs.epochs, early_stopping=study.inputs.early_stopping)
    numbers = iter([n for n in range(trials) if n not in known or known[n].state == RUNNING])
    flying: set[int] = set()
    sitting: list[Trial] = []
    while True:
        while len(flying) < engine.workers and time.monotonic() < deadline:
            if (number := next(numbers, None)) is None:
                break
            if (step := next_trial(study, known, number, flying)) is None:
                break
            yield step
            asked = step.trial
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
        sitting.append(trial)
        if give_up:
            begun = any(one.state in (COMPLETE, STOPPED) for one in known.values())
            _stop_if_hopeless(sitting, begun=begun)


def next_trial(study: Study, known: Mapping[int, Trial], number: int, flying: set[int]) -> Step | None:
    """The next trial, as asked; None where every feasible genome is taken."""
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
    note = None
    if before is not None:
        logged = int(study.feasible.rows([before.genome])[0])
        if proposal is None or proposal.index != logged:
            # What it was asked on is not all in the log any more, or another version asks otherwise.
            note = (
                f"trial {number} keeps {before.genome}, which is in the log, though another genome would be "
                "proposed now."
            )
            proposal = Proposal(logged, before.optuna_state)
    if proposal is None:
        return None
    index = proposal.index
    genome = study.feasible.columns.genome(index)
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
        arena_bytes=int(study.costs.arena_bytes[index]),
        file_bytes=int(study.costs.file_bytes[index]),
        proxy_input=side,
        proxy_k=stem_block(genome, side),
        seed=trial_seed(inputs.seed, genome),
        started_at=_now(),
        optuna_state=proposal.optuna_state,
        pending=tuple(sorted(trial.number for trial in waiting)),
    )
    if before is None:
        return Step(asked)
    # Rungs that a killed search had passed are not judged again: others were judged by them since.
    asked = replace(
        asked,
        epochs=before.epochs,
        curve_epochs=before.curve_epochs,
        curve_error=before.curve_error,
        curve_error_se=before.curve_error_se,
        curve_balanced_error=before.curve_balanced_error,
        curve_balanced_error_se=before.curve_balanced_error_se,
        error=before.error,
        error_se=before.error_se,
        balanced_error=before.balanced_error,
        balanced_error_se=before.balanced_error_se,
        loss=before.loss,
        learned=before.learned,
    )
    return Step(asked, note=note)


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
        balanced_error=last.balanced_error,
        balanced_error_se=last.balanced_error_se,
        loss=last.loss,
        learned=last.learned,
        curve_epochs=trial.curve_epochs[:kept] + tuple(result.epoch for result in curve),
        curve_error=trial.curve_error[:kept] + tuple(result.error for result in curve),
        curve_error_se=trial.curve_error_se[:kept] + tuple(result.error_se for result in curve),
        curve_balanced_error=trial.curve_balanced_error[:kept] + _known(one.balanced_error for one in curve),
        curve_balanced_error_se=trial.curve_balanced_error_se[:kept]
        + _known(one.balanced_error_se for one in curve),
        epochs=last.epoch,
        train_seconds=seconds,
        micro_batch=last.micro_batch,
        worker=last.worker,
    )


def _known(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)


def _after(epochs: int, rungs: tuple[int, ...]) -> int:
    return next((rung for rung in rungs if rung > epochs), rungs[-1])


def _stop_if_hopeless(ended: Sequence[Trial], *, begun: bool) -> None:
    """Raise Hopeless where the first trials of a search, or nearly all of the recent ones, failed alike.

    Failures of earlier sittings do not count: what made them fail may have been mended since. Where a
    search has `begun`, some trial of it having succeeded, three failures in a row say nothing.
    """
    recent = ended[-RECENT:]
    reason, count = Counter(map(_kind, recent)).most_common(1)[0]
    if reason is None:
        return
    last = next(trial.reason for trial in reversed(recent) if _kind(trial) == reason)
    if len(ended) == count == FIRST_FAILED and not begun:
        raise Hopeless(f"the first {FIRST_FAILED} trials failed alike: {last}")
    if len(recent) == RECENT and count >= RECENT_FAILED:
        raise Hopeless(f"{count} of the last {RECENT} trials failed alike: {last}")


def _kind(trial: Trial) -> str | None:
    """Why a trial failed, without its genome and numbers; None for one that did not."""
    if trial.state != FAILED:
        return None
    return re.sub(r"\d+(\.\d+)?", "0", (trial.reason or "").replace(str(trial.genome), ""))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
