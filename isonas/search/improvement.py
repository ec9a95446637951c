"""Expected hypervolume improvement where one objective is uncertain and the others are known.

Of a genome's objectives only the error has to be guessed, so the expectation over it has a closed form
(for the general case see Emmerich, Deutz & Klinkenberg 2011). A point (e, c) adds to the hypervolume,
at each place c' of the costs' box that its costs reach (c ≤ c'), the part of the error axis between e
and the lowest error already reached there, T(c'). With e normal, the expected part is

    E[(T − e)+] = (T − μ) Φ((T − μ)/σ) + σ φ((T − μ)/σ).

T is constant on each of some boxes that fill the unit cube of costs, so the expected improvement is a
sum over those boxes: the volume that the genome's costs reach, times that expression.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from isonas.search.surrogate import Surrogate

Floats = npt.NDArray[np.float64]
BATCH = 500
BOUND_FROM = 100


def expected_improvement(mean: Floats, deviation: Floats, costs: Floats, front: Floats) -> Floats:
    """The expected gain in hypervolume of each of n genomes; the reference point is 1 on every axis.

    `mean` and `deviation` (n,) of their errors, `costs` (n, k), and `front` (m, 1 + k), errors in the
    first column; all scaled so that the box of interest is [0, 1].
    """
    lower, upper, reached = boxes(front, costs.shape[1])
    levels, level = np.unique(reached, return_inverse=True)
    gain = np.zeros(len(mean))
    volumes = np.zeros((len(levels), len(mean)))
    for low, high, at in zip(lower, upper, level.reshape(-1), strict=True):
        volumes[at] += np.prod(np.maximum(high - np.maximum(low, costs), 0), axis=1)
    for top, volume in zip(levels, volumes, strict=True):
        gain += volume * _below(top, mean, deviation)
    return gain


def most_improving(
    surrogate: Surrogate, features: Floats, costs: Floats, front: Floats, weights: Floats | float = 1.0
) -> int:
    """Which of n genomes has the largest expected improvement by its weight, without computing all.

    `features` (n, d) are the surrogate's, `weights` (n,) are at least 0; the rest is as in
    `expected_improvement`, errors scaled. Genomes are computed exactly from the highest bound down until
    none can exceed the best.
    """
    weights = np.broadcast_to(np.asarray(weights, np.float64), len(features))
    mean, deviation = surrogate.mean(features), surrogate.less_sure(BOUND_FROM).deviation(features)
    bound = weights * bounds(mean, deviation, costs, front)
    order = np.argsort(-bound, kind="stable")
    best, chosen = -1.0, int(order[0])
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        if bound[batch[0]] < best:
            break
        exact = surrogate.deviation(features[batch])
        gain = weights[batch] * expected_improvement(mean[batch], exact, costs[batch], front)
        if gain.max() > best:
            best, chosen = float(gain.max()), int(batch[gain.argmax()])
    return chosen


def bounds(mean: Floats, deviation: Floats, costs: Floats, front: Floats) -> Floats:
    """No less than the expected improvement of each of n genomes whose deviations are at most these.

    On all costs that a genome reaches, the lowest error reached is at most T, that at its own costs; so the
    whole volume times E[(T − e)+] bounds its improvement. That expectation grows with the deviation, which
    E[(T − e)+] − E[(0 − e)+] does not: it falls where the mean is below T/2.
    """
    top = np.ones(len(mean))
    for point in front:
        reached = np.all(point[1:] <= costs, axis=1)
        top[reached] = np.minimum(top[reached], point[0])
    volume = np.prod(np.clip(1 - costs, 0, 1), axis=1)
    return np.asarray(volume * _expected_excess(top - mean, deviation))


def _below(top: float | Floats, mean: Floats, deviation: Floats) -> Floats:
    """E[(top − e)+] less E[(0 − e)+]: no error is below 0."""
    return _expected_excess(top - mean, deviation) - _expected_excess(-mean, deviation)


def _expected_excess(excess: Floats, deviation: Floats) -> Floats:
    standard = excess / deviation
    density = np.exp(-(standard**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(excess * ndtr(standard) + deviation * density)


def boxes(front: Floats, costs: int) -> tuple[Floats, Floats, Floats]:
    """Disjoint boxes that fill the unit cube of costs, and the lowest error reached on each.

    Returns corners (b, costs), (b, costs) and errors (b,), 1 where nothing is reached.
    """
    open_low, open_high = np.zeros((1, costs)), np.ones((1, costs))
    closed: list[tuple[Floats, Floats, Floats]] = []
    for point in front[np.argsort(front[:, 0], kind="stable")] if len(front) else front:
        error, corner = point[0], np.clip(point[1:], 0, 1)
        if error >= 1:
            break
        met = np.all(open_high > corner, axis=1)
        low, high = open_low[met], open_high[met]
        left_low, left_high = [open_low[~met]], [open_high[~met]]
        for axis in range(costs):
            # What lies before the corner on this axis stays open, the rest goes on to the next axis.
            cut = np.maximum(low[:, axis], corner[axis])
            rest = cut > low[:, axis]
            before = high[rest].copy()
            before[:, axis] = cut[rest]
            left_low.append(low[rest])
            left_high.append(before)
            low = low.copy()
            low[:, axis] = cut
        closed.append((low, high, np.full(len(low), error)))
        open_low, open_high = np.concatenate(left_low), np.concatenate(left_high)
    closed.append((open_low, open_high, np.ones(len(open_low))))
    lower, upper, reached = (np.concatenate(parts) for parts in zip(*closed, strict=True))
    return lower, upper, reached
