"""A replay is the search itself on a simulated clock: checked against simulations by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isonas.bench.arena import Arena, read_arena
from isonas.bench.replay import Length, Replay, Setting, SimulatedEngine, replay
from isonas.bench.table import Training
from isonas.errors import IsonasError, LogError, TrainingError, UsageError
from isonas.genome import Genome
from isonas.objectives import reference_of
from isonas.search.drive import drive
from isonas.search.log import COMPLETE, RUNNING, Trial
from tests.tables import IMAGES, some_genomes, write

GENOMES = some_genomes(24)
ALL = Length(len(GENOMES), 0.0)
Change = Callable[[Training], Training]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return read_arena(write(tmp_path_factory.mktemp("arena") / "table.parquet", GENOMES))


def random_order(arena: Arena, seed: int) -> list[Genome]:
    """What the random sampler proposes: uniform over what is left, seeded by (seed, number)."""
    left = list(range(len(arena.rows)))
    order = []
    for number in range(len(left)):
        # Sampler seeds are drawn first, whether a sampler needs one or not.
        rng = np.random.default_rng((seed, number))
        rng.integers(2**31)
        order.append(arena.study.feasible.columns.genome(left.pop(int(rng.integers(len(left))))))
    return order


def dominated_area(points: list[tuple[float, float]]) -> float:
    """Of the unit square, by a sweep along the first axis."""
    area, lowest = 0.0, 1.0
    for x, y in sorted(points):
        if x < 1 and y < lowest:
            area += (1 - x) * (lowest - y)
            lowest = y
    return area


def by_hand(arena: Arena, order: list[Genome], training: int) -> list[float]:
    """The scored hypervolume of error and MAdds after each genome, from the definitions.

    The box reaches a tenth of the costs' log span beyond the costliest.
    """
    costs = dict(zip(arena.rows, arena.study.costs.madds.tolist(), strict=True))
    low, high = math.log(min(costs.values())), math.log(max(costs.values()))

    def point(genome: Genome, errors: list[float]) -> tuple[float, float]:
        return sum(errors) / len(errors) / 0.9, (math.log(costs[genome]) - low) / (1.1 * (high - low))

    shares = []
    for done in range(1, len(order) + 1):
        finals = {genome: [run.error[-1] for run in arena.trainings[genome]] for genome in order[:done]}
        seen = {genome: (errors[training], costs[genome]) for genome, errors in finals.items()}
        front = [
            genome
            for genome, (error, cost) in seen.items()
            if not any(e <= error and c <= cost and (e, c) != (error, cost) for e, c in seen.values())
        ]
        others = [finals[genome][:training] + finals[genome][training + 1 :] for genome in front]
        shares.append(dominated_area([point(*pair) for pair in zip(front, others, strict=True)]))
    return shares


@pytest.mark.parametrize("seed", range(4))
def test_a_random_replay_is_the_simulation_by_hand(seed: int, tmp_path: Path) -> None:
    arena = read_arena(write(tmp_path / "table.parquet", GENOMES, objectives=("error", "madds")))
    one = replay(arena, "random", seed, ALL, Setting())
    order = random_order(arena, seed)
    shares = by_hand(arena, order, seed % 3)
    assert one.shares.table == pytest.approx([share / shares[-1] for share in shares])
    seconds = [arena.trainings[genome][seed % 3].core_seconds for genome in order]
    assert one.ended == pytest.approx(list(itertools.accumulate(seconds)))
    assert one.training_seconds == pytest.approx(one.ended[-1])


@pytest.mark.parametrize("sampler", ["ehvi", "tpe", "nsga2", "random"])
@pytest.mark.parametrize("workers", [1, 5])
def test_every_search_of_the_whole_table_ends_at_100_percent(
    arena: Arena, sampler: str, workers: int
) -> None:
    one = replay(arena, sampler, 1, ALL, Setting(workers))
    view = arena.views[1]
    assert len(one.ended) == len(GENOMES)
    assert [one.shares.table[-1], one.shares.seen[-1]] == pytest.approx([1, 1])
    assert one.shares.best[-1] == pytest.approx(view.reached / view.best)
    assert (one.duplicates, one.infeasible, one.stopped, one.failed) == (0, 0, 0, 0)
    assert all(before <= after for before, after in itertools.pairwise(one.shares.seen))
    assert max(one.shares.best) <= 1


def test_where_all_trainings_agree_every_meaning_of_100_percent_is_one(tmp_path: Path) -> None:
    arena = read_arena(write(tmp_path / "table.parquet", GENOMES, noise=0.0))
    shares = replay(arena, "tpe", 0, ALL, Setting()).shares
    assert shares.table == pytest.approx(shares.best)
    assert shares.table == pytest.approx(shares.seen)
    assert shares.table[-1] == 1


def test_a_search_sees_one_training_and_is_scored_by_the_others(tmp_path: Path) -> None:
    """Where the first training alone tells nothing, only searches of that training suffer."""

    def change(training: Training) -> Training:
        if training.seed:
            return training
        worst = replace(training, error=(0.9, 0.8, 0.7))
        return replace(training, error=(0.9, 0.8, 0.1)) if training.genome == GENOMES[0] else worst

    arena = read_arena(write(tmp_path / "table.parquet", GENOMES, 3, change, noise=0.0))
    assert arena.views[0].reached < arena.views[0].best
    # The other two see errors that agree with each other, and half of their score is the first's.
    assert arena.views[1].seen == pytest.approx(arena.views[2].seen)
    assert arena.views[1].scored == pytest.approx((arena.views[0].seen + arena.views[1].seen) / 2)
    assert arena.views[0].scored == pytest.approx(arena.views[1].seen)


def through(arena: Arena, workers: int, seed: int = 0, **inputs: Any) -> tuple[list[Trial], list[float]]:
    """The trials as the loop ends them, and when."""
    study = replace(arena.study, inputs=replace(arena.study.inputs, seed=seed, **inputs))
    engine = SimulatedEngine(arena, 0, workers)
    trials, ended = [], []
    for step in drive(study, {}, engine, len(arena.rows)):
        if step.trial.state != RUNNING:
            trials.append(step.trial)
            ended.append(engine.now)
    return trials, ended


@given(st.integers(1, 30), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_workers_take_the_next_genome_as_they_become_free(arena: Arena, workers: int, seed: int) -> None:
    """What the random sampler proposes depends on no result, so the clock can be told by hand."""
    free = [0.0] * workers
    expected = []
    for number, genome in enumerate(random_order(arena, seed)):
        worker = free.index(min(free))
        free[worker] += arena.trainings[genome][0].core_seconds
        expected.append((free[worker], number, genome))
    expected.sort()
    trials, ended = through(arena, workers, seed)
    assert [trial.genome for trial in trials] == [genome for _, _, genome in expected]
    assert ended == pytest.approx([at for at, _, _ in expected])


def test_a_stopped_trial_takes_its_share_of_the_seconds(tmp_path: Path) -> None:
    genomes = some_genomes(60)
    arena = read_arena(write(tmp_path / "table.parquet", genomes, epochs=9, noise=0.0))
    trials, ended = through(arena, 1, early_stopping=True)
    spent = [arena.trainings[t.genome][0].core_seconds * t.epochs / 9 for t in trials]
    assert ended == pytest.approx(list(itertools.accumulate(spent)))
    assert {trial.epochs for trial in trials} >= {1, 9}
    whole = sum(arena.trainings[genome][0].core_seconds for genome in genomes)
    one = replay(arena, "random", 0, Length(60, 0.0), Setting(early_stopping=True))
    assert (
        one.stopped == sum(trial.state != COMPLETE for trial in trials) == sum(t.epochs < 9 for t in trials)
    )
    assert one.training_seconds == pytest.approx(sum(spent))
    assert one.training_seconds < whole


@pytest.mark.parametrize(("trials", "seconds"), [(10, 0.0), (3, 30.0), (10, 1e9)])
def test_a_replay_goes_on_until_trials_and_seconds_are_used_up(
    arena: Arena, trials: int, seconds: float
) -> None:
    whole = replay(arena, "random", 2, ALL, Setting())
    one = replay(arena, "random", 2, Length(trials, seconds), Setting())
    enough = [n for n, at in enumerate(whole.ended, 1) if n >= trials and at >= seconds]
    assert one.ended == whole.ended[: min(enough, default=len(GENOMES))]


def test_a_log_changes_nothing_but_the_real_clock(arena: Arena, tmp_path: Path) -> None:
    def run(log: Path | None) -> Replay:
        return replay(arena, "tpe", 0, Length(12, 0.0), Setting(4, early_stopping=True, log=log))

    assert run(tmp_path) == run(None)
    assert not list(tmp_path.iterdir())
    with pytest.raises(LogError, match="cannot be written"):
        run(tmp_path / "missing")


def test_what_failed_is_a_failed_trial_that_took_its_time(tmp_path: Path) -> None:
    failing = GENOMES[:5]

    def change(training: Training) -> Training:
        if training.genome in failing and training.seed == 0:
            return replace(training, error=(), reason="the loss is not finite")
        return training

    arena = read_arena(write(tmp_path / "table.parquet", GENOMES, 3, change))
    whole = sum(runs[0].core_seconds for runs in arena.trainings.values())
    for seed, failed in enumerate((5, 0, 0)):
        one = replay(arena, "random", seed, ALL, Setting())
        assert one.failed == failed
        assert one.shares.seen[-1] == pytest.approx(1)
    assert replay(arena, "random", 0, ALL, Setting()).ended[-1] == pytest.approx(whole)
    # Scored by a training that failed, a genome has no right answer there.
    row = arena.rows[failing[0]]
    others = arena.trainings[failing[0]][2].error[-1]
    assert arena.views[1].scored[row, 0] == pytest.approx((1 + others) / 2 / 0.9)


def test_a_genome_beyond_the_table_is_refused(arena: Arena) -> None:
    engine = SimulatedEngine(arena, 0, 1)
    stranger = next(genome for genome in some_genomes(100) if genome not in arena.rows)
    engine.submit(7, stranger, 0, 0, 3, None)
    key, outcome = engine.next()
    assert (key, engine.now) == (7, 0.0)
    assert isinstance(outcome, TrainingError)


def test_standard_errors_are_those_of_the_validation_images(arena: Arena) -> None:
    assert arena.images == IMAGES
    for trial in through(arena, 1)[0]:
        assert trial.error is not None
        assert trial.error_se == pytest.approx(math.sqrt(trial.error * (1 - trial.error) / IMAGES))


@pytest.mark.parametrize(
    ("drop", "left_out"), [(lambda t: t.genome in GENOMES[20:] and t.seed == 2, 4), (lambda t: False, 0)]
)
def test_an_unfinished_table_is_a_smaller_table(
    drop: Callable[[Training], bool], left_out: int, tmp_path: Path
) -> None:
    partial = write(tmp_path / "partial.parquet", GENOMES, 3, lambda t: None if drop(t) else t)
    small = write(tmp_path / "small.parquet", GENOMES[: len(GENOMES) - left_out])
    arena, alike = read_arena(partial), read_arena(small)
    assert arena.left_out == left_out
    assert list(arena.rows) == list(alike.rows)
    inputs = arena.study.inputs
    box = reference_of(inputs.objectives, arena.study.costs, 0.9)
    assert arena.study.reference == alike.study.reference == box
    for sampler in ("ehvi", "random"):
        length = Length(12, 0.0)
        assert replay(arena, sampler, 3, length, Setting()) == replay(alike, sampler, 3, length, Setting())
    # With one training less, all genomes have theirs.
    assert len(read_arena(partial, 2).rows) == len(GENOMES)


def one_changed(**changes: Any) -> Change:
    """The first genome's first training, changed."""

    def change(training: Training) -> Training:
        first = (training.genome, training.seed) == (GENOMES[0], 0)
        return replace(training, **changes) if first else training

    return change


def renamed(training: Training) -> Training:
    foreign = replace(GENOMES[0], channels=48)
    return replace(training, genome=foreign) if training.genome == GENOMES[0] else training


@pytest.mark.parametrize(
    ("genomes", "trainings", "change", "error", "says"),
    [
        (9, 3, None, UsageError, "9 genomes with 3 trainings, and at least 10"),
        (24, 1, None, UsageError, "at least 2 are needed"),
        (0, 3, None, UsageError, "has 0 trainings"),
        (24, 3, one_changed(error=(0.5,)), LogError, "contradicts itself .* seed 0: it needs 3 errors"),
        (24, 3, one_changed(error=(0.5, 0.5, float("nan"))), LogError, "contradicts itself"),
        (24, 3, one_changed(core_seconds=0.0), LogError, "contradicts itself"),
        (24, 3, one_changed(seed=1), LogError, "seed 1 twice"),
        (24, 3, renamed, LogError, "its own space"),
        (24, 3, lambda t: replace(t, error=(0.95, 0.95, 0.95)), UsageError, "better than chance"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(
    genomes: int, trainings: int, change: Change | None, error: type[IsonasError], says: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "table.parquet", GENOMES[:genomes], trainings, change or (lambda t: t))
    with pytest.raises(error, match=says) as raised:
        read_arena(path)
    assert str(raised.value).startswith((str(path), "no genome of"))
    assert str(raised.value).endswith(".")


def test_a_torn_table_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "table.parquet", GENOMES)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(LogError, match="no table that isonas bench record wrote"):
        read_arena(path)
    with pytest.raises(UsageError, match="is not there"):
        read_arena(tmp_path / "none.parquet")
