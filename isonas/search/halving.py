"""Early stopping where there are several objectives: which trials are worth training on.

A trial is judged at rungs, a geometric ladder of epochs, among the trials that were asked before it.
Promoting by accuracy alone (as successive halving does) kills the small networks, which a front needs
as much as the accurate ones. So a trial is judged by hypervolume: it goes on while finishing it is
expected to add at least as much for each epoch as a new trial would. A Gaussian process over the genes
and the error so far says where it will probably end, one over the genes alone what a new trial may give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from isonas.pareto import non_dominated
from isonas.search.improvement import expected_improvement
from isonas.search.log import COMPLETE, STOPPED, Trial
from isonas.search.study import Study
from isonas.search.success import chance_of_success
from isonas.search.surrogate import LEARNED_AT_MOST, Surrogate, fit, stand_ins

Floats = npt.NDArray[np.float64]

FACTOR = 2
"""From one rung to the next."""

FIT_FROM = 5
"""Complete trials from which verdicts are passed; before, every trial goes on."""

NEW_AT_MOST = 400
"""Untrained genomes that stand for what a new trial may give."""


def rungs_of(epochs: int, *, early_stopping: bool) -> tuple[int, ...]:
    """The epochs after which a trial is judged, ascending, the last of them `epochs`."""
    rungs = [epochs]
    while early_stopping and rungs[0] > 1:
        rungs.insert(0, math.ceil(rungs[0] / FACTOR))
    return tuple(rungs)


def judge(trial: Trial, others: Sequence[Trial], study: Study) -> Trial:
    """The trial as it is, or stopped with its extrapolated error.

    `trial` has just reached a rung; `others` are the trials asked before it, as far as they got. The
    verdict is a function of those alone. That the complete trials, from which final errors are learned,
    were chosen by the same genes and errors that the process is given does not bias it.
    """
    complete = [other for other in others if other.state == COMPLETE and not other.failed]
    if len(complete) < FIT_FROM:
        return trial
    complete = [complete[index] for index in stand_ins(len(complete), LEARNED_AT_MOST)]
    rows = study.feasible.rows([one.genome for one in (*complete, trial)])
    genes, costs = study.features(rows), study.scaled_costs[rows]
    chance = study.reference.chance
    measured = [one.measured(study.reference.error) for one in (*complete, trial)]
    final = np.array([one.curve[-1] for one in measured[:-1]]) / chance
    known = np.array([one.own_se for one in measured[:-1]], np.float64) / chance
    points = np.column_stack((final, costs[:-1]))
    front = points[non_dominated(points)]
    early = _unit(np.array([one.curve[trial.epochs - 1] for one in measured]))
    features = np.column_stack((early, genes))
    mean, deviation = _result(fit(features[:-1], final, known), features[-1:], known)
    finishing = float(expected_improvement(mean, deviation, costs[-1:], front)[0])
    remaining = 1 - trial.epochs / study.inputs.epochs
    new = _untrained(study, [*others, trial])
    expected = _result(fit(genes[:-1], final, known), study.features(new), known)
    failed = study.feasible.rows([one.genome for one in others if one.failed])
    starting = expected_improvement(*expected, study.scaled_costs[new], front)
    starting *= chance_of_success(study, rows[:-1], failed, new)
    if len(new) == 0 or finishing / remaining >= starting.mean():
        return trial
    return replace(
        trial,
        state=STOPPED,
        extrapolated_error=min(max(float(mean[0]), 0.0) * chance, 1.0),
        extrapolated_se=float(deviation[0]) * chance,
    )


def _result(surrogate: Surrogate, features: Floats, known: Floats) -> tuple[Floats, Floats]:
    """What one training would give, its noise in the deviation."""
    variance = surrogate.deviation(features) ** 2 + surrogate.noise**2 + float(np.mean(known**2))
    return surrogate.mean(features), np.sqrt(variance)


def _untrained(study: Study, trained: Sequence[Trial]) -> npt.NDArray[np.int64]:
    free = np.ones(len(study.feasible.columns), np.bool_)
    free[study.feasible.rows([one.genome for one in trained])] = False
    rows = np.flatnonzero(free)
    if len(rows) <= NEW_AT_MOST:
        return rows
    draw = np.random.default_rng((study.inputs.seed, trained[-1].number, trained[-1].epochs))
    return np.asarray(draw.choice(rows, NEW_AT_MOST, replace=False))


def _unit(values: Floats) -> Floats:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros(len(values))
