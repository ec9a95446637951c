"""The proxy's fidelity: its statistics against brute force, its sample against laws, its trainings kept."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from isonas.bench.fidelity import (
    FEWEST,
    FRESH,
    Compared,
    Interval,
    bootstrap,
    compared,
    document,
    kendall,
    overlap,
    rankings,
    stratified,
)
from isonas.bench.table import Training, read_table
from isonas.evaluation import trial_seed
from isonas.search.log import COMPLETE, Trial
from tests.commands import isonas
from tests.studies import SPACE

GENOMES = [SPACE.columns.genome(index) for index in range(len(SPACE.columns))]
TINY = """
input: 16
classes: 4
genes:
  depth: [1, 2]
  channels: [32]
  internal_resolution: [4, 8]
  expansion: [1, 2]
  se_ratio: [0]
  head_multiple: [1]
  head_features: [0]
"""

few_values = st.integers(0, 6).map(float)
pairs = st.lists(st.tuples(few_values, few_values), min_size=2, max_size=12)
distinct = st.integers(2, 12).flatmap(
    lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n)), st.integers(1, n))
)


def trial(number: int, error: float, *, genome: int | None = None) -> Trial:
    """A complete trial of the numbered genome of the space, with a mean of repeats that misleads."""
    return Trial(
        number=number,
        state=COMPLETE,
        genome=GENOMES[number if genome is None else genome],
        params=1000 + number,
        madds=10_000 - number,
        peak_bytes=0,
        weight_bytes=0,
        proxy_input=8,
        proxy_k=1,
        seed=0,
        started_at="",
        error=1.0 - error,
        curve_error=(0.99, error),
    )


def columns(rows: list[tuple[float, float]]) -> tuple[Any, Any]:
    first, second = np.array(rows, np.float64).T
    return first, second


def counted(rows: list[tuple[float, float]]) -> float | None:
    """Kendall's τ-b by its definition, one pair after the other (Kendall, 1945)."""
    agreeing = untied_first = untied_second = 0
    for (a, b), (c, d) in itertools.combinations(rows, 2):
        untied_first += a != c
        untied_second += b != d
        if a != c and b != d:
            agreeing += 1 if (a < c) == (b < d) else -1
    if not untied_first or not untied_second:
        return None
    return agreeing / math.sqrt(untied_first * untied_second)


@given(pairs)
def test_kendall_counts_pairs_and_ties(rows: list[tuple[float, float]]) -> None:
    first, second = columns(rows)
    expected = counted(rows)
    if expected is None:
        assert kendall(first, second) is None
        return
    assert kendall(first, second) == pytest.approx(expected)
    assert kendall(first, second) == pytest.approx(float(kendalltau(first, second).statistic))


@given(distinct)
def test_overlap_is_of_sets(orders: tuple[list[int], list[int], int]) -> None:
    first, second, k = orders
    sets = [set(np.argsort(order)[:k]) for order in (first, second)]
    assert overlap(np.array(first, float), np.array(second, float), k) == len(sets[0] & sets[1]) / k


@given(pairs, st.data())
def test_overlap_shares_places_among_ties(rows: list[tuple[float, float]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(rows)))
    first, second = columns(rows)
    assert overlap(first, first, k) == pytest.approx(1)
    assert 0 <= overlap(first, second, k) <= 1 + 1e-12
    assert overlap(first, second, k) == pytest.approx(overlap(second, first, k))
    assert overlap(np.zeros(len(rows)), np.arange(len(rows), dtype=float), k) == pytest.approx(k / len(rows))
    order = data.draw(st.permutations(range(len(rows))))
    assert overlap(first[order], second[order], k) == pytest.approx(overlap(first, second, k))


@pytest.mark.parametrize(("sign", "tau", "share"), [(1.0, 1.0, 1.0), (-1.0, -1.0, 0.0)])
def test_a_perfect_and_a_reversed_ranking(sign: float, tau: float, share: float) -> None:
    errors = np.random.default_rng(0).permutation(12) / 12
    assert kendall(sign * errors, errors) == tau
    assert overlap(sign * errors, errors, 3) == share
    # A resample repeats genomes, which are then tied in both orders.
    assert bootstrap(kendall, sign * errors, errors, seed=0, resamples=200) == Interval(tau, tau, tau)
    if sign > 0:
        found = bootstrap(lambda a, b: overlap(a, b, 3), errors, errors, seed=0, resamples=200)
        assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


def test_the_bootstrap_is_drawn_by_its_seed() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(15), rng.random(15)
    once, again, other = (bootstrap(kendall, first, second, seed) for seed in (3, 3, 4))
    assert once == again != other
    assert once.value == other.value == kendall(first, second)
    assert once.low is not None
    assert once.high is not None
    assert once.value is not None
    assert -1 <= once.low < once.value < once.high <= 1
    assert bootstrap(kendall, np.zeros(5), first[:5], 0, 20) == Interval(None, None, None)


def test_the_bootstrap_covers_a_mean_as_its_theory_says() -> None:
    values = np.random.default_rng(2).normal(size=400)
    found = bootstrap(lambda a, _: float(a.mean()), values, values, 0, 2000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, len(GENOMES) - 1), min_size=1, max_size=60, unique=True),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
    st.randoms(use_true_random=False),
)
def test_laws_of_the_sample(genomes: list[int], size: int, seed: int, random: Any) -> None:
    trials = [
        trial(number, random.choice([0.1, 0.2, 0.3, 0.4]), genome=g) for number, g in enumerate(genomes)
    ]
    sample = stratified(trials, size, seed)
    numbers = [one.number for one in sample]
    assert len(numbers) == min(size, len(trials))
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= set(range(len(trials)))
    assert stratified(trials, size, seed) == sample

    def resolutions(of: list[Trial]) -> Counter[int]:
        return Counter(one.genome.internal_resolution for one in of)

    there, taken = resolutions(trials), resolutions(sample)
    if size >= len(there):
        assert set(taken) == set(there)
        for one, other in itertools.permutations(there, 2):
            # Adams: nobody could give a place away and still be the better served.
            assert there[one] / taken[one] <= there[other] / max(taken[other] - 1, 1e-9)
    for resolution, count in taken.items():
        own = [one for one in trials if one.genome.internal_resolution == resolution]
        own.sort(key=lambda one: (one.own_error, one.number))
        ranks = sorted(own.index(one) for one in sample if one in own)
        for place, rank in enumerate(ranks):
            assert place * len(own) // count <= rank < (place + 1) * len(own) // count


def test_the_seed_draws_the_sample() -> None:
    trials = [trial(number, 0.5) for number in range(40)]
    assert stratified(trials, 10, 0) != stratified(trials, 10, 1)
    assert sorted(one.number for one in stratified(trials, 99, 0)) == list(range(40))


def test_what_is_compared_is_the_own_error_and_the_fresh_training() -> None:
    trials = [trial(number, 0.1 * (number + 1)) for number in range(4)]

    def training(number: int, seed: int, *error: float) -> Training:
        return Training(
            genome=GENOMES[number], seed=seed, error=error, test_error=None, seconds=1, core_seconds=1
        )

    trainings = [
        training(3, FRESH, 0.9, 0.4),
        training(0, FRESH, 0.9, 0.05),
        training(1, 0, 0.7),  # not fresh
        training(2, FRESH),  # failed
        training(9, FRESH, 0.3),  # of an earlier sample
    ]
    found = compared(trials, trainings)
    assert [one.proxy_error for one in found] == pytest.approx([0.1, 0.4])
    assert [one.longer_error for one in found] == [0.05, 0.4]
    seeds = {trial_seed(0, GENOMES[0], repeat) for repeat in (*range(100), FRESH)}
    assert len(seeds) == 101


def test_rankings_overall_and_where_there_are_enough() -> None:
    genomes = [Compared(8, 100 + n, 1000 - n, 0.5 - 0.01 * n, 0.3 - 0.01 * n) for n in range(9)]
    genomes += [Compared(4, n, n, 0.9, 0.8) for n in range(FEWEST - 1)]
    found = rankings(genomes, seed=0, resamples=50)
    assert [(one.by, one.internal_resolution, one.genomes) for one in found] == [
        *((by, None, 13) for by in ("proxy", "params", "madds")),
        *((by, 8, 9) for by in ("proxy", "params", "madds")),
    ]
    proxy, params, madds = found[3:]
    assert (proxy.top_k, proxy.chance) == (2, 2 / 9)
    assert proxy.kendall == params.kendall == Interval(1, 1, 1)
    assert madds.kendall == Interval(-1, -1, -1)
    assert [one.overlap.value for one in (proxy, params, madds)] == [1, 1, 0]
    text = json.dumps(document("run", (4, 16), found), allow_nan=False)
    assert set(json.loads(text)) == {
        "run",
        "genomes",
        "epochs_proxy",
        "epochs_longer",
        "top_k",
        "chance",
        "rankings",
    }
    tied = rankings([replace(one, longer_error=0.5) for one in genomes], seed=0, resamples=10)
    assert tied[0].kendall == Interval(None, None, None)
    json.dumps(document("run", (4, 16), tied), allow_nan=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six complete trials on images that need no download."""
    folder = tmp_path_factory.mktemp("fidelity")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    result = isonas(
        *("search", str(folder / "tiny.yaml"), "--data", "synthetic", "--trials", "6", "--epochs", "1"),
        *("--epoch-images", "64", "--threads", "1", "--sampler", "random", "--run", str(folder / "run")),
        *("--cache", str(folder / "cache")),
    )
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.mark.slow
def test_killed_trainings_go_on(run: Path) -> None:
    command = ["fidelity", str(run), "--sample", "5", "--epochs", "2", "--seed", "3", "--json"]
    child = subprocess.Popen(
        [sys.executable, "-m", "isonas", *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    assert child.stdout is not None
    first = child.stderr.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stderr, child.stdout):
        stream.close()
    assert first.startswith("1/5 ")
    table = run / "fidelity-2.parquet"
    before = read_table(table).trainings
    assert 1 <= len(before) <= 2

    result = isonas(*command)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0].startswith(f"{len(before) + 1}/5 ")
    after = read_table(table)
    assert after.trainings[: len(before)] == before
    assert len({training.genome for training in after.trainings}) == len(after.trainings) == 5
    assert {training.seed for training in after.trainings} == {FRESH}
    assert {len(training.error) for training in after.trainings} == {2}
    assert after.inputs.epochs == 2
    found = json.loads(result.stdout)
    assert (found["genomes"], found["epochs_proxy"], found["epochs_longer"]) == (5, 1, 2)
    assert (found["top_k"], found["chance"]) == (1, 0.2)
    assert [one["by"] for one in found["rankings"]][:3] == ["proxy", "params", "madds"]
    assert all(set(one["kendall"]) == {"value", "low", "high"} for one in found["rankings"])

    again = isonas(*command)
    assert again.stdout == result.stdout
    assert read_table(table) == after
    printed = isonas(*command[:-1])
    assert "Kendall" in printed.stdout
    assert "after 2 epochs" in printed.stdout
    larger = isonas(*command, "--sample", "6")
    assert larger.stderr.count("/6 ") == 1
    assert read_table(table).trainings[:5] == after.trainings


def test_refusals_are_one_sentence(run: Path, tmp_path: Path) -> None:
    for arguments, says, code in (
        ([str(tmp_path)], "is no run", 2),
        ([str(run), "--epochs", "1"], "no longer than", 2),
        ([str(run), "--epochs", "3", "--time-limit", "soon"], "is not a time", 2),
        ([str(run), "--epochs", "3", "--data", "digits"], "searched on other images", 2),
        ([str(run), "--epochs", "3", "--time-limit", "0.000001"], "only 0 of 6 genomes", 1),
    ):
        result = isonas("fidelity", *arguments)
        assert result.exit_code == code, result.output
        assert says in result.stderr
        assert "Traceback" not in result.output
    for name in ("study.yaml", "trials/0.parquet", "trials/1.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((run / name).read_bytes())
    result = isonas("fidelity", str(tmp_path))
    assert result.exit_code == 2
    assert "has 2 complete trials" in result.stderr


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from isonas.cli import main\n"
        "try: main(['fidelity', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'scipy', 'optuna'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Example:" in done.stdout
