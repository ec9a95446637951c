"""Fig. 7: internal against input resolution around one network (section 7.1).

    isonas paper fig7 --data SOURCE [--scale small]

Around a baseline, which is on both graphs: (a) its input alone varies, (b) its internal resolution alone,
at the baseline's input. The largest, r = 56, is the last layer that MobileNetV3 would have at 1792 pixels.
To expect: pixels beyond the baseline's input bring little, internal resolution brings much at the same
params and data. The paper prints one number: less than 5M params and 77% at r = 56 (section 7.4). The
small scale (l = 4, m = 1/4, r = 14 at 28 pixels) is five short trainings a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from isonas.genome import Genome
from isonas.paper.cells import isometric_cell
from isonas.paper.draw import Band, band, sides_axis
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Report
from isonas.paper.findings import Finding
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results
from isonas.paper.scales import scales
from isonas.paper.systems import FIG7_INPUTS, FIG7_RESOLUTIONS, family, fig7

BASELINE = {SMOKE: Genome(1, 8, 4, 2), SMALL: Genome(4, 16, 14), FULL: family(16, 14, 1)}
INPUT = {SMOKE: 8, SMALL: 28, FULL: 224}
INPUTS = {SMOKE: (4, 8, 16), SMALL: (14, 28, 56), FULL: FIG7_INPUTS}
RESOLUTIONS = {SMOKE: (2, 4, 8), SMALL: (7, 14, 28), FULL: FIG7_RESOLUTIONS}


def _name(resolution: int, side: int) -> str:
    return f"r{resolution}-input{side}"


def cells(scale: str) -> tuple[Cell, ...]:
    """The baseline at every input, then every other internal resolution at the baseline's input."""
    genome, side = BASELINE[scale], INPUT[scale]
    inputs = [(genome.internal_resolution, one) for one in INPUTS[scale]]
    resolutions = [(one, side) for one in RESOLUTIONS[scale] if one != genome.internal_resolution]
    return tuple(
        isometric_cell(_name(r, one), replace(genome, internal_resolution=r), one)
        for r, one in (*inputs, *resolutions)
    )


def findings(results: Results, scale: str) -> list[Finding]:
    """7b: internal resolution raises accuracy. 7a beside it: doubling it is worth more than more pixels."""
    base, side = BASELINE[scale].internal_resolution, INPUT[scale]
    claims = [
        (
            f"at input {side}, accuracy rises from r = {low} to r = {high}",
            {_name(high, side): 1.0, _name(low, side): -1.0},
        )
        for low, high in pairwise(RESOLUTIONS[scale])
    ]
    claims += [
        (
            f"r = {2 * base} at input {side} beats r = {base} at input {more}",
            {_name(2 * base, side): 1.0, _name(base, more): -1.0},
        )
        for more in INPUTS[scale]
        if more > side
    ]
    inputs = sorted(INPUTS[scale])
    for first, second, third in zip(inputs, inputs[1:], inputs[2:], strict=False):
        if second == side:
            claims.append(
                (
                    f"pixels beyond {side} bring less than those up to it ({first} to {second} gains more "
                    f"than {second} to {third})",
                    {_name(base, second): 2.0, _name(base, first): -1.0, _name(base, third): -1.0},
                )
            )
    return results.rising(claims)


def report(results: Results) -> Report:
    """Accuracies, and the two graphs."""
    assert results.settings is not None
    scale = results.settings.scale
    return Report(
        (trained(results, cells(scale)), counted(fig7())),
        tuple(findings(results, scale)),
        (
            "The paper shows these accuracies as a figure and prints one, 77% with less than 5M params at "
            "r = 56 (section 7.4); depth, width and the inputs but 224 are ours.",
        ),
        lambda figure: _draw(figure, results, scale),
    )


def _draw(figure: Any, results: Results, scale: str) -> None:
    base, side = BASELINE[scale].internal_resolution, INPUT[scale]
    graphs: tuple[tuple[str, str, Sequence[int], list[str]], ...] = (
        (
            f"a: r = {base}, by input",
            "input side (pixels)",
            INPUTS[scale],
            [_name(base, one) for one in INPUTS[scale]],
        ),
        (
            f"b: input {side}, by internal resolution",
            "internal resolution r (pixels)",
            RESOLUTIONS[scale],
            [_name(one, side) for one in RESOLUTIONS[scale]],
        ),
    )
    for axes, (title, label, sides, names) in zip(figure.subplots(1, 2, sharey=True), graphs, strict=True):
        points = zip(sides, map(results.interval, names), strict=True)
        band(axes, Band(title, tuple((float(at), found) for at, found in points if found)), 0)
        sides_axis(axes, sides, label)
        axes.set_title(title)
        axes.set_ylabel("top-1 (%), mean and 95% interval")


EXPERIMENT = Experiment(
    id="fig7",
    report=report,
    cells=cells,
    scales=scales(
        classes=50,
        images=10_000,
        epochs=10,
        smaller="depth (l = 4), width (m = 1/4) and the baseline's input (28 pixels for 224)",
    ),
)
