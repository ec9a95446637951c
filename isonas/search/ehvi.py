"""The sampler that isonas is made for: expected hypervolume improvement over the whole feasible set.

Costs are exact and every feasible genome is enumerated, so all that has to be learned is the error, and
all that has to be chosen is the genome whose training is expected to add most to the front.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from isonas.pareto import non_dominated
from isonas.search.improvement import most_improving
from isonas.search.study import Study
from isonas.search.surrogate import fit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

INITIAL = 8
"""Trials that fill the space before the first fit."""

SCORED_AT_MOST = 50_000
POOL = 20_000
"""Of a larger feasible set so many genomes are scored, drawn anew for each trial, beside the front's
neighbours."""

ERROR_SE = "error_se"
"""The user attribute under which a trial carries its error's standard error, in the error's unit."""


class EhviSampler(BaseSampler):
    """Proposes the genome with the largest expected hypervolume improvement, as an Optuna sampler.

    Every ask is a function of the trials in the Optuna study and of `seed`. Trials that run count as if
    they had given what is expected of them, so trials side by side do not crowd. `taken` (n,) marks
    genomes that are not to be proposed.
    """

    def __init__(self, study: Study, taken: npt.NDArray[np.bool_], seed: int) -> None:
        self._study = study
        self._taken = taken
        self._rng = np.random.default_rng(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All genes."""
        return self._study.feasible.distributions()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole genome, feasible and not taken."""
        feasible, reference = self._study.feasible, self._study.reference
        seen = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        told = [one for one in seen if one.state is TrialState.COMPLETE]
        running = [one for one in seen if one.state is TrialState.RUNNING]
        if len(told) < INITIAL:
            return feasible.params(self._far_from([*told, *running]))
        axis = reference.objectives.index(reference.error)
        errors = np.array([one.values[axis] for one in told])
        deviations = np.array([one.user_attrs[ERROR_SE] for one in told]) / reference.chance
        rows, waiting = self._rows(told), self._rows(running)
        features = self._study.features
        surrogate = fit(features[rows], errors, deviations).joined(features[waiting])
        known = np.concatenate((rows, waiting))
        expected = surrogate.mean(features[known])
        points = np.column_stack((expected, self._study.scaled_costs[known]))
        front = points[non_dominated(points)]
        scored = self._scored(known[non_dominated(points)])
        chosen = most_improving(surrogate, features[scored], self._study.scaled_costs[scored], front)
        return feasible.params(int(scored[chosen]))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never asked: `sample_relative` gives every gene."""
        raise AssertionError(f"{param_name} was not proposed")

    def _rows(self, trials: list[FrozenTrial]) -> Ints:
        genes = self._study.feasible.genes
        places = [[one.params[gene] for gene in genes] for one in trials]
        return self._study.feasible.at(np.array(places, np.int64).reshape(-1, len(genes)))

    def _far_from(self, trials: list[FrozenTrial]) -> int:
        """The free genome farthest from all trials, in features and costs; the first one is drawn."""
        free = np.flatnonzero(~self._taken)
        if not trials:
            return int(self._rng.choice(free))
        where = np.concatenate((self._study.feasible.features, self._study.scaled_costs), axis=1)
        apart = np.min([((where[free] - where[row]) ** 2).sum(axis=1) for row in self._rows(trials)], axis=0)
        return int(self._rng.choice(free[np.isclose(apart, apart.max())]))

    def _scored(self, front: Ints) -> Ints:
        """The free genomes to score: all, or a pool of them and the front's neighbours."""
        free = np.flatnonzero(~self._taken)
        if len(free) <= SCORED_AT_MOST:
            return free
        near = self._study.feasible.neighbours(front)
        pool = self._rng.choice(free, POOL, replace=False)
        return np.unique(np.concatenate((pool, near[~self._taken[near]])))
