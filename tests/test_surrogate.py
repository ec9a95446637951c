"""The surrogate against scikit-learn's Gaussian process, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

import isonas.search.surrogate as module
from isonas.search.surrogate import SIZES, Floats, Surrogate, fit, stand_ins

GENES = 4
FEATURES = GENES + SIZES


def results(seed: int, count: int) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    x = rng.random((count, FEATURES))
    errors = 0.6 + 0.2 * np.sin(4 * x[:, 0]) - 0.3 * x[:, 1] + 0.02 * rng.standard_normal(count)
    return x, errors, np.full(count, 0.015)


@pytest.mark.parametrize("count", [3, 20, 60])
def test_predictions_are_those_of_scikit_learn(count: int) -> None:
    x, errors, known = results(count, count)
    surrogate = fit(x, errors, known)
    signal, trend = np.exp(surrogate.parameters[GENES:-1])
    scales = np.exp(surrogate.parameters[:GENES])
    matern = ConstantKernel(signal) * Matern(scales, nu=2.5)
    linear = ConstantKernel(trend / FEATURES) * DotProduct(1e-9)
    new = np.random.default_rng(1).random((30, FEATURES))

    def covariance(one: Floats, other: Floats) -> Floats:
        return np.asarray(matern(one[:, :GENES], other[:, :GENES]) + linear(one - 0.5, other - 0.5))

    inverse = np.linalg.inv(covariance(x, x) + np.diag(surrogate.variances))
    cross = covariance(x, new)
    mean = surrogate.centre + surrogate.spread * cross.T @ inverse @ ((errors - errors.mean()) / errors.std())
    variance = np.diag(covariance(new, new)) - np.einsum("nm,nk,km->m", cross, inverse, cross)
    np.testing.assert_allclose(surrogate.mean(new), mean, rtol=1e-6)
    np.testing.assert_allclose(surrogate.deviation(new), surrogate.spread * np.sqrt(variance), rtol=1e-5)


def test_a_pure_bump_kernel_is_scikit_learns_process() -> None:
    x, errors, known = results(5, 30)
    surrogate = fit(x, errors, known)
    parameters = surrogate.parameters.copy()
    parameters[GENES + 1] = -40.0
    plain = Surrogate(
        x,
        surrogate.variances,
        surrogate.centre,
        surrogate.spread,
        parameters,
        module._factor(x, surrogate.variances, parameters),
        np.zeros(30),
    )
    kernel = ConstantKernel(np.exp(parameters[GENES])) * Matern(np.exp(parameters[:GENES]), nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=surrogate.variances, optimizer=None)
    process.fit(x[:, :GENES], (errors - errors.mean()) / errors.std())
    new = np.random.default_rng(2).random((20, FEATURES))
    _, deviation = process.predict(new[:, :GENES], return_std=True)
    np.testing.assert_allclose(plain.deviation(new), deviation * surrogate.spread, rtol=1e-5)


def test_the_gradient_of_the_fit_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the optimiser is given agrees with finite differences, at the start and elsewhere."""
    x, errors, known = results(7, 25)
    seen = []

    def spy(loss: object, start: Floats, **_: object) -> object:
        rng = np.random.default_rng(0)
        for shift in (0.0, 0.5, 1.0):
            at = start + shift * rng.standard_normal(len(start))
            slope = loss(at)[1]  # type: ignore[operator]
            wrong = check_grad(lambda p: loss(p)[0], lambda p: loss(p)[1], at)  # type: ignore[operator]
            seen.append(wrong / np.linalg.norm(slope))
        return type("Found", (), {"x": start})

    monkeypatch.setattr(module, "minimize", spy)
    fit(x, errors, known)
    assert len(seen) == 3
    assert max(seen) < 1e-4


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 40))
def test_more_is_known_with_more_results(seed: int, count: int) -> None:
    x, errors, known = results(seed, count)
    surrogate = fit(x, errors, known)
    new = np.random.default_rng(seed).random((15, FEATURES))
    fewer = surrogate.less_sure(max(count // 2, 1))
    assert np.all(fewer.deviation(new) >= surrogate.deviation(new) - 1e-9)
    joined = surrogate.joined(new[:5])
    np.testing.assert_allclose(joined.mean(new), surrogate.mean(new), rtol=1e-6, atol=1e-9)
    assert np.all(joined.deviation(new) <= surrogate.deviation(new) + 1e-9)
    assert np.all(joined.deviation(new[:5]) < surrogate.deviation(new[:5]))


def test_joining_is_conditioning_on_what_was_expected() -> None:
    x, errors, known = results(11, 20)
    surrogate = fit(x, errors, known)
    extra, new = np.random.default_rng(3).random((2, 6, FEATURES))
    joined = surrogate.joined(extra)
    whole = module._factor(joined.features, joined.variances, joined.parameters)
    np.testing.assert_allclose(joined.factor, whole, atol=1e-9)
    assert joined.deviation(new).shape == (6,)


def test_it_learns_what_it_is_shown() -> None:
    x, errors, known = results(13, 80)
    new, truth, _ = results(14, 200)
    surrogate = fit(x, errors, known)
    residual = surrogate.mean(new) - truth
    assert residual.std() < 0.4 * truth.std()
    # Two thirds of new results lie within one deviation, noise included.
    spread = np.sqrt(surrogate.deviation(new) ** 2 + 0.015**2 + surrogate.noise**2)
    assert 0.5 < np.mean(np.abs(residual) < spread) < 0.85


def test_an_error_of_size_alone_is_foretold_by_the_trend() -> None:
    """Beyond what was trained, too: a kernel alone would fall back to the mean there."""
    rng = np.random.default_rng(4)
    x = rng.random((40, FEATURES))
    x[:, -1] *= 0.5
    surrogate = fit(x, 0.8 - 0.4 * x[:, -1], np.full(40, 0.01))
    new = rng.random((50, FEATURES))
    new[:, -1] = 0.9
    assert np.abs(surrogate.mean(new) - (0.8 - 0.4 * 0.9)).max() < 0.05


def test_equal_results_do_not_break_it() -> None:
    x, _, known = results(1, 10)
    surrogate = fit(x, np.full(10, 0.9), known)
    np.testing.assert_allclose(surrogate.mean(x), 0.9, atol=1e-6)


@given(st.integers(1, 300), st.integers(2, 60), st.integers(0, 1000))
def test_stand_ins_are_some_of_all(count: int, most: int, seed: int) -> None:
    first = np.random.default_rng(seed).random(count) < 0.1
    chosen = stand_ins(count, most, first)
    assert len(chosen) == min(count, most)
    assert np.all(np.diff(chosen) > 0)
    assert set(chosen) <= set(range(count))
    if first.sum() <= most // 2:
        assert set(np.flatnonzero(first)) <= set(chosen)


def test_predictions_use_so_many_results_at_most() -> None:
    assert len(stand_ins(10_000, module.LEARNED_AT_MOST)) == module.LEARNED_AT_MOST
