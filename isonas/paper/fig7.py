"""Fig. 7: Table 4 as a figure, accuracy by internal resolution with a line for each input (section 7.2).

    isonas paper fig7 --data SOURCE [--scale small]

It has no trainings of its own: it goes on in table4's folder, and trains nothing where those are done.
To expect: every line but that of the smallest input rises from r = 7 to r = 14 and, less, to r = 28.
"""

from __future__ import annotations

from typing import Any

from isonas.paper import table4
from isonas.paper.draw import Band, lines
from isonas.paper.experiment import Experiment, Report
from isonas.paper.results import Results
from isonas.paper.table4 import INPUTS, PAPER, RESOLUTIONS, cell_name


def report(results: Results) -> Report:
    """Table 4's report, with the other axis drawn."""
    told = table4.report(results)
    return Report(told.tables, told.findings, told.notes, lambda figure: _draw(figure, results))


def _draw(figure: Any, results: Results) -> None:
    assert results.settings is not None
    scale = results.settings.scale
    ours = [
        Band(
            f"input {side}",
            tuple(
                (float(resolution), found)
                for resolution in RESOLUTIONS[scale]
                if (found := results.interval(cell_name(resolution, side)))
            ),
        )
        for side in INPUTS[scale]
    ]
    paper = {
        f"input {side}": [(float(resolution), row[side]) for resolution, row in PAPER.items()]
        for side in PAPER[7]
    }
    lines(figure, ours, paper, axis="internal resolution r (pixels, logarithmic)", logarithmic=True)


EXPERIMENT = Experiment(
    id="fig7",
    trainings="table4",
    report=report,
    cells=table4.cells,
    scales=table4.EXPERIMENT.scales,
)
