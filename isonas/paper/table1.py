"""Table 1: what width, resolution and depth multipliers do to activations, size and MAdds; eq. 1.

    isonas paper table1

Nothing is trained. The law: width m multiplies activations by m and size and MAdds by m²; resolution ρ
multiplies activations and MAdds by ρ² and leaves size; depth d multiplies size and MAdds by d and leaves
activations. To expect: whole networks come close to it, less what their stem and FCs do not scale.
Eq. 1: of L layers that halve the resolution every so often, an input whose side is a multiple of the
total stride alone keeps every block's grid aligned with the image's.
"""

from __future__ import annotations

from typing import Any

from isonas.paper.draw import COLOURS
from isonas.paper.experiment import Experiment, Grid, Report
from isonas.paper.results import Results
from isonas.paper.systems import table1

FACTOR = 2
LAW = {
    "width": (FACTOR, FACTOR**2, FACTOR**2),
    "resolution": (FACTOR**2, 1, FACTOR**2),
    "depth": (1, FACTOR, FACTOR),
}
"""Ratios of activations, params and MAdds by multiplier."""


def report(results: Results) -> Report:
    """Measured ratios beside the law's."""
    rows = [
        (
            f"{row.family} {row.multiplier} × {FACTOR}",
            *(
                f"{measured:.2f} ({law})"
                for measured, law in zip(
                    (row.activations, row.params, row.madds), LAW[row.multiplier], strict=True
                )
            ),
        )
        for row in table1(FACTOR)
    ]
    grid = Grid(
        "Measured on whole networks, and the law's in brackets",
        ("", "activations", "params", "MAdds"),
        tuple(rows),
    )
    note = (
        "Resolution adds params to an isometric network only through its stem, depth multiplies only what "
        "lies in blocks; FCs of 1,280 features are never widened by m. MobileNetV3 has no depth multiplier."
    )
    return Report((grid,), notes=(note,), draw=_draw)


def _draw(figure: Any) -> None:
    rows = table1(FACTOR)
    for axes, name, place in zip(
        figure.subplots(1, 3, sharey=True), ("activations", "params", "madds"), range(3), strict=True
    ):
        labels = [f"{row.family}\n{row.multiplier}" for row in rows]
        axes.barh(labels, [getattr(row, name) for row in rows], color=COLOURS[0], label="measured")
        law = [LAW[row.multiplier][place] for row in rows]
        axes.plot(law, labels, "D", color=COLOURS[1], label="the law (Table 1)")
        axes.set_xlabel(f"{'MAdds' if name == 'madds' else name}, ratio (× {FACTOR} multiplier)")
        axes.invert_yaxis() if place == 0 else None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)


EXPERIMENT = Experiment(id="table1", trainings="table1", report=report)
