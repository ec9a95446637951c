"""A Gaussian process on the error of genomes: what training them would probably give.

Matérn-5/2 kernel with one length scale a feature, on top of a linear trend (larger networks err less,
also where nothing was trained yet). Noise is known in part (the standard error of each result) and
learned in part (two trainings of one genome differ). Hyperparameters maximise the posterior under weak
priors (Rasmussen & Williams 2006, chapter 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]

FIT_AT_MOST = 250
"""Results that hyperparameters are fitted to; predictions use all."""

_SCALES = (math.log(1.0), 1.0)
_SIGNAL = (math.log(0.5), 1.0)
_TREND = (0.0, 1.0)
_NOISE = (math.log(0.03), 1.5)
"""Priors, normal in the logarithm: mean and standard deviation. Features span [0, 1], errors are
standardised; the last three are variances."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted process. `features` (n, d) of what was trained; `factor` of their covariance."""

    features: Floats
    centre: float
    spread: float
    parameters: Floats
    factor: Floats
    weights: Floats

    def mean(self, features: Floats) -> Floats:
        """Expected errors of genomes with features (m, d)."""
        cross = _kernel(self.features, features, self.parameters)
        return np.asarray(self.centre + self.spread * (cross.T @ self.weights))

    def deviation(self, features: Floats) -> Floats:
        """Standard deviations of the errors' expectations, without the noise of one training."""
        cross = _kernel(self.features, features, self.parameters)
        known = solve_triangular(self.factor, cross, lower=True, check_finite=False)
        variance = _prior_variance(features, self.parameters) - np.einsum("nm,nm->m", known, known)
        return np.asarray(self.spread * np.sqrt(np.maximum(variance, 1e-12)))

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
        noise = np.exp(self.parameters[-1]) + 1e-8
        rest = cholesky(own + noise * np.eye(len(features)) - known.T @ known, lower=True)
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
        return Surrogate(whole, self.centre, self.spread, self.parameters, factor, weights)


def fit(features: Floats, errors: Floats, deviations: Floats) -> Surrogate:
    """Fit to n results: `features` (n, d) in [0, 1], `errors` (n,), their standard errors (n,)."""
    centre, spread = float(errors.mean()), max(float(errors.std()), 1e-3)
    targets, known = (errors - centre) / spread, (deviations / spread) ** 2
    every = np.unique(np.linspace(0, len(errors) - 1, min(len(errors), FIT_AT_MOST)).round().astype(int))
    parameters = _fitted(features[every], targets[every], known[every])
    covariance = _kernel(features, features, parameters)
    covariance[np.diag_indices_from(covariance)] += known + np.exp(parameters[-1]) + 1e-8
    factor = cholesky(covariance, lower=True, check_finite=False)
    weights = cho_solve((factor, True), targets, check_finite=False)
    return Surrogate(features, centre, spread, parameters, factor, weights)


def _fitted(features: Floats, targets: Floats, known: Floats) -> Floats:
    count = features.shape[1]
    priors = np.array([_SCALES] * count + [_SIGNAL, _TREND, _NOISE])
    apart = (features[:, None, :] - features[None, :, :]) ** 2
    products = (features - 0.5) @ (features - 0.5).T / count
    diagonal = np.diag_indices(len(targets))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        inverse_squares = np.exp(-2 * parameters[:count])
        signal, trend, noise = np.exp(parameters[count:])
        distance = np.sqrt(5 * np.maximum(apart @ inverse_squares, 0))
        decay = np.exp(-distance)
        bump = (1 + distance + distance**2 / 3) * decay
        covariance = signal * bump + trend * products
        covariance[diagonal] += known + noise + 1e-8
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
    scales = np.exp(parameters[: one.shape[1]])
    signal, trend = np.exp(parameters[one.shape[1] : -1])
    left, right = one / scales, other / scales
    squared = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    distance = np.sqrt(5 * np.maximum(squared, 0))
    bump = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return np.asarray(signal * bump + trend * ((one - 0.5) @ (other - 0.5).T) / one.shape[1])


def _prior_variance(features: Floats, parameters: Floats) -> Floats:
    signal, trend = np.exp(parameters[features.shape[1] : -1])
    return np.asarray(signal + trend * ((features - 0.5) ** 2).mean(axis=1))
