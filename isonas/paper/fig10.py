"""Fig. 10: parallel isometric networks, naive and swapped (section 7.5).

    isonas paper fig10 --data SOURCE [--scale small]

One isometric network is run on p² parts of an image, and its features or logits are averaged. Naive:
every part is every p-th pixel of the image. Swapped: every part is every p-th block of k×k pixels. Beside
them stand one sub-network alone, on the image area-downsampled to its input, and the undivided network
of the same params. To expect: naive gains about 1 point on one network, swapped much more. The full scale
has the paper's 16 replicas, 4×4 parts; the small one (l = 4, m = 1/4, r = 14 in 2×2 parts of r = 7) takes
half an hour for three seeds on one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from isonas.genome import Genome
from isonas.networks.parallel import Average, Split, batch_view, build_parallel, mask_view
from isonas.paper.cells import isometric_cell
from isonas.paper.draw import Dot, dot_rows
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Report
from isonas.paper.findings import Finding, rises
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results
from isonas.paper.scales import scales
from isonas.paper.systems import family, fig10

PARTS = {SMOKE: 2, SMALL: 2, FULL: 4}
"""Parts a side."""
NAIVE_GAIN = 0.01
"""Section 7.5: the naive split is only marginally better (about 1%) than the model without a split."""
DRAWN = 4
WHOLE = {
    SMOKE: Genome(1, 8, 4, 2),
    SMALL: Genome(4, 16, 14),
    FULL: family(16, 28, 1),
}
INPUT = {SMOKE: 8, SMALL: 56, FULL: 224}


def _parallel_cell(genome: Genome, side: int, parts: int, split: Split, average: Average) -> Cell:
    def build(classes: int, weights: Mapping[str, Tensor]) -> nn.Module:
        return build_parallel(genome, side, classes, parts=parts, split=split, average=average)

    return Cell(
        f"{split}-{average}",
        f"{genome}_{parts}x{parts}_{split}_{average}",
        side,
        build,
        genome.internal_resolution,
    )


def cells(scale: str) -> tuple[Cell, ...]:
    """One sub-network, the undivided network, and both splits with both averages."""
    whole, side, parts = WHOLE[scale], INPUT[scale], PARTS[scale]
    part = replace(whole, internal_resolution=whole.internal_resolution // parts)
    return (
        isometric_cell("one", part, side // parts),
        isometric_cell("undivided", whole, side),
        *(_parallel_cell(whole, side, parts, split, average) for split in Split for average in Average),
    )


def findings(results: Results) -> list[Finding]:
    """Swapped against naive, and each against one sub-network, by average."""
    found = []
    for average in Average:
        for better, worse, paper in (
            ("swapped", "naive", None),
            ("naive", "one", NAIVE_GAIN),
            ("swapped", "one", None),
        ):
            first = f"{better}-{average}"
            second = worse if worse == "one" else f"{worse}-{average}"
            claim = f"{better} beats {'one network' if worse == 'one' else worse}, {average} averaged"
            if differences := results.paired({first: 1, second: -1}):
                found.append(rises(claim, differences, paper))
    return found


def report(results: Results) -> Report:
    """Accuracies, and what each sub-network sees, as masks and as a batch."""
    assert results.settings is not None
    scale = results.settings.scale
    here = cells(scale)
    groups = {"one": 0, "undivided": 0, "naive": 1, "swapped": 2}
    shown = [
        Dot(cell.name, found, groups[cell.name.partition("-")[0]])
        for cell in here
        if (found := results.interval(cell.name))
    ]
    return Report(
        (trained(results, here), counted(fig10())),
        tuple(findings(results)),
        (
            f"Parallel networks have the MAdds of the undivided one, {PARTS[scale] ** 2} times those of one "
            "sub-network. The paper has 16 replicas (4×4 parts); the network is ours, and that one "
            "sub-network is the paper's model without space-to-batch is our reading.",
        ),
        lambda figure: _draw(figure, shown, scale),
    )


def _draw(figure: Any, shown: list[Dot], scale: str) -> None:
    figure.set_size_inches(11, 6.5)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    dot_rows(left.subplots(), shown)
    side, block = INPUT[scale], INPUT[scale] // WHOLE[scale].internal_resolution
    image = _picture(side)
    axes = right.subplots(3, DRAWN + 1)
    for row, (title, size) in enumerate((("naive", 1), ("swapped", block))):
        masks, parts = mask_view(side, PARTS[scale], size), batch_view(image, PARTS[scale], size)
        axes[row, 0].imshow(np.where(masks[0][..., None], image, 255))
        axes[row, 0].set_title(f"{title}:\nmask view")
        for part, picture in enumerate(parts[:DRAWN]):
            axes[row, part + 1].imshow(picture)
            axes[row, part + 1].set_title(f"batch view\npart {part + 1}" if row == 0 else f"part {part + 1}")
    axes[2, 0].imshow(image)
    axes[2, 0].set_title(f"image\n({side}×{side} px)")
    for one in axes.flat:
        one.axis("off")


def _picture(side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A disc with spokes over a coloured gradient, (side, side, 3): something with edges and an order."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    angle, radius = np.arctan2(y - 0.5, x - 0.5), np.hypot(y - 0.5, x - 0.5)
    spokes = (radius < 0.4) & (np.sin(5 * angle) > 0)
    ground = np.stack([x, 0.4 + 0.3 * y, 1 - x], axis=-1)
    shaded = np.where((radius < 0.4)[..., None], 1.0, ground)
    shaded = np.where(spokes[..., None], (0.1, 0.1, 0.1), shaded)
    return np.asarray(255 * shaded).astype(np.uint8)


EXPERIMENT = Experiment(
    id="fig10",
    report=report,
    cells=cells,
    scales=scales(
        classes=50,
        images=10_000,
        epochs=8,
        smaller=(
            "depth (l = 4), width (m = 1/4), replicas (4 for 16), internal resolution (14 in parts of 7) and "
            "input (56 pixels for 224)"
        ),
    ),
)
