"""What a search minimises, how objectives are scaled, and which points are on the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from isonas.errors import UsageError
from isonas.hardware import Budget, Costs
from isonas.pareto import Floats, hypervolume, non_dominated

COST_OBJECTIVES = ("peak_bytes", "madds", "params")
OBJECTIVES = ("error", *COST_OBJECTIVES)


class Scored(Protocol):
    """Whatever has an error and exact costs: a logged trial, say."""

    @property
    def error(self) -> float | None: ...
    @property
    def peak_bytes(self) -> int: ...
    @property
    def madds(self) -> int: ...
    @property
    def params(self) -> int: ...


S = TypeVar("S", bound=Scored)


@dataclass(frozen=True)
class Reference:
    """The box in which hypervolume is measured, one entry an objective.

    `point` is the worst corner: error 1 − 1/classes (chance), each cost the smaller of its limit and
    its maximum over the feasible set. `ideal` is the best: error 0, each cost its feasible minimum.
    """

    objectives: tuple[str, ...]
    ideal: tuple[float, ...]
    point: tuple[float, ...]

    def scaled(self, scored: Sequence[Scored]) -> Floats:
        """(n, objectives): error linear, costs logarithmic, ideal to point as 0 to 1."""
        raw = np.array([[getattr(one, name) for name in self.objectives] for one in scored], np.float64)
        raw = raw.reshape(-1, len(self.objectives))
        return np.stack([self.scale(name, raw[:, axis]) for axis, name in enumerate(self.objectives)], axis=1)

    def scale(self, objective: str, values: Floats) -> Floats:
        """One objective's values, scaled likewise."""
        axis = self.objectives.index(objective)
        low, high = self.ideal[axis], self.point[axis]
        if objective != "error":
            values, low, high = np.log(values), float(np.log(low)), float(np.log(high))
        # An axis on which the feasible set does not vary must not cost hypervolume.
        return (values - low) / (high - low) if high > low else np.zeros(len(values))

    def hypervolume(self, scored: Sequence[Scored]) -> float:
        """The share of the box that scored genomes dominate, in [0, 1]."""
        return hypervolume(self.scaled(scored))


def reference_of(objectives: tuple[str, ...], feasible: Costs, budget: Budget, classes: int) -> Reference:
    """The reference box of a feasible set."""
    limits = {
        "peak_bytes": budget.max_memory_bytes,
        "madds": budget.max_madds,
        "params": budget.max_params,
    }
    ideal, point = [], []
    for name in objectives:
        if name == "error":
            ideal.append(0.0)
            point.append(1 - 1 / classes)
            continue
        values = getattr(feasible, name)
        ideal.append(float(values.min()))
        point.append(float(min(values.max(), limits[name] or values.max())))
    return Reference(objectives, tuple(ideal), tuple(point))


def front_of(scored: Sequence[S], objectives: tuple[str, ...]) -> list[S]:
    """The non-dominated ones, lowest error first."""
    points = np.array([[getattr(one, name) for name in objectives] for one in scored], np.float64)
    mask = non_dominated(points.reshape(-1, len(objectives)))
    chosen = [one for one, keep in zip(scored, mask, strict=True) if keep]
    by_error = ("error", *objectives)
    return sorted(chosen, key=lambda one: tuple(getattr(one, name) for name in by_error))


def parse_objectives(text: str) -> tuple[str, ...]:
    """Objectives from `error,peak_bytes,madds`; raises UsageError."""
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in OBJECTIVES]
    if unknown or "error" not in names or len(set(names)) < max(len(names), 2):
        raise UsageError(
            f"--objectives {text!r}: give error and at least one of {', '.join(COST_OBJECTIVES)}, each "
            "once, with commas between."
        )
    return names
