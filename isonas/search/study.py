"""A search on one screen: ask, log, train, log, until enough trials are done."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from isonas.cost import Deployment
from isonas.errors import LogError, TrainingError
from isonas.evaluation import Evaluate, TrainingState, trial_seed
from isonas.genome import stem_block
from isonas.hardware import Costs, costs, require_feasible
from isonas.objectives import Reference, front_of, reference_of
from isonas.search.inputs import Inputs
from isonas.search.log import (
    COMPLETE,
    FAILED,
    RUNNING,
    Trial,
    compact,
    read_trials,
    write_trial,
)
from isonas.search.samplers import Feasible, feasible_set, propose
from isonas.search.weights import prune_weights, save_weights
from isonas.space import SearchSpace
from isonas.training.proxy_input import proxy_input

ALIKE_FAILURES = 3


@dataclass(frozen=True)
class Study:
    """The inputs of a search and all that follows from them before the first trial."""

    inputs: Inputs
    space: SearchSpace
    feasible: Feasible
    costs: Costs
    reference: Reference


def study_of(inputs: Inputs) -> Study:
    """Enumerate and cost the space, keep what the budget allows; raises BudgetError for nothing."""
    space = replace(inputs.space, input=inputs.input)
    columns = space.columns
    of = costs(columns, Deployment(inputs.input, inputs.classes), inputs.budget)
    index = require_feasible(columns, of, inputs.budget)
    kept = of.where(index)
    reference = reference_of(inputs.objectives, kept, inputs.budget, len(inputs.class_names))
    return Study(inputs, space, feasible_set(columns.where(index)), kept, reference)


def search(
    study: Study,
    run: Path,
    evaluate: Evaluate,
    trials: int,
    deadline: float = float("inf"),
) -> Iterator[Trial]:
    """Bring a run to `trials` trials, yielding each one that ends; the caller holds the run.

    What the log holds as finished is kept; what it holds as running, or has lost, is asked again under
    its number. No trial starts after `deadline` (of `time.monotonic`). Raises LogError where asking
    again gives another genome than was logged, TrainingError where the first trials all fail alike.
    """
    logged = {trial.number: trial for trial in read_trials(run)[0]}
    done = {number: trial for number, trial in logged.items() if trial.state != RUNNING}
    rows = dict(zip(done, study.feasible.rows([trial.genome for trial in done.values()]), strict=True))
    taken = np.zeros(len(study.feasible.columns), np.bool_)
    _stop_if_hopeless(done)
    for number in range(trials):
        if number in done:
            taken[rows[number]] = True
            continue
        if time.monotonic() >= deadline:
            return
        finished = [done[earlier] for earlier in range(number)]
        inputs = study.inputs
        ask = partial(propose, inputs.sampler, study.feasible, study.reference, inputs.seed, number, finished)
        proposal = ask(taken)
        later = [row for other, row in rows.items() if other > number]
        if proposal is not None and proposal.index in later:
            # Only where the log is not what this seed would have given; no genome is trained twice.
            taken[later] = True
            proposal = ask(taken)
        if proposal is None:
            return
        asked = _asked(study, number, proposal.index, proposal.optuna_state)
        if number in logged and logged[number].genome != asked.genome:
            raise LogError(
                f"{run}: trial {number} was {logged[number].genome} and would now be {asked.genome}; "
                "the log or the versions of isonas and Optuna have changed, so start a new run."
            )
        write_trial(run, asked)
        ended, state = _evaluated(asked, evaluate, inputs.epochs)
        done[number] = ended
        taken[proposal.index] = True
        front = front_of([t for t in done.values() if t.state == COMPLETE], inputs.objectives)
        if state is not None and ended in front:
            save_weights(run, number, state)
        write_trial(run, ended)
        prune_weights(run, {trial.number for trial in front})
        compact(run)
        yield ended
        _stop_if_hopeless(done)


def _asked(study: Study, number: int, index: int, noted: str) -> Trial:
    genome = study.feasible.columns.genome(index)
    inputs = study.inputs
    side = proxy_input(genome.internal_resolution, inputs.source_side, inputs.input)
    return Trial(
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
        optuna_state=noted,
    )


def _evaluated(asked: Trial, evaluate: Evaluate, epochs: int) -> tuple[Trial, TrainingState | None]:
    start = time.perf_counter()
    try:
        curve, state = evaluate(asked.genome, asked.seed, 0, epochs, None)
    except TrainingError as error:
        seconds = time.perf_counter() - start
        failed = replace(asked, state=FAILED, reason=str(error), train_seconds=seconds)
        return replace(failed, finished_at=_now()), None
    last = curve[-1]
    ended = replace(
        asked,
        state=COMPLETE,
        error=last.error,
        error_se=last.error_se,
        loss=last.loss,
        curve_epochs=tuple(result.epoch for result in curve),
        curve_error=tuple(result.error for result in curve),
        epochs=last.epoch,
        train_seconds=time.perf_counter() - start,
        finished_at=_now(),
    )
    return ended, state


def _stop_if_hopeless(done: dict[int, Trial]) -> None:
    reasons = [trial.reason for trial in done.values() if trial.state == FAILED]
    if len(done) == len(reasons) == ALIKE_FAILURES and len(set(reasons)) == 1:
        raise TrainingError(
            f"the first {ALIKE_FAILURES} trials failed alike: {reasons[0]}; mend that and start anew."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
