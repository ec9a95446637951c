"""Whether a short training ranks genomes as a longer one does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from isonas.bench.table import Training
from isonas.pareto import Floats
from isonas.search.log import Trial

FRESH = 1000
"""Which training of a genome the longer one is: beyond any that a search makes (`--repeats` ends at 100)."""

FEWEST = 5
"""Genomes below which nothing is said of a ranking."""

RESAMPLES = 1000
_PERCENTILES = (0.025, 0.975)
_NAMES = {"proxy": "proxy error", "params": "params alone", "madds": "MAdds alone"}


def stratified(trials: Sequence[Trial], size: int, seed: int) -> list[Trial]:
    """`size` of the trials (all, where they are fewer) that stand for their resolutions and errors.

    Each place in turn goes to the internal resolution with the most trials for every place it has, one
    without any before all others; so shares are near the run's, and no resolution is left out while
    places last. Within a resolution of m places the trials are put in order of their own error and cut
    into m runs of equal length (to within one), and one trial is drawn of each. The order of the sample
    is drawn too: an unfinished part of it is no worse a sample, only a smaller one.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    places = _places([trial.genome.internal_resolution for trial in trials], min(size, len(trials)))
    for resolution, count in places.items():
        own = [trial for trial in trials if trial.genome.internal_resolution == resolution]
        own.sort(key=lambda trial: (_own_error(trial), trial.number))
        cuts = [place * len(own) // count for place in range(count + 1)]
        chosen += [own[rng.integers(low, high)] for low, high in itertools.pairwise(cuts)]
    return [chosen[index] for index in rng.permutation(len(chosen))]


def _places(resolutions: Sequence[int], size: int) -> dict[int, int]:
    """How many of `size` places each resolution gets, by Adams' method; those with none are left out."""
    counts = {resolution: resolutions.count(resolution) for resolution in sorted(set(resolutions))}
    places = dict.fromkeys(counts, 0)
    for _ in range(size):
        # No more places than trials: a full resolution has one trial a place, any other more.
        neediest = max(counts, key=lambda one: (not places[one], counts[one] / (places[one] or 1), -one))
        places[neediest] += 1
    return {resolution: count for resolution, count in places.items() if count}


def kendall(first: Floats, second: Floats) -> float | None:
    """Kendall's τ-b, 1 for the same order and −1 for the reverse; None where either ties everything."""
    # Over pairs, not SciPy's sort: a thirtieth of its time on samples this small, drawn thousands of times.
    one, other = (np.sign(values[:, None] - values) for values in (first, second))
    untied = math.sqrt(float((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / untied if untied else None


def overlap(first: Floats, second: Floats, k: int) -> float:
    """The share of the k lowest of one that are among the k lowest of the other.

    Values tied across the border share the places that are left, each holding an equal part of one. A
    ranking without any order therefore gets what chance gives, k over the number of values.
    """
    return float(np.minimum(_lowest(first, k), _lowest(second, k)).sum() / k)


def _lowest(values: Floats, k: int) -> Floats:
    border = np.partition(values, k - 1)[k - 1]
    below, at = values < border, values == border
    member: Floats = below + at * ((k - below.sum()) / at.sum())
    return member


@dataclass(frozen=True)
class Interval:
    """A statistic of a sample and its 95% bootstrap percentile interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


def bootstrap(
    statistic: Callable[[Floats, Floats], float | None],
    first: Floats,
    second: Floats,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """A statistic of pairs, with an interval over resamples of the pairs (Efron, percentile method).

    Equal seeds and lengths draw the same resamples. Those on which the statistic is undefined are left
    out.
    """
    rng = np.random.default_rng((seed, 1))
    draws = rng.integers(len(first), size=(resamples, len(first)))
    found = [value for draw in draws if (value := statistic(first[draw], second[draw])) is not None]
    value = statistic(first, second)
    if value is None or not found:
        return Interval(value, None, None)
    low, high = np.quantile(np.array(found, np.float64), _PERCENTILES)
    return Interval(value, float(low), float(high))


@dataclass(frozen=True)
class Compared:
    """One genome's proxy error, its error after the longer training, and its costs."""

    internal_resolution: int
    params: int
    madds: int
    proxy_error: float
    longer_error: float


@dataclass(frozen=True)
class Ranking:
    """How well the order `by` proxy error, params or MAdds (more is better) foretells the longer error.

    Over all genomes, or over those of one internal resolution. `overlap` is that of the best `top_k`, a
    quarter of the genomes; `chance` is the overlap that a random order has on average.
    """

    by: str
    internal_resolution: int | None
    genomes: int
    top_k: int
    chance: float
    kendall: Interval
    overlap: Interval


def compared(sample: Sequence[Trial], trainings: Sequence[Training]) -> list[Compared]:
    """The sampled trials that were trained longer, in their order; failed trainings are left out."""
    longer = {
        training.genome: training.error[-1]
        for training in trainings
        if training.seed == FRESH and training.error
    }
    return [
        Compared(
            trial.genome.internal_resolution,
            trial.params,
            trial.madds,
            _own_error(trial),
            longer[trial.genome],
        )
        for trial in sample
        if trial.genome in longer
    ]


def rankings(genomes: Sequence[Compared], seed: int, resamples: int = RESAMPLES) -> list[Ranking]:
    """Proxy error beside params and MAdds, over all genomes and over each internal resolution.

    All have FEWEST genomes at least. The three orders of the same genomes are judged on the same
    resamples.
    """
    groups: list[int | None] = [None, *sorted({genome.internal_resolution for genome in genomes})]
    found = []
    for resolution in groups:
        own = [genome for genome in genomes if resolution in (None, genome.internal_resolution)]
        if len(own) >= FEWEST:
            found += [_ranking(by, resolution, own, seed, resamples) for by in _NAMES]
    return found


def document(run: str, epochs: tuple[int, int], found: Sequence[Ranking]) -> dict[str, Any]:
    """Rankings as plain data: what `--json` prints; `epochs` are the proxy's and the longer training's."""
    overall = found[0]
    return {
        "run": run,
        "genomes": overall.genomes,
        "epochs_proxy": epochs[0],
        "epochs_longer": epochs[1],
        "top_k": overall.top_k,
        "chance": overall.chance,
        "rankings": [
            {**vars(ranking), "kendall": vars(ranking.kendall), "overlap": vars(ranking.overlap)}
            for ranking in found
        ],
    }


def fidelity_table(epochs: tuple[int, int], found: Sequence[Ranking]) -> Group:
    """Rankings for people, with a sentence on what they are; `epochs` as in `document`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("internal resolution", "genomes", "ranked by", "Kendall τ", "best k", "overlap", "chance"):
        table.add_column(title, justify="left" if title == "ranked by" else "right", no_wrap=True)
    for ranking in found:
        table.add_row(
            str(ranking.internal_resolution or "all"),
            str(ranking.genomes),
            _NAMES[ranking.by],
            _cell(ranking.kendall),
            str(ranking.top_k),
            _cell(ranking.overlap),
            f"{ranking.chance:.2f}",
        )
    return Group(
        table,
        Text(),
        Text(
            f"How the order after {epochs[0]} epochs, or of size alone (more is better), agrees with the "
            f"order after {epochs[1]} epochs from a fresh seed on the same validation images. Overlap: the "
            "share of the longer training's best k that the ranking has among its own. In brackets 95% "
            "bootstrap intervals over genomes."
        ),
    )


def _ranking(
    by: str, resolution: int | None, genomes: Sequence[Compared], seed: int, resamples: int
) -> Ranking:
    k = max(len(genomes) // 4, 1)
    order = {
        "proxy": [genome.proxy_error for genome in genomes],
        "params": [-genome.params for genome in genomes],
        "madds": [-genome.madds for genome in genomes],
    }[by]
    first = np.array(order, np.float64)
    longer = np.array([genome.longer_error for genome in genomes], np.float64)
    return Ranking(
        by,
        resolution,
        len(genomes),
        k,
        k / len(genomes),
        bootstrap(kendall, first, longer, seed, resamples),
        bootstrap(lambda one, other: overlap(one, other, k), first, longer, seed, resamples),
    )


def _own_error(trial: Trial) -> float:
    error = trial.own_error
    assert error is not None, f"trial {trial.number} is complete without an error"
    return error


def _cell(of: Interval) -> str:
    if of.value is None or of.low is None or of.high is None:
        return "undefined" if of.value is None else f"{of.value:.2f}"
    return f"{of.value:.2f} [{of.low:.2f}, {of.high:.2f}]"
