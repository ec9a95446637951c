"""What a proposal takes in a large space and after many trials: seconds and memory."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from isonas.bench.cost import MILLION
from isonas.errors import UsageError
from isonas.hardware import Budget
from isonas.search.drive import next_trial
from isonas.search.inputs import parse_inputs
from isonas.search.log import COMPLETE, Trial
from isonas.search.study import Study, study_of
from isonas.space import SearchSpace, space_document

SPACES = {
    "million": MILLION,
    "five-million": replace(MILLION, name="five-million", depth=tuple(range(1, 46))),
}
"""Built in beside the shipped ones."""

ASKS = 3
FIRST = 8
"""Proposals that are timed: at each number of trials, and at the start."""

CLASSES = 10


@dataclass(frozen=True)
class AfterTrials:
    """The median, and the longest, of some proposals that follow each other."""

    trials: int
    median_seconds: float
    longest_seconds: float


@dataclass(frozen=True)
class ProposalSpeed:
    """One run on this machine. `enumerate_seconds` cover enumerating, costing and indexing the space;
    `peak_memory_bytes` is the most that this process held so far, None where that cannot be read."""

    space: str
    sampler: str
    genomes: int
    feasible: int
    enumerate_seconds: float
    proposals: tuple[AfterTrials, ...]
    peak_memory_bytes: int | None


def proposal_speed(space: SearchSpace, sampler: str, trials: Sequence[int]) -> ProposalSpeed:
    """Time a sampler's proposals in a space after so many invented trials each, ascending."""
    start = time.perf_counter()
    # A fresh copy: enumeration is kept by the space once it is made.
    study = _study(replace(space), sampler)
    seconds = time.perf_counter() - start
    timed = tuple(_timed(study, count) for count in sorted(set(trials)))
    return ProposalSpeed(
        space.name,
        sampler,
        len(study.space.columns),
        len(study.feasible.columns),
        seconds,
        timed,
        _peak_memory_bytes(),
    )


def _timed(study: Study, count: int) -> AfterTrials:
    known = _invented(study, count)
    took = []
    for number in range(count, count + (ASKS if count else FIRST)):
        start = time.perf_counter()
        step = next_trial(study, known, number, set())
        took.append(time.perf_counter() - start)
        if step is None:
            break
        known[number] = _told(study, step.trial)
    return AfterTrials(count, statistics.median(took), max(took))


def _invented(study: Study, count: int) -> dict[int, Trial]:
    """Trials of genomes drawn at random, with errors that fall with size and some noise."""
    genomes = len(study.feasible.columns)
    if count >= genomes:
        raise UsageError(f"--trials {count} leaves none of the {genomes:,} feasible genomes; give fewer.")
    rows = np.random.default_rng(0).choice(genomes, size=count, replace=False)
    return {
        number: _told(
            study,
            Trial(
                number=number,
                state=COMPLETE,
                genome=study.feasible.columns.genome(row),
                params=int(study.costs.params[row]),
                madds=int(study.costs.madds[row]),
                peak_bytes=int(study.costs.peak_bytes[row]),
                weight_bytes=int(study.costs.weight_bytes[row]),
                arena_bytes=int(study.costs.arena_bytes[row]),
                file_bytes=int(study.costs.file_bytes[row]),
                proxy_input=0,
                proxy_k=0,
                seed=0,
                started_at="",
            ),
        )
        for number, row in enumerate(map(int, rows))
    }


def _told(study: Study, trial: Trial) -> Trial:
    noise = np.random.default_rng(trial.number).normal(0, 0.03)
    error = float(np.clip(1.4 - 0.12 * math.log10(trial.madds * trial.params) + noise, 0.05, 0.9))
    deviation = math.sqrt(error * (1 - error) / 1600)
    return replace(
        trial,
        state=COMPLETE,
        error=error,
        error_se=deviation,
        curve_epochs=(1,),
        curve_error=(error,),
        curve_error_se=(deviation,),
        epochs=1,
    )


def _study(space: SearchSpace, sampler: str) -> Study:
    budget = asdict(Budget())
    document = {
        "space": space_document(space),
        "input": space.input,
        "classes": space.classes,
        "budget": budget,
        "objectives": ["error", "arena_bytes", "madds"],
        "sampler": sampler,
        "seed": 0,
        "data": "invented",
        "data_fingerprint": "none",
        "data_side": space.input,
        "class_names": list(map(str, range(CLASSES))),
        "epochs": 1,
        "epoch_images": None,
        "batch_size": 32,
        "proxy_input": None,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "trials": 1,
    }
    return study_of(parse_inputs(document))


def _peak_memory_bytes() -> int | None:
    try:
        import resource
        import sys
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
