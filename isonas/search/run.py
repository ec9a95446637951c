"""A search in its folder: every step is on disk before the next is taken."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from isonas.errors import LogError, TrainingError
from isonas.objectives import front_of
from isonas.search.drive import Hopeless, drive
from isonas.search.engines import Engine
from isonas.search.log import COMPLETE, RUNNING, Trial, compact, read_trials, write_trial
from isonas.search.study import Study
from isonas.search.weights import prune_weights, save_weights


def search(
    study: Study,
    run: Path,
    engine: Engine,
    trials: int,
    deadline: float = float("inf"),
    say: Callable[[str], object] = lambda _: None,
) -> Iterator[Trial]:
    """Bring a run to `trials` trials, yielding each one that ends; the caller holds the run.

    What the log holds as ended is kept, the rest is as in `drive`, which this logs; `say` is told where
    the log has lost trials and where it overrules the sampler. Raises LogError where the log cannot be
    written or does not fit the study, TrainingError where trials fail alike.
    """
    logged = {trial.number: trial for trial in read_trials(run)[0]}
    lost = [number for number in range(max(logged, default=0)) if number not in logged]
    if lost:
        numbers = f"{', '.join(map(str, lost[:8]))}{', …' if len(lost) > 8 else ''}"
        say(f"the log has lost trial{'s' * (len(lost) > 1)} {numbers}, asked anew under the same number.")
    complete = {number: trial for number, trial in logged.items() if trial.state == COMPLETE}
    try:
        for step in drive(study, logged, engine, trials, deadline):
            trial = step.trial
            if step.note is not None:
                say(step.note)
            if trial.state == RUNNING:
                write_trial(run, trial)
                continue
            if trial.state == COMPLETE:
                complete[trial.number] = trial
            front = front_of(list(complete.values()), study.inputs.objectives)
            if step.state is not None and trial in front:
                try:
                    save_weights(run, trial.number, step.state)
                except TrainingError as error:
                    # A cluster may lose what it trained; the trial's result is here.
                    say(f"the weights of trial {trial.number} are not kept: {error}.")
            write_trial(run, trial)
            prune_weights(run, {member.number for member in front})
            compact(run)
            yield trial
    except LogError as error:
        raise LogError(f"{run}: {error}") from None
    except Hopeless as error:
        raise TrainingError(
            f"{error}; mend that, then go on with: isonas resume {shlex.quote(str(run))} --trials {trials}"
        ) from None
