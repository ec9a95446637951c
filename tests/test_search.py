"""A search asks for feasible, unseen genomes, logs them, and goes on after any kill as if nothing was."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isonas.errors import BudgetError, LogError, RunError, TrainingError
from isonas.genome import Genome, canonical
from isonas.hardware import Budget, within
from isonas.objectives import front_of
from isonas.search import SAMPLER_NAMES
from isonas.search.drive import drive
from isonas.search.engines import Inline, Outcome
from isonas.search.feasible import feasible_set
from isonas.search.inputs import changed, create_run, read_run
from isonas.search.log import COMPLETE, FAILED, RUNNING, STOPPED, Trial, read_trials, write_trial
from isonas.search.run import search
from isonas.search.samplers import _frozen, propose
from isonas.search.study import Study, study_of
from isonas.search.weights import load_weights, weights_path
from isonas.space import load_space
from tests.studies import INPUTS, Recorder, error_of, new_study

ALL_SAMPLERS = sorted(SAMPLER_NAMES)
EACH_SAMPLER = [pytest.param(name, marks=pytest.mark.slow if name == "gp" else ()) for name in ALL_SAMPLERS]
"""Optuna's GP takes most of the time of what every sampler must do."""
STOPPING = {"early_stopping": True, "epochs": 9}
OBJECTIVES = [
    ("error", "peak_bytes"),
    ("error", "peak_bytes", "madds"),
    ("madds", "error", "params", "peak_bytes"),
]


def same(trials: list[Trial]) -> list[Trial]:
    """Trials without what the clock and the process decide."""
    return [
        replace(trial, started_at="", finished_at=None, train_seconds=None, worker="") for trial in trials
    ]


def run_all(study: Study, run: Path, trials: int) -> list[Trial]:
    list(search(study, run, Inline(Recorder(epochs=study.inputs.epochs)), trials))
    return read_trials(run)[0]


def enough(sampler: str, trials: int = 30) -> int:
    """Trials in which a sampler comes to its model; Optuna's GP takes about a second for each after 10."""
    return 13 if sampler == "gp" else trials


Whole = Callable[[str, bool], list[Trial]]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What a sampler does with or without early stopping when nothing happens to it."""
    folder = tmp_path_factory.mktemp("uninterrupted")

    @cache
    def whole(sampler: str, stopping: bool) -> list[Trial]:
        run = folder / f"{sampler}-{stopping}"
        study = new_study(run, sampler=sampler, **(STOPPING if stopping else {}))
        return run_all(study, run, enough(sampler))

    return whole


@pytest.mark.parametrize("sampler", EACH_SAMPLER)
@pytest.mark.parametrize("objectives", OBJECTIVES, ids=len)
def test_every_genome_trained_is_feasible_and_new(
    sampler: str, objectives: tuple[str, ...], tmp_path: Path
) -> None:
    study = new_study(tmp_path / "run", sampler=sampler, objectives=objectives)
    recorder = Recorder()
    trials = enough(sampler, 60)
    ended = list(search(study, tmp_path / "run", Inline(recorder), trials))
    assert [trial.number for trial in ended] == list(range(trials))
    assert [trial.genome for trial in ended] == recorder.asked
    networks = {canonical(genome, study.inputs.input) for genome in recorder.asked}
    assert len(networks) == trials
    allowed = {
        genome
        for genome, keeps in zip(study.space, within(INPUTS.budget, _costs(study)), strict=True)
        if keeps
    }
    assert set(recorder.asked) <= allowed
    assert len(allowed) < len(study.space)
    assert all(trial.peak_bytes <= 100_000 for trial in ended)
    assert [trial.error for trial in ended] == [error_of(trial.genome) for trial in ended]


def _costs(study: Study) -> Any:
    from isonas.cost import Deployment
    from isonas.hardware import costs

    at = Deployment(study.inputs.input, study.inputs.classes)
    return costs(study.space.columns, at, study.inputs.budget)


@pytest.mark.parametrize("sampler", EACH_SAMPLER)
def test_a_small_space_is_trained_whole_and_then_the_search_ends(sampler: str, tmp_path: Path) -> None:
    space = replace(
        INPUTS.space, depth=(1, 2), channels=(32,), internal_resolution=(4, 8), stem=INPUTS.space.stem[:1]
    )
    study = new_study(tmp_path / "run", sampler=sampler, space=space)
    trials = run_all(study, tmp_path / "run", 1000)
    assert {trial.genome for trial in trials} == set(study.space)


@pytest.mark.parametrize("sampler", EACH_SAMPLER)
@pytest.mark.parametrize(
    ("changes", "cut"),
    # Each verdict of early stopping takes fits of its own.
    [*(({}, cut) for cut in (0, 1, 9, 11, 24)), (STOPPING, 11), (STOPPING, 24)],
    ids=lambda value: "" if value == {} else "stopping" if value == STOPPING else str(value),
)
def test_resumed_is_uninterrupted(
    sampler: str, cut: int, changes: dict[str, Any], tmp_path: Path, uninterrupted: Whole
) -> None:
    total = enough(sampler)
    cut = min(cut, total - 1)
    whole = uninterrupted(sampler, bool(changes))
    run = tmp_path / "cut"
    study = new_study(run, sampler=sampler, **changes)
    trials = search(study, run, Inline(Recorder(epochs=study.inputs.epochs)), total)
    for _ in range(cut):
        next(trials)
    # What a kill during a training leaves: the next trial as asked.
    asked = replace(whole[cut], state=RUNNING, error=None, optuna_state="{}", epochs=0, curve_epochs=())
    write_trial(run, replace(asked, curve_error=(), curve_error_se=()))
    resumed = Recorder(epochs=study.inputs.epochs)
    list(search(study_of(read_run(run)[0]), run, Inline(resumed), total))
    assert same(read_trials(run)[0]) == same(whole)
    assert len(resumed.asked) == total - cut


class Scattered:
    """Four trainings in flight, which end in an order drawn by a seed."""

    workers = 4

    def __init__(self, evaluate: Recorder, seed: int) -> None:
        self._evaluate = evaluate
        self._rng = np.random.default_rng(seed)
        self._flying: dict[int, tuple[Any, ...]] = {}

    def submit(self, key: int, *arguments: Any) -> None:
        """Note a training; no more than four may be."""
        assert key not in self._flying
        assert len(self._flying) < self.workers
        self._flying[key] = arguments

    def next(self) -> tuple[int, Outcome]:
        """End one of them."""
        key = int(self._rng.choice(sorted(self._flying)))
        return key, self._evaluate(*self._flying.pop(key))


@pytest.mark.parametrize("sampler", EACH_SAMPLER)
@pytest.mark.parametrize("changes", [{}, STOPPING], ids=["", "stopping"])
def test_side_by_side_and_resumed(sampler: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """No genome twice and none lost, whatever ends first and wherever the driver is cut."""
    total, run = enough(sampler, 24), tmp_path / "run"
    study = new_study(run, sampler=sampler, **changes)
    before: list[Trial] = []
    for seed, part in enumerate((0, 5, total)):
        evaluate = Recorder(epochs=study.inputs.epochs)
        trials = search(study, run, Scattered(evaluate, seed), total)
        for _ in range(part):
            if next(trials, None) is None:
                break
        trials.close()  # type: ignore[attr-defined]
        after, unreadable = read_trials(run)
        assert unreadable == []
        assert [trial.genome for trial in after[: len(before)]] == [trial.genome for trial in before]
        assert [one for one in before if one.state != RUNNING] == [
            trial for trial, one in zip(after, before, strict=False) if one.state != RUNNING
        ]
        assert len(set(evaluate.asked)) == len(evaluate.asked)
        before = after
    assert [trial.number for trial in after] == list(range(total))
    assert {trial.state for trial in after} <= {COMPLETE, STOPPED}
    assert len({canonical(trial.genome, study.inputs.input) for trial in after}) == total
    assert max(len(trial.pending) for trial in after) == 3
    for trial in after:
        assert set(trial.pending) <= set(range(trial.number))


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_a_lost_part_is_trained_again_under_its_number(sampler: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = new_study(run, sampler=sampler)
    whole = run_all(study, run, enough(sampler, 20))
    (run / "trials" / "7.parquet").unlink()
    assert same(run_all(study, run, len(whole))) == same(whole)


@pytest.mark.slow
def test_samplers_learn(tmp_path: Path) -> None:
    """On made-up errors a sampler that learns dominates more than uniform draws, on average."""
    volumes = {}
    for sampler in set(ALL_SAMPLERS) - {"gp"}:
        found = []
        for seed in range(3):
            run = tmp_path / f"{sampler}{seed}"
            study = new_study(run, sampler=sampler, seed=seed, space=load_space("mcu"), input=112)
            found.append(study.reference.hypervolume(run_all(study, run, 40)))
        volumes[sampler] = float(np.mean(found))
    learning = {sampler for sampler, volume in volumes.items() if volume > volumes["random"]}
    assert learning == set(volumes) - {"random"}
    assert max(volumes, key=lambda sampler: volumes[sampler]) == "ehvi"


def test_proposals_are_a_function_of_seed_number_and_log(tmp_path: Path) -> None:
    study = new_study(tmp_path / "run")
    done = run_all(study, tmp_path / "run", 15)
    taken = np.zeros(len(study.feasible.columns), np.bool_)
    taken[study.feasible.rows([trial.genome for trial in done])] = True

    def proposed(seed: int, number: int) -> int:
        proposal = propose(replace(study, inputs=replace(study.inputs, seed=seed)), number, done, [], taken)
        assert proposal is not None
        return proposal.index

    assert proposed(0, 15) == proposed(0, 15)
    assert len({proposed(seed, 15) for seed in range(8)}) > 1


def test_rows_find_every_genome() -> None:
    feasible = feasible_set(INPUTS.space.columns)
    listed = list(INPUTS.space)
    assert feasible.rows(listed).tolist() == list(range(len(listed)))
    with pytest.raises(LogError, match="not in the run's feasible set"):
        feasible.rows([Genome()])


def test_failures_are_records_and_the_search_goes_on(tmp_path: Path) -> None:
    study = new_study(tmp_path / "run", sampler="random")
    asked = [trial.genome for trial in run_all(study, tmp_path / "run", 12)]
    run = tmp_path / "failing"
    new_study(run, sampler="random")
    failing = frozenset(asked[3:6])
    list(search(study, run, Inline(Recorder(failing)), 12))
    trials = read_trials(run)[0]
    assert [trial.genome for trial in trials] == asked
    assert [trial.number for trial in trials if trial.state == FAILED] == [3, 4, 5]
    assert trials[3].reason == f"{asked[3]} was told to fail"
    assert trials[3].error is None


@pytest.mark.parametrize("sampler", EACH_SAMPLER)
def test_failures_do_not_disturb_a_resume(sampler: str, tmp_path: Path) -> None:
    failing = frozenset(genome for genome in INPUTS.space if genome.depth == 3)
    study = new_study(tmp_path / "whole", sampler=sampler)
    trials = enough(sampler)
    list(search(study, tmp_path / "whole", Inline(Recorder(failing)), trials))
    whole = read_trials(tmp_path / "whole")[0]
    assert {trial.state for trial in whole} == {COMPLETE, FAILED}
    new_study(tmp_path / "cut", sampler=sampler)
    for so_far in (trials // 2, trials):
        list(search(study, tmp_path / "cut", Inline(Recorder(failing)), so_far))
    assert same(read_trials(tmp_path / "cut")[0]) == same(whole)


def test_three_first_failures_alike_stop_the_search(tmp_path: Path) -> None:
    class Broken(Recorder):
        def __call__(self, genome: Genome, *_: Any) -> Any:
            raise TrainingError("the same every time")

    study = new_study(tmp_path / "run")
    with pytest.raises(TrainingError, match="first 3 trials failed alike: the same every time"):
        list(search(study, tmp_path / "run", Inline(Broken()), 10))
    assert len(read_trials(tmp_path / "run")[0]) == 3


def test_a_replay_does_not_give_up(tmp_path: Path) -> None:
    """Failures that were recorded are results of a table, not a reason to stop."""

    class Broken(Recorder):
        def __call__(self, genome: Genome, *_: Any) -> Any:
            raise TrainingError("as recorded")

    study = new_study(tmp_path / "run", sampler="random")
    steps = list(drive(study, {}, Inline(Broken()), 20, give_up=False))
    assert [step.trial.state for step in steps].count(FAILED) == 20


def test_a_trial_whose_weights_are_lost_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise TrainingError("the cluster lost them")

    monkeypatch.setattr("isonas.search.run.save_weights", lost)
    said: list[str] = []
    study = new_study(tmp_path / "run", sampler="random")
    trials = list(search(study, tmp_path / "run", Inline(Recorder()), 3, say=said.append))
    assert [trial.state for trial in trials] == [COMPLETE] * 3
    assert said[0] == "the weights of trial 0 are not kept: the cluster lost them."


def test_weights_of_front_members_alone_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = new_study(run)
    done: list[Trial] = []
    for trial in search(study, run, Inline(Recorder()), 25):
        done.append(trial)
        front = front_of(done, study.reference.objectives)
        kept = {int(path.stem) for path in (run / "weights").glob("*.safetensors")}
        assert kept == {member.number for member in front}
        for member in front:
            weights = load_weights(run, member.number)
            assert weights is not None
            assert weights["value"][0] == np.float32(error_of(member.genome))
    assert load_weights(run, 99) is None
    weights_path(run, front[0].number).write_bytes(b"torn")
    with pytest.raises(LogError, match="cannot be read"):
        load_weights(run, front[0].number)


def test_a_kill_between_weights_and_row_loses_no_members_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every trial: what the log calls the front has its weights, whenever the process dies."""
    run = tmp_path / "run"
    study = new_study(run, sampler="random")

    def dying(folder: Path, trial: Trial) -> None:
        if trial.state == COMPLETE:
            logged = [one for one in read_trials(folder)[0] if one.state == COMPLETE]
            for member in front_of(logged, study.reference.objectives):
                assert weights_path(folder, member.number).exists()
        write_trial(folder, trial)

    monkeypatch.setattr("isonas.search.run.write_trial", dying)
    assert len(list(search(study, run, Inline(Recorder()), 25))) == 25


def test_chance_is_that_of_the_data(tmp_path: Path) -> None:
    """Costs may be reckoned for other classes than the trials tell apart."""
    study = new_study(tmp_path / "run", classes=1000)
    assert study.reference.point[0] == 0.9


def test_a_start_that_was_killed_is_started_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for folder in ("trials", "weights"):
        (run / folder).mkdir(parents=True)
    (run / "lock").touch()
    study = new_study(run)
    assert read_run(run)[0] == study.inputs


def failing_from(first: int, last: int) -> Any:
    """An evaluator whose calls of these numbers fail, each in another epoch."""
    calls = itertools.count()
    recorder = Recorder()

    def evaluate(*arguments: Any) -> Any:
        if first <= (call := next(calls)) <= last:
            raise TrainingError(f"its training took longer than 60 s, in epoch {call}")
        return recorder(*arguments)

    return evaluate


@pytest.mark.parametrize("sampler", ["ehvi", "random"])
def test_a_sitting_judges_its_own_trials(sampler: str, tmp_path: Path) -> None:
    """What failed before may have been mended, as by another --trial-timeout: a resume goes on."""
    run = tmp_path / "a run"
    study = new_study(run, sampler=sampler)
    for ended in (3, 6):
        with pytest.raises(TrainingError, match="first 3 trials failed alike: its training") as told:
            list(search(study, run, Inline(failing_from(0, 99)), 10))
        assert str(told.value).endswith(f"go on with: isonas resume '{run}' --trials 10")
        assert len(read_trials(run)[0]) == ended
    list(search(study, run, Inline(Recorder()), 10))
    states = [trial.state for trial in read_trials(run)[0]]
    assert states == [FAILED] * 6 + [COMPLETE] * 4


@pytest.mark.parametrize(("last", "ended"), [(99, 16), (14, 30)])
def test_a_search_whose_recent_trials_fail_alike_stops(last: int, ended: int, tmp_path: Path) -> None:
    """From the sixth trial on all fail: eleven failures are enough, ten are not."""
    run = tmp_path / "run"
    study = new_study(run, sampler="random")
    searching = search(study, run, Inline(failing_from(5, last)), 30)
    if ended == 30:
        list(searching)
    else:
        with pytest.raises(TrainingError, match="11 of the last 12 trials failed alike: its training"):
            list(searching)
    assert len(read_trials(run)[0]) == ended


def test_failures_of_different_kinds_do_not_stop_a_search(tmp_path: Path) -> None:
    calls = itertools.count()

    def evaluate(*_: Any) -> Any:
        raise TrainingError(("out of memory", "diverged", "too slow")[next(calls) % 3])

    study = new_study(tmp_path / "run", sampler="random")
    assert len(list(search(study, tmp_path / "run", Inline(evaluate), 15))) == 15


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "gp"])
def test_optunas_samplers_are_told_of_failures(sampler: str, tmp_path: Path) -> None:
    """As of the worst of everything: what they are told nothing of, they propose again and again."""
    study = new_study(tmp_path / "run", sampler=sampler)
    failing = frozenset(genome for genome in INPUTS.space if genome.depth == 3)
    trials = list(search(study, tmp_path / "run", Inline(Recorder(failing)), 12))
    frozen = [_frozen(trial, study.feasible, study.reference) for trial in trials]
    told = study.reference.scaled(trials)
    for trial, one, values in zip(trials, frozen, told, strict=True):
        assert one.values == ([1.0] * 3 if trial.failed else pytest.approx(values.tolist()))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.lists(st.integers(0, 40), max_size=3))
def test_distances_are_kept_right(first: list[int], more: list[int]) -> None:
    study = study_of(INPUTS)
    where = np.concatenate(
        (study.feasible.features(np.arange(len(study.feasible.columns))), study.scaled_costs), axis=1
    )
    # More trials, others, and some of them again: what is kept never shows.
    for rows in (first, [*first, *more], more, first):
        found = study.distances.to(np.array(rows, np.int64))
        expected = [((where - where[row]) ** 2).sum(axis=1) for row in rows]
        np.testing.assert_allclose(found, np.min(expected, axis=0) if rows else np.inf, atol=1e-12)


def test_no_trial_starts_after_the_deadline(tmp_path: Path) -> None:
    recorder = Recorder()
    study = new_study(tmp_path / "run")
    assert list(search(study, tmp_path / "run", Inline(recorder), 10, deadline=0.0)) == []
    assert recorder.asked == []


def test_the_log_wins_over_the_sampler(tmp_path: Path) -> None:
    """A trial that was running keeps its genome, whatever would be proposed for its number now."""
    study = new_study(tmp_path / "run", sampler="random")
    other = run_all(new_study(tmp_path / "other", sampler="random", seed=9), tmp_path / "other", 1)
    write_trial(tmp_path / "run", replace(other[0], state=RUNNING))
    said: list[str] = []
    list(search(study, tmp_path / "run", Inline(Recorder()), 3, say=said.append))
    trials = read_trials(tmp_path / "run")[0]
    assert trials[0].genome == other[0].genome
    assert len({trial.genome for trial in trials}) == 3
    assert [f"trial 0 keeps {other[0].genome}" in sentence for sentence in said] == [True]


def test_a_genome_that_is_not_feasible_here_is_no_trial_of_this_search(tmp_path: Path) -> None:
    study = new_study(tmp_path / "run", sampler="random")
    trial = run_all(study, tmp_path / "run", 1)[0]
    write_trial(tmp_path / "run", replace(trial, genome=Genome(), state=RUNNING))
    with pytest.raises(LogError, match="not in the run's feasible set"):
        list(search(study, tmp_path / "run", Inline(Recorder()), 3))


@pytest.mark.parametrize("sampler", ["ehvi", "tpe", "random"])
def test_a_torn_part_of_a_run_with_workers_is_resumed(sampler: str, tmp_path: Path) -> None:
    """The lost number is asked anew, what was running keeps its genome, what had ended its row."""
    run, total = tmp_path / "run", 24
    study = new_study(run, sampler=sampler)
    trials = search(study, run, Scattered(Recorder(), 1), total)
    for _ in range(12):
        next(trials)
    trials.close()  # type: ignore[attr-defined]
    before = {trial.number: trial for trial in read_trials(run)[0]}
    lost = next(number for number in (8, 9, 10, 7) if before[number].state == COMPLETE)
    (run / "trials" / f"{lost}.parquet").unlink()
    said: list[str] = []
    list(search(study, run, Scattered(Recorder(), 2), total, say=said.append))
    after = {trial.number: trial for trial in read_trials(run)[0]}
    assert sorted(after) == list(range(total))
    assert len({trial.genome for trial in after.values()}) == total
    for number in before.keys() - {lost}:
        assert after[number].genome == before[number].genome
        assert before[number].state == RUNNING or after[number] == before[number]
    assert f"the log has lost trial {lost}, asked anew under the same number." in said


def test_the_study_file_is_read_back(tmp_path: Path) -> None:
    budget = Budget(max_memory_bytes=100_000, board="stm32f746")
    study = new_study(tmp_path / "run", budget=budget, epoch_images=100)
    inputs, reference, versions = read_run(tmp_path / "run")
    assert inputs == study.inputs
    assert reference == study.reference
    assert {"isonas", "optuna", "torch"} <= set(versions)
    assert changed(inputs, study.inputs) == []
    assert changed(inputs, replace(inputs, trials=99, data="elsewhere")) == []
    other = replace(inputs, seed=1, budget=replace(budget, max_params=5))
    assert changed(inputs, other) == ["max_params", f"seed ({inputs.seed} there)"]
    deeper = replace(inputs, space=replace(inputs.space, depth=(1,)))
    assert changed(inputs, deeper) == ["space.genes.depth"]
    named = replace(inputs, space=replace(inputs.space, name="other", input=16))
    assert changed(inputs, named) == [f"space ({inputs.space.name} there)"]
    images = replace(inputs, data_fingerprint="other", class_names=("a", "b"))
    assert changed(inputs, images) == ["data"]
    with pytest.raises(RunError, match="exists; go on with it by --resume"):
        create_run(tmp_path / "run", inputs, reference)


def test_a_damaged_study_file_gets_a_sentence(tmp_path: Path) -> None:
    new_study(tmp_path / "run")
    file = tmp_path / "run" / "study.yaml"
    text = file.read_text(encoding="utf-8")
    values = {"sampler: tpe": "sampler: none", "threads: 1": "threads: two", "- madds": "- latency",
              "trials: 30": "trials: null", "  - 0.9": "  - x", "  - 0.0\n": ""}  # fmt: skip
    assert all(old in text for old in values)
    broken = [text.replace(old, new) for old, new in values.items()]
    for damaged in (text[:300], "[]", "inputs: {", text.replace("sampler: tpe\n", ""), *broken):
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(LogError, match="cannot be read"):
            read_run(tmp_path / "run")
    file.write_text(text.replace("version: 4", "version: 5", 1), encoding="utf-8")
    with pytest.raises(LogError, match="of version 5"):
        read_run(tmp_path / "run")


def test_nothing_feasible_is_said_before_the_first_trial() -> None:
    with pytest.raises(BudgetError, match=r"none of the \d+ genomes.*--max-memory by"):
        study_of(replace(INPUTS, budget=Budget(max_memory_bytes=100)))


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from isonas.search.engines import Inline, Outcome
    from isonas.search.run import search
    from tests.studies import Recorder, new_study

    run, sampler, after, during = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "during"
    stopping = {"early_stopping": True, "epochs": 9} if sys.argv[5] == "stopping" else {}
    study = new_study(run, sampler=sampler, **stopping)

    class Dying(Recorder):
        def __call__(self, *arguments):
            asked = len(self.asked) - (arguments[2] > 0)
            # With stopping, at the first rung after that a trial goes on from.
            if during and asked >= after and (arguments[2] > 0 or not stopping):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(*arguments)

    for trial in search(study, run, Inline(Dying(epochs=study.inputs.epochs)), 30):
        if not during and trial.number + 1 == after:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("sampler", EACH_SAMPLER)
@pytest.mark.parametrize(
    ("after", "moment", "stopping"), [(3, "during", ""), (12, "after", ""), (11, "during", "stopping")]
)
def test_killed_for_real_and_resumed(
    sampler: str, after: int, moment: str, stopping: str, tmp_path: Path, uninterrupted: Whole
) -> None:
    whole = uninterrupted(sampler, bool(stopping))
    run = tmp_path / "run"
    code = textwrap.dedent(KILLED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    died = subprocess.run(
        [sys.executable, "-c", code, str(run), sampler, str(after), moment, stopping],
        env=environment,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    states = [trial.state for trial in read_trials(run)[0]]
    ended = len(states) - (moment == "during")
    assert ended >= after if stopping else ended == after
    assert states == [trial.state for trial in whole[:ended]] + [RUNNING] * (moment == "during")
    study = study_of(read_run(run)[0])
    trials = run_all(study, run, len(whole))
    assert same(trials) == same(whole)
    front, expected = (
        front_of([trial for trial in run if trial.state == COMPLETE], study.reference.objectives)
        for run in (trials, whole)
    )
    assert [member.number for member in front] == [member.number for member in expected]
