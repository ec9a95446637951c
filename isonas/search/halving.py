"""Early stopping where there are several objectives: which trials are worth training on.

A trial is judged at rungs, a geometric ladder of epochs, among the trials that were asked before it.
Promoting by accuracy alone (as successive halving does) kills the small networks, which a front needs
as much as the accurate ones. So a trial goes on while it lies on the non-dominated front of its own
rung, or is likely to join the front in the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isonas.objectives import Reference
from isonas.search.log import COMPLETE, STOPPED, Trial

FACTOR = 3
"""From one rung to the next."""

LIKELY = 0.1
"""The least probability of joining the front at which a trial off its rung's front goes on."""

FIT_FROM = 5
"""Complete trials from which final errors are extrapolated."""


@dataclass(frozen=True)
class Extrapolation:
    """A final error as expected at a rung, and its standard deviation."""

    error: float
    deviation: float


def rungs_of(epochs: int, *, early_stopping: bool) -> tuple[int, ...]:
    """The epochs after which a trial is judged, ascending, the last of them `epochs`."""
    rungs = [epochs]
    while early_stopping and rungs[0] > 1:
        rungs.insert(0, math.ceil(rungs[0] / FACTOR))
    return tuple(rungs)


def judge(trial: Trial, others: Sequence[Trial], reference: Reference, rungs: Sequence[int]) -> Trial:
    """The trial as it is, or stopped with its extrapolated error.

    `trial` has just reached a rung; `others` are the trials asked before it, as far as they got.
    """
    if trial.epochs not in rungs:
        return trial
    rivals = [other for other in others if len(other.curve_error) >= trial.epochs]
    cheaper = [other for other in rivals if _costs_no_more(other, trial, reference)]
    at = trial.epochs - 1
    if not any(other.curve_error[at] <= trial.curve_error[at] for other in cheaper):
        return trial
    expected = extrapolate(trial.curve_error[at], trial.epochs, rivals)
    if expected is None:
        return trial
    finals = [other.curve_error[-1] for other in cheaper if other.state == COMPLETE]
    if not finals or _below(min(finals), expected) >= LIKELY:
        return trial
    return replace(
        trial, state=STOPPED, extrapolated_error=expected.error, extrapolated_se=expected.deviation
    )


def extrapolate(error: float, epochs: int, others: Sequence[Trial]) -> Extrapolation | None:
    """The final error of a network with `error` after `epochs`, by a line through complete trials.

    None where too few are complete.
    """
    pairs = [
        (other.curve_error[epochs - 1], other.curve_error[-1]) for other in others if other.state == COMPLETE
    ]
    if len(pairs) < FIT_FROM:
        return None
    early, final = np.array(pairs).T
    spread = float(early.var())
    slope = float(np.cov(early, final, bias=True)[0, 1]) / spread if spread > 0 else 0.0
    residual = final - final.mean() - slope * (early - early.mean())
    deviation = math.sqrt(float(residual @ residual) / (len(pairs) - 2))
    expected = float(final.mean()) + slope * (error - float(early.mean()))
    return Extrapolation(min(max(expected, 0.0), 1.0), max(deviation, 1e-3))


def _costs_no_more(one: Trial, other: Trial, reference: Reference) -> bool:
    return all(getattr(one, name) <= getattr(other, name) for name in reference.objectives if name != "error")


def _below(error: float, expected: Extrapolation) -> float:
    return 0.5 * math.erfc((expected.error - error) / expected.deviation / math.sqrt(2))
