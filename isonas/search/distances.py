"""How far every feasible genome is from the nearest of some trials."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isonas.search.feasible import Feasible

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Distances:
    """Squared distances in features and scaled costs, kept from trial to trial.

    What is kept decides nothing but the time: a minimum is the same in whatever order it is taken.
    """

    def __init__(self, feasible: Feasible, costs: Floats) -> None:
        self._feasible = feasible
        self._costs = costs
        self._rows: frozenset[int] = frozenset()
        self._nearest = np.zeros(0)

    def to(self, rows: Ints) -> Floats:
        """(genomes,): from each to the nearest of `rows`, infinite without any."""
        wanted = frozenset(map(int, rows))
        if not self._rows or not self._rows <= wanted:
            self._rows, self._nearest = frozenset(), np.full(len(self._costs), np.inf)
        for row in sorted(wanted - self._rows):
            np.minimum(self._nearest, self._from(row), out=self._nearest)
        self._rows = wanted
        return self._nearest

    def _from(self, row: int) -> Floats:
        feasible = self._feasible
        places = feasible.places[row]
        tables = [
            ((table - table[place]) ** 2).sum(axis=1)
            for table, place in zip(feasible.tables, places, strict=True)
        ]
        total = feasible.added(tables)
        for costs in self._costs.T:
            total += (costs - costs[row]) ** 2
        return total
