"""The statistics of a shoot-out equal their definitions, and the command tells them."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from isonas.bench.arena import Arena, read_arena
from isonas.bench.replay import Replay, Setting, Shares
from isonas.bench.samplers import Shootout, comparisons, plan_of, reach, real_clock, share_at, shoot_out
from isonas.bench.statistics import holm, paired, quartiles, quartiles_reached
from isonas.errors import UsageError
from isonas.search import SAMPLER_NAMES
from isonas.space import load_space
from tests.commands import document, isonas
from tests.tables import some_genomes, write

GENOMES = some_genomes(24)
P_VALUES = st.lists(st.integers(0, 60).map(lambda n: n / 60), max_size=8)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "table.parquet", GENOMES)


@pytest.fixture(scope="module")
def arena(table: Path) -> Arena:
    return read_arena(table)


@given(P_VALUES, st.integers(1, 59).map(lambda n: n / 60 + 1e-4))
def test_holm_rejects_what_his_procedure_rejects(p: list[float], level: float) -> None:
    """Step down from the smallest p, each against the level over the hypotheses left; stop at the first
    that is above."""
    rejected: set[int] = set()
    left = list(range(len(p)))
    while left:
        smallest = min(left, key=lambda index: p[index])
        if p[smallest] > level / len(left):
            break
        rejected.add(smallest)
        left.remove(smallest)
    adjusted = holm(p)
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected
    assert all(one <= other <= 1 for one, other in zip(p, adjusted, strict=True))


@given(st.lists(st.integers(-9, 9).filter(bool), min_size=1, max_size=8, unique_by=abs))
def test_the_paired_test_counts_the_sign_patterns(differences: list[int]) -> None:
    """Without ties the p-value is the share of sign patterns whose rank sum is as far out, or further."""
    ranks = {size: rank for rank, size in enumerate(sorted(map(abs, differences)), 1)}

    def sum_of(signs: Iterable[int]) -> int:
        return sum(sign * ranks[abs(one)] for sign, one in zip(signs, differences, strict=True))

    observed = sum_of([1 if d > 0 else -1 for d in differences])
    patterns = list(itertools.product((-1, 1), repeat=len(differences)))
    extreme = sum(abs(sum_of(signs)) >= abs(observed) for signs in patterns)
    second = np.linspace(0, 1, len(differences))
    found = paired(second + np.array(differences), second)
    assert found.p == pytest.approx(extreme / len(patterns))
    assert found.leaning == np.sign(observed)


def test_equal_pairs_say_nothing() -> None:
    same = np.array([0.1, 0.2, 0.3])
    assert (paired(same, same).p, paired(same, same).leaning) == (1.0, 0)
    with_ties = paired(np.array([1.0, 2, 3, 4, 9]), np.array([0.0, 0, 0, 0, 9]))
    assert with_ties == paired(np.array([1.0, 2, 3, 4]), np.zeros(4))


@given(st.lists(st.none() | st.integers(1, 50).map(float), min_size=1, max_size=12))
def test_a_run_that_did_not_get_there_stays_among_the_runs(times: list[float | None]) -> None:
    def reached_by(share: float) -> float | None:
        """The first time by which that share of all runs had got there."""
        known = sorted(time for time in times if time is not None)
        return next((t for t in known if sum(k <= t for k in known) >= share * len(times)), None)

    found = quartiles_reached(times)
    assert (found.low, found.median, found.high) == tuple(map(reached_by, (0.25, 0.5, 0.75)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_known_quartiles_are_ordered_and_the_median_splits(values: list[float]) -> None:
    found = quartiles(values)
    assert found.low is not None
    assert found.median is not None
    assert found.high is not None
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert 2 * sum(value < found.median for value in values) <= len(values)


def made_up(seconds: list[float], shares: list[float]) -> Replay:
    ended = tuple(itertools.accumulate(seconds))
    curve = tuple(shares)
    return Replay("tpe", 0, ended, Shares(curve, curve, curve), ended[-1], 0, 0, 0, 0, tuple(seconds))


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 8)), min_size=1, max_size=20),
    st.integers(1, 8),
    st.sampled_from(["trials", "seconds"]),
)
def test_a_level_is_reached_when_the_share_is_first_there(
    steps: list[tuple[int, int]], level: int, axis: str
) -> None:
    one = made_up([float(seconds) for seconds, _ in steps], [share / 8 for _, share in steps])
    curve = one.shares.table
    last = float(len(steps)) if axis == "trials" else one.ended[-1]
    at = reach(one, curve, axis, level / 8, last)
    assert share_at(one, curve, axis, 0.0) == 0
    instants = range(int(last) + 1)
    before = [instant for instant in instants if at is None or instant < at]
    assert all(share_at(one, curve, axis, instant) < level / 8 for instant in before)
    if at is not None:
        assert share_at(one, curve, axis, at) >= level / 8
        assert reach(one, curve, axis, level / 8, at) == at
        assert reach(one, curve, axis, level / 8, at - 0.5) is None


@pytest.mark.parametrize(("driver", "keeps_up"), [(0.4, True), (0.6, False)])
def test_the_driver_is_timed_while_it_asks(driver: float, keeps_up: bool, arena: Arena) -> None:
    """Four workers and 24 genomes: four asks to the first end, one to each of the next twenty, then none."""
    plan = plan_of(arena, ["tpe"], seeds=1, setting=Setting(workers=4))
    spent = (4 * driver, *[driver] * 20, *[0.0] * 3)
    one = Replay("tpe", 0, (1.0,) * 24, Shares((), (), ()), 48.0, 0, 0, 0, 0, spent)
    clock = real_clock(Shootout(arena, plan, {"tpe": (one,)}), "tpe")
    assert (clock.median, clock.mean, clock.last) == pytest.approx((1000 * driver,) * 3)
    assert (clock.interval, clock.keeps_up) == (500, keeps_up)
    everyone = plan_of(arena, ["tpe"], seeds=1, setting=Setting(workers=64))
    first = replace(one, driver_seconds=(24 * driver, *[0.0] * 23))
    assert real_clock(Shootout(arena, everyone, {"tpe": (first,)}), "tpe").last == pytest.approx(
        1000 * driver
    )


def test_comparisons_are_paired_by_seed(arena: Arena) -> None:
    plan = plan_of(
        arena, ["tpe", "random", "ehvi"], seeds=6, budgets=[12, 6], against="random", setting=Setting()
    )
    assert plan.budgets == (6, 12)
    shootout = shoot_out(arena, plan)
    found = comparisons(shootout)
    assert [(one.axis, one.sampler) for one in found] == [
        (axis, sampler) for axis in ("trials", "seconds") for _ in range(2) for sampler in ("tpe", "ehvi")
    ]
    assert [one.p_holm for one in found] == holm([one.p for one in found])
    for one in found:
        mine, other = (
            np.array([share_at(r, r.shares.table, one.axis, one.budget) for r in shootout.replays[name]])
            for name in ("random", one.sampler)
        )
        assert one.difference == np.median(mine - other)
        assert (one.wins, one.losses) == (int((mine > other).sum()), int((other > mine).sum()))
        test = paired(mine, other)
        assert (one.p, one.favours) == (test.p, {1: "random", 0: None, -1: one.sampler}[test.leaning])


def test_a_plan_asks_for_what_the_table_has(arena: Arena) -> None:
    def plan(**changes: Any) -> Any:
        return plan_of(arena, ("tpe", "random", "tpe"), seeds=2, setting=Setting(), **changes)

    assert plan().budgets == (10, 20, 24)
    assert plan(trials=15).budgets == (10, 15)
    assert plan(budgets=[5, 8]).budgets == (5, 8)
    assert (plan().samplers, plan().against) == (("tpe", "random"), "tpe")
    assert plan_of(arena, SAMPLER_NAMES, seeds=2, setting=Setting()).against == "ehvi"
    for changes, says in (
        ({"trials": 25}, "--trials 25: the table holds 24"),
        ({"budgets": [5, 30]}, "--budgets 30: the table holds 24|--trials 30"),
        ({"against": "gp"}, "not among the samplers tpe, random"),
    ):
        with pytest.raises(UsageError, match=says):
            plan(**changes)


def samplers(*arguments: str) -> Result:
    return isonas("bench", "samplers", *arguments)


SHORT = ["--sampler", "ehvi", "--sampler", "random", "--seeds", "4", "--trials", "12"]


def test_the_document(table: Path) -> None:
    found = document("bench", "samplers", table, *SHORT)
    assert list(found) == [
        "table", "genomes", "left_out", "trainings", "mean_training_seconds", "objectives", "reference",
        "whole_table_share_of_best", "seeds", "workers", "early_stopping", "logged", "against", "budgets",
        "samplers", "comparisons", "real_clock",
    ]  # fmt: skip
    assert (found["genomes"], found["trainings"], found["seeds"], found["against"]) == (24, 3, 4, "ehvi")
    assert found["budgets"]["trials"] == [10, 12]
    mean = found["mean_training_seconds"]
    assert found["budgets"]["seconds"] == pytest.approx([10 * mean, 12 * mean])
    for of in found["samplers"].values():
        assert list(of) == [
            "hypervolume", "reached", "trials", "duplicates", "infeasible", "stopped", "failed",
        ]  # fmt: skip
        assert (of["duplicates"], of["infeasible"], of["failed"]) == (0, 0, 0)
        assert of["trials"] >= 4 * 12
        for measure, axis in itertools.product(("table", "best", "seen"), ("trials", "seconds")):
            for entry in of["hypervolume"][measure][axis]:
                assert len(entry["values"]) == 4
                assert entry["median"] == pytest.approx(np.median(entry["values"]))
            for entry in of["reached"][measure][axis]:
                assert entry["not_reached"] == entry["values"].count(None)
    assert {one["sampler"] for one in found["comparisons"]} == {"random"}


def test_equal_commands_give_equal_documents(table: Path, tmp_path: Path) -> None:
    plain = document("bench", "samplers", table, *SHORT, "--workers", "3")
    logged = document(
        "bench", "samplers", table, *SHORT, "--workers", "3", "--jobs", "2", "--log", str(tmp_path)
    )
    assert (plain.pop("logged"), logged.pop("logged")) == (False, True)
    for found in (plain, logged):
        for clock in found["real_clock"].values():
            assert all(math.isfinite(value) for value in clock.values())
        del found["real_clock"]
    assert plain == logged
    assert not list(tmp_path.iterdir())


def test_the_tables(table: Path) -> None:
    result = samplers(str(table), *SHORT)
    assert result.exit_code == 0, result.output
    for said in ("trials", "simulated s", "90%, trials", "95%, seconds", "duplicates", "all 24 genomes"):
        assert said in result.stdout


def test_the_plot_is_the_same_file_each_time(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg", "one.png"):
        result = samplers(str(table), *SHORT, "--plot", str(tmp_path / name))
        assert result.exit_code == 0, result.output
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_said_before_anything_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(plot: str) -> str:
        result = samplers("missing.parquet", "--plot", plot)
        assert result.exit_code == 2
        return result.stderr

    assert "must end in .png or .svg" in says("front.pdf")
    assert "there is no folder" in says(str(tmp_path / "none" / "front.svg"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'isonas[plot]'" in says(str(tmp_path / "front.svg"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--budgets", "ten"], 2, "--budgets 'ten'"),
        (["--budgets", "0,5"], 2, "--budgets '0,5'"),
        (["--trials", "25"], 2, "holds 24 genomes"),
        (["--trainings", "4"], 2, "0 genomes with 4 trainings"),
        (["--sampler", "tpe", "--against", "gp"], 2, "not among the samplers tpe"),
        (["--sampler", "best"], 2, "'best' is not one of"),
    ],
)
def test_a_users_mistake_is_one_sentence(arguments: list[str], code: int, says: str, table: Path) -> None:
    result = samplers(str(table), *arguments)
    assert (result.exit_code, says in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("sub", ["samplers", "record", "cost", "proposals"])
def test_help_loads_nothing_heavy(sub: str) -> None:
    code = (
        "import sys\nfrom isonas.cli import main\n"
        f"main(['bench', {sub!r}, '--help'], standalone_mode=False)\n"
        "print([name for name in ('torch', 'optuna', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_proposals_are_timed() -> None:
    found = document("bench", "proposals", "quick", "--trials", "20,0", "--sampler", "ehvi")
    assert list(found) == [
        "space", "sampler", "genomes", "feasible", "enumerate_seconds", "proposals", "peak_memory_bytes",
    ]  # fmt: skip
    assert (found["space"], found["genomes"], found["feasible"]) == ("quick", 864, 864)
    assert [one["trials"] for one in found["proposals"]] == [0, 20]
    assert all(one["median_seconds"] <= one["longest_seconds"] for one in found["proposals"])
    result = isonas("bench", "proposals", "--trials", "many")
    assert (result.exit_code, "--trials 'many'" in result.stderr) == (2, True)


RECORDED = Path(__file__).parent.parent / "tables" / "tiny.parquet"


@pytest.fixture(scope="module")
def recorded() -> Arena:
    """The committed table of really trained networks."""
    return read_arena(RECORDED)


def test_the_recorded_table_is_whole(recorded: Arena) -> None:
    assert (len(recorded.rows), len(recorded.views), recorded.left_out) == (288, 3, 0)
    assert set(recorded.rows) == set(load_space("tiny"))
    assert all(len(one.error) == 9 and one.test_error for runs in recorded.trainings.values() for one in runs)
    assert recorded.images == 1600


@pytest.mark.slow
def test_on_really_trained_networks_ehvi_needs_half_of_nsga2s_trials_at_most(recorded: Arena) -> None:
    """What tables/README.md tells of 20 seeds, on three."""
    plan = plan_of(recorded, ["ehvi", "nsga2"], seeds=3, trials=80, setting=Setting())
    found = shoot_out(recorded, plan)
    reached = {
        name: quartiles_reached(found.reached(name, "table", "trials", 0.95)).median for name in plan.samplers
    }
    assert reached["ehvi"] is not None
    assert reached["nsga2"] is None or reached["ehvi"] <= reached["nsga2"] / 2


@pytest.mark.slow
def test_on_really_trained_networks_stopping_halves_the_seconds_of_random(recorded: Arena) -> None:
    reached = []
    for stopping in (False, True):
        plan = plan_of(recorded, ["random"], seeds=3, trials=288, setting=Setting(early_stopping=stopping))
        times = shoot_out(recorded, plan).reached("random", "table", "seconds", 0.95)
        reached.append(quartiles_reached(times).median)
    assert reached[0] is not None
    assert reached[1] is not None
    assert reached[1] < reached[0] / 1.5
