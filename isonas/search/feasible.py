"""The feasible set as a sampler sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from isonas.errors import LogError
from isonas.genome import Genome
from isonas.space import Columns, Whole, columns_of

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Feasible:
    """The feasible set as a sampler sees it: genomes, and their place on each gene's list of values.

    `places` is (genomes, genes) of indices into `values`, in a small type and a gene at a time in memory;
    `ordered` tells the genes whose values have an order (all but the stem).
    """

    columns: Columns
    genes: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    places: Whole
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
        wanted = (places @ self._strides).astype(keys.dtype)
        rows = order[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)].astype(np.int64)
        return np.where((self.places[rows] == places).all(axis=1), rows, -1)

    def added(self, tables: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """(genomes,): the sum over genes of what a gene's table has for the genome's value."""
        total = np.zeros(len(self.columns))
        for axis, table in enumerate(tables):
            total += table[self.places[:, axis]]
        return total

    def neighbours(self, rows: Ints) -> Ints:
        """The rows of feasible genomes that differ from one of `rows` in a single gene."""
        found = []
        for axis, values in enumerate(self.values):
            changed = np.repeat(self.places[rows].astype(np.int64), len(values), axis=0)
            changed[:, axis] = np.tile(np.arange(len(values)), len(rows))
            found.append(self.at(changed))
        near = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
        return near[(near >= 0) & ~np.isin(near, rows)]

    def features(self, rows: Ints) -> npt.NDArray[np.float64]:
        """(rows, features) in [0, 1]: sizes by their logarithm, the SE ratio as it is, a stem each its own
        column."""
        columns = [table[self.places[rows, axis]] for axis, table in enumerate(self.tables)]
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(rows), 0))

    @cached_property
    def tables(self) -> tuple[npt.NDArray[np.float64], ...]:
        """For each gene the (values, columns) features of its values."""
        return tuple(map(_table, self.genes, self.values))

    @cached_property
    def _strides(self) -> Ints:
        shape = [len(values) for values in self.values]
        return np.cumprod([1, *shape])[:-1].astype(np.int64)

    @cached_property
    def _keys(self) -> tuple[Whole, Whole]:
        """A number for each genome, sorted, and the genomes' rows in that order."""
        keys = np.zeros(len(self.columns), np.min_scalar_type(math.prod(map(len, self.values))))
        for axis, stride in enumerate(self._strides):
            keys += self.places[:, axis].astype(keys.dtype) * keys.dtype.type(stride)
        order = np.argsort(keys).astype(np.min_scalar_type(len(keys)))
        return keys[order], order

    def params(self, index: int) -> dict[str, int]:
        """A genome as Optuna's parameters."""
        return dict(zip(self.genes, map(int, self.places[index]), strict=True))


def feasible_set(columns: Columns) -> Feasible:
    """The feasible genomes with each gene's values in ascending order; genes of one value left out."""
    genes, values, places = [], [], []
    for column in fields(Columns):
        genomes = getattr(columns, column.name)
        listed = np.unique(genomes)
        if len(listed) > 1:
            genes.append(column.name)
            values.append(tuple(map(int, listed)))
            places.append(np.searchsorted(listed, genomes).astype(np.min_scalar_type(len(listed))))
    stacked = np.stack(places).T if places else np.zeros((len(columns), 0), np.uint8)
    ordered = np.array([gene != "stem" for gene in genes], np.bool_)
    return Feasible(columns, tuple(genes), tuple(values), stacked, ordered)


def _table(gene: str, values: tuple[int, ...]) -> npt.NDArray[np.float64]:
    if gene == "stem":
        return np.eye(len(values))
    listed = np.array(values, np.float64)
    if gene == "se_divisor":
        scale = np.divide(1, listed, out=np.zeros_like(listed), where=listed > 0)
    else:
        scale = np.log(np.maximum(listed, 1))
    low, high = scale.min(), scale.max()
    return np.asarray(((scale - low) / (high - low) if high > low else scale * 0)[:, None])
