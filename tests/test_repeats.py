"""Front members are trained again until they have earned their place; samplers do not see it."""

from __future__ import annotations

import math
import statistics
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isonas.errors import TrainingError
from isonas.evaluation import Curve, EpochResult, TrainingState
from isonas.genome import Genome
from isonas.objectives import front_of
from isonas.search.engines import Inline
from isonas.search.log import COMPLETE, Trial, compact, read_trials
from isonas.search.repeats import repeat_front
from isonas.search.run import search
from isonas.search.weights import load_weights
from tests.studies import Recorder, Weights, error_of, new_study


class Noisy(Recorder):
    """Errors that differ from seed to seed by up to .05 either way, and counts of each training."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: dict[tuple[Genome, int], int] = {}

    def __call__(
        self, genome: Genome, seed: int, from_epoch: int, to_epoch: int, state: TrainingState | None
    ) -> tuple[Curve, TrainingState]:
        """Both epochs alike."""
        self.trained[genome, seed] = self.trained.get((genome, seed), 0) + 1
        error = noisy(genome, seed)
        return (EpochResult(1, error, 0.01, 1.0), EpochResult(2, error, 0.01, 1.0)), Weights(error)


def noisy(genome: Genome, seed: int) -> float:
    share = zlib.crc32(f"{genome} {seed}".encode()) / 2**32
    return min(max(error_of(genome) + 0.1 * (share - 0.5), 0.0), 0.9)


def rows(run: Path) -> dict[int, Trial]:
    return {trial.number: trial for trial in read_trials(run)[0]}


@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_all_of_the_last_front_are_trained_so_often(repeats: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = new_study(run, sampler="random")
    evaluate = Noisy()
    list(search(study, run, Inline(evaluate), 40))
    before = rows(run)
    compact(run, after=1)
    again = list(repeat_front(study, run, Inline(evaluate), repeats))
    after = rows(run)
    front = front_of(list(after.values()), study.reference.objectives)
    assert all(1 + len(member.repeat_errors) == repeats for member in front)
    assert len(again) == sum(len(trial.repeat_errors) for trial in after.values())
    assert set(evaluate.trained.values()) == {1}
    for number, trial in after.items():
        every = [trial.curve_error[-1], *trial.repeat_errors]
        assert trial.error == pytest.approx(statistics.mean(every))
        spread = statistics.variance(every) / len(every) if len(every) > 1 else 0.0
        assert trial.error_se == pytest.approx(math.sqrt(0.01**2 + spread))
        assert trial.own_error == before[number].error
    for member in front:
        weights = load_weights(run, member.number)
        assert weights is not None
        trained = [np.float32(error) for error in (member.own_error, *member.repeat_errors)]
        assert weights["value"][0] in trained


@pytest.mark.slow
def test_the_winners_curse_is_lifted(tmp_path: Path) -> None:
    """A front chosen by one training looks better than it is; trained again, less so."""
    once, often = [], []
    for seed in range(4):
        run = tmp_path / str(seed)
        study = new_study(run, sampler="random", seed=seed)
        list(search(study, run, Inline(Noisy()), 40))

        def bias(run: Path = run, objectives: tuple[str, ...] = study.reference.objectives) -> float:
            front = front_of(list(rows(run).values()), objectives)
            return statistics.mean(member.error - error_of(member.genome) for member in front if member.error)

        once.append(bias())
        list(repeat_front(study, run, Inline(Noisy()), 6))
        often.append(bias())
    assert statistics.mean(once) < -0.01
    assert abs(statistics.mean(often)) < abs(statistics.mean(once)) / 2


@pytest.mark.slow
def test_cut_anywhere_nothing_logged_is_trained_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = new_study(run, sampler="random")
    evaluate = Noisy()
    list(search(study, run, Inline(evaluate), 30))
    while any(True for _ in zip(range(7), repeat_front(study, run, Inline(evaluate), 4), strict=False)):
        pass
    assert set(evaluate.trained.values()) == {1}
    assert not list(repeat_front(study, run, Inline(evaluate), 4))


@pytest.mark.parametrize("sampler", ["ehvi", "tpe", "nsga2", "random"])
def test_more_trials_are_those_of_a_search_without_repeats(sampler: str, tmp_path: Path) -> None:
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    study = new_study(plain, sampler=sampler)
    list(search(study, plain, Inline(Noisy()), 30))
    study = new_study(mixed, sampler=sampler)
    list(search(study, mixed, Inline(Noisy()), 18))
    list(repeat_front(study, mixed, Inline(Noisy()), 3))
    list(search(study, mixed, Inline(Noisy()), 30))
    assert [trial.genome for trial in rows(mixed).values()] == [
        trial.genome for trial in rows(plain).values()
    ]


def test_a_repeat_that_fails_costs_no_trial(tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = new_study(run, sampler="random")
    list(search(study, run, Inline(Noisy()), 20))
    before = rows(run)

    def failing(*_: object) -> tuple[Curve, TrainingState]:
        raise TrainingError("as told")

    again = list(repeat_front(study, run, Inline(failing), 3))
    front = front_of(list(before.values()), study.reference.objectives)
    assert [(trial.number, reason) for trial, reason in again] == [(one.number, "as told") for one in front]
    assert rows(run) == before
    assert {trial.state for trial in before.values()} == {COMPLETE}
    assert replace(before[0], repeat_errors=(0.5,)).own_error == before[0].error
