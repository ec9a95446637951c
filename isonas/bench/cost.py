"""How fast genomes are costed, beside a counter that traces networks (fvcore)."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from isonas.cost import Deployment
from isonas.genome import Genome, Stem
from isonas.hardware import Budget, costs, within
from isonas.space import SearchSpace

TRACED = 10
"""Genomes that the tracing counter is timed on."""

MILLION = SearchSpace(
    name="million",
    input=224,
    classes=1000,
    depth=tuple(range(4, 40, 4)),
    channels=tuple(range(32, 288, 32)),
    internal_resolution=(7, 8, 14, 16, 28),
    expansion=(2, 3, 4, 5, 6, 8),
    se_ratio=(Fraction(0), Fraction(1, 4), Fraction(1, 8)),
    stem=tuple(Stem),
    kernel_size=(3, 5, 7),
    head_multiple=(6, 12, 16),
    head_features=(0, 640, 1280),
    shared=(False, True),
    description="Over a million genomes, to be costed under a budget.",
)
BUDGET = Budget(max_memory_bytes=512 * 1024, max_params=3_000_000, max_madds=200_000_000)


@dataclass(frozen=True)
class CostSpeed:
    """One paired run on this machine; `seconds` cover enumerating, costing and comparing to a budget.

    `traced_per_second` is None without fvcore.
    """

    space: str
    genomes: int
    feasible: int
    seconds: float
    genomes_per_second: float
    traced: int
    traced_per_second: float | None
    ratio: float | None


def cost_speed(space: SearchSpace = MILLION, budget: Budget = BUDGET) -> CostSpeed:
    """Time the costing of a whole space, then fvcore on a few of its genomes."""
    start = time.perf_counter()
    # A fresh copy: enumeration is kept by the space once it is made.
    columns = replace(space).columns
    feasible = int(within(budget, costs(columns, Deployment(space.input, space.classes), budget)).sum())
    seconds = time.perf_counter() - start
    rows = np.random.default_rng(0).choice(len(columns), size=min(TRACED, len(columns)), replace=False)
    sample = [columns.genome(int(row)) for row in rows]
    traced = _traced_per_second(sample, space)
    rate = len(columns) / seconds
    return CostSpeed(
        space.name,
        len(columns),
        feasible,
        seconds,
        rate,
        len(sample),
        traced,
        rate / traced if traced else None,
    )


def _traced_per_second(genomes: list[Genome], space: SearchSpace) -> float | None:
    with warnings.catch_warnings():
        # fvcore traces through PyTorch's deprecated TorchScript.
        warnings.simplefilter("ignore")
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError:
            return None
        import torch

        from isonas.networks.build import build_network

        image = torch.zeros(1, 3, space.input, space.input)
        start = time.perf_counter()
        for genome in genomes:
            network = build_network(genome, space.input, space.classes).eval()
            analysis = FlopCountAnalysis(network, image)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
        return len(genomes) / (time.perf_counter() - start)
