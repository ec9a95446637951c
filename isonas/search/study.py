"""What a search is about: its inputs, and all that follows from them before the first trial."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from isonas.cost import Deployment
from isonas.hardware import Costs, costs, require_feasible
from isonas.objectives import Reference, reference_of
from isonas.search.distances import Distances
from isonas.search.feasible import Feasible, feasible_set
from isonas.search.inputs import Inputs
from isonas.space import SearchSpace


@dataclass(frozen=True)
class Study:
    """The inputs of a search, its feasible set with costs row by row, and its reference box."""

    inputs: Inputs
    space: SearchSpace
    feasible: Feasible
    costs: Costs
    reference: Reference

    @cached_property
    def scaled_costs(self) -> npt.NDArray[np.float64]:
        """(feasible genomes, costs) scaled by the reference, in the order of its objectives."""
        reference = self.reference
        scaled = [reference.scale(name, getattr(self.costs, name)) for name in reference.costs]
        return np.stack(scaled, axis=1)

    @cached_property
    def distances(self) -> Distances:
        """Distances between feasible genomes."""
        return Distances(self.feasible, self.scaled_costs)

    def features(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(rows, features) in [0, 1], from which errors are predicted: the genes', then MAdds and params
        by their logarithm, which are SIZES columns."""
        return np.column_stack(
            (self.feasible.features(rows), *(self._log_share(name, rows) for name in ("madds", "params")))
        )

    def cost_features(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(rows, features) in [0, 1], from which it is predicted whether a training succeeds: the genes',
        then all that memory and time may depend on, by logarithm."""
        sizes = (self._log_share(name, rows) for name in ("madds", "params", "peak_bytes"))
        return np.column_stack((self.feasible.features(rows), *sizes))

    def _log_share(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """A cost's logarithm, from its feasible minimum to its maximum as 0 to 1."""
        costs = getattr(self.costs, name)
        low, high = (math.log(limit) for limit in self._limits[name])
        return np.asarray((np.log(costs[rows].astype(np.float64)) - low) / max(high - low, 1e-12))

    @cached_property
    def _limits(self) -> dict[str, tuple[int, int]]:
        return {name: (int(costs.min()), int(costs.max())) for name, costs in vars(self.costs).items()}


def study_of(inputs: Inputs, reference: Reference | None = None) -> Study:
    """Enumerate and cost the space, keep what the budget allows; raises BudgetError for nothing.

    A recorded run keeps the `reference` that it was started with; a new one gets its own.
    """
    space = replace(inputs.space, input=inputs.input)
    columns = space.columns
    of = costs(columns, Deployment(inputs.input, inputs.classes), inputs.budget)
    index = require_feasible(columns, of, inputs.budget)
    kept = of.where(index)
    reference = reference or reference_of(inputs.objectives, kept, inputs.chance)
    return Study(inputs, space, feasible_set(columns.where(index)), kept, reference)
