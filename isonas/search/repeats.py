"""Training the front again: the lowest of many noisy errors is too low (the winner's curse)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from isonas.errors import IsonasError, TrainingError
from isonas.evaluation import EpochResult, trial_seed
from isonas.objectives import front_of
from isonas.search.engines import Engine
from isonas.search.log import COMPLETE, Measured, Trial, read_trials, write_trial
from isonas.search.study import Study
from isonas.search.weights import prune_weights, save_weights, weights_path


def repeat_front(
    study: Study, run: Path, engine: Engine, repeats: int, deadline: float = float("inf")
) -> Iterator[tuple[Trial, str | None]]:
    """Train front members with fresh seeds until all of the front are trained `repeats` times.

    Yields each trial trained again, its row already logged, and the reason where that training failed;
    the caller holds the run. As errors rise
    others join the front and have their turn. A member that has no weights yet gets those of its
    repeat. What samplers and verdicts see is a trial's own first result, which stays. A repeat that
    fails is left out; a later call tries it again. None starts after `deadline` (of `time.monotonic`).
    Raises LogError where the log cannot be written.
    """
    objectives = study.inputs.objectives
    complete = {trial.number: trial for trial in read_trials(run)[0] if trial.state == COMPLETE}
    flying: set[int] = set()
    failed: set[int] = set()
    while True:
        for member in front_of(list(complete.values()), objectives):
            number, done = member.number, 1 + len(member.repeat_errors)
            if done >= repeats or number in flying | failed or time.monotonic() >= deadline:
                continue
            if len(flying) == engine.workers:
                break
            seed = trial_seed(study.inputs.seed, member.genome, done)
            engine.submit(number, member.genome, seed, 0, study.inputs.epochs, None)
            flying.add(number)
        if not flying:
            prune_weights(run, {member.number for member in front_of(list(complete.values()), objectives)})
            return
        number, outcome = engine.next()
        flying.remove(number)
        if isinstance(outcome, IsonasError):
            if not isinstance(outcome, TrainingError):
                raise outcome
            failed.add(number)
            yield complete[number], str(outcome)
            continue
        curve, state = outcome
        trial = repeated(complete[number], curve[-1])
        complete[number] = trial
        # Off the front now, it may be back when others have had their turn.
        if not weights_path(run, number).exists():
            # A cluster may lose what it trained; the result is here.
            with suppress(TrainingError):
                save_weights(run, number, state)
        write_trial(run, trial)
        yield trial, None


def repeated(trial: Trial, result: EpochResult) -> Trial:
    """A trial with one more training's result.

    Each of its errors becomes the mean of all n. The standard error is √(b² + s²/n): s is the standard
    deviation between trainings, b the first training's binomial one, which does not shrink, for all of
    them are judged on the same validation images.
    """
    repeat_errors = (*trial.repeat_errors, result.error)
    error, error_se = _mean(trial.measured("error"), repeat_errors)
    trial = replace(trial, repeat_errors=repeat_errors, error=error, error_se=error_se)
    # A run begun before balanced errors were logged has none of its first trainings.
    if result.balanced_error is None or not trial.curve_balanced_error:
        return trial
    repeat_errors = (*trial.repeat_balanced_errors, result.balanced_error)
    error, error_se = _mean(trial.measured("balanced_error"), repeat_errors)
    return replace(
        trial, repeat_balanced_errors=repeat_errors, balanced_error=error, balanced_error_se=error_se
    )


def _mean(first: Measured, others: tuple[float, ...]) -> tuple[float, float]:
    every = np.array([first.own, *others], np.float64)
    binomial = first.own_se or 0.0
    return float(every.mean()), math.sqrt(binomial**2 + float(every.var(ddof=1)) / len(every))
