"""A shoot-out as a document and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from isonas.bench.samplers import AXES, SIGNIFICANT, Comparison, Shootout, comparisons, real_clock
from isonas.bench.statistics import Quartiles, quartiles, quartiles_reached

LEVELS = (0.9, 0.95)
MEASURES = ("table", "best", "seen")


def document(shootout: Shootout) -> dict[str, Any]:
    """All of it as plain data; only what stands under `real_clock` differs from run to run."""
    arena, plan = shootout.arena, shootout.plan
    ceilings = [view.reached / view.best for view in arena.views]
    return {
        "genomes": len(arena.rows),
        "left_out": arena.left_out,
        "trainings": len(arena.views),
        "mean_training_seconds": arena.mean_seconds,
        "objectives": list(arena.study.reference.objectives),
        "reference": dict(zip(arena.study.reference.objectives, arena.study.reference.point, strict=True)),
        "whole_table_share_of_best": ceilings,
        "seeds": plan.seeds,
        "workers": plan.setting.workers,
        "early_stopping": plan.setting.early_stopping,
        "logged": plan.setting.log is not None,
        "against": plan.against,
        "budgets": {axis: list(shootout.budgets(axis)) for axis in AXES},
        "samplers": {sampler: _sampler_document(shootout, sampler) for sampler in plan.samplers},
        "comparisons": [asdict(comparison) for comparison in comparisons(shootout)],
        "real_clock": {sampler: _real_document(shootout, sampler) for sampler in plan.samplers},
    }


def _sampler_document(shootout: Shootout, sampler: str) -> dict[str, Any]:
    replays = shootout.replays[sampler]
    hypervolume = {
        measure: {
            axis: [
                {"budget": budget, **_summary(quartiles(values)), "values": values}
                for budget in shootout.budgets(axis)
                for values in [shootout.shares(sampler, measure, axis, budget)]
            ]
            for axis in AXES
        }
        for measure in MEASURES
    }
    reached = {
        measure: {
            axis: [
                {
                    "level": level,
                    **_summary(quartiles_reached(times)),
                    "not_reached": times.count(None),
                    "values": times,
                }
                for level in LEVELS
                for times in [shootout.reached(sampler, measure, axis, level)]
            ]
            for axis in AXES
        }
        for measure in MEASURES
    }
    counts = ("duplicates", "infeasible", "stopped", "failed")
    return {
        "hypervolume": hypervolume,
        "reached": reached,
        "trials": sum(len(one.ended) for one in replays),
        **{name: sum(getattr(one, name) for one in replays) for name in counts},
    }


def _real_document(shootout: Shootout, sampler: str) -> dict[str, Any]:
    clock = real_clock(shootout, sampler)
    return {
        "median_ms_per_trial": clock.median,
        "mean_ms_per_trial": clock.mean,
        "last_ms_per_trial": clock.last,
        "simulated_ms_between_trials": clock.interval,
        "keeps_up": clock.keeps_up,
    }


def _summary(of: Quartiles) -> dict[str, float | None]:
    return {"median": of.median, "q1": of.low, "q3": of.high}


def tables(shootout: Shootout) -> Group:
    """What people want to know of a shoot-out."""
    found = comparisons(shootout)
    plan, arena = shootout.plan, shootout.arena
    parts: list[Table | Text] = []
    for axis, title in (("trials", "trials"), ("seconds", "simulated s")):
        parts += [_shares(shootout, found, axis, title), Text()]
    parts += [_reached(shootout), Text(), _asked(shootout), Text()]
    best = [f"{view.reached / view.best:.1%}" for view in arena.views]
    parts.append(
        Text(
            f"Median and quartiles over {plan.seeds} seeds of the hypervolume of the front so far, chosen by "
            "one training of each genome and scored by the others. 100% is what training all "
            f"{len(arena.rows)} genomes gives ({', '.join(best)} of the most that any choice could reach). "
            f"▼ and ▲: worse and better than {plan.against} (Wilcoxon, Holm over {len(found)} comparisons, "
            f"p < {SIGNIFICANT})."
        )
    )
    return Group(*parts)


def _shares(shootout: Shootout, found: list[Comparison], axis: str, title: str) -> Table:
    table = _table(title, *shootout.plan.samplers)
    marks = {
        (one.budget, one.sampler): " ▼" if one.favours == one.against else " ▲"
        for one in found
        if one.axis == axis and one.p_holm < SIGNIFICANT
    }
    for budget in shootout.budgets(axis):
        cells = []
        for sampler in shootout.plan.samplers:
            of = quartiles(shootout.shares(sampler, "table", axis, budget))
            cells.append(_percent(of) + marks.get((budget, sampler), ""))
        table.add_row(_number(budget), *cells)
    return table


def _reached(shootout: Shootout) -> Table:
    table = _table("to reach", *shootout.plan.samplers)
    for level in LEVELS:
        for axis in AXES:
            cells = []
            for sampler in shootout.plan.samplers:
                times = shootout.reached(sampler, "table", axis, level)
                missed = f", {times.count(None)} not" if None in times else ""
                cells.append(_times(quartiles_reached(times)) + missed)
            table.add_row(f"{level:.0%}, {axis}", *cells)
    return table


def _asked(shootout: Shootout) -> Table:
    table = _table("in all", *shootout.plan.samplers)
    replays = shootout.replays.values()
    table.add_row("trials", *(f"{sum(len(one.ended) for one in of):,}" for of in replays))
    for name in ("duplicates", "infeasible", "stopped", "failed"):
        table.add_row(name, *(f"{sum(getattr(one, name) for one in of):,}" for of in replays))
    clocks = [real_clock(shootout, sampler) for sampler in shootout.plan.samplers]
    table.add_row("real ms a trial", *(f"{of.median:,.1f} (last {of.last:,.1f})" for of in clocks))
    table.add_row("simulated ms", *(f"{of.interval:,.0f}" for of in clocks))
    table.add_row("keeps up", *("yes" if of.keeps_up else "no" for of in clocks))
    return table


def _table(first: str, *samplers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (first, *samplers):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _percent(of: Quartiles) -> str:
    low, median, high = (f"{100 * (value or 0.0):.1f}" for value in (of.low, of.median, of.high))
    return f"{median} ({low}–{high})"


def _times(of: Quartiles) -> str:
    low, median, high = ("–" if at is None else _number(at) for at in (of.low, of.median, of.high))
    return f"{median} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value.is_integer() else f"{value:.1f}"
