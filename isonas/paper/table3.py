"""Table 3: is the accuracy lost on small images lost to the receptive field? MobileNetV3, dilated
(section 7.2).

    isonas paper table3 --data SOURCE [--scale small]

Dilation 2 (with 5×5 kernels in stride-2 layers, the stem's included, so that no pixel is skipped) doubles
the receptive field and leaves every map's resolution: the network at the base side then sees as large a
part of the image as the plain one does at half of it. To expect: it is not worse than the plain network at
the base side, so what half the side loses is not lost to the receptive field. The small scale (base side
64, width 0.5) takes about a quarter of an hour for three seeds.
"""

from __future__ import annotations

from isonas.networks.feeding import Feeding, Way
from isonas.paper.cells import mobilenetv3_cell
from isonas.paper.draw import Dot, dots
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Report
from isonas.paper.findings import Finding, rises
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results
from isonas.paper.scales import MOBILENETV3_RATE, scales
from isonas.paper.systems import NOTES, TABLE3_TOP1, table3

BASE = {SMOKE: 16, SMALL: 64, FULL: 224}
WIDTH = {SMOKE: 0.1, SMALL: 0.5, FULL: 1.0}
NOT_WORSE_BY = 0.01
"""A network is not worse than another where it is less than this below it in top-1."""


def _columns(scale: str) -> tuple[str, str, str]:
    """The names of the table's three columns: dilated, plain, and plain at half the side."""
    base = BASE[scale]
    return f"dilated-input{base}", f"plain-input{base}", f"plain-input{base // 2}"


def cells(scale: str) -> tuple[Cell, ...]:
    """The three columns of the table."""
    base = BASE[scale]
    fed = ((Way.DILATED, base), (Way.PLAIN, base), (Way.PLAIN, base // 2))
    return tuple(
        mobilenetv3_cell(name, WIDTH[scale], side, Feeding(way), base)
        for name, (way, side) in zip(_columns(scale), fed, strict=True)
    )


def findings(results: Results, scale: str) -> list[Finding]:
    """The paper's claim that a wider receptive field does no harm, beside what half the side loses."""
    base = BASE[scale]
    dilated, plain, small = _columns(scale)
    paper = dict(zip((dilated, plain, small), TABLE3_TOP1, strict=True))
    claims: tuple[tuple[str, dict[str, float], float], ...] = (
        (
            f"dilated is not worse than plain at {base} pixels (by {100 * NOT_WORSE_BY:g} point)",
            {dilated: 1, plain: -1},
            -NOT_WORSE_BY,
        ),
        (f"plain loses accuracy from {base} to {base // 2} pixels", {plain: 1, small: -1}, 0),
        (
            f"dilated loses less than half of what plain loses from {base} to {base // 2} pixels",
            {dilated: 1, plain: -0.5, small: -0.5},
            0,
        ),
    )
    return [
        rises(
            claim,
            differences,
            sum(weight * paper[name] for name, weight in weights.items()) / 100,
            above=above,
        )
        for claim, weights, above in claims
        if (differences := results.paired(weights))
    ]


def report(results: Results) -> Report:
    """Accuracies and counts."""
    assert results.settings is not None
    scale = results.settings.scale
    here = cells(scale)
    shown = [
        Dot(cell.name, found, int(cell.name.startswith(Way.DILATED)))
        for cell in here
        if (found := results.interval(cell.name))
    ]
    return Report(
        (trained(results, here), counted(table3())),
        tuple(findings(results, scale)),
        (NOTES["table3"],),
        lambda figure: dots(figure, shown, f"MobileNetV3, width {WIDTH[scale]:g}, dilation 2"),
    )


EXPERIMENT = Experiment(
    id="table3",
    report=report,
    cells=cells,
    scales=scales(
        classes=10,
        images=2000,
        epochs=8,
        peak_rate=MOBILENETV3_RATE,
        smaller="base side (64 pixels for 224) and width (0.5 for 1)",
    ),
)
