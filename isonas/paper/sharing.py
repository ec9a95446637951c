"""Weight sharing across layers: can one block's weights serve in every layer (section 8)?

    isonas paper sharing --data SOURCE [--scale small]

All blocks of an isometric network have the same shapes, so one block's weights can be used throughout,
with batch norms apart for each use or shared too. Beside them stands a network of one block, which has as
few params without running them l times. To expect: sharing costs some accuracy, norms apart win some of
it back, and running shared weights l times is worth more than running them once. The paper names
the possibility and gives no figure. The small scale (l = 8, m = 1/4, r = 14) takes about 25 minutes for three
seeds on one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from isonas.genome import Genome
from isonas.networks.build import build_network
from isonas.networks.sharing import share_convolutions
from isonas.paper.cells import isometric_cell
from isonas.paper.draw import Dot, dots
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Report
from isonas.paper.findings import Finding
from isonas.paper.grids import counted, trained
from isonas.paper.results import Results
from isonas.paper.scales import scales
from isonas.paper.systems import sharing

APART = {SMOKE: Genome(2, 8, 4, 2), SMALL: Genome(8, 16, 14), FULL: Genome()}
INPUT = {SMOKE: 8, SMALL: 56, FULL: 224}


def cells(scale: str) -> tuple[Cell, ...]:
    """Weights apart, weights shared with norms apart, everything shared, and one block alone."""
    genome, side = APART[scale], INPUT[scale]

    def shared_but_norms(classes: int, weights: Mapping[str, Tensor]) -> nn.Module:
        network = build_network(genome, side, classes)
        share_convolutions(network)
        return network

    return (
        isometric_cell("apart", genome, side),
        Cell("norms-apart", f"{genome}_norms-apart", side, shared_but_norms, genome.internal_resolution),
        isometric_cell("shared", replace(genome, shared=True), side),
        isometric_cell("one-block", replace(genome, depth=1), side),
    )


def findings(results: Results) -> list[Finding]:
    """What sharing costs and what of it norms apart win back."""
    claims = (
        ("weights of their own beat shared ones (norms apart)", "apart", "norms-apart"),
        ("norms apart beat shared norms", "norms-apart", "shared"),
        ("shared weights run l times beat one block run once", "shared", "one-block"),
    )
    return results.rising((claim, {better: 1, worse: -1}) for claim, better, worse in claims)


def report(results: Results) -> Report:
    """Accuracies and counts."""
    assert results.settings is not None
    here = cells(results.settings.scale)
    shown = [Dot(cell.name, found) for cell in here if (found := results.interval(cell.name))]
    return Report(
        (trained(results, here), counted(sharing())),
        tuple(findings(results)),
        draw=lambda figure: dots(figure, shown, f"Weight sharing across layers, {here[0].network}"),
    )


EXPERIMENT = Experiment(
    id="sharing",
    report=report,
    cells=cells,
    scales=scales(
        classes=20,
        images=4000,
        epochs=8,
        smaller="depth (l = 8 for 16), width (m = 1/4 for 1) and input (56 pixels for 224)",
    ),
)
