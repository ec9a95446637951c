"""The front of one or more runs: as a document, as a table, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from isonas.cost import Deployment
from isonas.errors import RunError
from isonas.hardware import Budget, costs, format_bytes
from isonas.objectives import Reference, front_of
from isonas.search.inputs import Inputs, incomparable, read_run
from isonas.search.log import COMPLETE, RUNNING, Trial, read_trials
from isonas.space import columns_of

AT_CHANCE = "! "
"""The mark of an error that is no result."""

COLUMNS = (
    "genome", "error", "error_se", "trainings", "balanced_error", "balanced_error_se", "arena_bytes",
    "peak_bytes", "madds", "params", "file_bytes", "weight_bytes", "trial",
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A trial on the front, the run it is from, and the trainings that its run last asked for."""

    run: Path
    trial: Trial
    repeats: int = 1


@dataclass(frozen=True)
class Baseline:
    """A network beside a front, its costs under a run's convention, and its error if it was trained.

    `peak_rate` is the learning rate, at batch size 32, that was best of those tried; None for the run's own.
    """

    network: str
    arena_bytes: int
    peak_bytes: int
    madds: int
    params: int
    file_bytes: int
    weight_bytes: int
    error: float | None = None
    error_se: float | None = None
    balanced_error: float | None = None
    balanced_error_se: float | None = None
    peak_rate: float | None = None


@dataclass(frozen=True)
class Front:
    """The non-dominated complete trials of runs, lowest error first, and their hypervolume.

    `several` tells that more than one run was asked for: then every row names its run. `ended` counts
    the trials of all runs that ended, `wanted` those they were last asked for, `at_chance` the complete
    ones that did not get going, `mixed` names the inputs of
    the trainings in which runs differ.
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
    mixed: tuple[str, ...] = ()


def read_front(runs: Sequence[Path], *, mixed: bool = False) -> Front:
    """The common front of runs, in the first one's reference box.

    Raises RunError where a folder is no run, where runs have no common front, or, unless `mixed`, where
    their genomes were not trained alike.
    """
    distinct = list({run.resolve(): run for run in runs}.values())
    inputs, reference, _ = read_run(distinct[0])
    members: list[Member] = []
    unreadable: list[str] = []
    ended = wanted = 0
    differing: list[str] = []
    for run in distinct:
        other = inputs if run == distinct[0] else read_run(run)[0]
        of_costs, of_errors = incomparable(inputs, other)
        if of_costs:
            raise RunError(
                f"{run} and {distinct[0]} differ in {', '.join(of_costs)}, so they have no common front; ask "
                "for each."
            )
        if of_errors and not mixed:
            raise RunError(
                f"{run} and {distinct[0]} differ in {', '.join(of_errors)}, so their errors are not of like "
                "trainings; ask for each, or give --mixed to see them side by side all the same."
            )
        differing += of_errors
        trials, torn = read_trials(run)
        unreadable += torn
        ended += sum(trial.state != RUNNING for trial in trials)
        wanted += other.trials
        complete = [trial for trial in trials if trial.state == COMPLETE]
        members += [Member(run, _costed(trial, other), other.repeats) for trial in complete]
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
        tuple(dict.fromkeys(differing)),
    )


def front_document(front: Front) -> dict[str, Any]:
    """The front as plain data: what `--json` prints."""
    return {
        "objectives": list(front.reference.objectives),
        "reference": dict(zip(front.reference.objectives, front.reference.point, strict=True)),
        "ideal": dict(zip(front.reference.objectives, front.reference.ideal, strict=True)),
        "hypervolume": front.hypervolume,
        "board": front.inputs.budget.board,
        "memory_model": str(front.inputs.budget.memory_model),
        "dtype": str(front.inputs.budget.dtype),
        **({"mixed": list(front.mixed)} if front.several else {}),
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
        known = {
            name: getattr(baseline, name) for name in COLUMNS if name not in ("genome", "trainings", "trial")
        }
        writer.writerow({"genome": baseline.network, **known})
    return text.getvalue()


def front_table(front: Front) -> Table:
    """The front for people, the error that is minimised first."""
    errors = _errors(front)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("genome", no_wrap=True)
    run = ["run"] if front.several else []
    titles = (*_error_titles(errors), "trainings", *_cost_titles(front), "trial", *run)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for member in front.members:
        trial = member.trial
        table.add_row(
            str(trial.genome),
            *_error_cells(trial, errors),
            str(trial.trainings),
            *_cost_cells(trial),
            str(trial.number),
            *([str(member.run)] if front.several else []),
        )
    return table


def baseline_table(name: str, baselines: Sequence[Baseline], front: Front) -> Table:
    """Baselines for people, in the columns of the front's table that they have."""
    trained = any(baseline.error is not None for baseline in baselines)
    errors = _errors(front) if trained else ()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(name if trained else f"{name} (not trained)", no_wrap=True)
    for title in (*_error_titles(errors), *_cost_titles(front)):
        table.add_column(title, justify="right", no_wrap=True)
    for baseline in baselines:
        table.add_row(baseline.network, *_error_cells(baseline, errors), *_cost_cells(baseline))
    return table


def memory_titles(budget: Budget) -> tuple[str, str]:
    """What `arena_bytes` and `file_bytes` are called in a table, with their convention."""
    return f"memory ({budget.memory_model} arena, {budget.dtype})", f"file ({budget.dtype})"


def _errors(front: Front) -> tuple[str, ...]:
    """The kinds of error that are shown: the one that is minimised, and top-1's in any case."""
    return tuple(dict.fromkeys((front.reference.error, "error")))


def _error_titles(errors: Sequence[str]) -> Iterator[str]:
    for name in errors:
        yield from (name.replace("_", " "), "± se")


def _error_cells(one: Trial | Baseline, errors: Sequence[str]) -> Iterator[str]:
    mark = AT_CHANCE if isinstance(one, Trial) and one.is_at_chance else ""
    for name in errors:
        error, deviation = getattr(one, name), getattr(one, f"{name}_se")
        yield f"{mark}{error:.3f}" if error is not None else "–"
        yield f"{deviation:.3f}" if deviation is not None else "–"


def _cost_titles(front: Front) -> tuple[str, ...]:
    memory, file = memory_titles(front.inputs.budget)
    return memory, "MAdds", "params", file


def _cost_cells(one: Trial | Baseline) -> tuple[str, ...]:
    return (
        format_bytes(one.peak_bytes if one.arena_bytes is None else one.arena_bytes),
        format_count(one.madds),
        format_count(one.params),
        format_bytes(one.weight_bytes if one.file_bytes is None else one.file_bytes),
    )


def _costed(trial: Trial, inputs: Inputs) -> Trial:
    """A trial with its arena and file, which logs before version 4 do not hold."""
    if trial.arena_bytes is not None:
        return trial
    of = costs(columns_of([trial.genome]), Deployment(inputs.input, inputs.classes), inputs.budget)
    return replace(trial, arena_bytes=int(of.arena_bytes[0]), file_bytes=int(of.file_bytes[0]))


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
