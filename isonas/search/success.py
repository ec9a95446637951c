"""The chance that a genome's training succeeds, learned from the trainings that did and that failed.

A Gaussian process classifier over the genes and the logarithms of the costs: Matérn-5/2 kernel on top of a
linear trend, probit likelihood, Laplace's approximation (Rasmussen & Williams 2006, algorithms 3.1 and
3.2). Its hyperparameters are fixed: a handful of failures is too few to fit them to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import log_ndtr, ndtr

from isonas.search.study import Study
from isonas.search.surrogate import stand_ins

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LEARNED_AT_MOST = 400
"""Trainings that are learned from, failures first."""

_SIGNAL, _TREND, _SCALE, _OFFSET = 4.0, 40.0, 1.0, 1.0
"""The kernel's variance and the trend's, the length scale of features in [0, 1], the latent prior mean."""

_ROUNDS, _CLOSE = 50, 1e-6
"""Newton's method ends after so many rounds, or where the latent values change by no more."""

_PART = 1000


@dataclass(frozen=True)
class Classifier:
    """A fitted process: `features` (n, d) of the trainings, and Laplace's approximation there: gradients
    (n,) of the log likelihood, square roots (n,) of its curvatures, the Cholesky `factor` (n, n)."""

    features: Floats
    gradients: Floats
    roots: Floats
    factor: Floats

    def chance(self, features: Floats) -> Floats:
        """The chance of success of genomes with features (m, d)."""
        starts = range(0, len(features), _PART)
        return np.concatenate([np.zeros(0), *(self._part(features[at : at + _PART]) for at in starts)])

    def _part(self, features: Floats) -> Floats:
        cross = _kernel(self.features, features)
        mean = _OFFSET + self.gradients @ cross
        known = solve_triangular(self.factor, self.roots[:, None] * cross, lower=True, check_finite=False)
        prior = _SIGNAL + _TREND * ((features - 0.5) ** 2).mean(axis=1)
        variance = np.maximum(prior - np.einsum("nm,nm->m", known, known), 0)
        return np.asarray(ndtr(mean / np.sqrt(1 + variance)))


def classifier(features: Floats, succeeded: Bools) -> Classifier:
    """Fit to n trainings: `features` (n, d) in [0, 1], and which of them succeeded (n,)."""
    covariance, signs = _kernel(features, features), np.where(succeeded, 1.0, -1.0)
    latent = np.zeros(len(signs))
    for _ in range(_ROUNDS):
        gradients, roots, factor = _laplace(covariance, signs, latent)
        right = roots**2 * latent + gradients
        weights = right - roots * cho_solve((factor, True), roots * (covariance @ right))
        before, latent = latent, covariance @ weights
        if np.abs(latent - before).max() <= _CLOSE:
            break
    return Classifier(features, *_laplace(covariance, signs, latent))


def chance_of_success(study: Study, succeeded: Ints, failed: Ints, rows: Ints) -> Floats:
    """The chance that training each of `rows` succeeds; 1 as long as nothing failed."""
    if len(failed) == 0:
        return np.ones(len(rows))
    ended = np.concatenate((succeeded, failed))
    success = np.arange(len(ended)) < len(succeeded)
    kept = stand_ins(len(ended), LEARNED_AT_MOST, ~success)
    learned = classifier(study.cost_features(ended[kept]), success[kept])
    return learned.chance(study.cost_features(rows))


def _laplace(covariance: Floats, signs: Floats, latent: Floats) -> tuple[Floats, Floats, Floats]:
    """At latent values: gradients of the log likelihood, roots of its curvatures, and the factor of
    B = I + W^½ K W^½."""
    at = signs * (latent + _OFFSET)
    ratio = np.exp(-(at**2) / 2 - log_ndtr(at)) / math.sqrt(2 * math.pi)
    roots = np.sqrt(np.maximum(ratio * (ratio + at), 0))
    scaled = roots[:, None] * covariance * roots
    scaled[np.diag_indices_from(scaled)] += 1
    return signs * ratio, roots, np.asarray(cholesky(scaled, lower=True, check_finite=False))


def _kernel(one: Floats, other: Floats) -> Floats:
    left, right = one * (math.sqrt(5) / _SCALE), other * (math.sqrt(5) / _SCALE)
    squared = left @ (-2 * right.T)
    squared += (left**2).sum(axis=1)[:, None]
    squared += (right**2).sum(axis=1)
    np.maximum(squared, 0, out=squared)
    distance = np.sqrt(squared)
    bump = (1 + distance + squared / 3) * np.exp(-distance)
    return np.asarray(_SIGNAL * bump + (one - 0.5) @ ((_TREND / one.shape[1]) * (other - 0.5).T))
