"""Table 2: the isometric family, depth × internal resolution × width multiplier, with all counts.

    isonas paper table2

Nothing is trained. Table 2 (section 6) has l = 8, 16, 32 and r = 7, 14, 28; r = 56 is of section 7.1, and
m = 0.5, 1, 2 of Fig. 9. To expect: along r at fixed l and m the params hardly change (the stem alone does)
and the MAdds grow by four with every doubling; activations depend on r and m alone. It takes seconds.
"""

from __future__ import annotations

from typing import Any

from isonas.paper.draw import COLOURS, MARKS, logarithmic_axis
from isonas.paper.experiment import Experiment, Report
from isonas.paper.grids import counted
from isonas.paper.results import Results
from isonas.paper.systems import family, isometric, table2

DEPTHS, RESOLUTIONS, WIDTHS = (8, 16, 32), (7, 14, 28, 56), (0.5, 1.0, 2.0)


def report(results: Results) -> Report:
    """The counts of all members."""
    systems = table2()
    return Report((counted(systems),), draw=_draw, data={"systems": [vars(system) for system in systems]})


def _draw(figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    for place, resolution in enumerate(RESOLUTIONS):
        for width, size in zip(WIDTHS, (4, 6.5, 9), strict=True):
            systems = [isometric(family(depth, resolution, width)) for depth in DEPTHS]
            madds = [system.madds / 1e6 for system in systems]
            label = f"r = {resolution}" if width == 1 else None
            style = {"color": COLOURS[place], "marker": MARKS[place], "markersize": size, "label": label}
            left.plot(madds, [system.params / 1e6 for system in systems], **style)
            right.plot(madds, [system.largest / 1e3 for system in systems], **style)
    left.set_ylabel("params (millions)")
    right.set_ylabel("largest tensor (thousand elements)")
    for axes in (left, right):
        for axis in "xy":
            logarithmic_axis(axes, axis)
        axes.tick_params("x", rotation=45)
        axes.set_xlabel("MAdds (millions)")
        axes.legend(title="mark by m: 0.5, 1, 2", fontsize=8, title_fontsize=8, loc="lower right")
    figure.suptitle("Isometric networks at 224 pixels, each line l = 8, 16, 32 (tensors but the image)")


EXPERIMENT = Experiment(id="table2", report=report)
