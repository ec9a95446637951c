"""Fig. 3: width against resolution at equal MAdds, for both families (sections 4 and 6).

    isonas paper fig3 --data SOURCE [--scale small]

Halving the width or halving the resolution quarters the MAdds either way. For MobileNetV3 the resolution
is the input's (the maps shrink with it); for isometric networks it is the internal one, at the same input.
To expect: neither is worth much more than the other, so accuracy is a matter of MAdds; this is measured
for each pair of near-equal MAdds. The small scale takes about 25 minutes for three seeds on one core.
"""

from __future__ import annotations

from typing import Any

from isonas.genome import Genome
from isonas.paper.cells import isometric_cell, mobilenetv3_cell
from isonas.paper.draw import Band, band, logarithmic_axis
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Report
from isonas.paper.findings import Finding
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results
from isonas.paper.scales import MOBILENETV3_RATE, scales
from isonas.paper.systems import fig3

MOBILE_WIDTHS = {SMOKE: (0.1, 0.2), SMALL: (0.25, 0.5), FULL: (0.35, 0.5, 0.75, 1.0, 1.25)}
MOBILE_INPUTS = {SMOKE: (8, 16), SMALL: (32, 64), FULL: (96, 128, 160, 192, 224)}
CHANNELS = {SMOKE: (8, 16), SMALL: (16, 32), FULL: (32, 64, 128)}
RESOLUTIONS = {SMOKE: (2, 4), SMALL: (7, 14), FULL: (7, 14, 28, 56)}
DEPTH = {SMOKE: 1, SMALL: 4, FULL: 16}
INPUT = {SMOKE: 8, SMALL: 56, FULL: 224}


def cells(scale: str) -> tuple[Cell, ...]:
    """Both families, every width at every resolution."""
    return (
        *(
            mobilenetv3_cell(_mobile(width, side), width, side, None, side)
            for width in MOBILE_WIDTHS[scale]
            for side in MOBILE_INPUTS[scale]
        ),
        *(
            isometric_cell(
                _isometric(channels, resolution), Genome(DEPTH[scale], channels, resolution), INPUT[scale]
            )
            for channels in CHANNELS[scale]
            for resolution in RESOLUTIONS[scale]
        ),
    )


def _mobile(width: float, side: int) -> str:
    return f"mobilenetv3-w{width:g}-input{side}"


def _isometric(channels: int, resolution: int) -> str:
    return f"isometric-c{channels}-r{resolution}"


def findings(results: Results, scale: str) -> list[Finding]:
    """At near-equal MAdds: narrow and fine against wide and coarse (widths and resolutions double)."""
    (thin, wide), (low, high) = MOBILE_WIDTHS[scale][:2], MOBILE_INPUTS[scale][:2]
    (few, many), (coarse, fine) = CHANNELS[scale][:2], RESOLUTIONS[scale][:2]
    pairs = (
        (f"MobileNetV3: width {thin:g} at input {high} beats width {wide:g} at input {low}",
         _mobile(thin, high), _mobile(wide, low)),
        (f"isometric: c = {few} at r = {fine} beats c = {many} at r = {coarse}",
         _isometric(few, fine), _isometric(many, coarse)),
    )  # fmt: skip
    return results.rising((claim, {first: 1, second: -1}) for claim, first, second in pairs)


def report(results: Results) -> Report:
    """Accuracies by MAdds."""
    assert results.settings is not None
    scale = results.settings.scale
    return Report(
        (trained(results, cells(scale)), counted(fig3())),
        tuple(findings(results, scale)),
        (
            "The paper shows these accuracies as a figure and prints no numbers, so none stand beside "
            "ours; the points are ours.",
        ),
        lambda figure: _draw(figure, results, scale),
    )


def _draw(figure: Any, results: Results, scale: str) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    mobile = {f"width {w:g}": [_mobile(w, s) for s in MOBILE_INPUTS[scale]] for w in MOBILE_WIDTHS[scale]}
    iso = {f"c = {c}": [_isometric(c, r) for r in RESOLUTIONS[scale]] for c in CHANNELS[scale]}
    for axes, lines, title in (
        (left, mobile, f"MobileNetV3, inputs {', '.join(map(str, MOBILE_INPUTS[scale]))}"),
        (right, iso, f"isometric, r = {', '.join(map(str, RESOLUTIONS[scale]))}"),
    ):
        for place, (label, names) in enumerate(lines.items()):
            points = tuple(
                (one.counts.madds / 1e6, found)
                for name in names
                if (one := results.of(name)) and (found := results.interval(name))
            )
            band(axes, Band(label, points), place)
        logarithmic_axis(axes, "x")
        axes.set_xlabel("MAdds (millions)")
        axes.set_title(title)
        axes.legend()
    left.set_ylabel("top-1 (%), mean and 95% interval")


EXPERIMENT = Experiment(
    id="fig3",
    report=report,
    cells=cells,
    scales=scales(
        classes=10,
        images=2000,
        epochs=10,
        peak_rate=MOBILENETV3_RATE,
        smaller=(
            "inputs (32 and 64 pixels, isometric 56), widths (0.25 and 0.5; m = 1/4 and 1/2) and "
            "depth (l = 4)"
        ),
    ),
)
