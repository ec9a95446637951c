"""Expected hypervolume improvement against quadrature over the exact hypervolume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isonas.pareto import hypervolume, non_dominated
from isonas.search.improvement import Floats, bounds, boxes, expected_improvement, most_improving
from isonas.search.surrogate import fit


def front_of(rng: np.random.Generator, points: int, costs: int) -> Floats:
    drawn = rng.random((points, 1 + costs))
    return drawn[non_dominated(drawn)]


def by_quadrature(mean: float, deviation: float, costs: Floats, front: Floats) -> float:
    """The mean over the error of what the point adds, moocore reckoning each hypervolume."""
    steps = np.linspace(-8, 8, 1601)
    weights = np.exp(-(steps**2) / 2) / np.sqrt(2 * np.pi) * (steps[1] - steps[0])
    errors = np.maximum(mean + deviation * steps, 0)
    base = hypervolume(front)
    gains = [
        hypervolume(np.vstack((front, (error, *costs)))) - base if error < 1 else 0.0 for error in errors
    ]
    return float(np.array(gains) @ weights)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 12), st.sampled_from([1, 2, 3]))
def test_it_is_the_mean_of_what_the_point_adds(seed: int, points: int, costs: int) -> None:
    rng = np.random.default_rng(seed)
    front = front_of(rng, points, costs)
    mean, deviation, at = rng.uniform(0, 1.2), rng.uniform(0.02, 0.3), rng.random(costs)
    found = expected_improvement(np.array([mean]), np.array([deviation]), at[None], front)
    assert found[0] == pytest.approx(by_quadrature(mean, deviation, at, front), rel=1e-3, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 40), st.sampled_from([1, 2, 3]))
def test_boxes_fill_the_cube_and_know_the_lowest_error(seed: int, points: int, costs: int) -> None:
    rng = np.random.default_rng(seed)
    front = np.round(rng.random((points, 1 + costs)), 1)
    lower, upper, reached = boxes(front, costs)
    assert np.prod(np.maximum(upper - lower, 0), axis=1).sum() == pytest.approx(1)
    for at in rng.random((20, costs)):
        inside = np.all((lower <= at) & (at < upper), axis=1)
        assert inside.sum() == 1
        lowest = min([point[0] for point in front if np.all(point[1:] <= at)], default=1.0)
        assert reached[inside][0] == pytest.approx(min(lowest, 1.0))


def test_a_certain_error_adds_what_it_adds() -> None:
    rng = np.random.default_rng(3)
    front = front_of(rng, 10, 2)
    for _ in range(20):
        error, costs = rng.random(), rng.random(2)
        added = hypervolume(np.vstack((front, (error, *costs)))) - hypervolume(front)
        found = expected_improvement(np.array([error]), np.array([1e-9]), costs[None], front)
        assert found[0] == pytest.approx(added, abs=1e-7)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3]), st.sampled_from([5, 120]))
def test_the_most_improving_is_the_best_of_all(seed: int, costs: int, results: int) -> None:
    """The bounds leave out none that matters: the choice is that of reckoning every genome."""
    rng = np.random.default_rng(seed)
    trained, features = rng.random((results, 3)), rng.random((1500, 3))
    surrogate = fit(trained, rng.random(results), np.full(results, 0.01))
    at, front = rng.random((1500, costs)), front_of(rng, 15, costs)
    chosen = most_improving(surrogate, features, at, front)
    every = expected_improvement(surrogate.mean(features), surrogate.deviation(features), at, front)
    assert every[chosen] == pytest.approx(every.max(), rel=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([1, 2]), st.sampled_from([0.0, 0.02, 0.1]))
def test_the_bound_holds_where_errors_are_low(seed: int, costs: int, low: float) -> None:
    """Means below half the level, where E[(T − e)+] − E[(0 − e)+] falls with the deviation."""
    rng = np.random.default_rng(seed)
    trained, features = rng.random((150, 3)), rng.random((1500, 3))
    surrogate = fit(trained, low + 0.02 * rng.random(150), np.full(150, 0.001))
    at, front = rng.random((1500, costs)), front_of(rng, 3, costs)
    weights = rng.random(1500)
    chosen = most_improving(surrogate, features, at, front, weights)
    every = weights * expected_improvement(surrogate.mean(features), surrogate.deviation(features), at, front)
    assert every[chosen] == pytest.approx(every.max(), rel=1e-9)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_too_large_a_deviation_gives_a_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean, deviation, costs = rng.uniform(-0.05, 0.3, 50), rng.uniform(0.001, 0.3, 50), rng.random((50, 2))
    front = front_of(rng, 4, 2)
    gain = expected_improvement(mean, deviation, costs, front)
    wider = bounds(mean, deviation * rng.uniform(1, 5, 50), costs, front)
    assert np.all(gain <= wider + 1e-12)
