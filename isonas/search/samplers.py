"""Which genome to train next: a pure function of the seed, the trial's number and the log.

Optuna's samplers propose, and know neither budgets nor what was tried before. `propose` turns their
proposal into the nearest feasible genome that is not in the log. For every trial of theirs the Optuna
study is built anew from the log and the sampler seeded from (seed, number): a resumed search cannot but go
on as the uninterrupted one would. isonas's own sampler, and random draws, take no Optuna study.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from isonas.objectives import Reference
from isonas.search.ehvi import most_promising
from isonas.search.feasible import Feasible
from isonas.search.log import RUNNING, Trial
from isonas.search.study import Study
from isonas.space import columns_of

POPULATION = 20
"""NSGA-II's: Optuna's 50 would leave a search of some dozens of trials in its random generation."""


@dataclass(frozen=True)
class Proposal:
    """A row of the feasible set, and what the sampler noted, as JSON."""

    index: int
    optuna_state: str


@contextmanager
def _experiments_allowed() -> Iterator[None]:
    """Optuna warns of what it calls experimental: NSGA-III, the GP, multivariate TPE."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@_experiments_allowed()
def propose(
    study: Study,
    number: int,
    finished: Sequence[Trial],
    pending: Sequence[Trial],
    taken: npt.NDArray[np.bool_],
) -> Proposal | None:
    """The next genome, never one that `taken` marks; None where all are taken.

    `finished` are the trials before `number` that ended, in their order; of those `pending` nothing is
    known but that they train.
    """
    if taken.all():
        return None
    feasible, reference = study.feasible, study.reference
    rng = np.random.default_rng((study.inputs.seed, number))
    sampler, inner_seed = study.inputs.sampler, int(rng.integers(2**31))
    if sampler == "random" or not feasible.genes:
        return Proposal(int(rng.choice(np.flatnonzero(~taken))), "{}")
    if sampler == "ehvi":
        results = [trial for trial in finished if not trial.failed]
        failures = [trial for trial in finished if trial.failed]
        return Proposal(most_promising(study, results, failures, pending, taken, inner_seed), "{}")
    inner = OPTUNAS[sampler](inner_seed)
    nearest = _NearestFeasible(inner, feasible, taken, rng)
    asking = optuna.create_study(directions=["minimize"] * len(reference.objectives), sampler=nearest)
    for trial in finished:
        asking.add_trial(_frozen(trial, feasible, reference))
    for trial in pending:
        asking.add_trial(_frozen(replace(trial, state=RUNNING), feasible, reference))
    asking.ask(fixed_distributions=feasible.distributions())
    noted = asking.get_trials(deepcopy=False)[-1].system_attrs
    return Proposal(nearest.chosen, json.dumps(noted, sort_keys=True))


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, constant_liar=True, seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=POPULATION, seed=seed)


def _nsga3(seed: int) -> BaseSampler:
    return NSGAIIISampler(population_size=POPULATION, seed=seed)


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed)


OPTUNAS = {"tpe": _tpe, "nsga2": _nsga2, "nsga3": _nsga3, "gp": _gp}


class _NearestFeasible(BaseSampler):
    """Another sampler's proposal, moved to the nearest feasible genome that is not taken.

    Nearest in the sum over genes of steps along the gene's values (as a share of their number; any two
    stems are one whole apart); ties are drawn. Where the other has no model yet, uniform over what is
    not taken.
    """

    def __init__(
        self,
        inner: BaseSampler,
        feasible: Feasible,
        taken: npt.NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> None:
        self._inner = inner
        self._feasible = feasible
        self._free = np.flatnonzero(~taken)
        self._rng = rng
        self.chosen = -1

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All genes: Optuna takes the whole genome from `sample_relative`."""
        return self._feasible.distributions()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole genome, feasible and unseen."""
        space = self._inner.infer_relative_search_space(study, trial)
        wanted = self._inner.sample_relative(study, trial, space)
        if not wanted:
            self.chosen = int(self._rng.choice(self._free))
            return self._feasible.params(self.chosen)
        for gene, distribution in search_space.items():
            if gene not in wanted:
                wanted[gene] = self._inner.sample_independent(study, trial, gene, distribution)
        self.chosen = self._nearest(np.array([wanted[gene] for gene in self._feasible.genes]))
        return self._feasible.params(self.chosen)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never asked: `sample_relative` gives every gene."""
        raise AssertionError(f"{param_name} was not proposed")

    def _nearest(self, wanted: npt.NDArray[np.int64]) -> int:
        tables = []
        for place, values, ordered in zip(wanted, self._feasible.values, self._feasible.ordered, strict=True):
            steps = np.abs(np.arange(len(values)) - place)
            tables.append(steps / (len(values) - 1) if ordered else (steps > 0).astype(np.float64))
        apart = self._feasible.added(tables)[self._free]
        nearest = self._free[np.isclose(apart, apart.min())]
        return int(self._rng.choice(nearest))


def _frozen(trial: Trial, feasible: Feasible, reference: Reference) -> FrozenTrial:
    """A trial as Optuna knows it: a stopped one is complete with its extrapolated error, a failed one (or
    one that did not get going) with the worst of everything, for Optuna's samplers do not learn from
    failures."""
    row = columns_of([trial.genome])
    params = {
        gene: values.index(int(getattr(row, gene)[0]))
        for gene, values in zip(feasible.genes, feasible.values, strict=True)
    }
    running = trial.state == RUNNING
    own = trial.measured(reference.error).own
    told = replace(trial, error=own, balanced_error=own)
    worst = [1.0] * len(reference.objectives)
    values = worst if trial.failed else [float(value) for value in reference.scaled([told])[0]]
    return create_trial(
        state=TrialState.RUNNING if running else TrialState.COMPLETE,
        params=params,
        distributions=feasible.distributions(),
        values=None if running else values,
        system_attrs=json.loads(trial.optuna_state),
    )


optuna.logging.set_verbosity(optuna.logging.WARNING)
