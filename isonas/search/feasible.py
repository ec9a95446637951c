"""The feasible set as a sampler sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from isonas.errors import LogError
from isonas.genome import Genome
from isonas.space import Columns, columns_of


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
