"""The chance of success against the exact posterior, and searches in spaces where a part fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

import isonas.search.success as module
from isonas.errors import TrainingError
from isonas.evaluation import EpochResult
from isonas.genome import Genome
from isonas.hardware import Budget
from isonas.search.drive import drive
from isonas.search.ehvi import INITIAL
from isonas.search.engines import Inline
from isonas.search.log import RUNNING, Trial
from isonas.search.study import Study, study_of
from isonas.search.success import Bools, Floats, chance_of_success, classifier
from isonas.space import load_space
from tests.studies import INPUTS, error_of


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.lists(st.booleans(), min_size=1, max_size=3))
def test_it_is_near_the_exact_posterior(seed: int, succeeded: list[bool]) -> None:
    """By drawing latent values from the prior and weighing them by the likelihood."""
    rng = np.random.default_rng(seed)
    features = rng.random((len(succeeded) + 1, 3))
    drawn = rng.multivariate_normal(
        np.full(len(features), module._OFFSET), module._kernel(features, features), 50_000
    )
    signs = np.where(succeeded, 1, -1)
    weights = ndtr(signs * drawn[:, :-1]).prod(axis=1)
    exact = float((weights * ndtr(drawn[:, -1])).sum() / weights.sum())
    found = classifier(features[:-1], np.array(succeeded)).chance(features[-1:])
    assert found[0] == pytest.approx(exact, abs=0.12)


@given(st.integers(0, 1000), st.integers(2, 40))
@settings(deadline=None, max_examples=20)
def test_the_latent_values_are_the_most_likely_ones(seed: int, count: int) -> None:
    """At the mode K⁻¹f is the gradient of the log likelihood, so the predictions there are f again."""
    rng = np.random.default_rng(seed)
    features = rng.random((count, 5))
    succeeded = features[:, 0] < 0.6
    fitted = classifier(features, succeeded)
    latent = module._kernel(features, features) @ fitted.gradients
    signs = np.where(succeeded, 1.0, -1.0)
    again, *_ = module._laplace(module._kernel(features, features), signs, latent)
    np.testing.assert_allclose(again, fitted.gradients, atol=1e-4)


def test_a_boundary_is_learned() -> None:
    rng = np.random.default_rng(2)
    features, new = rng.random((60, 6)), rng.random((500, 6))

    def fails(x: Floats) -> Bools:
        return np.asarray(x[:, 1] + 0.5 * x[:, 4] > 1.0)

    chance = classifier(features, ~fails(features)).chance(new)
    assert np.mean((chance < 0.5) == fails(new)) > 0.9


def test_nothing_failed_is_nothing_to_fear() -> None:
    study = quick()
    rows = np.arange(5)
    assert chance_of_success(study, rows, np.zeros(0, np.int64), rows).tolist() == [1.0] * 5


def quick(**changes: Any) -> Study:
    inputs = {"space": load_space("quick"), "budget": Budget(), "epochs": 1, "sampler": "ehvi"}
    return study_of(replace(INPUTS, **{**inputs, **changes}))


def searched(study: Study, failing: Bools, trials: int) -> list[Trial]:
    def evaluate(genome: Genome, *_: Any) -> Any:
        if failing[study.feasible.rows([genome])[0]]:
            raise TrainingError("its training took longer than 60 s")
        return (EpochResult(1, error_of(genome), 0.01, 1.0),), None

    steps = drive(study, {}, Inline(evaluate), trials)
    return [step.trial for step in steps if step.trial.state != RUNNING]


def costliest(name: str, share: float) -> Callable[[Study], Bools]:
    def failing(study: Study) -> Bools:
        costs = getattr(study.costs, name)
        return np.asarray(costs >= np.quantile(costs, 1 - share))

    return failing


def a_corner(study: Study) -> Bools:
    features = study.feasible.features(np.arange(len(study.feasible.columns)))
    along = features @ np.random.default_rng(5).normal(0, 1, features.shape[1])
    return np.asarray(along >= np.quantile(along, 0.8))


def the_highest_resolution(study: Study) -> Bools:
    return np.asarray(study.feasible.columns.internal_resolution == 16)


PARTS = {
    "madds": costliest("madds", 0.2),
    "params": costliest("params", 0.2),
    "corner": a_corner,
    "resolution": the_highest_resolution,
    "half": costliest("madds", 0.5),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_few_trials_fail_where_a_part_of_the_space_does(part: str, seed: int) -> None:
    study = quick(seed=seed)
    trials = searched(study, PARTS[part](study), 60)
    assert len(trials) == 60
    assert sum(trial.failed for trial in trials[INITIAL:]) <= 3


def test_the_start_fills_the_space_whatever_fails() -> None:
    study = quick()
    none = np.zeros(len(study.feasible.columns), np.bool_)
    asked = [trial.genome for trial in searched(study, none, INITIAL)]
    failing = searched(study, PARTS["half"](study), INITIAL)
    assert [trial.genome for trial in failing] == asked
    assert any(trial.failed for trial in failing)
