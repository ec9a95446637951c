"""What is minimised is what must fit, chance is the best constant answer, and errors may be balanced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import kendalltau

from isonas.bench.cost import BUDGET
from isonas.cost import Deployment, DType
from isonas.evaluation import Curve, TrainingState, chance_error, errors_of
from isonas.genome import Genome
from isonas.hardware import budget_of, costs, within
from isonas.objectives import parse_objectives
from isonas.report.front import read_front
from isonas.search.engines import Inline
from isonas.search.inputs import STUDY_FILE, read_run
from isonas.search.log import Trial, read_trials, write_trial
from isonas.search.repeats import repeat_front
from isonas.search.run import search
from isonas.search.study import study_of
from isonas.space import load_space
from tests.commands import document, isonas
from tests.studies import INPUTS, Recorder, new_study

OBJECTIVES = parse_objectives("error,peak_bytes,madds")


def test_the_order_of_what_is_minimised_is_that_of_what_fits() -> None:
    """Whatever the limit, a genome that fits has less of the objective than every one that does not."""
    space = replace(load_space("mcu"), head_multiple=(4,), kernel_size=(3,))
    budget = budget_of("stm32f746")
    study = study_of(replace(INPUTS, space=space, input=112, budget=budget, objectives=OBJECTIVES))
    minimised = study.scaled_costs[:, 0]
    assert kendalltau(minimised, study.costs.arena_bytes).statistic == pytest.approx(1)
    assert kendalltau(study.costs.peak_bytes, study.costs.arena_bytes).statistic < 0.95
    for limit in np.quantile(study.costs.arena_bytes, (0.1, 0.5, 0.9)).astype(int):
        fits = within(replace(budget, max_memory_bytes=int(limit)), study.costs)
        assert 0 < fits.sum() < len(fits)
        assert minimised[fits].max() < minimised[~fits].min()


def test_what_must_fit_is_logged_and_shown(tmp_path: Path) -> None:
    run, budget = tmp_path / "run", budget_of("stm32f746")
    study = new_study(run, budget=budget, sampler="random")
    trials = list(search(study, run, Inline(Recorder()), 12))
    for trial in trials:
        (row,) = study.feasible.rows([trial.genome])
        names = ("arena_bytes", "file_bytes", "peak_bytes", "weight_bytes", "madds", "params")
        assert all(getattr(trial, name) == getattr(study.costs, name)[row] for name in names)
        assert trial.arena_bytes is not None
        assert trial.arena_bytes > trial.peak_bytes
    found = document("front", run)
    by_number = {trial.number: trial for trial in trials}
    table = isonas("front", run).stdout
    assert "memory (tflm arena, int8)" in table
    assert found["board"] == "stm32f746"
    for row in found["front"]:
        trial = by_number[row["trial"]]
        assert (row["arena_bytes"], row["file_bytes"]) == (trial.arena_bytes, trial.file_bytes)
        assert f"{row['arena_bytes'] / 1024:.1f} KiB" in table
        assert f"{row['file_bytes'] / 1024:.1f} KiB" in table


def test_an_older_run_keeps_its_objectives_and_its_box(tmp_path: Path) -> None:
    """It minimised the peak, without a margin; its arena is computed from its budget."""
    run = tmp_path / "run"
    study = new_study(run, budget=budget_of("stm32f746"), sampler="ehvi")
    trials = list(search(study, run, Inline(Recorder()), 10))
    for trial in trials:
        write_trial(run, replace(trial, arena_bytes=None, file_bytes=None))
    recorded = yaml.safe_load((run / STUDY_FILE).read_text(encoding="utf-8"))
    older = ["error", "peak_bytes", "madds"]
    recorded["version"] = 3
    recorded["inputs"] |= {"objectives": older, "classes": 10}
    del recorded["inputs"]["chance"]
    maxima = [0.9, float(study.costs.peak_bytes.max()), float(study.costs.madds.max())]
    recorded["reference"] |= {"objectives": older, "point": maxima}
    (run / STUDY_FILE).write_text(yaml.safe_dump(recorded), encoding="utf-8")
    inputs, reference, _ = read_run(run)
    assert (inputs.objectives, inputs.chance) == (tuple(older), 0.9)
    assert reference.point == tuple(maxima)
    again = study_of(inputs, reference)
    assert again.reference == reference
    assert len(list(search(again, run, Inline(Recorder()), 12))) >= 2
    members = read_front([run]).members
    for member in members:
        of = costs(again.feasible.columns, Deployment(inputs.input, inputs.classes), inputs.budget)
        (row,) = again.feasible.rows([member.trial.genome])
        assert (member.trial.arena_bytes, member.trial.file_bytes) == (
            of.arena_bytes[row],
            of.file_bytes[row],
        )


ANSWERS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=6)


@given(ANSWERS.filter(lambda rows: sum(right + wrong for right, wrong in rows) > 0))
def test_errors_are_those_of_the_images_one_by_one(rows: list[tuple[int, int]]) -> None:
    right = np.array([one for one, _ in rows])
    images = np.array([one + other for one, other in rows])
    found = errors_of(right, images)
    outcomes = [[1] * one + [0] * other for one, other in rows]
    every = [outcome for one in outcomes for outcome in one]
    assert found.error == pytest.approx(1 - np.mean(every))
    assert found.error_se == pytest.approx(np.std(every) / np.sqrt(len(every)))
    classes = [one for one in outcomes if one]
    assert found.balanced_error == pytest.approx(1 - np.mean([np.mean(one) for one in classes]))
    variance = sum(np.var(one) / len(one) for one in classes) / len(classes) ** 2
    assert found.balanced_error_se == pytest.approx(np.sqrt(variance), abs=1e-12)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=6).filter(any))
def test_chance_is_the_best_constant_answer(images: list[int]) -> None:
    """To the last bit, so that such an answer is worth nothing."""
    count = np.array(images)
    constant = [
        errors_of(np.where(np.arange(len(count)) == one, count, 0), count) for one in range(len(count))
    ]
    assert chance_error("error", count) == min(one.error for one in constant)
    assert chance_error("balanced_error", count) == min(one.balanced_error for one in constant)


class Swapped(Recorder):
    """What `Recorder` calls the error as the balanced one, and an error that says nothing."""

    def __call__(
        self, genome: Genome, seed: int, from_epoch: int, to_epoch: int, state: TrainingState | None
    ) -> tuple[Curve, TrainingState]:
        """As `Recorder`'s."""
        curve, after = super().__call__(genome, seed, from_epoch, to_epoch, state)
        meant = (
            replace(one, error=0.5, error_se=0.3, balanced_error=one.error, balanced_error_se=one.error_se)
            for one in curve
        )
        return tuple(meant), after


def essence(trial: Trial, objective: str) -> tuple[Any, ...]:
    curve, own = trial.measured(objective).curve, trial.measured(objective).own
    error, error_se = getattr(trial, objective), getattr(trial, f"{objective}_se")
    repeats = trial.repeat_errors if objective == "error" else trial.repeat_balanced_errors
    return trial.genome, trial.state, trial.epochs, curve, own, error, error_se, repeats


@pytest.mark.parametrize(("sampler", "stopping"), [("ehvi", True), ("tpe", False), ("nsga2", False)])
def test_a_balanced_search_is_the_plain_one_with_another_error(
    sampler: str, stopping: bool, tmp_path: Path
) -> None:
    """Whoever reads the other error on the way (asking, judging, repeating, resuming) makes them differ."""
    found, fronts = [], []
    for objective, evaluate in (("error", Recorder), ("balanced_error", Swapped)):
        run = tmp_path / objective
        changes = {"epochs": 4, "early_stopping": True} if stopping else {}
        study = new_study(
            run, sampler=sampler, objectives=(objective, "arena_bytes", "madds"), seed=2, **changes
        )
        engine = Inline(evaluate(epochs=study.inputs.epochs))
        list(search(study, run, engine, 10))
        inputs, reference, _ = read_run(run)
        assert inputs == study.inputs
        list(search(study_of(inputs, reference), run, engine, 16))
        list(repeat_front(study, run, engine, 2))
        found.append([essence(trial, objective) for trial in read_trials(run)[0]])
        front = read_front([run])
        fronts.append(([member.trial.number for member in front.members], front.hypervolume))
    assert found[0] == found[1]
    assert fronts[0] == fronts[1]
    assert len(found[0]) == 16


ONE = """
name: one
input: 16
classes: 2
genes: {depth: [1], channels: [32], internal_resolution: [4], expansion: [1], se_ratio: [0],
        head_multiple: [2], head_features: [0]}
"""


def test_two_classes_of_the_same_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """6 images against 200: .024 is no better than always answering the larger class."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(3)
    for name, count in (("defect", 6), ("good", 200)):
        (tmp_path / "noise" / name).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "noise" / name / f"{number}.png")
    Path("one.yaml").write_text(ONE, encoding="utf-8")
    short = ("search", "one.yaml", "--data", "folder:noise", "--trials", "1", "--epochs", "1",
             "--threads", "1", "--precision", "fp32", "--cache", "cache")  # fmt: skip
    plain = isonas(*short, "--run", "plain")
    assert plain.exit_code == 0, plain.output
    assert plain.stderr.count("97.6% of the validation images are of class 'good'") == 1
    assert "--objectives balanced_error,arena_bytes,madds" in plain.stderr
    inputs, reference, _ = read_run(Path("plain"))
    assert inputs.chance == reference.chance == 1 / 41
    (trial,), _ = read_trials(Path("plain"))
    assert trial.error is not None
    assert trial.error >= 1 / 41
    found = document("front", "plain")
    assert found["hypervolume"] == 0
    assert "None is better than chance (error 0.024" in plain.stdout
    balanced = isonas(*short, "--run", "balanced", "--objectives", "balanced_error,arena_bytes,madds")
    assert balanced.exit_code == 0, balanced.output
    assert "of the validation images are of class" not in balanced.stderr
    found = document("front", "balanced")
    assert found["reference"]["balanced_error"] == 0.5
    (row,) = found["front"]
    # One image of the smaller class: its recall is 0 or 1.
    assert row["balanced_error"] in {(wrong / 40 + miss) / 2 for wrong in range(41) for miss in (0, 1)}
    assert "balanced error" in balanced.stdout
    # The same training, judged otherwise.
    assert row["error"] == trial.error
    assert row["balanced_error"] == trial.balanced_error
    again = document("resume", "balanced", "--data", "folder:noise", "--cache", "cache")
    assert again == found
    (tmp_path / "noise" / "defect" / "0.png").unlink()
    for number in range(1, 4):
        (tmp_path / "noise" / "defect" / f"{number}.png").unlink()
    alone = isonas(*short, "--run", "alone")
    assert alone.exit_code == 1
    assert "are all of class 'good', which has 200 of the 202 images" in alone.stderr


def test_a_dtype_alone_keeps_the_default_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isonas.bench.cost.TRACED", 1)
    space = load_space("mcu")
    of = costs(space.columns, Deployment(space.input, space.classes), replace(BUDGET, dtype=DType.FP32))
    kept = int(within(replace(BUDGET, dtype=DType.FP32), of).sum())
    assert kept < len(space.columns)
    assert document("bench", "cost", "mcu", "--dtype", "fp32")["feasible"] == kept
