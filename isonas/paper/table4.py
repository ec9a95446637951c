"""Table 4: input against internal resolution (section 7.1).

    isonas paper table4 --data SOURCE [--scale small]

Isometric networks that differ in internal resolution alone are given the same images at several sizes.
To expect: along a column (one input) accuracy rises with internal resolution, by much from 7 to 14 and
less from 14 to 28; along a row (one network) the gain of more pixels becomes smaller and smaller. In
the paper (l = 32, m = 2, ImageNet) a 28×28 image on r = 28 is worth as much as a 224×224 one on r = 7
(70.2 and 70.4).
The small scale costs nine short trainings a seed, a little over an hour for three seeds on one core.
"""

from __future__ import annotations

from itertools import pairwise

from isonas.genome import Genome
from isonas.paper.cells import isometric_cell
from isonas.paper.draw import Band, lines
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Grid, Report
from isonas.paper.findings import Finding, rises
from isonas.paper.results import Results
from isonas.paper.scales import scales
from isonas.paper.systems import TABLE4_INPUTS, TABLE4_TOP1

PAPER = {
    resolution: {side: top1 / 100 for side, top1 in zip(TABLE4_INPUTS, row, strict=True)}
    for resolution, row in TABLE4_TOP1.items()
}
"""Top-1 on ImageNet by internal resolution and input, both in pixels."""

NETWORK = {
    SMOKE: Genome(depth=1, channels=8, expansion=2),
    SMALL: Genome(depth=4, channels=16),
    FULL: Genome(depth=32, channels=128),
}
RESOLUTIONS = {SMOKE: (2, 4), SMALL: (7, 14, 28), FULL: (7, 14, 28)}
INPUTS = {SMOKE: (2, 4, 8), SMALL: (14, 28, 56), FULL: (14, 28, 56, 224)}


def cells(scale: str) -> tuple[Cell, ...]:
    """Every internal resolution at every input."""
    network = NETWORK[scale]
    return tuple(
        isometric_cell(
            cell_name(resolution, side),
            Genome(network.depth, network.channels, resolution, network.expansion),
            side,
        )
        for side in INPUTS[scale]
        for resolution in RESOLUTIONS[scale]
    )


def cell_name(resolution: int, side: int) -> str:
    """The cell of an internal resolution and an input."""
    return f"r{resolution}-input{side}"


def report(results: Results) -> Report:
    """The table with the paper's beside it, the two findings, and accuracy against input."""
    assert results.settings is not None
    scale = results.settings.scale
    sides, last = INPUTS[scale], INPUTS[scale][-1]
    rows = []
    for resolution in RESOLUTIONS[scale]:
        found = [results.interval(cell_name(resolution, side)) for side in sides]
        one = results.of(cell_name(resolution, last))
        madds = f"{one.counts.madds / 1e6:.1f}" if one else "–"
        rows.append((f"r = {resolution}", madds, *(top1.points() if top1 else "–" for top1 in found)))
    ours = Grid(
        "Top-1 in %, mean and 95% interval over seeds",
        ("", "MAdds (M)", *(f"input {side}" for side in sides)),
        tuple(rows),
    )
    paper = Grid(
        "The paper's, on ImageNet (l = 32, m = 2)",
        ("", *(f"input {side}" for side in TABLE4_INPUTS)),
        tuple(
            (f"r = {resolution}", *(f"{100 * row[side]:.1f}" for side in TABLE4_INPUTS))
            for resolution, row in PAPER.items()
        ),
    )
    return Report((ours, paper), tuple(findings(results, scale)), draw=lambda figure: _draw(figure, results))


def findings(results: Results, scale: str) -> list[Finding]:
    """Internal resolution at fixed input, and the saturation of the input's gain."""
    resolutions, sides = RESOLUTIONS[scale], INPUTS[scale]
    found = []
    for low, high in pairwise(resolutions):
        weights = _step(low, high, sides)
        if differences := results.paired(weights):
            claim = f"at fixed input, accuracy rises from r = {low} to r = {high} (mean over the inputs)"
            found.append(rises(claim, differences, _in_paper(weights)))
    for side in sides:
        weights = _step(resolutions[0], resolutions[-1], (side,))
        if differences := results.paired(weights):
            claim = f"at input {side}, accuracy rises from r = {resolutions[0]} to r = {resolutions[-1]}"
            found.append(rises(claim, differences, _in_paper(weights)))
    for first, second, third in zip(sides, sides[1:], sides[2:], strict=False):
        share = 1 / len(resolutions)
        bend = {}
        for resolution in resolutions:
            bend[resolution, third] = -share
            bend[resolution, second] = 2 * share
            bend[resolution, first] = -share
        if differences := results.paired(_named(bend)):
            claim = (
                f"the gain of input saturates: {first} to {second} pixels gains more than {second} to "
                f"{third} (mean over r)"
            )
            found.append(rises(claim, differences, _in_paper(_named(bend))))
    return found


def _step(low: int, high: int, sides: tuple[int, ...]) -> dict[str, float]:
    """Weights of the mean difference between two internal resolutions over inputs."""
    share = 1 / len(sides)
    return _named(
        {(resolution, side): sign * share for side in sides for resolution, sign in ((low, -1), (high, 1))}
    )


def _named(weights: dict[tuple[int, int], float]) -> dict[str, float]:
    return {cell_name(*at): weight for at, weight in weights.items()}


def _in_paper(weights: dict[str, float]) -> float | None:
    """The same weighted sum of the paper's figures, None where it has not all of them."""
    paper = {cell_name(r, side): top1 for r, row in PAPER.items() for side, top1 in row.items()}
    if not weights.keys() <= paper.keys():
        return None
    return sum(weight * paper[name] for name, weight in weights.items())


def _draw(figure: object, results: Results) -> None:
    assert results.settings is not None
    scale = results.settings.scale
    ours = [
        Band(
            f"r = {resolution}",
            tuple(
                (float(side), found)
                for side in INPUTS[scale]
                if (found := results.interval(cell_name(resolution, side)))
            ),
        )
        for resolution in RESOLUTIONS[scale]
    ]
    paper = {f"r = {r}": [(float(side), top1) for side, top1 in row.items()] for r, row in PAPER.items()}
    lines(figure, ours, paper, axis="input side (pixels)")


EXPERIMENT = Experiment(
    id="table4",
    report=report,
    cells=cells,
    scales=scales(
        classes=50,
        images=10_000,
        epochs=10,
        smaller="depth (l = 4 for 32), width (m = 1/4 for 2) and the largest input (56 pixels for 224)",
    ),
)
