"""Small tables of invented trainings."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from isonas.bench.table import Training, write_table
from isonas.genome import Genome
from isonas.search.inputs import Inputs
from isonas.search.study import study_of
from tests.studies import INPUTS, error_of

TABLE_INPUTS = replace(INPUTS, sampler="random", epochs=3)
IMAGES = 400


def trained(genome: Genome, seed: int, *, noise: float = 0.05, epochs: int = 3) -> Training:
    """An invented training: errors are counts of 400 images and fall from epoch to epoch, seconds
    differ from genome to genome."""
    rng = random.Random(zlib.crc32(f"{genome} {seed}".encode()))
    final = error_of(genome) + noise * rng.uniform(-1, 1)
    wrong = [round(IMAGES * min(max(final * (1 + 0.1 * left), 0.0), 1.0)) for left in reversed(range(epochs))]
    seconds = 1 + genome.depth * rng.uniform(1, 2)
    return Training(
        genome=genome,
        seed=seed,
        error=tuple(count / IMAGES for count in wrong),
        test_error=None,
        seconds=3 * seconds,
        core_seconds=seconds,
    )


def some_genomes(count: int, inputs: Inputs = TABLE_INPUTS) -> list[Genome]:
    """Feasible genomes of the studies' space, in an order that mixes them."""
    columns = study_of(inputs).feasible.columns
    genomes = [columns.genome(row) for row in range(len(columns))]
    random.Random(0).shuffle(genomes)
    return genomes[:count]


def write(
    path: Path,
    genomes: list[Genome],
    trainings: int = 3,
    change: Callable[[Training], Training | None] = lambda training: training,
    *,
    noise: float = 0.05,
    **inputs: Any,
) -> Path:
    """Write a table of genomes, each training changed as told (None: left out)."""
    under = replace(TABLE_INPUTS, **inputs)
    made = [
        change(trained(genome, seed, noise=noise, epochs=under.epochs))
        for genome in genomes
        for seed in range(trainings)
    ]
    write_table(path, under, [one for one in made if one is not None])
    return path
