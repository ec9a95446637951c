"""Fig. 6: what the first layer learns, blob-like and maze-like filters, and training with one kind only
(section 6.1).

    isonas paper fig6 --data SOURCE [--scale small]

An isometric network with a k×k space-to-depth stem is trained; its filters are drawn as k×k RGB images and
sorted by the share of their spectral energy at low frequencies: blob-like above one half (type I), else
maze-like (type II). Then fresh networks are trained whose first layer is fixed to the more blob-like half
of the filters, or to the more maze-like half, the others removed: halves, so that both networks have
equally many filters and none is blind where all filters are of one kind. To expect at full scale (r = 7,
whose filters have 32×32 pixels): both kinds, each half alone costs accuracy, the blob-like one somewhat
less. At the small scale (l = 4, m = 1/2, r = 7, k = 8), about 8
minutes for three seeds on one core, the images hold too little fine structure for mazes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.torch import load
from torch import Tensor, nn

from isonas.genome import Genome
from isonas.networks.build import build_network
from isonas.networks.filters import FilterKind, coarse_share, filter_grid, filter_kinds, freeze_filters
from isonas.paper.cells import isometric_cell
from isonas.paper.draw import Dot, dot_rows
from isonas.paper.experiment import FULL, SMALL, SMOKE, Cell, Experiment, Grid, Report
from isonas.paper.findings import Finding
from isonas.paper.grids import trained
from isonas.paper.results import Results, weights_path
from isonas.paper.scales import scales
from isonas.paper.systems import family

NETWORK = {SMOKE: Genome(1, 8, 2, 2), SMALL: Genome(4, 32, 7), FULL: family(16, 7, 1)}
INPUT = {SMOKE: 16, SMALL: 56, FULL: 224}
BLOBS, MAZES = "blob-half-fixed", "maze-half-fixed"
WEIGHT = "stem.conv.conv.weight"


def cells(scale: str) -> tuple[Cell, ...]:
    """A network trained freely, and one for each half of its filters."""
    genome, side = NETWORK[scale], INPUT[scale]
    return (
        isometric_cell("free", genome, side),
        _fixed_cell(BLOBS, genome, side),
        _fixed_cell(MAZES, genome, side),
    )


def _fixed_cell(name: str, genome: Genome, side: int) -> Cell:
    def build(classes: int, weights: Mapping[str, Tensor]) -> nn.Module:
        network = build_network(genome, side, classes)
        filters = weights[WEIGHT].double().numpy()
        place = np.argsort(np.argsort(-coarse_share(filters), kind="stable"))
        kept = (place < len(filters) // 2) == (name == BLOBS)
        freeze_filters(network, filters, kept, remove_others=True)
        return network

    return Cell(name, f"{genome}_{name}", side, build, genome.internal_resolution, after="free")


def findings(results: Results) -> list[Finding]:
    """What each half alone costs, and which carries more."""
    claims = (
        ("all filters, trained, beat the blob-like half, fixed", "free", BLOBS),
        ("all filters, trained, beat the maze-like half, fixed", "free", MAZES),
        ("the blob-like half beats the maze-like half", BLOBS, MAZES),
    )
    return results.rising((claim, {better: 1, worse: -1}) for claim, better, worse in claims)


def report(results: Results) -> Report:
    """Accuracies, how many filters are of which kind, and the filters themselves."""
    assert results.settings is not None
    here = cells(results.settings.scale)
    filters = _filters(results)
    counted = tuple(
        (f"seed {seed}", *(str(filter_kinds(one).count(kind)) for kind in FilterKind))
        for seed, one in filters.items()
    )
    kinds = Grid("First-layer filters by kind", ("", *(f"{kind}-like" for kind in FilterKind)), counted)
    shown = [Dot(cell.name, found) for cell in here if (found := results.interval(cell.name))]
    return Report(
        (trained(results, here), kinds),
        tuple(findings(results)),
        (
            "Kinds are told apart by a measure of ours (spectral energy up to a quarter cycle a pixel); "
            "the paper does not say how it sorts, and of its table 6c only that blob-like filters give "
            "somewhat higher accuracy; depth and width are ours.",
        ),
        lambda figure: _draw(figure, shown, filters),
    )


def _filters(results: Results) -> dict[int, np.ndarray[Any, np.dtype[np.float64]]]:
    """The freely trained first layer (channels, 3, k, k) of each seed."""
    if results.folder is None:
        return {}
    paths = {seed: weights_path(results.folder, "free", seed) for seed in results.whole_seeds(["free"])}
    there = {seed: path for seed, path in paths.items() if path.exists()}
    return {seed: load(path.read_bytes())[WEIGHT].double().numpy() for seed, path in there.items()}


def _draw(figure: Any, shown: list[Dot], filters: dict[int, np.ndarray[Any, np.dtype[np.float64]]]) -> None:
    left, right = figure.subplots(1, 2)
    dot_rows(left, shown)
    right.axis("off")
    if filters:
        seed, found = next(iter(filters.items()))
        order = np.argsort(-coarse_share(found), kind="stable")
        blobs = filter_kinds(found).count(FilterKind.BLOB)
        right.imshow(filter_grid(found[order]), interpolation="nearest")
        side = found.shape[-1]
        right.set_title(
            f"first-layer filters of seed {seed}, {side}×{side} px, from blob-like to maze-like\n"
            f"({blobs} blob-like, then {len(found) - blobs} maze-like)",
            fontsize=9,
        )


EXPERIMENT = Experiment(
    id="fig6",
    report=report,
    cells=cells,
    scales=scales(
        classes=20,
        images=4000,
        epochs=12,
        smaller="depth (l = 4), width (m = 1/2), filters (8×8 pixels for 32×32) and input (56 for 224)",
    ),
)
