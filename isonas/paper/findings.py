"""Whether trainings show what is claimed: paired differences over seeds, with 95% t-intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.stats import t as student


class Verdict(StrEnum):
    """What an interval says of a claim."""

    SHOWN = "shown"
    NOT_SHOWN = "not shown"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True)
class Interval:
    """A mean over `seeds` values and its 95% t-interval; without bounds where there is one value alone."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def half(self) -> float:
        """Half the interval's width; infinite for a single value."""
        return (self.high - self.low) / 2

    def points(self, *, signed: bool = False) -> str:
        """As percentage points, such as `61.2 ± 1.3`."""
        mean = f"{100 * self.mean:+.1f}" if signed else f"{100 * self.mean:.1f}"
        return f"{mean} ± {100 * self.half:.1f}" if math.isfinite(self.half) else mean


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95% t-interval of independent values, at least one."""
    array = np.array(values, np.float64)
    mean, count = float(array.mean()), len(array)
    if count == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = float(student.ppf(0.975, count - 1) * array.std(ddof=1) / math.sqrt(count))
    return Interval(mean, mean - half, mean + half, count)


@dataclass(frozen=True)
class Finding:
    """A claim, the difference it rests on (a fraction of images, or in the `unit` named) and the verdict.

    `paper` is the paper's figure for the same difference, where it has one.
    """

    claim: str
    verdict: Verdict
    difference: Interval
    paper: float | None = None

    def __str__(self) -> str:
        found = self.difference
        said = f"{self.claim}: {self.verdict}, {found.points(signed=True)} points"
        said += f" over {found.seeds} seeds" if found.seeds > 1 else " (one seed has no interval)"
        return said + (f"; the paper: {100 * self.paper:+.1f}" if self.paper is not None else "") + "."


def rises(
    claim: str, differences: Sequence[float], paper: float | None = None, *, above: float = 0.0
) -> Finding:
    """The claim that a difference, one value a seed, is above a level: zero, or a little less for a claim
    that one thing is not worse than another.

    It is shown where the whole interval is, contradicted where the whole interval is below.
    """
    found = interval(differences)
    if found.low > above:
        verdict = Verdict.SHOWN
    else:
        verdict = Verdict.CONTRADICTED if found.high < above else Verdict.NOT_SHOWN
    return Finding(claim, verdict, found, paper)


def agrees(claim: str, differences: Sequence[float], within: float, paper: float | None = None) -> Finding:
    """The claim that a difference, one value a seed, is no larger than `within`.

    It is shown where the whole interval lies there, contradicted where the whole interval lies outside.
    """
    found = interval(differences)
    if -within <= found.low and found.high <= within:
        verdict = Verdict.SHOWN
    else:
        outside = found.low > within or found.high < -within
        verdict = Verdict.CONTRADICTED if outside else Verdict.NOT_SHOWN
    return Finding(claim, verdict, found, paper)
