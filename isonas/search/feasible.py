"""The feasible set as a sampler sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from isonas.errors import LogError
from isonas.genome import Genome
from isonas.space import Columns, columns_of

Ints = npt.NDArray[np.int64]


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
        found = self._found
        if new := [genome for genome in genomes if genome not in found]:
            found.update(zip(new, map(int, self._sought(new)), strict=True))
        return np.array([found[genome] for genome in genomes], np.int64)

    @cached_property
    def _found(self) -> dict[Genome, int]:
        """What was looked up before: a search asks for its whole log again and again."""
        return {}

    def _sought(self, genomes: Sequence[Genome]) -> Ints:
        columns = columns_of(genomes)
        wanted = np.zeros((len(genomes), len(self.genes)), np.int64)
        for axis, (gene, values) in enumerate(zip(self.genes, self.values, strict=True)):
            place = np.searchsorted(values, getattr(columns, gene))
            wanted[:, axis] = np.minimum(place, len(values) - 1)
        rows = self.at(wanted)
        for row, genome in zip(rows, genomes, strict=True):
            if row < 0 or self.columns.genome(int(row)) != genome:
                raise LogError(
                    f"the log holds {genome}, which is not in the run's feasible set; the folder mixes "
                    "runs or versions, so start a new run."
                )
        return rows

    def at(self, places: Ints) -> Ints:
        """The rows of genomes given as (n, genes) places, −1 for those that are not feasible."""
        keys, order = self._keys
        wanted = places @ self._strides
        rows = order[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)]
        return np.where((self.places[rows] == places).all(axis=1), rows, -1)

    def neighbours(self, rows: Ints) -> Ints:
        """The rows of feasible genomes that differ from one of `rows` in a single gene."""
        found = []
        for axis, values in enumerate(self.values):
            changed = np.repeat(self.places[rows], len(values), axis=0)
            changed[:, axis] = np.tile(np.arange(len(values)), len(rows))
            found.append(self.at(changed))
        near = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
        return near[(near >= 0) & ~np.isin(near, rows)]

    @cached_property
    def features(self) -> npt.NDArray[np.float64]:
        """(genomes, features) in [0, 1]: sizes by their logarithm, the SE ratio as it is, a stem each
        its own column."""
        columns: list[npt.NDArray[np.float64]] = []
        for axis, (gene, values) in enumerate(zip(self.genes, self.values, strict=True)):
            place = self.places[:, axis]
            if gene == "stem":
                columns.extend((place == one).astype(np.float64) for one in range(len(values)))
                continue
            listed = np.array(values, np.float64)
            if gene == "se_divisor":
                scale = np.divide(1, listed, out=np.zeros_like(listed), where=listed > 0)
            else:
                scale = np.log(np.maximum(listed, 1))
            low, high = scale.min(), scale.max()
            columns.append(((scale - low) / (high - low) if high > low else scale * 0)[place])
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.columns), 0))

    @cached_property
    def _strides(self) -> Ints:
        shape = [len(values) for values in self.values]
        return np.cumprod([1, *shape])[:-1].astype(np.int64)

    @cached_property
    def _keys(self) -> tuple[Ints, Ints]:
        keys = self.places @ self._strides
        order = np.argsort(keys)
        return keys[order], order

    def params(self, index: int) -> dict[str, int]:
        """A genome as Optuna's parameters."""
        return dict(zip(self.genes, map(int, self.places[index]), strict=True))


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
