"""The shoot-out: every sampler replayed on a table from the same seeds, and what can be told from it."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from isonas.bench.arena import Arena
from isonas.bench.replay import Length, Replay, Setting, replay
from isonas.bench.statistics import holm, paired
from isonas.errors import IsonasError, UsageError
from isonas.search.workers import LocalWorkers

BUDGETS = (10, 20, 30, 50, 75, 100, 150, 200)
AXES = ("trials", "seconds")
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Plan:
    """What is compared: the samplers, each from seeds 0 to `seeds` - 1, all `against` one of them.

    `budgets` are trials, ascending; the last is where replays are cut off. Each stands also for the
    simulated seconds in which that many average trainings are done by all workers.
    """

    samplers: tuple[str, ...]
    against: str
    seeds: int
    budgets: tuple[int, ...]
    setting: Setting


@dataclass(frozen=True)
class Comparison:
    """One sampler beside the reference at one budget, over seeds.

    `difference` is the median of the reference's share less the sampler's, `wins` and `losses` count
    the seeds by its sign. `favours` names the sampler to which the signed ranks lean, None for neither;
    `p_holm` is corrected over all comparisons of the shoot-out.
    """

    axis: str
    budget: float
    sampler: str
    against: str
    difference: float
    wins: int
    losses: int
    p: float
    p_holm: float
    favours: str | None


@dataclass(frozen=True)
class Shootout:
    """A plan carried out: the replays of each sampler in the order of their seeds."""

    arena: Arena
    plan: Plan
    replays: dict[str, tuple[Replay, ...]]

    def budgets(self, axis: str) -> tuple[float, ...]:
        """The budgets in trials, or in simulated seconds."""
        return tuple(map(float, self.plan.budgets)) if axis == "trials" else _seconds(self.arena, self.plan)

    def shares(self, sampler: str, measure: str, axis: str, budget: float) -> list[float]:
        """The share of the table's hypervolume at a budget, seed by seed."""
        return [share_at(one, getattr(one.shares, measure), axis, budget) for one in self.replays[sampler]]

    def reached(self, sampler: str, measure: str, axis: str, level: float) -> list[float | None]:
        """The trials or seconds to a level, seed by seed; None where it was not reached in time."""
        last = self.budgets(axis)[-1]
        return [reach(one, getattr(one.shares, measure), axis, level, last) for one in self.replays[sampler]]


def plan_of(
    arena: Arena,
    samplers: Sequence[str],
    *,
    seeds: int,
    trials: int | None = None,
    budgets: Sequence[int] | None = None,
    against: str | None = None,
    setting: Setting,
) -> Plan:
    """A plan for a table, what is None filled in; raises UsageError for what the table has not."""
    genomes = len(arena.rows)
    names = tuple(dict.fromkeys(samplers))
    if trials is None:
        trials = min(max(budgets or BUDGETS), genomes)
    for name, number in (("--trials", trials), ("--budgets", max(budgets or (0,)))):
        if number > genomes:
            raise UsageError(f"{name} {number}: the table holds {genomes} genomes to train, so give no more.")
    against = against or ("ehvi" if "ehvi" in names else names[0])
    if against not in names:
        raise UsageError(f"--against {against}: it is not among the samplers {', '.join(names)}; add it.")
    kept = sorted({budget for budget in (budgets or BUDGETS) if budget < trials} | {trials})
    return Plan(names, against, seeds, tuple(kept), setting)


def shoot_out(
    arena: Arena, plan: Plan, jobs: int = 1, ended: Callable[[Replay], object] = lambda _: None
) -> Shootout:
    """Replay every sampler from every seed, `jobs` of them side by side; `ended` is told of each."""
    tasks = [(sampler, seed) for seed in range(plan.seeds) for sampler in plan.samplers]
    length = Length(plan.budgets[-1], _seconds(arena, plan)[-1])
    found: dict[tuple[str, int], Replay] = {}
    for one in _replays(partial(_replayer, arena, length, plan.setting), tasks, min(jobs, len(tasks))):
        found[one.sampler, one.seed] = one
        ended(one)
    replays = {name: tuple(found[name, seed] for seed in range(plan.seeds)) for name in plan.samplers}
    return Shootout(arena, plan, replays)


def share_at(one: Replay, shares: Sequence[float], axis: str, budget: float) -> float:
    """What a replay had reached after `budget` trials or simulated seconds; 0 before the first trial."""
    done = int(budget) if axis == "trials" else bisect.bisect_right(one.ended, budget)
    return shares[min(done, len(shares)) - 1] if done else 0.0


def reach(one: Replay, shares: Sequence[float], axis: str, level: float, last: float) -> float | None:
    """After how many trials or seconds a replay was first at a level; None where not by `last`."""
    first = next((index for index, share in enumerate(shares) if share >= level), None)
    if first is None:
        return None
    at = float(first + 1) if axis == "trials" else one.ended[first]
    return at if at <= last else None


def comparisons(shootout: Shootout) -> list[Comparison]:
    """Every sampler beside the reference at every budget, corrected over all of them."""
    plan = shootout.plan
    places = [
        (axis, budget, sampler)
        for axis in AXES
        for budget in shootout.budgets(axis)
        for sampler in plan.samplers
        if sampler != plan.against
    ]
    pairs = [
        tuple(np.array(shootout.shares(name, "table", axis, budget)) for name in (plan.against, sampler))
        for axis, budget, sampler in places
    ]
    tests = [paired(first, second) for first, second in pairs]
    corrected = holm([test.p for test in tests])
    return [
        Comparison(
            axis=axis,
            budget=budget,
            sampler=sampler,
            against=plan.against,
            difference=float(np.median(first - second)),
            wins=int((first > second).sum()),
            losses=int((first < second).sum()),
            p=test.p,
            p_holm=p_holm,
            favours={1: plan.against, -1: sampler, 0: None}[test.leaning],
        )
        for (axis, budget, sampler), (first, second), test, p_holm in zip(
            places, pairs, tests, corrected, strict=True
        )
    ]


@dataclass(frozen=True)
class RealClock:
    """What the loop took by the real clock for a trial, and how often a trial comes in simulated time.

    Milliseconds, medians over seeds, while there was a genome left to ask for: `median` and `mean` over
    trials, `last` the mean of the last tenth of them. `interval` is the mean simulated time between the
    ends of trials while all workers are busy.
    """

    median: float
    mean: float
    last: float
    interval: float

    @property
    def keeps_up(self) -> bool:
        """Whether the driver, on average and at the end, is done before the next trial ends."""
        return max(self.mean, self.last) < self.interval


def real_clock(shootout: Shootout, sampler: str) -> RealClock:
    """The driver's real time beside the simulated interval between trials."""
    replays, workers = shootout.replays[sampler], shootout.plan.setting.workers
    genomes = len(shootout.arena.rows)
    first = min(workers, genomes)
    means, steady = [], []
    for one in replays:
        # Up to the first end all workers are given a trial, then one trial is asked for as one ends, until
        # every genome is asked for.
        asking = 1000 * np.array(one.driver_seconds[: genomes - first + 1])
        means.append(asking.sum() / (first + len(asking) - 1))
        steady.append(asking[1:] if len(asking) > 1 else asking / first)
    busy = [one.training_seconds / len(one.ended) / workers for one in replays]
    return RealClock(
        median=float(np.median([np.median(one) for one in steady])),
        mean=float(np.median(means)),
        last=float(np.median([one[-max(len(one) // 10, 1) :].mean() for one in steady])),
        interval=1000 * float(np.median(busy)),
    )


def _seconds(arena: Arena, plan: Plan) -> tuple[float, ...]:
    return tuple(budget * arena.mean_seconds / plan.setting.workers for budget in plan.budgets)


def _replayer(arena: Arena, length: Length, setting: Setting) -> Callable[[str, int], Replay]:
    return lambda sampler, seed: replay(arena, sampler, seed, length, setting)


def _replays(
    start: Callable[[], Callable[[str, int], Replay]], tasks: Sequence[tuple[str, int]], jobs: int
) -> Iterator[Replay]:
    if jobs == 1:
        one_after_another = start()
        for task in tasks:
            yield one_after_another(*task)
        return
    with LocalWorkers(start, jobs) as pool:
        waiting, flying = iter(enumerate(tasks)), 0
        while True:
            while flying < jobs and (item := next(waiting, None)) is not None:
                pool.submit(item[0], *item[1])
                flying += 1
            if not flying:
                return
            _, found = pool.next()
            flying -= 1
            if isinstance(found, IsonasError):
                raise found
            yield found
