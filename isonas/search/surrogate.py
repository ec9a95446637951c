"""A Gaussian process on the error of genomes: what training them would probably give.

Matérn-5/2 kernel with one length scale a feature, on top of a linear trend (larger networks err less,
also where nothing was trained yet). Sizes, the last SIZES features, are in the trend alone: as
dimensions of the kernel they would take trials to be told from the genes that make them up. Noise is
known in part (the standard error of each result) and learned in part (two trainings of one genome
differ). Hyperparameters maximise the posterior under weak priors (Rasmussen & Williams 2006, chapter 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]

SIZES = 2
"""How many features, the last ones, are sizes of the network."""

JITTER = 1e-8

FIT_AT_MOST = 200
"""Results that hyperparameters are fitted to."""

LEARNED_AT_MOST = 500
"""Results that predictions use: their time grows with the cube, and then with the genomes times these."""

_SCALES = (math.log(1.0), 1.0)
_SIGNAL = (math.log(0.5), 1.0)
_TREND = (0.0, 1.0)
_NOISE = (math.log(0.03), 1.5)
"""Priors, normal in the logarithm: mean and standard deviation. Features span [0, 1], errors are
standardised; the last three are variances."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted process. `features` (n, d) of what was trained, `variances` (n,) of its noise, `factor`
    (n, n) of its covariance; targets are standardised by `centre` and `spread`."""

    features: Floats
    variances: Floats
    centre: float
    spread: float
    parameters: Floats
    factor: Floats
    weights: Floats

    def mean(self, features: Floats) -> Floats:
        """Expected errors of genomes with features (m, d)."""
        parts = [self.weights @ _kernel(self.features, part, self.parameters) for part in _parts(features)]
        return np.asarray(self.centre + self.spread * np.concatenate(parts))

    def deviation(self, features: Floats) -> Floats:
        """Standard deviations of the errors' expectations, without the noise of one training."""
        explained = []
        for part in _parts(features):
            cross = _kernel(self.features, part, self.parameters)
            known = solve_triangular(self.factor, cross, lower=True, overwrite_b=True, check_finite=False)
            explained.append(np.einsum("nm,nm->m", known, known))
        variance = _prior_variance(features, self.parameters) - np.concatenate(explained)
        return np.asarray(self.spread * np.sqrt(np.maximum(variance, 1e-12)))

    def less_sure(self, results: int) -> Surrogate:
        """A process with deviations no smaller anywhere, which are cheaper: those given fewer results.

        Its means are not to be used.
        """
        if len(self.features) <= results:
            return self
        kept = stand_ins(len(self.features), results)
        features, variances = self.features[kept], self.variances[kept]
        factor = _factor(features, variances, self.parameters)
        weights = np.zeros(results)
        return Surrogate(features, variances, self.centre, self.spread, self.parameters, factor, weights)

    @property
    def noise(self) -> float:
        """What two trainings of one genome differ by beyond their standard errors: a deviation."""
        return self.spread * math.exp(float(self.parameters[-1]) / 2)

    def joined(self, features: Floats) -> Surrogate:
        """The process as it would be if genomes with features (m, d) had given what it expects."""
        if len(features) == 0:
            return self
        cross = _kernel(self.features, features, self.parameters)
        known = solve_triangular(self.factor, cross, lower=True, check_finite=False)
        own = _kernel(features, features, self.parameters)
        noises = np.full(len(features), np.exp(self.parameters[-1]) + JITTER)
        rest = cholesky(own + np.diag(noises) - known.T @ known, lower=True)
        before = len(self.features)
        factor = np.zeros((before + len(features),) * 2)
        factor[:before, :before], factor[before:, :before], factor[before:, before:] = (
            self.factor,
            known.T,
            rest,
        )
        # Told what was expected, the process expects the same as before everywhere.
        weights = np.concatenate((self.weights, np.zeros(len(features))))
        whole = np.concatenate((self.features, features))
        variances = np.concatenate((self.variances, noises))
        return Surrogate(whole, variances, self.centre, self.spread, self.parameters, factor, weights)


def fit(features: Floats, errors: Floats, deviations: Floats) -> Surrogate:
    """Fit to n results: `features` (n, d) in [0, 1], the last SIZES of them sizes, `errors` (n,), their
    standard errors (n,)."""
    centre, spread = float(errors.mean()), max(float(errors.std()), 1e-3)
    targets, known = (errors - centre) / spread, (deviations / spread) ** 2
    every = stand_ins(len(errors), FIT_AT_MOST)
    parameters = _fitted(features[every], targets[every], known[every])
    variances = known + np.exp(parameters[-1]) + JITTER
    factor = _factor(features, variances, parameters)
    weights = cho_solve((factor, True), targets, check_finite=False)
    return Surrogate(features, variances, centre, spread, parameters, factor, weights)


def stand_ins(count: int, most: int, first: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """Which of `count` results stand for all, ascending: `most` at equal steps, or all if they are fewer.

    Up to half of them are those that `first` (count,) marks, or some of those at equal steps.
    """
    if count <= most:
        return np.arange(count)
    marked = np.flatnonzero(first) if first is not None else np.zeros(0, np.int64)
    chosen = marked[stand_ins(len(marked), most // 2)]
    rest = np.setdiff1d(np.arange(count), chosen)
    steps = np.linspace(0, len(rest) - 1, most - len(chosen)).round().astype(np.int64)
    return np.union1d(chosen, rest[steps])


def _factor(features: Floats, variances: Floats, parameters: Floats) -> Floats:
    covariance = _kernel(features, features, parameters)
    covariance[np.diag_indices_from(covariance)] += variances
    return np.asarray(cholesky(covariance, lower=True, overwrite_a=True, check_finite=False))


def _parts(features: Floats) -> Iterator[Floats]:
    """A thousand genomes at a time, so that what is reckoned for them stays in the cache."""
    for start in range(0, max(len(features), 1), 1000):
        yield features[start : start + 1000]


def _fitted(features: Floats, targets: Floats, known: Floats) -> Floats:
    count, near = features.shape[1] - SIZES, features[:, :-SIZES]
    priors = np.array([_SCALES] * count + [_SIGNAL, _TREND, _NOISE])
    apart = (near[:, None, :] - near[None, :, :]) ** 2
    products = (features - 0.5) @ (features - 0.5).T / features.shape[1]
    diagonal = np.diag_indices(len(targets))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        inverse_squares = np.exp(-2 * parameters[:count])
        signal, trend, noise = np.exp(parameters[count:])
        distance = np.sqrt(5 * np.maximum(apart @ inverse_squares, 0))
        decay = np.exp(-distance)
        bump = (1 + distance + distance**2 / 3) * decay
        covariance = signal * bump + trend * products
        covariance[diagonal] += known + noise + JITTER
        factor = cholesky(covariance, lower=True, check_finite=False)
        inverse = cho_solve((factor, True), np.eye(len(targets)), check_finite=False)
        weights = inverse @ targets
        away = (parameters - priors[:, 0]) / priors[:, 1]
        value = targets @ weights / 2 + np.log(np.diag(factor)).sum() + away @ away / 2
        outer = inverse - np.outer(weights, weights)
        steep = outer * (signal * 5 / 3 * (1 + distance) * decay)
        gradient = np.empty_like(parameters)
        gradient[:count] = np.einsum("ij,ijk->k", steep, apart) * inverse_squares / 2
        gradient[count] = signal * (outer * bump).sum() / 2
        gradient[count + 1] = trend * (outer * products).sum() / 2
        gradient[count + 2] = noise * np.trace(outer) / 2
        return float(value), gradient + away / priors[:, 1]

    bounds = [(mean - 4 * sd, mean + 4 * sd) for mean, sd in priors]
    found = minimize(loss, priors[:, 0], jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 50})
    return np.asarray(found.x, np.float64)


def _kernel(one: Floats, other: Floats, parameters: Floats) -> Floats:
    scaling = math.sqrt(5) / np.exp(parameters[:-3])
    signal, trend = np.exp(parameters[-3:-1])
    left, right = one[:, :-SIZES] * scaling, other[:, :-SIZES] * scaling
    # In place: whole arrays of distances are what takes the time.
    squared = left @ (-2 * right.T)
    squared += (left**2).sum(axis=1)[:, None]
    squared += (right**2).sum(axis=1)
    np.maximum(squared, 0, out=squared)
    distance = np.sqrt(squared)
    squared /= 3
    squared += distance
    squared += 1
    np.exp(np.negative(distance, out=distance), out=distance)
    squared *= distance
    squared *= signal
    squared += (one - 0.5) @ ((trend / one.shape[1]) * (other - 0.5).T)
    return np.asarray(squared)


def _prior_variance(features: Floats, parameters: Floats) -> Floats:
    signal, trend = np.exp(parameters[-3:-1])
    return np.asarray(signal + trend * ((features - 0.5) ** 2).mean(axis=1))
