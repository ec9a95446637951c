"""Table 3: is the accuracy lost on small images lost receptive field? MobileNetV3, dilated (section 5).

    isonas paper table3 --data SOURCE [--scale small]

Dilation 2 (with 5×5 kernels in stride-2 layers, the stem's included, so that no pixel is skipped) doubles
the receptive field and leaves every map's resolution. To expect: on the small image the dilated network
wins back little of what the plain one loses. The paper says 8 points in its text and 12 in its table for
what input 112 loses. The small scale (base side 64, width 0.5) takes about 20 minutes for three seeds.
"""

from __future__ import annotations

from isonas.networks.feeding import Feeding, Way
from isonas.paper.cells import mobilenetv3_cell
from isonas.paper.draw import Dot, dots
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Report
from isonas.paper.findings import Finding
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results
from isonas.paper.scales import MOBILENETV3_RATE, scales
from isonas.paper.systems import NOTES, table3

BASE = {SMOKE: 16, SMALL: 64, FULL: 224}
WIDTH = {SMOKE: 0.1, SMALL: 0.5, FULL: 1.0}
WAYS = (Way.PLAIN, Way.DILATED)


def cells(scale: str) -> tuple[Cell, ...]:
    """Plain and dilated, at the base side and at half of it."""
    base = BASE[scale]
    return tuple(
        mobilenetv3_cell(f"{way}-input{side}", WIDTH[scale], side, Feeding(way), base)
        for side in (base, base // 2)
        for way in WAYS
    )


def findings(results: Results, scale: str) -> list[Finding]:
    """What half the input loses, and what of it dilation wins back."""
    whole, half = BASE[scale], BASE[scale] // 2
    plain, small, dilated = f"plain-input{whole}", f"plain-input{half}", f"dilated-input{half}"
    claims = (
        (f"plain loses accuracy from {whole} to {half} pixels", {plain: 1.0, small: -1.0}),
        (f"dilation helps at {half} pixels", {dilated: 1.0, small: -1.0}),
        (
            f"dilation wins back less than half of what plain loses at {half} pixels",
            {plain: 0.5, small: 0.5, dilated: -1.0},
        ),
    )
    return results.rising(claims)


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
    trainings="table3",
    report=report,
    cells=cells,
    scales=scales(
        classes=10,
        images=2000,
        epochs=8,
        peak_rate=MOBILENETV3_RATE,
        smaller=(
            "Smaller than the paper's in base side (64 pixels for 224), width (0.5 for 1), images (2,000 of "
            "10 classes) and training (8 epochs)."
        ),
    ),
)
