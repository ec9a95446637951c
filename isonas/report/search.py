"""What a search shows while it runs and when it ends."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from isonas.hardware import format_bytes
from isonas.objectives import front_of
from isonas.report.console import console
from isonas.report.front import AT_CHANCE, Baseline, Front, baseline_table, format_count, front_table
from isonas.search.log import COMPLETE, FAILED, STOPPED, Trial
from isonas.search.study import Study


def follow(study: Study, done: Iterable[Trial], ending: Iterable[Trial], total: int) -> int:
    """Draw a progress bar and a line a trial on the standard error while trials end; returns how many
    have ended in all."""
    trials = list(done)
    columns = (
        TextColumn("{task.completed}/{task.total} trials"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[standing]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(
            "", total=total, completed=len(trials), standing=_standing(study, trials), left=""
        )
        start, before = time.monotonic(), len(trials)
        for trial in ending:
            trials.append(trial)
            each = (time.monotonic() - start) / (len(trials) - before)
            left = f"{_duration(each * (total - len(trials)))} left"
            progress.update(task, completed=len(trials), standing=_standing(study, trials), left=left)
            progress.console.print(_line(study, trial, trials))
    return len(trials)


def follow_repeats(study: Study, again: Iterable[tuple[Trial, str | None]]) -> list[str]:
    """Draw a line on the standard error for each front member that is trained again; returns the reasons
    of those trainings that failed."""
    lines, name = console(stderr=True), study.reference.error
    reasons = []
    for trial, reason in again:
        if reason is not None:
            reasons.append(reason)
            lines.print(f"trial {trial.number} again: {trial.genome} failed: {reason}")
            continue
        again_error = (trial.repeat_errors if name == "error" else trial.repeat_balanced_errors)[-1]
        lines.print(
            f"trial {trial.number} again: {trial.genome} {name.replace('_', ' ')} {again_error:.3f}, "
            f"{_shown(trial, name)} over {trial.trainings} trainings"
        )
    return reasons


def _shown(trial: Trial, error: str) -> str:
    return f"{getattr(trial, error):.3f} ± {getattr(trial, f'{error}_se'):.3f}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"


def print_front(front: Front) -> None:
    """The front as a table, on the standard output."""
    out = console()
    if not front.members:
        out.print("The front is empty: no trial is complete yet.")
        return
    out.print(front_table(front))
    axes = ", ".join(front.reference.objectives)
    out.print(f"\n{len(front.members)} on the front; hypervolume {front.hypervolume:.4f} of ({axes}).")
    if front.ended < front.wanted:
        out.print(f"{front.ended} of {front.wanted} trials have ended.")
    if front.at_chance:
        out.print(
            f"{front.at_chance} of {front.ended} trials did not get going: neither training loss nor "
            f"error is below chance. Samplers take them for failures; {AT_CHANCE.strip()} marks those on the "
            "front. Train longer (--epochs), or in smaller batches (--batch-size)."
        )
    fewer = sum(member.trial.trainings < member.repeats for member in front.members)
    if fewer:
        out.print(f"{fewer} of {len(front.members)} errors average fewer trainings than --repeats asked for.")
    if front.mixed:
        out.print(f"The runs differ in {', '.join(front.mixed)}: their errors are not of like trainings.")
    name, chance = front.reference.error, front.reference.chance
    if getattr(front.members[0].trial, name) >= chance:
        out.print(
            f"None is better than chance ({name.replace('_', ' ')} {chance:.3f}, that of always giving the "
            "same answer): train longer, with more --epochs."
        )


def print_baselines(name: str, baselines: Sequence[Baseline], front: Front) -> None:
    """Baselines as a table under a front, on the standard output."""
    out = console()
    out.print()
    out.print(baseline_table(name, baselines, front))


def print_next(run: Path, front: Front) -> None:
    """The commands to type after a search."""
    if not front.members:
        return
    best, folder = front.members[0].trial, shlex.quote(str(run))
    console(stderr=True).print(
        f"\nNext:\n"
        f"  isonas export {folder} --select best     the network of trial {best.number} as files\n"
        f"  isonas retrain {folder} --select best    train it in full\n"
        f"  isonas front {folder} --json             the front for programs\n"
        f"  isonas resume {folder} --trials N        search on, to N trials in all"
    )


def _standing(study: Study, trials: list[Trial]) -> str:
    complete = [trial for trial in trials if trial.state == COMPLETE]
    if not complete:
        return "no front yet"
    front = front_of(complete, study.reference.objectives)
    return (
        f"front {len(front)} · hypervolume {study.reference.hypervolume(front):.3f} · "
        f"best {study.reference.error.replace('_', ' ')} {getattr(front[0], study.reference.error):.3f}"
    )


def _line(study: Study, trial: Trial, trials: list[Trial]) -> str:
    if trial.state == FAILED:
        return f"{trial.number:4d}  {trial.genome}  failed: {trial.reason}"
    complete = [one for one in trials if one.state == COMPLETE]
    mark = "●" if trial in front_of(complete, study.reference.objectives) else " "
    name = study.reference.error
    stopped = f"  stopped after epoch {trial.epochs}" if trial.state == STOPPED else ""
    return (
        f"{trial.number:4d} {mark} {trial.genome}  {name.replace('_', ' ')} {_shown(trial, name)}  "
        f"{format_bytes(trial.arena_bytes or trial.peak_bytes)}  {format_count(trial.madds)} MAdds  "
        f"{trial.train_seconds:.0f} s{stopped}"
    )
