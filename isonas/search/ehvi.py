"""The sampler that isonas is made for: expected hypervolume improvement over the whole feasible set.

Costs are exact and every feasible genome is enumerated, so all that has to be learned is the error, and
all that has to be chosen is the genome whose training is expected to add most to the front. A training
that fails adds nothing, so improvements are weighed by the chance of success, and where failures become
frequent only genomes that are likely to succeed are chosen from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isonas.pareto import non_dominated
from isonas.search.improvement import most_improving
from isonas.search.log import Trial
from isonas.search.study import Study
from isonas.search.success import chance_of_success
from isonas.search.surrogate import LEARNED_AT_MOST, fit, stand_ins

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

INITIAL = 8
"""Trials that fill the space before the first fit, failed ones included."""

LEAST = 3
"""Results that a fit takes; without them the likeliest to succeed is next."""

SCORED_AT_MOST = 50_000
POOL = 20_000
"""Of a larger feasible set so many genomes are scored, drawn anew for each trial, beside the front's
neighbours."""

LIKELY, SURE = 0.7, 0.9
"""The chance of success that a genome needs, and needs where failures are frequent."""

FREQUENT = 0.04
"""The share of the trials after the first INITIAL from which failures are frequent."""

OPEN = 0.05
"""So many of the genomes, the likeliest to succeed, are chosen from in any case."""


def most_promising(
    study: Study,
    results: Sequence[Trial],
    failures: Sequence[Trial],
    running: Sequence[Trial],
    taken: Bools,
    seed: int,
) -> int:
    """The row of the free genome whose training is expected to add most hypervolume.

    A function of its arguments. Trials that run count as if they had given what is expected of them, so
    trials side by side do not crowd. `taken` (n,) marks genomes that are not to be proposed.
    """
    rng, free = np.random.default_rng(seed), np.flatnonzero(~taken)
    done, failed, waiting = (
        study.feasible.rows([trial.genome for trial in trials]) for trials in (results, failures, running)
    )
    if len(results) + len(failures) < INITIAL:
        return _far_from(study, np.concatenate((done, failed, waiting)), free, rng)
    if len(results) < LEAST:
        scored = free if len(free) <= SCORED_AT_MOST else rng.choice(free, POOL, replace=False)
        return int(scored[chance_of_success(study, done, failed, scored).argmax()])
    reference = study.reference
    measured = [trial.measured(reference.error) for trial in results]
    errors = np.array([one.own for one in measured], np.float64) / reference.chance
    deviations = np.array([one.own_se for one in measured], np.float64) / reference.chance
    best = non_dominated(np.column_stack((errors, study.scaled_costs[done])))
    kept = stand_ins(len(done), LEARNED_AT_MOST, best)
    surrogate = fit(study.features(done[kept]), errors[kept], deviations[kept])
    surrogate = surrogate.joined(study.features(waiting))
    known = np.concatenate((done, waiting))
    points = np.column_stack((surrogate.mean(study.features(known)), study.scaled_costs[known]))
    front = non_dominated(points)
    scored = _scored(study, known[front], taken, free, rng)
    chance = chance_of_success(study, done, failed, scored)
    likely = chance >= min(_needed(results, failures), np.quantile(chance, 1 - OPEN))
    scored, chance = scored[likely], chance[likely]
    costs = study.scaled_costs[scored]
    chosen = most_improving(surrogate, study.features(scored), costs, points[front], chance)
    return int(scored[chosen])


def _needed(results: Sequence[Trial], failures: Sequence[Trial]) -> float:
    """The chance of success that a genome needs."""
    later = sum(trial.number >= INITIAL for trial in failures)
    trials = len(results) + len(failures) - INITIAL
    return SURE if later > FREQUENT * trials else LIKELY


def _far_from(study: Study, trials: Ints, free: Ints, rng: np.random.Generator) -> int:
    """The free genome farthest from all trials, in features and costs; the first one is drawn."""
    if len(trials) == 0:
        return int(rng.choice(free))
    apart = study.distances.to(trials)[free]
    return int(rng.choice(free[np.isclose(apart, apart.max())]))


def _scored(study: Study, front: Ints, taken: Bools, free: Ints, rng: np.random.Generator) -> Ints:
    """The free genomes to score: all, or a pool of them and the front's neighbours."""
    if len(free) <= SCORED_AT_MOST:
        return free
    near = study.feasible.neighbours(front)
    pool = rng.choice(free, POOL, replace=False)
    return np.unique(np.concatenate((pool, near[~taken[near]])))
