"""Fronts and hypervolume equal their definitions and Optuna's."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from optuna.trial import create_trial

from isonas.errors import UsageError
from isonas.hardware import Budget, Costs
from isonas.objectives import Reference, front_of, parse_objectives, reference_of
from isonas.pareto import Floats, hypervolume, non_dominated

POINTS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(2, 4)),
    elements=st.integers(0, 4).map(lambda n: n / 4),
)


@dataclass(frozen=True)
class Point:
    """Something scored, by hand."""

    error: float
    peak_bytes: int = 1
    madds: int = 1
    params: int = 1


@given(POINTS)
def test_the_front_is_the_quadratic_definition(points: Floats) -> None:
    def dominated(one: Floats) -> bool:
        return any((other <= one).all() and (other < one).any() for other in points)

    assert non_dominated(points).tolist() == [not dominated(one) for one in points]


@given(POINTS)
@settings(max_examples=30, deadline=None)
def test_the_front_is_optunas(points: Floats) -> None:
    study = optuna.create_study(directions=["minimize"] * points.shape[1])
    for point in points:
        study.add_trial(create_trial(values=list(point)))
    assert np.flatnonzero(non_dominated(points)).tolist() == [trial.number for trial in study.best_trials]


@given(POINTS)
@settings(max_examples=50)
def test_hypervolume_is_the_share_of_dominated_cells(points: Floats) -> None:
    """Points on a grid of quarters dominate whole cells, which can be counted."""
    cells = itertools.product(range(4), repeat=points.shape[1])
    dominated = sum(bool((points <= np.array(cell) / 4).all(axis=1).any()) for cell in cells)
    assert hypervolume(points) == pytest.approx(dominated / 4 ** points.shape[1])


def test_no_points() -> None:
    empty = np.zeros((0, 3))
    assert non_dominated(empty).tolist() == []
    assert hypervolume(empty) == 0.0


def test_the_reference_box() -> None:
    values = np.array([1000, 10_000, 100_000])
    feasible = Costs(*([values] * 6))
    budget = Budget(max_memory_bytes=10_000, max_madds=10**9)
    box = reference_of(("error", "peak_bytes", "madds"), feasible, budget, classes=10)
    assert box.ideal == (0.0, 1000.0, 1000.0)
    assert box.point == (0.9, 10_000.0, 100_000.0)
    scaled = box.scaled([Point(0.45, 1000, 10_000)])
    np.testing.assert_allclose(scaled, [[0.5, 0.0, 0.5]])
    assert box.hypervolume([Point(0.45, 1000, 10_000)]) == pytest.approx(0.25)
    # Chance is worth nothing, and so is whatever is worse.
    assert box.hypervolume([Point(0.95, 1000, 1000)]) == 0.0
    assert box.hypervolume([]) == 0.0


def test_an_axis_without_spread_costs_nothing() -> None:
    box = Reference(("error", "params"), (0.0, 7.0), (0.9, 7.0))
    assert box.hypervolume([Point(0.45, params=7)]) == pytest.approx(0.5)


def test_the_front_is_sorted_by_error() -> None:
    points = [Point(0.5, 1), Point(0.2, 3), Point(0.3, 2), Point(0.6, 2)]
    assert front_of(points, ("peak_bytes", "error")) == [points[1], points[2], points[0]]


@pytest.mark.parametrize("text", ["error", "peak_bytes,madds", "error,error", "error,latency", ""])
def test_objectives_that_make_no_front(text: str) -> None:
    with pytest.raises(UsageError, match="give error and at least one of"):
        parse_objectives(text)


def test_objectives() -> None:
    assert parse_objectives("error, params") == ("error", "params")
