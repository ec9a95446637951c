"""Figures in one style (matplotlib, an extra): colours and marks that stay apart without colour vision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from isonas.atomic import write_atomically
from isonas.paper.findings import Interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D00")
"""Okabe and Ito's palette, the yellow darkened."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<")
FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Band:
    """One line of a figure: its label, and a place on the x axis with an interval for each point."""

    label: str
    points: tuple[tuple[float, Interval], ...]


def can_draw() -> bool:
    """Whether matplotlib is there; only figures need it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def save(draw: Callable[[Any], None], stem: Path) -> list[Path]:
    """Draw into `<stem>.png` and `<stem>.svg`; the same numbers give the same files."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {"svg.hashsalt": "isonas", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}
    made = []
    for form in FORMATS:
        with matplotlib.rc_context(style):
            figure = Figure(figsize=(9, 4.2), layout="constrained", dpi=130)
            draw(figure)
            path = stem.with_name(f"{stem.name}.{form}")
            metadata = {"Date": None} if form == "svg" else {"Software": None}
            write_atomically(path, partial(figure.savefig, format=form, metadata=metadata))
            made.append(path)
    return made


def band(axes: Any, line: Band, place: int, *, joined: bool = True) -> None:
    """Percentages with error bars in the `place`-th colour and mark, with a line through them if `joined`."""
    x = [at for at, _ in line.points]
    y = [100 * found.mean for _, found in line.points]
    half = [100 * found.half if math.isfinite(found.half) else 0.0 for _, found in line.points]
    axes.errorbar(
        x,
        y,
        yerr=half,
        label=line.label,
        color=COLOURS[place % len(COLOURS)],
        marker=MARKS[place % len(MARKS)],
        markersize=5,
        capsize=3,
        linestyle="-" if joined else "none",
        linewidth=1.5,
    )


def lines(
    figure: Any,
    ours: Sequence[Band],
    paper: Mapping[str, Sequence[tuple[float, float]]],
    *,
    axis: str,
) -> None:
    """Our top-1 to the left with 95% intervals, the paper's to the right, both by a side in pixels."""
    left, right = figure.subplots(1, 2)
    for place, line in enumerate(ours):
        # A little apart, for intervals at the same place would hide each other.
        apart = 2 ** (0.05 * (place - (len(ours) - 1) / 2))
        band(left, Band(line.label, tuple((at * apart, found) for at, found in line.points)), place)
    for place, (label, points) in enumerate(paper.items()):
        right.plot(
            [x for x, _ in points],
            [100 * y for _, y in points],
            label=label,
            color=COLOURS[place % len(COLOURS)],
            marker=MARKS[place % len(MARKS)],
            markersize=5,
            linewidth=1.5,
        )
    left.set_title("here (mean, 95% interval over seeds)")
    right.set_title("the paper (ImageNet)")
    for axes, ticks in (
        (left, sorted({x for line in ours for x, _ in line.points})),
        (right, sorted({x for points in paper.values() for x, _ in points})),
    ):
        axes.set_ylabel("top-1 (%)")
        sides_axis(axes, ticks, axis)
        axes.legend()


def sides_axis(axes: Any, sides: Sequence[float], label: str) -> None:
    """A logarithmic x axis of sides in pixels, marked at each."""
    axes.set_xlabel(f"{label}, logarithmic")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sides, [f"{side:g}" for side in sides])
    axes.minorticks_off()


def logarithmic_axis(axes: Any, name: str) -> None:
    """A logarithmic axis ("x" or "y"), marked at 1, 2 and 5 of each power of ten in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class Dot:
    """One row of a dot plot; rows of one `group` share colour and mark."""

    label: str
    found: Interval
    group: int = 0


def dot_rows(axes: Any, rows: Sequence[Dot]) -> None:
    """Accuracies as dots with 95% intervals, the first row on top."""
    for place, row in enumerate(rows):
        half = 100 * row.found.half if math.isfinite(row.found.half) else 0.0
        axes.errorbar(
            100 * row.found.mean,
            place,
            xerr=half,
            color=COLOURS[row.group % len(COLOURS)],
            marker=MARKS[row.group % len(MARKS)],
            markersize=6,
            capsize=3,
        )
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("top-1 (%), mean and 95% interval over seeds")


def dots(figure: Any, rows: Sequence[Dot], title: str) -> None:
    """A figure of one dot plot."""
    axes = figure.subplots()
    dot_rows(axes, rows)
    axes.set_title(title)
