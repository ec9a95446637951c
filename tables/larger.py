"""ehvi against Optuna's own NSGA-II where no table can be recorded: on invented errors of a larger space.

    python tables/larger.py

Errors of all 12,528 genomes of `mcu` within 200 kB are invented: a logistic function of MAdds, params, a
linear function of the genes and a smooth random function of them (Rahimi and Recht 2007), whose share is
the roughness. Two trainings of a genome differ by a standard deviation of .012, and each is scored on
1,600 images. NSGA-II is Optuna's, told of the constraint, with a population of 50, over the whole space of
20,736 genomes: it is not spared what it has proposed before, nor what exceeds the budget, as it is in
isonas. A search sees one training and its front is scored by the other, as in `isonas bench samplers`;
100% is the hypervolume of the whole table. Medians over seeds; takes about 20 minutes.

How rough is real? For each surface, and for the recorded table `tiny`, it is told how well 50 trainings
foretell the others: Kendall's τ between the surrogate's expectation and the other trainings' error.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna
from scipy.stats import kendalltau

from isonas.bench.arena import Arena, read_arena
from isonas.bench.replay import Length, Setting, replay
from isonas.bench.table import Training, write_table
from isonas.cost import Deployment
from isonas.data.preprocessing import Fit
from isonas.hardware import Budget, costs
from isonas.pareto import hypervolume, non_dominated
from isonas.search.feasible import feasible_set
from isonas.search.inputs import Inputs
from isonas.search.study import Study, study_of
from isonas.search.surrogate import fit
from isonas.space import load_space
from isonas.training.version import TRAINING_VERSION

Floats = npt.NDArray[np.float64]

LIMIT_BYTES = 200_000
CLASSES = 10
IMAGES = 1600
TRAIL = (10, 20, 30, 40, 50, 60)
NSGA2_TRAIL = (50, 100, 200, 400)
SURFACES = ((1, 0.3), (2, 1.0), (3, 0.3), (4, 0.6), (5, 1.0))
"""Seed and roughness."""

INPUTS = Inputs(
    space=load_space("mcu"),
    input=112,
    classes=CLASSES,
    budget=Budget(max_memory_bytes=LIMIT_BYTES),
    objectives=("error", "arena_bytes", "madds"),
    sampler="ehvi",
    seed=0,
    data="invented",
    data_fingerprint="none",
    data_side=64,
    class_names=tuple(map(str, range(CLASSES))),
    image_side=None,
    fit=Fit.CROP,
    decoder=0,
    chance=1 - 1 / CLASSES,
    epochs=1,
    epoch_images=None,
    batch_size=32,
    training_version=TRAINING_VERSION,
    proxy_input=None,
    device="cpu",
    precision="fp32",
    threads=1,
    early_stopping=False,
    trials=max(TRAIL),
    repeats=1,
    trial_timeout=None,
    workers=1,
    engine="local",
    cpus_per_trial=1.0,
    gpus_per_trial=0.0,
)


def invented(study: Study, seed: int, roughness: float) -> list[Training]:
    """Two trainings of every feasible genome on a surface of errors drawn by a seed."""
    drawn = np.random.default_rng(seed)
    genes = study.feasible.features(np.arange(len(study.feasible.columns)))
    count, width = genes.shape

    def bumps(scale: float, waves: int = 400) -> Floats:
        at = genes @ drawn.normal(0, 1 / scale, (width, waves)) + drawn.uniform(0, 2 * math.pi, waves)
        return _unit(np.cos(at) @ drawn.normal(0, 1, waves))

    sizes = 0.9 * _unit(np.log(study.costs.madds)) + 0.35 * _unit(np.log(study.costs.params))
    linear = (genes - 0.5) @ drawn.normal(0, 0.9, width)
    score = 1.3 * _unit(sizes + linear) + roughness * (bumps(0.7) + 0.5 * bumps(0.35))
    error = np.minimum(0.28 + 0.58 / (1 + np.exp(score)), 0.89)
    noisy = np.clip(error[:, None] + drawn.normal(0, 0.012, (count, 2)), 0.01, 0.9)
    seen = drawn.binomial(IMAGES, noisy) / IMAGES
    genome = study.feasible.columns.genome
    return [
        Training(
            genome=genome(row),
            seed=again,
            error=(float(seen[row, again]),),
            test_error=None,
            seconds=1.0,
            core_seconds=1.0,
        )
        for row in range(count)
        for again in range(2)
    ]


def _unit(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / values.std())


def optunas_nsga2(arena: Arena, seed: int) -> list[float]:
    """The shares that Optuna's NSGA-II with a constraint reaches, at the trials of NSGA2_TRAIL."""
    inputs, view = arena.study.inputs, arena.views[seed % len(arena.views)]
    columns = replace(inputs.space, input=inputs.input).columns
    whole = feasible_set(columns)
    of = costs(columns, Deployment(inputs.input, inputs.classes), inputs.budget)
    names = arena.study.reference.costs
    scaled = np.stack([arena.study.reference.scale(name, getattr(of, name)) for name in names], axis=1)
    sampler = optuna.samplers.NSGAIISampler(
        seed=seed, constraints_func=lambda trial: (trial.user_attrs["over"],)
    )
    search = optuna.create_study(directions=["minimize"] * (1 + len(names)), sampler=sampler)
    trained: list[int] = []
    shares = []
    for number in range(1, max(NSGA2_TRAIL) + 1):
        trial = search.ask(whole.distributions())
        (index,) = whole.at(np.array([[trial.params[gene] for gene in whole.genes]]))
        # The space's few invalid combinations count as infeasible.
        row = arena.rows.get(columns.genome(int(index))) if index >= 0 else None
        trial.set_user_attr("over", float(of.arena_bytes[index] / LIMIT_BYTES - 1) if index >= 0 else 1.0)
        if row is not None:
            trained.append(row)
            search.tell(trial, [float(value) for value in view.seen[row]])
        else:
            beyond = scaled[index].tolist() if index >= 0 else [1.0] * len(names)
            search.tell(trial, [1.0, *beyond])
        if number in NSGA2_TRAIL:
            rows = np.array(trained, np.int64)
            front = rows[non_dominated(view.seen[rows])]
            shares.append(hypervolume(view.scored[front]) / view.reached)
    return shares


def foretold(arena: Arena, seeds: int, trained: int = 50, others: int = 1000) -> float:
    """Kendall's τ of the surrogate's expectations after some random trainings; the median over seeds."""
    axis, chance = arena.study.reference.objectives.index("error"), 1 - 1 / CLASSES
    features, found = arena.study.features(np.arange(len(arena.rows))), []
    for seed in range(seeds):
        view = arena.views[seed % len(arena.views)]
        order = np.random.default_rng(seed).permutation(len(features))
        known, rest = order[:trained], order[trained : trained + others]
        errors = view.seen[known, axis]
        deviations = np.sqrt(errors * chance * (1 - errors * chance) / arena.images) / chance
        expected = fit(features[known], errors, deviations).mean(features[rest])
        found.append(kendalltau(expected, view.scored[rest, axis]).statistic)
    return float(np.median(found))


def main() -> None:
    """Print a row a surface: shares by trials of ehvi, then of NSGA-II."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--surfaces", type=int, default=len(SURFACES))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    study = study_of(INPUTS)
    real = read_arena(Path(__file__).parent / "tiny.parquet")
    print(f"tiny, really trained: foretold with τ {foretold(real, asked.seeds):.2f}")
    for surface, roughness in SURFACES[: asked.surfaces]:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "invented.parquet"
            write_table(table, INPUTS, invented(study, surface, roughness))
            arena = read_arena(table)
        length = Length(max(TRAIL), 0.0)
        found = [replay(arena, "ehvi", seed, length, Setting()).shares.table for seed in range(asked.seeds)]
        ours = np.median([[share[at - 1] for at in TRAIL] for share in found], axis=0)
        theirs = np.median([optunas_nsga2(arena, seed) for seed in range(asked.seeds)], axis=0)
        print(f"surface {surface}, roughness {roughness}: foretold with τ {foretold(arena, asked.seeds):.2f}")
        print("  ehvi   ", *(f"{at}: {share:.3f}" for at, share in zip(TRAIL, ours, strict=True)))
        print("  NSGA-II", *(f"{at}: {share:.3f}" for at, share in zip(NSGA2_TRAIL, theirs, strict=True)))


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main()
