"""Table 1: what width, resolution and depth multipliers do to activations, size and MAdds; eq. 1 (section 4).

    isonas paper table1

Nothing is trained. The law: width m multiplies activations by m and size and MAdds by m²; resolution ρ
multiplies activations and MAdds by ρ² and leaves size; depth d multiplies size and MAdds by d and leaves
activations. To expect: whole networks come close to it, less what their stem and FCs do not scale.
Eq. 1: a network that doubles its channels where it halves its resolution, at half the resolution, is the
same network at half the width less its first block and plus one last block, with layer counts shifted by
one block: why the two multipliers trade accuracy for MAdds alike. Isometric networks have one block, and
nothing in common is left.
"""

from __future__ import annotations

from typing import Any

from isonas.paper.draw import COLOURS
from isonas.paper.experiment import Experiment, Grid, Report
from isonas.paper.results import Results
from isonas.paper.systems import equation1, table1

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
    aligned = Grid(
        "Eq. 1: channels × layers by resolution, of a network of five blocks (64 channels at first)",
        ("resolution", "half the width", "half the resolution"),
        tuple(
            (f"{row.resolution}", *(_shape(*one) for one in (row.half_width, row.half_resolution)))
            for row in equation1(128, 64, (1, 2, 3, 6, 3))
        ),
    )
    note = (
        "The isometric stem keeps its block of pixels where the resolution grows with the input, depth "
        "multiplies only what lies in blocks; FCs of 1,280 features are never widened by m. MobileNetV3 has "
        "no depth multiplier. Eq. 1's layers by block are MobileNetV3's."
    )
    return Report((grid, aligned), notes=(note,), draw=_draw)


def _shape(channels: int, layers: int) -> str:
    return f"{channels} × {layers}" if layers else "–"


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


EXPERIMENT = Experiment(id="table1", report=report)
