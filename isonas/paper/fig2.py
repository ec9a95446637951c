"""Fig. 2: MobileNetV3 fed smaller images in the ways of Fig. 1 (section 4).

    isonas paper fig2 --data SOURCE [--scale small]

A resolution multiplier shrinks image and feature maps together. The other ways shrink the image alone:
bilinear upsampling, zeros between the pixels, strides of 1 in the first layers; space-to-depth leaves the
image and coarsens the first layer. To expect: the plain network loses much on smaller images, and ways
that keep the maps' resolution win most of it back: it was lost with resolution inside, not with pixels.
The small scale (base side 64, inputs 32 and 16) takes three quarters of an hour for three seeds on one core.
"""

from __future__ import annotations

from isonas.networks.feeding import Feeding, Way
from isonas.paper.cells import mobilenetv3_cell
from isonas.paper.draw import Dot, dots
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Report
from isonas.paper.findings import Finding, agrees, rises
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results
from isonas.paper.scales import MOBILENETV3_RATE, scales
from isonas.paper.systems import fig2

BASE = {SMOKE: 16, SMALL: 64, FULL: 224}
INPUTS = {SMOKE: (8,), SMALL: (32, 16), FULL: (112, 56, 28)}
WIDTH = {SMOKE: 0.1, SMALL: 0.5, FULL: 1.0}
BLOCKS = {SMOKE: (2,), SMALL: (4,), FULL: (2, 4, 8, 16, 32)}
RECOVERING = (Way.UPSAMPLE, Way.ZEROS, Way.SKIP)
AGREE_WITHIN = 0.03
"""Two ways agree where they differ by no more than this in top-1."""


def cells(scale: str) -> tuple[Cell, ...]:
    """The base, each way at each input, and space-to-depth first layers at the base side."""
    base, width = BASE[scale], WIDTH[scale]
    return (
        mobilenetv3_cell("base", width, base, Feeding(), base),
        *(
            mobilenetv3_cell(f"{way}-input{side}", width, side, Feeding(way), base)
            for side in INPUTS[scale]
            for way in (Way.PLAIN, *RECOVERING)
        ),
        *(
            mobilenetv3_cell(f"s2d{block}", width, base, Feeding(Way.S2D, block), base)
            for block in BLOCKS[scale]
        ),
    )


def findings(results: Results, scale: str) -> list[Finding]:
    """How much the plain network loses, what of it each way recovers, and whether ways agree."""
    found = []
    base, share = BASE[scale], 1 / len(INPUTS[scale])
    for way in RECOVERING if len(INPUTS[scale]) > 1 else ():
        halves = {"base": -0.5}
        for side in INPUTS[scale]:
            halves |= {f"{way}-input{side}": share, f"plain-input{side}": -share / 2}
        if differences := results.paired(halves):
            claim = f"{way} recovers more than half of what plain loses (mean over the inputs)"
            found.append(rises(claim, differences))
    for side in INPUTS[scale]:
        plain = f"plain-input{side}"
        if lost := results.paired({"base": 1, plain: -1}):
            found.append(rises(f"the plain network loses accuracy from {base} to {side} pixels", lost))
        for way in RECOVERING:
            claim = f"{way} at {side} pixels recovers more than half of what plain loses"
            if differences := results.paired({f"{way}-input{side}": 1, plain: -0.5, "base": -0.5}):
                found.append(rises(claim, differences))
        if apart := results.paired({f"upsample-input{side}": 1, f"skip-input{side}": -1}):
            claim = f"upsample and skip agree at {side} pixels (within {100 * AGREE_WITHIN:g} points)"
            found.append(agrees(claim, apart, AGREE_WITHIN))
    return found


def report(results: Results) -> Report:
    """Accuracies by way and input."""
    assert results.settings is not None
    scale = results.settings.scale
    here = cells(scale)
    sides = (BASE[scale], *INPUTS[scale])
    shown = [
        Dot(cell.name, found, sides.index(cell.input_side))
        for cell in here
        if (found := results.interval(cell.name))
    ]
    return Report(
        (trained(results, here), counted(fig2())),
        tuple(findings(results, scale)),
        ("The paper shows these accuracies as a figure and prints no numbers, so none stand beside ours.",),
        lambda figure: dots(figure, shown, f"MobileNetV3, width {WIDTH[scale]:g}, base side {BASE[scale]}"),
    )


EXPERIMENT = Experiment(
    id="fig2",
    trainings="fig2",
    report=report,
    cells=cells,
    scales=scales(
        classes=20,
        images=4000,
        epochs=10,
        peak_rate=MOBILENETV3_RATE,
        smaller=(
            "Smaller than the paper's in base side (64 pixels for 224), width (0.5 for 1), images (4,000 of "
            "20 classes for ImageNet's 1.28 million of 1,000), training (10 epochs) and ways at hand "
            "(space-to-depth of 4 alone)."
        ),
    ),
)
