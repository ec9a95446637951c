"""What a search is about: its inputs, and all that follows from them before the first trial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from isonas.cost import Deployment
from isonas.hardware import Costs, costs, require_feasible
from isonas.objectives import Reference, reference_of
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
    def features(self) -> npt.NDArray[np.float64]:
        """(feasible genomes, features) in [0, 1], from which errors are foretold: the genes', then MAdds
        and params by their logarithm, which are SIZES columns."""
        sizes = [np.log(getattr(self.costs, name).astype(np.float64)) for name in ("madds", "params")]
        spans = [(size - size.min()) / max(float(np.ptp(size)), 1e-12) for size in sizes]
        return np.column_stack((self.feasible.features, *spans))


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
