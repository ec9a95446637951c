"""The statistics of a comparison over seeds: quartiles with runs that did not get there, paired tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata, wilcoxon

from isonas.pareto import Floats


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles; None is "not reached" (later than was watched)."""

    median: float | None
    low: float | None
    high: float | None


def quartiles(values: Sequence[float]) -> Quartiles:
    """Of values that are all known, interpolated between neighbours."""
    low, median, high = np.quantile(np.array(values, np.float64), (0.25, 0.5, 0.75))
    return Quartiles(float(median), float(low), float(high))


def quartiles_reached(times: Sequence[float | None]) -> Quartiles:
    """When a quarter, half and three quarters of the runs had got there.

    None is a run that did not: it stays among the runs, later than all others.
    """
    known = np.array([math.inf if time is None else time for time in times], np.float64)
    found = np.quantile(known, (0.25, 0.5, 0.75), method="inverted_cdf")
    low, median, high = (float(time) if math.isfinite(time) else None for time in found)
    return Quartiles(median, low, high)


@dataclass(frozen=True)
class Paired:
    """A two-sided Wilcoxon signed-rank test: `p`, and which way the ranks lean (1: the first is larger,
    -1: the second, 0: neither)."""

    p: float
    leaning: int


def paired(first: Floats, second: Floats) -> Paired:
    """Whether pairs differ; equal pairs are left out, as Wilcoxon did, and nothing left is p = 1."""
    differences = (first - second)[first != second]
    if not len(differences):
        return Paired(1.0, 0)
    ranks = rankdata(np.abs(differences))
    leaning = int(np.sign(ranks @ np.sign(differences)))
    return Paired(float(wilcoxon(differences).pvalue), leaning)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: each at most a level exactly where Holm's procedure rejects at it."""
    adjusted, least = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        least = max(least, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = least
    return adjusted
