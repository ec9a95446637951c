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
from isonas.hardware import Costs
from isonas.objectives import Reference, front_of, parse_objectives, recorded_objectives, reference_of
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
    arena_bytes: int = 1
    peak_bytes: int = 1
    balanced_error: float = 0.0
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
    feasible = costs_of([10, 1000, 100_000_000, 100_000_000_000])
    box = reference_of(("error", "arena_bytes", "madds"), feasible, chance=0.9)
    assert box.ideal == (0.0, 10.0, 10.0)
    # From 10 to 10¹¹ are ten decades, so the margin is one.
    np.testing.assert_allclose(box.point, (0.9, 1e12, 1e12))
    scaled = box.scaled([Point(0.45, 10, madds=10**8)])
    np.testing.assert_allclose(scaled, [[0.5, 0.0, 7 / 11]])
    assert box.hypervolume([Point(0.45, 10, madds=10**8)]) == pytest.approx(0.5 * 4 / 11)
    # Chance is worth nothing, and so is whatever is worse.
    assert box.hypervolume([Point(0.9, 10, madds=10), Point(0.95, 10, madds=10)]) == 0.0
    assert box.hypervolume([]) == 0.0


def costs_of(values: list[int]) -> Costs:
    return Costs(*([np.array(values)] * 6))


# Up to a million: logarithms of neighbours that are larger still differ by little more than their rounding.
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8), st.floats(0.01, 0.999), st.data())
def test_whatever_is_feasible_and_better_than_chance_improves_an_empty_front(
    values: list[int], chance: float, data: st.DataObject
) -> None:
    """Also the only genome, all of one cost, and the costliest: each gains its share of the box."""
    box = reference_of(("balanced_error", "arena_bytes", "params"), costs_of(values), chance)
    share = data.draw(st.floats(0, 0.999))
    low, high = np.log(min(values)), np.log(max(values))
    points = [Point(1.0, value, balanced_error=share * chance, params=value) for value in values]
    for value, point in zip(values, points, strict=True):
        beyond = 1.1 * (high - low)
        side = 1 - (np.log(value) - low) / beyond if high > low else 1.0
        alone = box.hypervolume([point])
        assert alone == pytest.approx((1 - share) * side**2, rel=1e-5)
        assert 0 < alone <= 1
    assert box.hypervolume(points) <= 1


def test_an_axis_without_spread_costs_nothing() -> None:
    box = Reference(("error", "params"), (0.0, 7.0), (0.9, 7.0))
    assert box.hypervolume([Point(0.45, params=7)]) == pytest.approx(0.5)
    # Another run's genome may cost more than all that this one's box knows.
    assert box.hypervolume([Point(0.45, params=8)]) == 0.0


def test_a_box_without_a_margin_is_used_as_it_is() -> None:
    box = Reference(("error", "params"), (0.0, 10.0), (0.5, 1000.0))
    assert box.hypervolume([Point(0.25, params=100)]) == pytest.approx(0.25)
    assert box.hypervolume([Point(0.25, params=1000)]) == 0.0


def test_the_front_is_sorted_by_error() -> None:
    points = [Point(0.5, 1), Point(0.2, 3), Point(0.3, 2), Point(0.6, 2)]
    assert front_of(points, ("arena_bytes", "error")) == [points[1], points[2], points[0]]
    balanced = [Point(0.0, 1, balanced_error=0.3), Point(1.0, 2, balanced_error=0.1)]
    assert front_of(balanced, ("arena_bytes", "balanced_error")) == balanced[::-1]


@pytest.mark.parametrize(
    "text",
    ["error", "arena_bytes,madds", "error,error", "error,latency", "", "error,balanced_error,madds",
     "error,peak_bytes,arena_bytes"],
)  # fmt: skip
def test_objectives_that_make_no_front(text: str) -> None:
    with pytest.raises(UsageError, match="give error or balanced_error, and at least one of arena_bytes"):
        parse_objectives(text)


def test_objectives() -> None:
    assert parse_objectives("error, params") == ("error", "params")
    assert parse_objectives("peak_bytes,balanced_error") == ("arena_bytes", "balanced_error")
    # A run that minimised the peak goes on to do so.
    assert recorded_objectives(["error", "peak_bytes"]) == ("error", "peak_bytes")
