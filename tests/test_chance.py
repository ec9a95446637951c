"""A training that did not get going is marked, said, and not learned from."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from torch.nn import functional

from isonas.data.synthetic import synthetic
from isonas.evaluation import Curve, TrainingState
from isonas.genome import Genome
from isonas.search.engines import Inline
from isonas.search.log import COMPLETE, STOPPED, Trial, read_trials
from isonas.search.run import search
from isonas.search.samplers import _frozen
from isonas.search.study import Study
from isonas.training.chance import Chance, chance_of
from isonas.training.machine import Machine
from isonas.training.proxy import ProxyEvaluator, ProxySetting
from isonas.training.recipe import Recipe
from tests.commands import document, isonas
from tests.studies import Recorder, new_study

SMALL = Genome(1, 8, 4, 2, Fraction(0), head_multiple=2, head_features=0)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.lists(st.floats(-3, 3), min_size=5, max_size=5),
)
@settings(deadline=None)
def test_no_constant_prediction_has_a_lower_loss(
    drawn: list[int], smoothing: float, shift: list[float]
) -> None:
    labels = torch.tensor(drawn)
    chance = chance_of(labels, 5, smoothing)

    def loss(logits: torch.Tensor) -> float:
        constant = logits.expand(len(labels), 5)
        return float(functional.cross_entropy(constant, labels, label_smoothing=smoothing))

    assert loss(torch.tensor(shift).double()) >= chance.loss - 1e-9
    shares = torch.bincount(labels, minlength=5).double() / len(labels)
    best = ((1 - smoothing) * shares + smoothing / 5).clamp_min(1e-300).log()
    assert loss(best) == pytest.approx(chance.loss, abs=1e-9)
    assert chance.error == pytest.approx(min(1 - drawn.count(one) / len(drawn) for one in range(5)))


@given(st.integers(2, 1000), st.sampled_from([0.0, 0.1]))
def test_of_equally_frequent_classes_chance_is_the_logarithm_of_their_number(
    classes: int, smoothing: float
) -> None:
    chance = chance_of(torch.arange(3 * classes) % classes, classes, smoothing)
    assert chance.loss == pytest.approx(math.log(classes))
    assert chance.error == pytest.approx(1 - 1 / classes)


@pytest.mark.parametrize(
    ("loss", "error", "beaten"),
    [
        (2.31, 0.89, False),  # two standard errors are .016
        (2.30, 0.90, False),
        (3.00, 0.88, True),
        (2.27, 0.90, True),
        (2.28, 0.95, False),
    ],
)
def test_loss_or_error_must_be_below_chance_beyond_noise(loss: float, error: float, beaten: bool) -> None:
    assert Chance(math.log(10), 0.9).is_beaten(loss, error, 0.008) is beaten


def test_a_training_that_goes_nowhere_is_marked_and_one_that_learns_is_not(tmp_path: Path) -> None:
    def learned(peak_rate: float) -> list[bool]:
        recipe = Recipe(epochs=3, epoch_images=256, batch_size=32, peak_rate=peak_rate)
        setting = ProxySetting("synthetic", tmp_path, recipe, Machine("cpu", "fp32", 1), 16, 16, 0)
        curve, _ = ProxyEvaluator(synthetic(), setting)(SMALL, 0, 0, 3, None)
        return [result.learned for result in curve]

    assert learned(0.0) == [False] * 3
    assert learned(Recipe().peak_rate)[-1]


class Stuck(Recorder):
    """The shallow half of the genomes stays at chance; being cheap, some of it is on the front."""

    def __call__(
        self, genome: Genome, seed: int, from_epoch: int, to_epoch: int, state: TrainingState | None
    ) -> tuple[Curve, TrainingState]:
        curve, after = super().__call__(genome, seed, from_epoch, to_epoch, state)
        if genome.depth <= 2:
            curve = tuple(replace(result, error=0.89, learned=False) for result in curve)
        return curve, after


def searched(run: Path) -> tuple[Study, list[Trial]]:
    study = new_study(run, trials=12, sampler="random")
    list(search(study, run, Inline(Stuck()), 12))
    return study, read_trials(run)[0]


def test_what_is_at_chance_is_trained_and_told_to_samplers_as_a_failure(tmp_path: Path) -> None:
    study, trials = searched(tmp_path / "run")
    assert {trial.learned for trial in trials} == {True, False}
    for trial in trials:
        assert trial.state == COMPLETE
        assert trial.learned == (trial.genome.depth > 2) == (not trial.is_at_chance)
        told = _frozen(trial, study.feasible, study.reference)
        # Optuna's samplers learn from complete trials alone, so a failure is the worst of those.
        assert told.state is TrialState.COMPLETE
        assert (told.values == [1.0] * 3) == (not trial.learned)
        assert trial.failed == (not trial.learned)
    # What a stopped trial would have come to, and what was logged without the column, is not known.
    stuck = next(trial for trial in trials if not trial.learned)
    assert not replace(stuck, state=STOPPED).is_at_chance
    assert not replace(stuck, learned=None).is_at_chance


def test_the_front_marks_and_says_it(tmp_path: Path) -> None:
    _, trials = searched(tmp_path / "run")
    stuck = sum(trial.is_at_chance for trial in trials)
    found = document("front", tmp_path / "run")
    assert found["at_chance"] == stuck
    learned = {str(trial.genome): trial.learned for trial in trials}
    assert {row["genome"]: row["learned"] for row in found["front"]}.items() <= learned.items()
    printed = isonas("front", tmp_path / "run").stdout
    assert f"{stuck} of 12 trials did not get going" in " ".join(printed.split())
    marked = sum(not row["learned"] for row in found["front"])
    assert printed.count("! 0.") == marked
    assert marked
