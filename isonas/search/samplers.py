"""Which genome to train next: a pure function of the seed, the trial's number and the log.

Optuna's samplers propose, and know neither budgets nor what was tried before. `propose` turns their
proposal into the nearest feasible genome that is not in the log. For every trial the Optuna study is
built anew from the log and the sampler seeded from (seed, number): a resumed search cannot but go on
as the uninterrupted one would. (Building a study of 1,000 trials takes less than a tenth of a second.)
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from isonas.errors import LogError
from isonas.genome import Genome
from isonas.objectives import Reference
from isonas.search.log import FAILED, Trial
from isonas.space import Columns, columns_of

POPULATION = 20
"""NSGA-II's: Optuna's 50 would leave a search of some dozens of trials in its random generation."""


@dataclass(frozen=True)
class Proposal:
    """A row of the feasible set, and what the sampler noted, as JSON."""

    index: int
    optuna_state: str


@dataclass(frozen=True)
class Feasible:
    """The feasible set as a sampler sees it: genomes, and their place on each gene's list of values.

    `places` is (genomes, genes) of indices into `values`; `ordered` tells the genes whose values have
    an order (all but the stem).
    """

    columns: Columns
    genes: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    places: npt.NDArray[np.int64]
    ordered: npt.NDArray[np.bool_]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's description of the genes that vary."""
        return {
            gene: IntDistribution(0, len(values) - 1)
            if ordered
            else CategoricalDistribution(range(len(values)))
            for gene, values, ordered in zip(self.genes, self.values, self.ordered, strict=True)
        }

    def rows(self, genomes: Sequence[Genome]) -> npt.NDArray[np.int64]:
        """Where genomes stand in the feasible set; raises LogError for one that does not."""
        if not genomes:
            return np.zeros(0, np.int64)
        columns = columns_of(genomes)
        shape = tuple(len(values) for values in self.values)
        wanted = np.zeros((len(genomes), len(shape)), np.int64)
        for axis, (gene, values) in enumerate(zip(self.genes, self.values, strict=True)):
            place = np.searchsorted(values, getattr(columns, gene))
            wanted[:, axis] = np.minimum(place, len(values) - 1)
        keys, sought = (_key(places, shape) for places in (self.places, wanted))
        order = np.argsort(keys)
        rows = order[np.minimum(np.searchsorted(keys, sought, sorter=order), len(keys) - 1)]
        for row, genome in zip(rows, genomes, strict=True):
            if self.columns.genome(int(row)) != genome:
                raise LogError(
                    f"the log holds {genome}, which is not in the run's feasible set; the folder mixes "
                    "runs or versions, so start a new run."
                )
        return rows

    def params(self, index: int) -> dict[str, int]:
        """A genome as Optuna's parameters."""
        return dict(zip(self.genes, map(int, self.places[index]), strict=True))


def _key(places: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    strides = np.cumprod((1, *shape[:-1])) if shape else np.zeros(0, np.int64)
    return places @ strides.astype(np.int64)


def feasible_set(columns: Columns) -> Feasible:
    """The feasible genomes with each gene's values in ascending order; genes of one value left out."""
    genes, values, places = [], [], []
    for column in fields(Columns):
        listed, place = np.unique(getattr(columns, column.name), return_inverse=True)
        if len(listed) > 1:
            genes.append(column.name)
            values.append(tuple(map(int, listed)))
            places.append(place.reshape(-1))
    stacked = np.stack(places, axis=1) if places else np.zeros((len(columns), 0), np.int64)
    ordered = np.array([gene != "stem" for gene in genes], np.bool_)
    return Feasible(columns, tuple(genes), tuple(values), stacked, ordered)


def propose(
    sampler: str,
    feasible: Feasible,
    reference: Reference,
    seed: int,
    number: int,
    finished: Sequence[Trial],
    taken: npt.NDArray[np.bool_],
) -> Proposal | None:
    """The next genome, never one that `taken` marks; None where all are taken.

    `finished` are the trials before `number`, in their order.
    """
    if taken.all():
        return None
    rng = np.random.default_rng((seed, number))
    inner = SAMPLERS[sampler](int(rng.integers(2**31)))
    if inner is None or not feasible.genes:
        return Proposal(int(rng.choice(np.flatnonzero(~taken))), "{}")
    nearest = _NearestFeasible(inner, feasible, taken, rng)
    study = optuna.create_study(directions=["minimize"] * len(reference.objectives), sampler=nearest)
    for trial in finished:
        study.add_trial(_frozen(trial, feasible, reference))
    study.ask(fixed_distributions=feasible.distributions())
    noted = study.get_trials(deepcopy=False)[-1].system_attrs
    return Proposal(nearest.chosen, json.dumps(noted, sort_keys=True))


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=POPULATION, seed=seed)


def _random(seed: int) -> None:
    """Uniform over what is feasible and unseen; Optuna's own would need repair and lose uniformity."""


SAMPLERS = {"tpe": _tpe, "nsga2": _nsga2, "random": _random}


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
        steps = np.abs(self._feasible.places[self._free] - wanted)
        span = np.array([len(values) - 1 for values in self._feasible.values])
        apart = np.where(self._feasible.ordered, steps / span, steps > 0).sum(axis=1)
        nearest = self._free[np.isclose(apart, apart.min())]
        return int(self._rng.choice(nearest))


def _frozen(trial: Trial, feasible: Feasible, reference: Reference) -> FrozenTrial:
    failed = trial.state == FAILED
    row = columns_of([trial.genome])
    params = {
        gene: values.index(int(getattr(row, gene)[0]))
        for gene, values in zip(feasible.genes, feasible.values, strict=True)
    }
    return create_trial(
        state=TrialState.FAIL if failed else TrialState.COMPLETE,
        params=params,
        distributions=feasible.distributions(),
        values=None if failed else [float(value) for value in reference.scaled([trial])[0]],
        system_attrs=json.loads(trial.optuna_state),
    )


optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
