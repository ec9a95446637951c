"""Fig. 9: accuracy against activation memory, size and MAdds, MobileNetV3 beside
(sections 7.3 and 7.4).

    isonas paper fig9 --data SOURCE [--scale small]

To expect: at the same accuracy an isometric network needs several times less activation memory than
MobileNetV3, for more MAdds. The paper's figures of memory are elements of the largest tensor without the
image: below 100K for the best r = 7 (70% and more), 300K for the best r = 14 (75% and more), nearly 800K
for MobileNetV3 (75%); m = 2 in both cases by our count. The small scale takes
about 30 minutes for three seeds on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isonas.genome import Genome
from isonas.paper.cells import isometric_cell, mobilenetv3_cell
from isonas.paper.draw import Band, band, logarithmic_axis
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Report
from isonas.paper.findings import Finding
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results, Training
from isonas.paper.scales import MOBILENETV3_RATE, scales
from isonas.paper.systems import NOTES, family, fig9

ISOMETRIC = {
    SMOKE: (Genome(1, 8, 2, 2), Genome(1, 8, 4, 2)),
    SMALL: (Genome(4, 16, 7), Genome(4, 32, 7), Genome(8, 32, 7), Genome(4, 16, 14), Genome(4, 32, 14)),
    FULL: tuple(family(depth, r, m) for depth in (16, 32) for r in (7, 14, 28) for m in (0.5, 1, 2)),
}
ISOMETRIC_INPUT = {SMOKE: 8, SMALL: 56, FULL: 224}
WIDTHS = {SMOKE: (0.1,), SMALL: (0.25, 0.35, 0.5), FULL: (0.35, 0.5, 0.75, 1.0, 1.25)}
MOBILE_INPUT = {SMOKE: 16, SMALL: 64, FULL: 224}
LARGEST = "activations_largest_without_input"


def cells(scale: str) -> tuple[Cell, ...]:
    """Isometric networks, and MobileNetV3 by width."""
    return (
        *(isometric_cell(str(genome), genome, ISOMETRIC_INPUT[scale]) for genome in ISOMETRIC[scale]),
        *(
            mobilenetv3_cell(f"mobilenetv3-w{width:g}", width, MOBILE_INPUT[scale], None, MOBILE_INPUT[scale])
            for width in WIDTHS[scale]
        ),
    )


def findings(results: Results, scale: str) -> list[Finding]:
    """Whether, within the memory of a MobileNetV3, the largest isometric network is as accurate.

    Which networks are compared follows from their memory alone, never from their accuracy.
    """
    claims: list[tuple[str, dict[str, float]]] = []
    for width in WIDTHS[scale]:
        name = f"mobilenetv3-w{width:g}"
        if (mobile := results.of(name)) is None or LARGEST not in mobile.counts.activations:
            continue
        within = [
            one
            for genome in ISOMETRIC[scale]
            if (one := results.of(str(genome)))
            and one.counts.activations[LARGEST] <= mobile.counts.activations[LARGEST]
        ]
        if not within:
            continue
        chosen = max(within, key=lambda one: (one.counts.activations[LARGEST], one.counts.madds))
        claim = (
            f"{chosen.cell} ({chosen.counts.activations[LARGEST]:,} elements) beats {name} "
            f"({mobile.counts.activations[LARGEST]:,} elements)"
        )
        claims.append((claim, {chosen.cell: 1, name: -1}))
    return results.rising(claims)


def report(results: Results) -> Report:
    """Accuracy against three costs."""
    assert results.settings is not None
    scale = results.settings.scale
    return Report(
        (trained(results, cells(scale)), counted(fig9())),
        tuple(findings(results, scale)),
        (NOTES["fig9"],),
        lambda figure: _draw(figure, results, scale),
    )


def _draw(figure: Any, results: Results, scale: str) -> None:
    figure.set_size_inches(12, 4.4)
    families = {
        "isometric": [str(genome) for genome in ISOMETRIC[scale]],
        "MobileNetV3": [f"mobilenetv3-w{width:g}" for width in WIDTHS[scale]],
    }
    costs: tuple[tuple[str, Callable[[Training], float]], ...] = (
        ("largest tensor without\nthe image (thousand elements)", lambda one: _memory(one) / 1e3),
        ("params (thousands)", lambda one: one.counts.params / 1e3),
        ("MAdds (millions)", lambda one: one.counts.madds / 1e6),
    )
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (label, cost) in zip(axes, costs, strict=True):
        for place, (family_name, names) in enumerate(families.items()):
            points = sorted(
                (cost(one), found.mean, found)
                for name in names
                if (one := results.of(name)) and (found := results.interval(name))
            )
            band(axis, Band(family_name, tuple((x, found) for x, _, found in points)), place, joined=False)
        logarithmic_axis(axis, "x")
        axis.set_xlabel(label)
    axes[0].set_ylabel("top-1 (%), mean and 95% interval")
    axes[0].legend()


def _memory(training: Training) -> int:
    return training.counts.activations[LARGEST]


EXPERIMENT = Experiment(
    id="fig9",
    report=report,
    cells=cells,
    scales=scales(
        classes=10,
        images=2000,
        epochs=10,
        peak_rate=MOBILENETV3_RATE,
        smaller=(
            "inputs (56 and 64 pixels for 224), depth and width (l = 4 and 8; m = 1/4 and 1/2; MobileNetV3 "
            "0.25 to 0.5)"
        ),
    ),
)
