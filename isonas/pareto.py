"""Non-dominated points and dominated hypervolume, all objectives minimised (moocore computes them)."""

from __future__ import annotations

import moocore
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def non_dominated(points: Floats) -> npt.NDArray[np.bool_]:
    """Which of n points, given as (n, objectives), no other point dominates.

    Equal points do not dominate each other: all of them stay.
    """
    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    mask = moocore.is_nondominated(points, maximise=False, keep_weakly=True)
    return np.asarray(mask, dtype=np.bool_)


def hypervolume(points: Floats) -> float:
    """The part of the unit cube that points of shape (n, objectives) dominate, in [0, 1].

    Points beyond 1 on some axis add nothing; points below 0 count as 0.
    """
    inside = np.clip(points[np.all(points < 1, axis=1)], 0, 1) if len(points) else points
    if len(inside) == 0:
        return 0.0
    return float(moocore.hypervolume(inside, ref=np.ones(inside.shape[1])))
