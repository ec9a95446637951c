"""What a search minimises, how objectives are scaled, and which points are on the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from isonas.errors import UsageError
from isonas.hardware import Costs
from isonas.pareto import Floats, hypervolume, non_dominated

ERRORS = ("error", "balanced_error")
"""1 − top-1, and 1 − the mean over classes of each one's share of right answers."""

COST_OBJECTIVES = ("arena_bytes", "madds", "params")
_RECORDED = (*COST_OBJECTIVES, "peak_bytes")
"""Costs that a recorded run may have minimised; the memory of those before version 4 is the peak."""

MARGIN = 0.1
"""How far beyond the costliest feasible genome the box reaches: a share of the costs' log span."""


class Scored(Protocol):
    """Whatever has errors and exact costs: a logged trial, say."""

    @property
    def error(self) -> float | None: ...
    @property
    def balanced_error(self) -> float | None: ...
    @property
    def arena_bytes(self) -> int | None: ...
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

    `point` is the worst corner: the error of chance, and each cost a MARGIN beyond its maximum over the
    feasible set, so that the costliest genome can improve a front too. (Runs before version 4 have no
    margin.) `ideal` is the best: error 0, each cost its feasible minimum.
    """

    objectives: tuple[str, ...]
    ideal: tuple[float, ...]
    point: tuple[float, ...]

    @property
    def error(self) -> str:
        """Which of ERRORS is minimised."""
        return error_objective(self.objectives)

    @property
    def costs(self) -> tuple[str, ...]:
        """The other objectives, in their order."""
        return tuple(name for name in self.objectives if name not in ERRORS)

    @property
    def chance(self) -> float:
        """The error from which on a network is worth nothing."""
        return self.point[self.objectives.index(self.error)]

    def scaled(self, scored: Sequence[Scored]) -> Floats:
        """(n, objectives): error linear, costs logarithmic, ideal to point as 0 to 1."""
        raw = np.array([[getattr(one, name) for name in self.objectives] for one in scored], np.float64)
        raw = raw.reshape(-1, len(self.objectives))
        return np.stack([self.scale(name, raw[:, axis]) for axis, name in enumerate(self.objectives)], axis=1)

    def scale(self, objective: str, values: Floats) -> Floats:
        """One objective's values, scaled likewise."""
        axis = self.objectives.index(objective)
        low, high = self.ideal[axis], self.point[axis]
        if high <= low:
            # Where the feasible set does not vary the axis costs no hypervolume; beyond it all is lost.
            return np.where(np.asarray(values) > low, np.inf, 0.0)
        if objective not in ERRORS:
            values, low, high = np.log(values), float(np.log(low)), float(np.log(high))
        return (values - low) / (high - low)

    def hypervolume(self, scored: Sequence[Scored]) -> float:
        """The share of the box that scored genomes dominate, in [0, 1]."""
        return hypervolume(self.scaled(scored))


def reference_of(objectives: tuple[str, ...], feasible: Costs, chance: float) -> Reference:
    """The reference box of a feasible set, where `chance` is the error of guessing (above 0)."""
    ideal, point = [], []
    for name in objectives:
        if name in ERRORS:
            ideal.append(0.0)
            point.append(chance)
            continue
        values = getattr(feasible, name)
        low, high = float(values.min()), float(values.max())
        ideal.append(low)
        point.append(high * (high / low) ** MARGIN)
    return Reference(objectives, tuple(ideal), tuple(point))


def error_objective(objectives: tuple[str, ...]) -> str:
    """Which of ERRORS is among the objectives."""
    return next(name for name in objectives if name in ERRORS)


def front_of(scored: Sequence[S], objectives: tuple[str, ...]) -> list[S]:
    """The non-dominated ones, lowest error first."""
    points = np.array([[getattr(one, name) for name in objectives] for one in scored], np.float64)
    mask = non_dominated(points.reshape(-1, len(objectives)))
    chosen = [one for one, keep in zip(scored, mask, strict=True) if keep]
    by_error = (error_objective(objectives), *objectives)
    return sorted(chosen, key=lambda one: tuple(getattr(one, name) for name in by_error))


def parse_objectives(text: str) -> tuple[str, ...]:
    """Objectives from `error,arena_bytes,madds`; `peak_bytes` is read as `arena_bytes`.

    Raises UsageError.
    """
    names = tuple(name.strip() for name in text.split(","))
    return _checked(text, tuple("arena_bytes" if name == "peak_bytes" else name for name in names))


def recorded_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Objectives as a run recorded them, `peak_bytes` included; raises UsageError."""
    return _checked(",".join(names), tuple(names), _RECORDED)


def _checked(text: str, names: tuple[str, ...], costs: Sequence[str] = COST_OBJECTIVES) -> tuple[str, ...]:
    errors = [name for name in names if name in ERRORS]
    unknown = [name for name in names if name not in (*ERRORS, *costs)]
    if unknown or len(errors) != 1 or len(set(names)) < max(len(names), 2):
        raise UsageError(
            f"--objectives {text!r}: give {' or '.join(ERRORS)}, and at least one of "
            f"{', '.join(COST_OBJECTIVES)}, each once, with commas between."
        )
    return names
