"""Fig. 2: MobileNetV3 fed smaller and larger images in the ways of Fig. 1 (section 5).

    isonas paper fig2 --data SOURCE [--scale small]

A resolution multiplier shrinks image and feature maps together. The other ways shrink the image alone:
bilinear upsampling, zeros between the pixels, strides of 1 in the first layers; space-to-depth leaves the
image and coarsens the first layer. Above the base (Fig. 2b) the plain network on larger images stands
beside the base's images upsampled to the same size. To expect: the plain network loses much on smaller
images, and ways that keep the maps' resolution win most of it back; above the base upsampling gains most
of what larger images do: it is resolution inside that counts, not pixels. The small scale (base side 64,
inputs 32 and 16, nothing above the base) takes three quarters of an hour for three seeds on one core.
"""

from __future__ import annotations

from isonas.networks.feeding import Feeding, Way
from isonas.paper.cells import mobilenetv3_cell
from isonas.paper.draw import Dot, dots
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Grid, Report
from isonas.paper.findings import Finding, agrees, rises
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results
from isonas.paper.scales import MOBILENETV3_RATE, scales
from isonas.paper.systems import FIG2_ABOVE, FIG2_INPUTS, NOTES, fig2

BASE = {SMOKE: 16, SMALL: 64, FULL: 224}
INPUTS = {SMOKE: (8,), SMALL: (32, 16), FULL: FIG2_INPUTS}
ABOVE = {SMOKE: (32,), SMALL: (), FULL: FIG2_ABOVE}
WIDTH = {SMOKE: 0.1, SMALL: 0.5, FULL: 1.0}
BLOCKS = {SMOKE: (2,), SMALL: (4,), FULL: (2, 4, 8, 16, 32)}
RECOVERING = (Way.UPSAMPLE, Way.ZEROS, Way.SKIP)
AGREE_WITHIN = 0.03
"""Two ways agree where they differ by no more than this in top-1."""

Point = tuple[Way, int]
"""A way, and how many times smaller than the base the image is (for s2d: the block size)."""

BASE_POINT = (Way.PLAIN, 1)
PAPER: dict[Point, tuple[str, float]] = {
    BASE_POINT: ("75.1", 0.751),
    (Way.PLAIN, 2): ("a drop of nearly 8", 0.751 - 0.08),
    (Way.PLAIN, 4): ("a drop of nearly 25", 0.751 - 0.25),
    (Way.UPSAMPLE, 2): ("73.3", 0.733),
    (Way.UPSAMPLE, 4): ("a drop of 5", 0.751 - 0.05),
    (Way.UPSAMPLE, 8): ("more than 60", 0.60),
    (Way.UPSAMPLE, 16): ("45", 0.45),
    (Way.S2D, 4): ("74.6", 0.746),
    (Way.S2D, 32): ("nearly 50", 0.50),
}
"""Section 5's top-1, in percent as it prints it and as a fraction of images."""

SAME_WITHIN = 0.001
"""Section 5: upsampling and skip-stride match within less than 0.1%, so both have upsampling's figures."""


def cells(scale: str) -> tuple[Cell, ...]:
    """The base, each way at each input, space-to-depth at the base side, and both curves above it."""
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
        *(
            cell
            for side in ABOVE[scale]
            for cell in (
                mobilenetv3_cell(f"plain-input{side}", width, side, Feeding(), side),
                mobilenetv3_cell(f"upsample-to{side}", width, base, Feeding(Way.UPSAMPLE), side),
            )
        ),
    )


def in_paper(*weighted: tuple[float, Point]) -> float | None:
    """A weighted sum of the paper's top-1, None where it does not print all of them."""
    points = [
        (weight, (Way.UPSAMPLE if way is Way.SKIP else way, times)) for weight, (way, times) in weighted
    ]
    if any(point not in PAPER for _, point in points):
        return None
    return sum(weight * PAPER[point][1] for weight, point in points)


def findings(results: Results, scale: str) -> list[Finding]:
    """What plain loses, what of it each way recovers, whether ways agree, and what is gained above."""
    found = []
    base, share = BASE[scale], 1 / len(INPUTS[scale])

    def claim(said: str, weights: dict[str, float], paper: float | None = None) -> None:
        if differences := results.paired(weights):
            found.append(rises(said, differences, paper))

    for way in RECOVERING if len(INPUTS[scale]) > 1 else ():
        halves = {"base": -0.5}
        for side in INPUTS[scale]:
            halves |= {f"{way}-input{side}": share, f"plain-input{side}": -share / 2}
        claim(f"{way} recovers more than half of what plain loses (mean over the inputs)", halves)
    for side in INPUTS[scale]:
        plain, times = f"plain-input{side}", base // side
        claim(
            f"the plain network loses accuracy from {base} to {side} pixels",
            {"base": 1, plain: -1},
            in_paper((1, BASE_POINT), (-1, (Way.PLAIN, times))),
        )
        for way in RECOVERING:
            claim(
                f"{way} at {side} pixels recovers more than half of what plain loses",
                {f"{way}-input{side}": 1, plain: -0.5, "base": -0.5},
                in_paper((1, (way, times)), (-0.5, (Way.PLAIN, times)), (-0.5, BASE_POINT)),
            )
        if apart := results.paired({f"upsample-input{side}": 1, f"skip-input{side}": -1}):
            said = (
                f"upsample and skip agree at {side} pixels (within {100 * AGREE_WITHIN:g} points; the "
                f"paper: within {100 * SAME_WITHIN:g})"
            )
            found.append(agrees(said, apart, AGREE_WITHIN))
    for block in BLOCKS[scale]:
        if (side := base // block) in INPUTS[scale]:
            claim(
                f"space-to-depth of {block} loses less than half of what plain loses at {side} pixels",
                {f"s2d{block}": 1, f"plain-input{side}": -0.5, "base": -0.5},
                in_paper((1, (Way.S2D, block)), (-0.5, (Way.PLAIN, block)), (-0.5, BASE_POINT)),
            )
    if 32 in BLOCKS[scale]:
        # Section 6: the network reduced to 7×7 is above the plain one on images of 56 pixels.
        claim(
            f"space-to-depth of 32 beats plain at {base // 4} pixels",
            {"s2d32": 1, f"plain-input{base // 4}": -1},
            in_paper((1, (Way.S2D, 32)), (-1, (Way.PLAIN, 4))),
        )
    for side in ABOVE[scale]:
        claim(
            f"images of {base} pixels upsampled to {side} gain more than half of what images of {side} gain",
            {f"upsample-to{side}": 1, f"plain-input{side}": -0.5, "base": -0.5},
        )
    return found


def report(results: Results) -> Report:
    """Accuracies by way and input, with the paper's figures."""
    assert results.settings is not None
    scale = results.settings.scale
    here = cells(scale)
    sides = sorted({cell.input_side for cell in here}, reverse=True)
    shown = [
        Dot(cell.name, found, sides.index(cell.input_side))
        for cell in here
        if (found := results.interval(cell.name))
    ]
    return Report(
        (trained(results, here), _paper(results, scale), counted(fig2())),
        tuple(findings(results, scale)),
        (NOTES["fig2"],),
        lambda figure: dots(figure, shown, f"MobileNetV3, width {WIDTH[scale]:g}, base side {BASE[scale]}"),
    )


def _paper(results: Results, scale: str) -> Grid:
    """The paper's figures beside ours of the same share of the base side."""
    base = BASE[scale]
    rows = []
    for (way, times), (said, _) in PAPER.items():
        at = f"s2d{times}" if way is Way.S2D else f"{way}-input{base // times}"
        name = "base" if times == 1 else at
        ours = results.interval(name)
        side = BASE[FULL] if way is Way.S2D else BASE[FULL] // times
        label = f"s2d{times}" if way is Way.S2D else str(way)
        rows.append((label, str(side), said, name if ours else "–", ours.points() if ours else "–"))
    return Grid(
        "The paper's top-1 in % (section 5), and ours at the same share of the base side; it has "
        f"skip-stride within {100 * SAME_WITHIN:g} of upsampling",
        ("", "input", "the paper", "here", "top-1"),
        tuple(rows),
    )


EXPERIMENT = Experiment(
    id="fig2",
    report=report,
    cells=cells,
    scales=scales(
        classes=20,
        images=4000,
        epochs=10,
        peak_rate=MOBILENETV3_RATE,
        smaller=(
            "base side (64 pixels for 224), inputs (32 and 16; none above the base, which 64-pixel images "
            "cannot fill), width (0.5 for 1) and ways (space-to-depth of 4 alone)"
        ),
    ),
)
