"""A shoot-out as a figure (matplotlib, an extra)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isonas.atomic import write_atomically
from isonas.bench.samplers import Shootout, share_at
from isonas.errors import UsageError

FORMATS = (".png", ".svg")
_INSTANTS = 200


def require_plot(path: Path) -> None:
    """Raise UsageError where a figure could not be written there, before anything is replayed for it."""
    if path.suffix not in FORMATS:
        raise UsageError(f"--plot {path}: the name must end in {' or '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}; make it, or name another.")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            "--plot needs matplotlib, which is not installed; get it with pip install 'isonas[plot]'."
        ) from None


def plot(shootout: Shootout, path: Path) -> None:
    """Hypervolume against trials and against simulated seconds: medians, with quartiles as bands."""
    import matplotlib
    from matplotlib.figure import Figure

    arena, plan = shootout.arena, shootout.plan
    trials = np.arange(1, plan.budgets[-1] + 1)
    seconds = np.linspace(0, shootout.budgets("seconds")[-1], _INSTANTS)
    # Neither a date nor drawn identifiers: the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "isonas"}):
        figure = Figure(figsize=(11, 4.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, axis, at in ((left, "trials", trials), (right, "seconds", seconds)):
            for sampler, replays in shootout.replays.items():
                found = np.array(
                    [
                        [share_at(one, one.shares.table, axis, where) for where in at.tolist()]
                        for one in replays
                    ]
                )
                low, median, high = 100 * np.quantile(found, (0.25, 0.5, 0.75), axis=0)
                (line,) = axes.plot(at, median, label=sampler)
                axes.fill_between(at, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
            axes.axhline(100, color="0.6", linewidth=0.8)
            axes.grid(alpha=0.3)
        left.set_xlabel("trials")
        workers = f", {plan.setting.workers} workers" if plan.setting.workers > 1 else ""
        right.set_xlabel(f"simulated seconds{workers}")
        left.set_ylabel("hypervolume, % of the whole table's")
        left.legend(loc="lower right")
        stopping = ", early stopping" if plan.setting.early_stopping else ""
        figure.suptitle(
            f"{arena.study.space.name}: {len(arena.rows)} genomes, median and quartiles of {plan.seeds} "
            f"seeds{stopping}"
        )
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        form = path.suffix.removeprefix(".")
        write_atomically(path, lambda stream: figure.savefig(stream, format=form, metadata=metadata))
