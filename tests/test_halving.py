"""Verdicts at rungs: a function of the log, fair to small networks, worth their while."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isonas.objectives import front_of
from isonas.search.engines import Inline
from isonas.search.halving import FACTOR, FIT_FROM, judge, rungs_of
from isonas.search.log import COMPLETE, RUNNING, STOPPED, Trial, read_trials
from isonas.search.run import search
from isonas.search.study import Study
from tests.studies import Recorder, error_of, new_study

EPOCHS = 9


def searched(run: Path, trials: int, *, stopping: bool, seed: int = 0) -> tuple[Study, list[Trial], int]:
    study = new_study(run, sampler="random", early_stopping=stopping, epochs=EPOCHS, seed=seed)
    recorder = Recorder(epochs=EPOCHS)
    list(search(study, run, Inline(recorder), trials))
    return study, read_trials(run)[0], recorder.epochs_trained


@given(st.integers(1, 1000))
def test_rungs_are_a_ladder(epochs: int) -> None:
    rungs = rungs_of(epochs, early_stopping=True)
    assert rungs_of(epochs, early_stopping=False) == (epochs,)
    assert rungs[0] == 1
    assert rungs[-1] == epochs
    assert all(low < high and low == -(-high // FACTOR) for low, high in pairwise(rungs))


@pytest.mark.slow
def test_stopping_costs_fewer_epochs_and_hardly_any_hypervolume(tmp_path: Path) -> None:
    kept, epochs = [], []
    for seed in range(3):
        study, whole, all_epochs = searched(tmp_path / f"whole{seed}", 100, stopping=False, seed=seed)
        _, stopped, fewer = searched(tmp_path / f"stopped{seed}", 100, stopping=True, seed=seed)
        assert [trial.genome for trial in stopped] == [trial.genome for trial in whole]
        complete = [trial for trial in stopped if trial.state == COMPLETE]
        kept.append(study.reference.hypervolume(complete) / study.reference.hypervolume(whole))
        epochs.append(fewer / all_epochs)
        for trial in stopped:
            assert trial.curve_epochs == tuple(range(1, trial.epochs + 1))
            assert trial.state in (COMPLETE, STOPPED)
            assert trial.epochs in rungs_of(EPOCHS, early_stopping=True)
            assert (trial.epochs == EPOCHS) == (trial.state == COMPLETE)
    assert min(kept) > 0.97
    assert max(epochs) < 0.75


@pytest.mark.slow
def test_an_extrapolated_error_is_told_from_the_last_one(tmp_path: Path) -> None:
    _, trials, _ = searched(tmp_path / "run", 100, stopping=True)
    stopped = [trial for trial in trials if trial.state == STOPPED]
    for trial in stopped:
        assert (
            trial.error
            == trial.curve_error[-1]
            == pytest.approx(error_of(trial.genome) + 0.01 * (9 - trial.epochs))
        )
        assert trial.own_error == trial.extrapolated_error
        assert trial.own_error_se == trial.extrapolated_se
    near = [
        abs(trial.extrapolated_error - error_of(trial.genome)) <= 2 * trial.extrapolated_se
        for trial in stopped
        if trial.extrapolated_error is not None and trial.extrapolated_se is not None
    ]
    assert len(near) == len(stopped) > 10
    assert sum(near) >= 0.9 * len(near)


def test_a_verdict_is_a_function_of_the_trials_before(tmp_path: Path) -> None:
    study, trials, _ = searched(tmp_path / "run", 60, stopping=True)
    verdicts = 0
    for number, trial in enumerate(trials):
        for rung in [rung for rung in rungs_of(EPOCHS, early_stopping=True) if rung <= trial.epochs][:-1]:
            assert judge(as_at(trial, rung), trials[:number], study) == as_at(trial, rung)
        if trial.state == STOPPED:
            verdicts += 1
            again = judge(as_at(trial, trial.epochs), trials[:number], study)
            assert (again.extrapolated_error, again.extrapolated_se) == (
                trial.extrapolated_error,
                trial.extrapolated_se,
            )
    assert verdicts > 5


def as_at(trial: Trial, rung: int) -> Trial:
    """A trial as it stood after so many epochs, still running."""
    return replace(
        trial,
        state="running",
        epochs=rung,
        error=trial.curve_error[rung - 1],
        extrapolated_error=None,
        extrapolated_se=None,
        curve_epochs=trial.curve_epochs[:rung],
        curve_error=trial.curve_error[:rung],
        curve_error_se=trial.curve_error_se[:rung],
    )


def test_first_trials_and_the_cheapest_go_on(tmp_path: Path) -> None:
    study, trials, _ = searched(tmp_path / "run", 60, stopping=False)
    early = as_at(trials[FIT_FROM - 1], 1)
    assert judge(early, trials[: FIT_FROM - 1], study) == early
    # Cheaper on every axis than all others and no better than chance at first, yet not stopped.
    cheapest = min(front_of(trials, study.reference.objectives), key=lambda trial: trial.peak_bytes)
    others = [trial for trial in trials if trial.peak_bytes > cheapest.peak_bytes]
    assert judge(as_at(cheapest, 1), others, study).state == "running"
    # The costliest one with an error that cheaper ones had beaten is.
    costliest = max(trials, key=lambda trial: (trial.peak_bytes, trial.madds))
    bad = replace(as_at(costliest, 3), curve_error=(0.9, 0.9, 0.9), error=0.9)
    assert judge(bad, [trial for trial in trials if trial.number != bad.number], study).state == STOPPED


def test_trainings_at_chance_teach_no_errors(tmp_path: Path) -> None:
    """Whatever such a training came to, the verdict on another is the same."""
    study, trials, _ = searched(tmp_path / "run", 24, stopping=False)
    last = trials[-1]
    one = replace(last, state=RUNNING, epochs=1, curve_error=last.curve_error[:1])
    stuck = [replace(trial, learned=trial.number % 4 != 0) for trial in trials[:-1]]
    others = [
        trial if trial.learned else replace(trial, curve_error=(0.01,) * EPOCHS, error=0.01)
        for trial in stuck
    ]
    assert judge(one, others, study) == judge(one, stuck, study)
    # The same errors of trainings that learned do change what is expected of it.
    believed = [replace(trial, learned=True) for trial in others]
    assert judge(one, believed, study) != judge(one, stuck, study)
