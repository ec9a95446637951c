"""The front of one or more runs: as a document, as a table, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from isonas.errors import RunError
from isonas.hardware import format_bytes
from isonas.objectives import Reference, front_of
from isonas.search.inputs import Inputs, read_run
from isonas.search.log import COMPLETE, RUNNING, Trial, read_trials

AT_CHANCE = "! "
"""The mark of an error that is no result."""

COLUMNS = ("genome", "error", "error_se", "peak_bytes", "madds", "params", "weight_bytes", "trial")


@dataclass(frozen=True)
class Member:
    """A trial on the front and the run it is from."""

    run: Path
    trial: Trial


@dataclass(frozen=True)
class Baseline:
    """A network beside a front, its costs under a run's convention, and its error if it was trained.

    `peak_rate` is the learning rate, at batch size 32, that was best of those tried; None for the run's own.
    """

    network: str
    peak_bytes: int
    madds: int
    params: int
    weight_bytes: int
    error: float | None = None
    error_se: float | None = None
    peak_rate: float | None = None


@dataclass(frozen=True)
class Front:
    """The non-dominated complete trials of runs, lowest error first, and their hypervolume.

    `several` tells that more than one run was asked for: then every row names its run. `ended` counts
    the trials of all runs that ended, `wanted` those they were last asked for, `at_chance` the complete
    ones that did not get going.
    """

    inputs: Inputs
    reference: Reference
    members: tuple[Member, ...]
    several: bool
    hypervolume: float
    unreadable: tuple[str, ...]
    ended: int
    wanted: int
    at_chance: int


def read_front(runs: Sequence[Path]) -> Front:
    """The common front of runs, in the first one's reference box.

    Raises RunError where a folder is no run, or where runs are not comparable.
    """
    distinct = list({run.resolve(): run for run in runs}.values())
    inputs, reference, _ = read_run(distinct[0])
    members: list[Member] = []
    unreadable: list[str] = []
    ended = wanted = 0
    for run in distinct:
        other = inputs if run == distinct[0] else read_run(run)[0]
        for key in ("objectives", "input", "classes", "data_fingerprint"):
            if getattr(other, key) != getattr(inputs, key):
                raise RunError(
                    f"{run} and {distinct[0]} differ in {key}, so they have no common front; ask for each."
                )
        for key in ("memory_model", "dtype"):
            if getattr(other.budget, key) != getattr(inputs.budget, key):
                raise RunError(
                    f"{run} and {distinct[0]} differ in {key}, so they have no common front; ask for each."
                )
        trials, torn = read_trials(run)
        unreadable += torn
        ended += sum(trial.state != RUNNING for trial in trials)
        wanted += other.trials
        members += [Member(run, trial) for trial in trials if trial.state == COMPLETE]
    by_trial = {id(member.trial): member for member in members}
    on_front = front_of([member.trial for member in members], reference.objectives)
    return Front(
        inputs,
        reference,
        tuple(by_trial[id(trial)] for trial in on_front),
        len(distinct) > 1,
        reference.hypervolume(on_front),
        tuple(unreadable),
        ended,
        wanted,
        sum(member.trial.is_at_chance for member in members),
    )


def front_document(front: Front) -> dict[str, Any]:
    """The front as plain data: what `--json` prints."""
    return {
        "objectives": list(front.reference.objectives),
        "reference": dict(zip(front.reference.objectives, front.reference.point, strict=True)),
        "ideal": dict(zip(front.reference.objectives, front.reference.ideal, strict=True)),
        "hypervolume": front.hypervolume,
        "memory_model": str(front.inputs.budget.memory_model),
        "dtype": str(front.inputs.budget.dtype),
        "at_chance": front.at_chance,
        "front": [{**_row(front, member), "learned": member.trial.learned} for member in front.members],
    }


def front_csv(front: Front, baselines: Sequence[Baseline] = ()) -> str:
    """The front as CSV, with a header; baselines after it, without trial."""
    text = io.StringIO()
    columns = (*COLUMNS, "run") if front.several else COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(front, member) for member in front.members)
    for baseline in baselines:
        known = {name: getattr(baseline, name) for name in COLUMNS if name not in ("genome", "trial")}
        writer.writerow({"genome": baseline.network, **known})
    return text.getvalue()


def front_table(front: Front) -> Table:
    """The front for people; the memory model and dtype stand in the column's title."""
    budget = front.inputs.budget
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "genome",
        "error",
        "± se",
        f"peak ({budget.memory_model}, {budget.dtype})",
        "MAdds",
    ):
        table.add_column(title, justify="left" if title == "genome" else "right", no_wrap=True)
    for title in ("params", "weights", "trial", *(["run"] if front.several else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for member in front.members:
        trial = member.trial
        table.add_row(
            str(trial.genome),
            f"{AT_CHANCE if trial.is_at_chance else ''}{trial.error:.3f}",
            f"{trial.error_se:.3f}",
            format_bytes(trial.peak_bytes),
            format_count(trial.madds),
            format_count(trial.params),
            format_bytes(trial.weight_bytes),
            str(trial.number),
            *([str(member.run)] if front.several else []),
        )
    return table


def baseline_table(name: str, baselines: Sequence[Baseline], front: Front) -> Table:
    """Baselines for people, in the columns of the front's table that they have."""
    budget = front.inputs.budget
    trained = any(baseline.error is not None for baseline in baselines)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        name if trained else f"{name} (not trained)",
        *(("error", "± se") if trained else ()),
        f"peak ({budget.memory_model}, {budget.dtype})",
        "MAdds",
        "params",
        "weights",
    ):
        table.add_column(title, justify="right" if table.columns else "left", no_wrap=True)
    for baseline in baselines:
        errors = [f"{one:.3f}" if one is not None else "–" for one in (baseline.error, baseline.error_se)]
        table.add_row(
            baseline.network,
            *(errors if trained else ()),
            format_bytes(baseline.peak_bytes),
            format_count(baseline.madds),
            format_count(baseline.params),
            format_bytes(baseline.weight_bytes),
        )
    return table


def format_count(count: int) -> str:
    """A count in thousands, millions or billions (G), for people."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} G"
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def _row(front: Front, member: Member) -> dict[str, Any]:
    trial = member.trial
    row = {name: getattr(trial, name) for name in COLUMNS if name not in ("genome", "trial")}
    row = {"genome": str(trial.genome), **row, "trial": trial.number}
    return {**row, "run": str(member.run)} if front.several else row
